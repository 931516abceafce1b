"""A folder is published through the real client, to a Hub on this machine; one commit or nothing."""

import json
import os
import re
import shutil
import subprocess
import sys
import traceback
from types import SimpleNamespace

import pytest
from huggingface_hub import constants
from loopback_hub import READER, WRITER, Fault, loopback_hub
from tiny_recognizer import lines, tiny_recognizer

import hf_ocr.push
from hf_ocr.bundle import bundle_checkpoint, save_bundle
from hf_ocr.card import card_for_repository, render_card
from hf_ocr.push import PushError, push
from hf_ocr.record import RunRecord, Usage

REPO = "me/lines"


@pytest.fixture
def hub(monkeypatch, tmp_path):
    """Online, with the LFS way of uploading, and without the waits between attempts."""
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(constants, "HF_HUB_DISABLE_XET", True)
    monkeypatch.setattr(constants, "HF_TOKEN_PATH", str(tmp_path / "token"))
    monkeypatch.setenv("HF_TOKEN", WRITER)
    for module in (hf_ocr.push, sys.modules["huggingface_hub.utils._http"]):
        monkeypatch.setattr(module, "time", SimpleNamespace(sleep=lambda seconds: None))
    with loopback_hub() as hub:
        yield hub


@pytest.fixture
def folder(tmp_path):
    """Small regular and LFS files, and what must stay at home."""
    folder = tmp_path / "lines"
    for name, content in {
        "README.md": b"---\nlicense: mit\n---\n# lines\n",
        "config.json": b"{}",
        "model.safetensors": b"weights " * 1000,
        "examples/line-1.png": b"picture",
        "ctc.py": b"",
        ".env": b"HF_TOKEN=secret",
        ".git/config": b"",
        "__pycache__/ctc.pyc": b"",
    }.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(content)
    return folder


def published(folder):
    paths = ("README.md", "config.json", "model.safetensors", "examples/line-1.png", "ctc.py")
    return {".gitattributes": b""} | {path: (folder / path).read_bytes() for path in paths}


def refused(hub, folder, **kwargs):
    """The error; it does not hold the token anywhere."""
    with pytest.raises(PushError) as caught:
        push(folder, REPO, endpoint=hub.url, **kwargs)
    error = caught.value
    shown = "".join(traceback.format_exception(error)) + repr(error) + repr(vars(error))
    assert WRITER not in shown and READER not in shown
    assert error.__cause__ is None and error.__context__ is None
    return str(error)


def test_one_commit_with_the_card_first(hub, folder):
    address = push(folder, REPO, endpoint=hub.url)
    repository = hub.repositories[REPO]
    assert repository.titles == ["initial commit", "Upload lines"]
    assert list(repository.at("main").items()) == sorted(published(folder).items(), key=_card_first)
    assert address == f"{hub.url}/{REPO}/commit/{repository.branches['main']}"
    assert not repository.private


def _card_first(item):
    name = item[0]
    return name != ".gitattributes", name != "README.md", "/" not in name and name.endswith("safetensors"), name


def test_a_second_run_sends_nothing_and_a_changed_file_alone(hub, folder):
    push(folder, REPO, endpoint=hub.url)
    push(folder, REPO, endpoint=hub.url)
    assert len(hub.repositories[REPO].titles) == 2
    (folder / "config.json").write_text('{"a": 1}')
    hub.asked.clear()
    push(folder, REPO, endpoint=hub.url)
    assert hub.repositories[REPO].at("main") == published(folder)
    assert not [request for request in hub.asked if request.startswith("PUT")]


def test_private_stays_private_and_public_is_not_taken_for_it(hub, folder):
    push(folder, REPO, private=True, endpoint=hub.url)
    push(folder, REPO, private=True, endpoint=hub.url)
    assert hub.repositories[REPO].private
    hub.repositories[REPO].private = False
    (folder / "config.json").write_text('{"secret": 1}')
    assert "exists and is public" in refused(hub, folder, private=True)
    assert hub.repositories[REPO].at("main")["config.json"] == b"{}"


