"""`handler.py` of a published folder, behind a real HTTP server in a process without the package."""

import base64
import http.server
import io
import json
import os
import socket
import subprocess
import sys
import threading
import time
import urllib.request
from contextlib import contextmanager

import pytest
from PIL import Image
from tiny_recognizer import lines, tiny_recognizer
from transformers import pipeline

from hf_ocr.bundle import bundle_checkpoint, save_bundle
from hf_ocr.serving import handler
from hf_ocr.serving.handler import EndpointHandler

# As an endpoint does it: the handler is made once, JSON and images come in, JSON goes out.
SERVER = """
import io, json, sys
sys.modules["hf_ocr"] = None
from http.server import BaseHTTPRequestHandler, HTTPServer
from importlib.util import module_from_spec, spec_from_file_location
from PIL import Image

folder = sys.argv[1]
spec = spec_from_file_location("handler", folder + "/handler.py")
module = module_from_spec(spec)
spec.loader.exec_module(module)
handle = module.EndpointHandler(folder)

class Server(BaseHTTPRequestHandler):
    def do_POST(self):
        body = self.rfile.read(int(self.headers["Content-Length"]))
        kind = self.headers["Content-Type"]
        if kind == "application/json":
            data = json.loads(body)
        else:
            data = {"inputs": Image.open(io.BytesIO(body)) if kind.startswith("image/") else body}
        answer = json.dumps(handle(data)).encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(answer)))
        self.end_headers()
        self.wfile.write(answer)

    def log_message(self, *_):
        pass

server = HTTPServer(("127.0.0.1", 0), Server)
print(server.server_port, flush=True)
server.serve_forever()
"""

pytestmark = pytest.mark.slow


def encoded(image, format="PNG"):
    file = io.BytesIO()
    image.save(file, format)
    return file.getvalue()


@pytest.fixture(scope="module")
def line():
    return lines(1)[0]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    place = tmp_path_factory.mktemp("handler")
    return bundle_checkpoint(save_bundle(*tiny_recognizer(), place / "checkpoint"), place / "bundle")


@contextmanager
def serving(folder, cache, **environment):
    """Gives a function that posts to a server of this folder."""
    environment = {**os.environ, "HF_HUB_OFFLINE": "1", "HF_MODULES_CACHE": str(cache), **environment}
    environment.pop("PYTHONPATH", None)
    with subprocess.Popen(
        [sys.executable, "-c", SERVER, str(folder)], stdout=subprocess.PIPE, text=True, env=environment, cwd=cache
    ) as process:
        port = int(process.stdout.readline())

        def post(body, kind="application/json"):
            body = json.dumps(body).encode() if kind == "application/json" else body
            request = urllib.request.Request(f"http://127.0.0.1:{port}", body, {"Content-Type": kind})
            with urllib.request.urlopen(request, timeout=60) as response:
                return json.loads(response.read())

        try:
            yield post
        finally:
            process.kill()


@pytest.fixture(scope="module")
def post(folder, tmp_path_factory):
    with serving(folder, tmp_path_factory.mktemp("cache")) as post:
        yield post


@pytest.fixture
def address(line):
    """The URL of an image on this machine, and of a redirect to it."""

    class Server(http.server.BaseHTTPRequestHandler):
        def do_GET(self):
            if self.path in ("/moved", "/ftp"):
                self.send_response(302)
                # Of the second, nobody listens at the port.
                self.send_header("Location", "/line.png" if self.path == "/moved" else "ftp://127.0.0.1:1/line.png")
                self.end_headers()
                return
            if self.path == "/headers":
                self.send_response(200)
                self.flush_headers()
                for _ in range(20):  # each in time for a timeout that starts anew with every byte
                    self.wfile.write(b"X: y\r\n")
                    time.sleep(0.1)
                self.end_headers()
                return
            self.send_response(200)
            self.end_headers()
            self.wfile.write(encoded(line))

        def log_message(self, *_):
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Server) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()


def test_every_kind_of_image_is_read(post, folder, line):
    content = encoded(line)
    text = base64.b64encode(content).decode()
    [[expected]] = [pipeline("image-to-text", model=str(folder))([line])[0]]
    assert expected["generated_text"]
    for body, kind in (
        ({"inputs": text}, "application/json"),
        ({"inputs": "data:image/png;base64," + text, "parameters": {}}, "application/json"),
        (content, "application/octet-stream"),
        (content, "image/png"),
    ):
        assert post(body, kind) == [expected], kind


