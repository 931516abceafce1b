"""A Hub on this machine, small but over HTTP: what huggingface_hub asks of the real one to write and read models.

Repositories with branches, pull requests and privacy, regular and LFS files, rights by token, and faults on order.
"""

import base64
import hashlib
import http.server
import json
import re
import socket
import threading
import urllib.parse
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

WRITER, READER = "hf_writer_0123456789", "hf_reader_0123456789"
LFS = (".safetensors", ".png")
Files = dict[str, bytes]


@dataclass
class Repository:
    """Commits by their hash, each the files as they are after it; branches point to one."""

    private: bool
    commits: dict[str, Files] = field(default_factory=dict)
    branches: dict[str, str] = field(default_factory=dict)
    titles: list[str] = field(default_factory=list)

    def commit(self, branch: str, title: str, files: Files) -> str:
        sha = hashlib.sha1(f"{len(self.commits)}{title}".encode()).hexdigest()
        self.commits[sha] = files
        self.branches[branch] = sha
        self.titles.append(title)
        return sha

    def at(self, revision: str) -> Files | None:
        return self.commits.get(self.branches.get(revision, revision))


@dataclass
class Fault:
    """Instead of the answer to the next `times` requests that match: a status, or a connection cut in the middle."""

    request: str
    answer: int | str
    times: int = 1
    message: str = "as ordered"