def test_a_revision_is_a_branch_that_is_made(hub, folder):
    push(folder, REPO, endpoint=hub.url)
    (folder / "config.json").write_text('{"a": 1}')
    for _ in range(2):
        push(folder, REPO, revision="v2", endpoint=hub.url)
    repository = hub.repositories[REPO]
    assert repository.at("main")["config.json"] == b"{}"
    assert repository.at("v2")["config.json"] == b'{"a": 1}'


def test_a_pull_request_needs_no_right_and_changes_nothing(hub, folder, monkeypatch):
    assert "not found" in refused(hub, folder, pull_request=True)
    assert hub.repositories == {}
    push(folder, REPO, endpoint=hub.url)
    (folder / "config.json").write_text('{"a": 1}')
    monkeypatch.setenv("HF_TOKEN", READER)
    address = push(folder, REPO, pull_request=True, endpoint=hub.url)
    assert "/discussions/" in address
    assert hub.repositories[REPO].at("main")["config.json"] == b"{}"
    assert "no such revision" in refused(hub, folder, pull_request=True, revision="v9")


def test_the_published_card_reads_from_the_repository_and_that_of_the_folder_stays(hub, folder):
    usage = Usage("lines/examples/line-1.png", "[{'generated_text': 'a'}]", standalone=True)
    record = RunRecord(name="lines", description="Lines.", model={"family": "crnn"}, load_as="lines", usage=usage)
    card = str(render_card(record))
    (folder / "README.md").write_text(card, encoding="utf-8")
    for options, branch in (({}, "main"), ({"revision": "v2"}, "v2"), ({"pull_request": True}, "refs/pr/3")):
        (folder / "config.json").write_text(json.dumps(branch))
        push(folder, REPO, endpoint=hub.url, **options)
        shown = hub.repositories[REPO].at(branch)["README.md"].decode()
        assert shown == card_for_repository(card, REPO, options.get("revision")) != card
    push(folder, REPO, endpoint=hub.url)
    commits = len(hub.repositories[REPO].commits)
    push(folder, REPO, endpoint=hub.url)
    assert len(hub.repositories[REPO].commits) == commits, "the card has not changed, and is not sent again"
    assert (folder / "README.md").read_text(encoding="utf-8") == card


def test_no_token(hub, folder, monkeypatch):
    monkeypatch.delenv("HF_TOKEN")
    assert "no token" in refused(hub, folder) and "hf auth login" in refused(hub, folder)
    assert hub.asked == []


def test_a_token_that_is_not_accepted(hub, folder, monkeypatch):
    monkeypatch.setenv("HF_TOKEN", "hf_expired_0123456789")
    message = refused(hub, folder)
    assert "does not accept the token" in message and "hf_expired" not in message


def test_a_token_without_the_right(hub, folder, monkeypatch):
    monkeypatch.setenv("HF_TOKEN", READER)
    assert "no right to do this (403" in refused(hub, folder)
    hub.repositories.clear()
    monkeypatch.setenv("HF_TOKEN", WRITER)
    push(folder, REPO, endpoint=hub.url)
    (folder / "config.json").write_text('{"a": 1}')
    monkeypatch.setenv("HF_TOKEN", READER)
    assert "may write for me" in refused(hub, folder)


def test_a_token_in_an_answer_is_not_repeated(hub, folder):
    hub.faults.append(Fault("POST /api/repos/create", 403, message=f"bad {WRITER}"))
    assert "bad <token>" in refused(hub, folder)


def test_no_network(hub, folder, monkeypatch):
    hub.shutdown()
    hub.server_close()
    message = refused(hub, folder)
    assert "cannot be reached" in message and "ConnectError" in message
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    assert "HF_HUB_OFFLINE=1. Unset it" in refused(hub, folder)


def test_a_name_that_is_taken(hub, folder):
    hub.faults.append(Fault("POST /api/repos/create", 409, message="taken"))
    assert "the name is taken" in refused(hub, folder)