def test_parameters_reach_the_pipeline(post, line):
    text = base64.b64encode(encoded(line)).decode()
    settings = {"return_scores": True, "return_boxes": "char", "num_beams": 3, "max_new_tokens": 2}
    [result] = post({"inputs": text, "parameters": settings})
    assert 0 <= result["score"] <= 1
    assert len(result["characters"]) == len(result["generated_text"]) <= 2


def test_bad_input_is_answered_and_the_next_request_is_served(post, line):
    text = base64.b64encode(encoded(line)).decode()
    broken = base64.b64encode(encoded(line)[:200]).decode()
    bomb = base64.b64encode(encoded(Image.new("1", (200_000, 1_000)))).decode()
    large = base64.b64encode(encoded(Image.new("1", (60_000, 1_000)))).decode()
    for body, expected in (
        ([], 'no "inputs"'),
        ({}, 'no "inputs"'),
        ({"inputs": 7}, "of type int"),
        ({"inputs": ""}, "no image"),
        ({"inputs": "/etc/hostname"}, "neither base64 nor a URL"),
        ({"inputs": "file:///etc/hostname"}, "neither base64 nor a URL"),
        ({"inputs": "é"}, "neither base64 nor a URL"),
        ({"inputs": base64.b64encode(b"no image").decode()}, "8 bytes that are no image"),
        ({"inputs": broken}, "Expected"),
        ({"inputs": large}, "60000 x 1000 px"),
        ({"inputs": bomb}, "does not open"),
        ({"inputs": "A" * 30_000_000}, "Expected at most"),
        ({"inputs": text, "parameters": []}, '"parameters" is list'),
        ({"inputs": text, "parameters": {"timeout": 1}}, "'timeout' is unknown"),
        ({"inputs": text, "parameters": {"return_scores": "yes"}}, "Expected a value of type bool"),
        ({"inputs": text, "parameters": {"return_boxes": "page"}}, "Expected char or word"),
        ({"inputs": text, "parameters": {"num_beams": 10**9}}, "Expected 1 to 16"),
        ({"inputs": text, "parameters": {"max_new_tokens": 0}}, "Expected at least 1"),
        ({"inputs": "http://"}, "cannot be fetched"),
        ({"inputs": "http://127.0.0.1:1/x"}, "cannot be fetched"),
    ):
        answer = post(body)
        assert set(answer) == {"error"} and expected in answer["error"], (str(body)[:80], answer)
    assert "generated_text" in post({"inputs": text})[0]


def test_postscript_is_not_handed_to_an_outside_program(post, line):
    content = encoded(line, "EPS")
    for body, kind in (
        ({"inputs": base64.b64encode(content).decode()}, "application/json"),
        (content, "image/x-eps"),
    ):
        assert "the image is PostScript" in post(body, kind)["error"]


def test_an_error_of_ours_is_logged_and_not_shown(line, caplog):
    handle = EndpointHandler.__new__(EndpointHandler)
    handle.read = lambda *_, **__: {}["secret"]
    assert handle({"inputs": line}) == {
        "error": "the image could not be read: an internal error, which the log of the server names."
    }
    assert "secret" in caplog.text


def test_addresses_of_the_servers_own_network_are_not_fetched(post, address):
    for path in ("/line.png", "/moved"):
        assert "its address is not public" in post({"inputs": address + path})["error"]


def test_they_are_where_the_operator_says_so(folder, address, tmp_path):
    with serving(folder, tmp_path, PRIVATE_URLS="1") as post:
        for path in ("/line.png", "/moved"):
            assert "generated_text" in post({"inputs": address + path})[0]


def test_a_redirect_to_ftp_is_not_followed(address, monkeypatch):
    hosts = []
    monkeypatch.setattr(socket, "gethostbyname", hosts.append)  # as the handler of urllib begins
    with pytest.raises(handler.RequestError, match="unknown url type: ftp"):
        handler._download(address + "/ftp", private=True)
    assert not hosts


def test_headers_that_trickle_end_in_time(address, monkeypatch):
    monkeypatch.setattr(handler, "DOWNLOAD_SECONDS", 0.4)
    with pytest.raises(handler.RequestError, match="it took longer than"):
        handler._download(address + "/headers", private=True)