class LoopbackHub(http.server.ThreadingHTTPServer):
    """`url`; what it holds; the requests it was asked, as "METHOD path"."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server_port}"
        self.repositories: dict[str, Repository] = {}
        self.objects: dict[str, bytes] = {}
        self.asked: list[str] = []
        self.faults: list[Fault] = []
        self.largest = 2**30  # bytes of an LFS file

    def fault(self, request: str) -> Fault | None:
        for fault in self.faults:
            if fault.times > 0 and re.search(fault.request, request):
                fault.times -= 1
                return fault
        return None


@contextmanager
def loopback_hub() -> Iterator[LoopbackHub]:
    with LoopbackHub() as hub:
        threading.Thread(target=hub.serve_forever, args=(0.05,), daemon=True).start()
        try:
            yield hub
        finally:
            hub.shutdown()


class AnsweredError(Exception):
    """An answer other than success."""

    def __init__(self, status: int, message: str, code: str | None = None, **headers: str) -> None:
        self.status, self.message, self.headers = status, message, headers
        if code:
            self.headers["X-Error-Code"] = code


def oid(content: bytes, path: str) -> str:
    """As git names it: SHA-1 of the blob, or SHA-256 of what LFS keeps."""
    if path.endswith(LFS):
        return hashlib.sha256(content).hexdigest()
    return hashlib.sha1(b"blob %d\0" % len(content) + content).hexdigest()


class Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: LoopbackHub

    def log_message(self, *_) -> None:
        pass

    def do_GET(self) -> None:
        self.answer()

    def do_HEAD(self) -> None:
        self.answer()

    def do_POST(self) -> None:
        self.answer()

    def do_PUT(self) -> None:
        self.answer()

    def answer(self) -> None:
        request = f"{self.command} {urllib.parse.unquote(self.path)}"
        self.server.asked.append(request)
        if fault := self.server.fault(request):
            if fault.answer == "cut":
                self.rfile.read(min(1000, int(self.headers.get("Content-Length", 0))))
                self.close_connection = True
                self.connection.shutdown(socket.SHUT_RDWR)
                return
            self.body()
            self.send(fault.answer, {"error": fault.message})
            return
        body = self.body()
        try:
            for method, pattern, handle in ROUTES:
                if method in (self.command, "GET" if self.command == "HEAD" else None):
                    if found := re.fullmatch(pattern, request.partition(" ")[2]):
                        handle(self, body, *found.groups())
                        return
            raise AnsweredError(404, "no such address")
        except AnsweredError as error:
            self.send(error.status, {"error": error.message}, **error.headers)

    def body(self) -> bytes:
        return self.rfile.read(int(self.headers.get("Content-Length", 0)))

    def send(self, status: int, content: object, **headers: str) -> None:
        data = content if isinstance(content, bytes) else json.dumps(content).encode()
        self.send_response(status)
        for name, value in {"Content-Length": str(len(data)), **headers}.items():
            self.send_header(name.replace("_", "-"), value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(data)

    # --- rights

    @property
    def token(self) -> str | None:
        return self.headers.get("Authorization", "").removeprefix("Bearer ") or None

    def writer(self, repo: str) -> None:
        if self.token is None or self.token not in (WRITER, READER):
            raise AnsweredError(401, "Invalid username or password.")
        if self.token != WRITER or not repo.startswith("me/"):
            raise AnsweredError(403, "You don't have the rights to do this.")

    def repository(self, repo: str) -> Repository:
        if self.token not in (None, WRITER, READER):
            raise AnsweredError(
                401, "Invalid credentials", X_Error_Message="Invalid credentials in Authorization header"
            )
        found = self.server.repositories.get(repo)
        if found is None or (found.private and self.token != WRITER):
            raise AnsweredError(404 if self.token else 401, "Repository not found", "RepoNotFound")
        return found

    def files(self, repo: str, revision: str) -> Files:
        files = self.repository(repo).at(revision)
        if files is None:
            raise AnsweredError(404, "Invalid rev id", "RevisionNotFound")
        return files

    # --- writing

    def create(self, body: bytes) -> None:
        asked = json.loads(body)
        repo = f"{asked['organization'] or 'me'}/{asked['name']}"
        self.writer(repo)
        if repo in self.server.repositories:
            self.send(409, {"error": "You already created this model repo", "url": f"{self.server.url}/{repo}"})
            return
        self.server.repositories[repo] = created = Repository(
            asked.get("visibility") == "private" or bool(asked.get("private"))
        )
        created.commit("main", "initial commit", {".gitattributes": b""})
        self.send(200, {"url": f"{self.server.url}/{repo}"})

    def validate(self, body: bytes) -> None:
        self.send(200, {"errors": [], "warnings": []})

    def branch(self, body: bytes, repo: str, name: str) -> None:
        self.writer(repo)
        repository = self.repository(repo)
        repository.branches[name] = repository.branches["main"]
        self.send(201, {})

    def preupload(self, body: bytes, repo: str, revision: str, proposed: str | None) -> None:
        if not proposed:
            self.writer(repo)
        there = self.files(repo, revision)
        self.send(200, {"files": [
            {"path": path, "uploadMode": "lfs" if path.endswith(LFS) else "regular", "shouldIgnore": False,
             "oid": oid(there[path], path) if path in there else None}
            for path in (file["path"] for file in json.loads(body)["files"])
        ]})  # fmt: skip

    def batch(self, body: bytes, repo: str) -> None:
        self.repository(repo)
        objects = []
        for wanted in json.loads(body)["objects"]:
            answer = {"oid": wanted["oid"], "size": wanted["size"]}
            if wanted["size"] > self.server.largest:
                answer["error"] = {"code": 422, "message": "the file is too large"}
            elif wanted["oid"] not in self.server.objects:
                answer["actions"] = {"upload": {"href": f"{self.server.url}/objects/{wanted['oid']}"}}
            objects.append(answer)
        self.send(200, {"transfer": "basic", "objects": objects})

    def upload(self, body: bytes, name: str) -> None:
        if hashlib.sha256(body).hexdigest() != name:
            raise AnsweredError(400, "other bytes than announced")
        self.server.objects[name] = body
        self.send(200, {})

    def commit(self, body: bytes, repo: str, revision: str, proposed: str | None) -> None:
        if not proposed:
            self.writer(repo)
        files, repository = dict(self.files(repo, revision)), self.repository(repo)
        lines = [json.loads(line) for line in body.splitlines()]
        header = lines[0]["value"]
        if header.get("parentCommit") not in (None, repository.branches[revision]):
            raise AnsweredError(412, "A commit has happened since. Please refresh and try again.")
        for line in lines[1:]:
            value = line["value"]
            if line["key"] == "lfsFile":
                if value["oid"] not in self.server.objects:
                    raise AnsweredError(400, f"{value['path']}: its object was not uploaded")
                files[value["path"]] = self.server.objects[value["oid"]]
            else:
                files[value["path"]] = base64.b64decode(value["content"])
        branch = f"refs/pr/{len(repository.commits)}" if proposed else revision
        sha = repository.commit(branch, header["summary"], files)
        answer = {"success": True, "commitOid": sha, "commitUrl": f"{self.server.url}/{repo}/commit/{sha}"}
        if proposed:
            answer["pullRequestUrl"] = f"{self.server.url}/{repo}/discussions/{branch.rpartition('/')[2]}"
        self.send(200, answer)

    # --- reading

    def info(self, body: bytes, repo: str, revision: str | None) -> None:
        files, repository = self.files(repo, revision or "main"), self.repository(repo)
        self.send(200, {
            "id": repo, "modelId": repo, "sha": repository.branches.get(revision or "main", revision),
            "private": repository.private, "disabled": False, "gated": False, "downloads": 0, "likes": 0, "tags": [],
            "siblings": [{"rfilename": path} for path in files], "pipeline_tag": "image-to-text",
        })  # fmt: skip

    def tree(self, body: bytes, repo: str, revision: str, below: str | None) -> None:
        found = [
            {"type": "file", "path": path, "size": len(content), "oid": oid(content, path)}
            for path, content in self.files(repo, revision).items()
            if path.startswith((below or "/")[1:])
        ]
        if below and not found:
            raise AnsweredError(404, "no such folder", "EntryNotFound")
        self.send(200, found)

    def resolve(self, body: bytes, repo: str, revision: str, path: str) -> None:
        files, repository = self.files(repo, revision), self.repository(repo)
        sha = repository.branches.get(revision, revision)
        if path not in files:
            raise AnsweredError(404, "Entry not found", "EntryNotFound", X_Repo_Commit=sha)
        content, name = files[path], oid(files[path], path)
        headers = {"X_Repo_Commit": sha, "ETag": f'"{name}"'}
        if path.endswith(LFS):
            headers |= {"X_Linked_Etag": f'"{name}"', "X_Linked_Size": str(len(content))}
        self.send(200, content, **headers)


_REPO = r"([\w.-]+/[\w.-]+)"
ROUTES = (
    ("POST", "/api/repos/create", Handler.create),
    ("POST", "/api/validate-yaml", Handler.validate),
    ("POST", rf"/api/models/{_REPO}/branch/(.+)", Handler.branch),
    ("POST", rf"/api/models/{_REPO}/preupload/([^?]+)(\?create_pr=1)?", Handler.preupload),
    ("POST", rf"/{_REPO}\.git/info/lfs/objects/batch", Handler.batch),
    ("PUT", r"/objects/(\w+)", Handler.upload),
    ("POST", rf"/api/models/{_REPO}/commit/([^?]+)(\?create_pr=1)?", Handler.commit),
    ("GET", rf"/api/models/{_REPO}(?:/revision/([^?]+))?(?:\?.*)?", Handler.info),
    ("GET", rf"/api/models/{_REPO}/tree/([^/?]+)(/[^?]+)?(?:\?.*)?", Handler.tree),
    ("GET", rf"/{_REPO}/resolve/([^/]+)/([^?]+)(?:\?.*)?", Handler.resolve),
)