def test_a_name_that_is_none(hub, folder):
    for name in ("lines", "me/a/b", "me/a b", "me/--"):
        with pytest.raises(PushError, match="Expected USER/NAME"):
            push(folder, name, endpoint=hub.url)
    assert hub.asked == []


def test_a_commit_of_somebody_else_on_the_way(hub, folder):
    push(folder, REPO, endpoint=hub.url)
    (folder / "config.json").write_text('{"a": 1}')
    repository = hub.repositories[REPO]
    original = hub.fault

    def meanwhile(request):
        if "/commit/" in request:
            repository.commit("main", "theirs", {**repository.at("main"), "theirs": b""})
            hub.fault = original
        return original(request)

    hub.fault = meanwhile
    assert "somebody has written to it on the way (412" in refused(hub, folder)
    assert repository.titles[-1] == "theirs"
    push(folder, REPO, endpoint=hub.url)
    assert repository.at("main") == published(folder) | {"theirs": b""}


def test_a_commit_whose_answer_was_lost(hub, folder):
    push(folder, REPO, endpoint=hub.url)
    (folder / "config.json").write_text('{"a": 1}')
    original = hub.fault

    def lost(request):
        if "/commit/" in request:
            hub.repositories[REPO].commit("main", "Upload", published(folder))
            hub.fault = original
        return original(request)

    hub.fault = lost
    hub.faults.append(Fault("/commit/", 504))
    push(folder, REPO, endpoint=hub.url)
    assert len(hub.repositories[REPO].titles) == 3
    assert hub.repositories[REPO].at("main") == published(folder)


@pytest.mark.parametrize("request_", ["/preupload/", "/objects/batch", "PUT /objects/", "/commit/"])
def test_a_server_that_fails_for_a_while(hub, folder, request_):
    hub.faults.append(Fault(request_, 500, times=2))
    push(folder, REPO, endpoint=hub.url)
    assert hub.repositories[REPO].at("main") == published(folder)
    assert len(hub.repositories[REPO].titles) == 2


@pytest.mark.parametrize("answer", [500, "cut"])
@pytest.mark.parametrize("request_", ["repos/create", "validate-yaml", "/preupload/", "PUT /objects/", "/commit/"])
def test_what_dies_in_the_middle_is_completed_by_a_second_run(hub, folder, request_, answer):
    fault = Fault(request_, answer, times=1000)
    hub.faults.append(fault)
    message = refused(hub, folder)
    assert ("the connection broke" if answer == "cut" else "the Hub fails (500") in message
    assert "un the same again" in message
    for repository in hub.repositories.values():
        assert repository.at("main") == {".gitattributes": b""}
    fault.times = 0
    sent = set(hub.objects)
    hub.asked.clear()
    push(folder, REPO, endpoint=hub.url)
    assert hub.repositories[REPO].at("main") == published(folder)
    assert len(hub.repositories[REPO].titles) == 2
    assert not [name for name in sent if f"PUT /objects/{name}" in hub.asked]


def test_a_commit_whose_answer_was_lost_is_not_made_twice(hub, folder):
    class Losing(hub.RequestHandlerClass):
        def send(self, status, content, **headers):
            if "/commit/" in self.path and not lost:
                lost.append(self.path)
                status, content = 502, {"error": "lost"}
            super().send(status, content, **headers)

    lost = []
    hub.RequestHandlerClass = Losing
    push(folder, REPO, endpoint=hub.url)
    assert lost and hub.repositories[REPO].titles == ["initial commit", "Upload lines"]


def test_a_file_that_is_too_large(hub, folder):
    hub.largest = 1000
    assert "a file is too large for the Hub" in refused(hub, folder)
    hub.largest = 2**30
    hub.faults.append(Fault("/commit/", 413, message="Payload"))
    assert "a file is too large for the Hub (413: Payload)" in refused(hub, folder)
    assert hub.repositories[REPO].at("main") == {".gitattributes": b""}


def test_a_folder_without_a_card_or_with_a_broken_one_makes_no_repository(hub, folder):
    (folder / "README.md").write_text("---\nlicense: [mit\n---\n")
    assert "its metadata cannot be read" in refused(hub, folder)
    (folder / "README.md").unlink()
    assert "has no card" in refused(hub, folder)
    shutil.rmtree(folder)
    assert "no such folder" in refused(hub, folder)
    assert hub.asked == []


# --- as a user has it: the command, and reading what was published

READ = """
import json, sys
if sys.argv[1] == "without":
    sys.modules["hf_ocr"] = None
else:
    import hf_ocr
from transformers import AutoModelForTextRecognition, AutoProcessor, pipeline
trust = sys.argv[1] == "without"
read = pipeline("image-to-text", model=sys.argv[2], trust_remote_code=trust, dtype="float32", device="cpu")
model = AutoModelForTextRecognition.from_pretrained(sys.argv[2], trust_remote_code=trust)
processor = AutoProcessor.from_pretrained(sys.argv[2], trust_remote_code=trust)
inputs = processor(images=sys.argv[3:], return_tensors="pt")
print(json.dumps({
    "module": type(read).__module__,
    "pipeline": [result["generated_text"] for (result,) in read(sys.argv[3:])],
    "recognize": processor.batch_decode(model.eval().recognize(**inputs).sequences),
}))
"""
DENIED = """
import sys
from huggingface_hub import model_info
from huggingface_hub.errors import RepositoryNotFoundError
for token in (False, sys.argv[2]):
    try:
        model_info(sys.argv[1], token=token)
    except RepositoryNotFoundError:
        print("denied")
"""
PUSH_PARTS = """
import sys
import hf_ocr
from transformers import AutoModelForTextRecognition, AutoProcessor
AutoModelForTextRecognition.from_pretrained(sys.argv[1]).push_to_hub(sys.argv[2])
AutoProcessor.from_pretrained(sys.argv[1]).push_to_hub(sys.argv[2])
"""


SAVE_AND_PUSH = """
import sys
from pathlib import Path
import hf_ocr
from transformers import AutoProcessor
processor = AutoProcessor.from_pretrained(sys.argv[1])
processor.save_pretrained(Path(sys.argv[2]), push_to_hub=True, commit_message="Lines")
processor.save_pretrained(sys.argv[2], push_to_hub=True, repo_id="me/named", private=True)
"""


@pytest.fixture
def run(tmp_path):
    """In a process of its own, whose Hub is this one and whose cache is its own."""

    def run(hub, *arguments, check=True, **environment):
        environment = {
            **os.environ,
            "HF_ENDPOINT": hub.url,
            "HF_HOME": str(tmp_path / "home"),
            "HF_HUB_OFFLINE": "0",
            "HF_HUB_DISABLE_XET": "1",
            "HF_TOKEN": WRITER,
            **environment,
        }
        done = subprocess.run(
            [sys.executable, *map(str, arguments)],
            capture_output=True, text=True, env=environment, stdin=subprocess.DEVNULL,
        )  # fmt: skip
        assert WRITER not in done.stdout + done.stderr
        if check:
            assert done.returncode == 0, done.stderr[-3000:]
        return done

    return run


@pytest.mark.slow
def test_what_was_published_reads_with_and_without_the_package_and_offline(run, tmp_path):
    images = []
    for index, image in enumerate(lines(2)):
        images.append(str(tmp_path / f"{index}.png"))
        image.save(images[-1])
    folder = bundle_checkpoint(save_bundle(*tiny_recognizer(), tmp_path / "checkpoint"), tmp_path / "lines")
    with loopback_hub() as hub:
        done = run(hub, "-m", "hf_ocr.cli", "push", folder, REPO, "--private")
        assert done.stdout.startswith(f"{hub.url}/{REPO}/commit/") and done.stderr == ""
        stored = [path for path in (tmp_path / "home").rglob("*") if path.is_file()]
        assert not [path for path in stored if WRITER.encode() in path.read_bytes()]
        repository = hub.repositories[REPO]
        assert repository.private and repository.titles == ["initial commit", "Upload lines"]
        assert repository.at("main").keys() - {".gitattributes"} == {
            path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()
        }
        found = [json.loads(run(hub, "-c", READ, way, REPO, *images).stdout) for way in ("with", "without")]
        use(run, hub, repository.at("main"), REPO)
        # Nothing is on the main branch of this one.
        run(hub, "scripts/push_to_hub.py", folder, "me/versions", "--revision", "v2")
        use(run, hub, hub.repositories["me/versions"].at("v2"), "me/versions")
        assert run(hub, "-c", DENIED, REPO, READER).stdout == "denied\ndenied\n"
    for way in ("with", "without"):
        found.append(json.loads(run(hub, "-c", READ, way, REPO, *images, HF_HUB_OFFLINE="1").stdout))
    modules = [result.pop("module") for result in found]
    assert all(result == found[0] for result in found)
    assert all(found[0]["pipeline"] + found[0]["recognize"])
    assert all(m.startswith("hf_ocr." if i % 2 == 0 else "transformers_modules.") for i, m in enumerate(modules))


def use(run, hub, files, repo):
    """The lines that the card shows print what it says."""
    card = files["README.md"].decode()
    with_package, without = re.findall(r"```python\n(.*?)```", card, re.DOTALL)
    (printed,) = re.findall(r"~~~~text\n(.*generated_text.*\n)~~~~", card)
    for code in (with_package, f"import sys; sys.modules['hf_ocr'] = None\n{without}"):
        assert f'model="{repo}"' in code
        assert run(hub, "-c", code).stdout == printed


@pytest.mark.slow
def test_push_to_hub_of_model_and_processor_gives_the_same_repository(run, tmp_path):
    checkpoint = save_bundle(*tiny_recognizer(), tmp_path / "checkpoint")
    folder = bundle_checkpoint(checkpoint, tmp_path / "lines")
    with loopback_hub() as hub:
        run(hub, "-c", PUSH_PARTS, checkpoint, "me/parts")
        parts = hub.repositories["me/parts"].at("main")
    for path in checkpoint.iterdir():
        assert parts[path.name] == (folder / path.name).read_bytes(), path.name
    others = {"README.md", ".gitattributes"}
    assert parts.keys() - {path.name for path in checkpoint.iterdir()} == others


@pytest.mark.slow
def test_a_processor_is_published_whole_as_it_is_saved(run, tmp_path):
    checkpoint = save_bundle(*tiny_recognizer(), tmp_path / "checkpoint")
    with loopback_hub() as hub:
        run(hub, "-c", SAVE_AND_PUSH, checkpoint, tmp_path / "saved")
    saved = {path.name: path.read_bytes() for path in (tmp_path / "saved").iterdir()}
    assert saved.keys() >= {"processor_config.json", "preprocessor_config.json", "vocab.json"}
    for name in ("me/saved", "me/named"):
        assert saved.items() <= hub.repositories[name].at("main").items()
    assert hub.repositories["me/saved"].titles[1:] == ["Lines"] and hub.repositories["me/named"].private


@pytest.mark.slow
def test_the_command_says_what_is_wrong_and_fails(run, tmp_path):
    folder = bundle_checkpoint(save_bundle(*tiny_recognizer(), tmp_path / "checkpoint"), tmp_path / "lines")
    with loopback_hub() as hub:
        done = run(hub, "-m", "hf_ocr.cli", "push", folder, "you/lines", check=False)
        assert done.returncode == 1 and done.stdout == ""
        assert done.stderr.startswith("hf-ocr: you/lines: the token has no right") and done.stderr.count("\n") == 1
        (folder / "vocab.json").unlink()
        hub.asked.clear()
        done = run(hub, "scripts/push_to_hub.py", folder, REPO, check=False)
        assert done.returncode == 1 and done.stderr.startswith(f"hf-ocr: {folder}: does not load with hf_ocr.")
        assert hub.asked == []
