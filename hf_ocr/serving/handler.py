"""An inference endpoint: the class that Hugging Face's servers look for in `handler.py` of a repository.

A request is `{"inputs": IMAGE, "parameters": {...}}`, the image as bytes, base64, data URI or http(s) URL (or as the
PIL image into which the server turns a body of type image/*). The answer is that of the pipeline,
`[{"generated_text": ...}]`, or `{"error": ...}`: bad input never raises.
"""

import base64
import binascii
import http.client
import io
import ipaddress
import logging
import os
import queue
import threading
import time
import urllib.request
from typing import Any

from PIL import Image, UnidentifiedImageError
from transformers import pipeline

MAX_BYTES = 20 * 2**20  # of a file, before it is decoded
MAX_PIXELS = 30_000_000
MAX_BEAMS = 16
DOWNLOAD_SECONDS = 10
PARAMETERS = {"return_scores": bool, "return_boxes": str, "max_new_tokens": int, "num_beams": int}

logger = logging.getLogger(__name__)


class RequestError(ValueError):
    """What is wrong with a request, in words for whoever sent it."""


class EndpointHandler:
    """Reads one image a request with the model in `path`.

    Only http(s) addresses of the public Internet are fetched, also after a redirect: an endpoint must not read for
    strangers what only it can reach. The environment variable PRIVATE_URLS=1 allows the others.
    """

    def __init__(self, path: str = "") -> None:
        folder = path or os.path.dirname(os.path.abspath(__file__))
        self.read = pipeline("image-to-text", model=folder, trust_remote_code=True)
        self.private_urls = os.environ.get("PRIVATE_URLS") == "1"

    def __call__(self, data: Any) -> Any:
        """`[{"generated_text": str, ...}]`, or `{"error": str}`."""
        try:
            if not isinstance(data, dict) or data.get("inputs") is None:
                raise RequestError('no "inputs". Expected {"inputs": image as base64, data URI or URL}.')
            settings = _settings(data.get("parameters"))
            image = self._image(data["inputs"])
            [result] = self.read(image, on_error="skip", **settings)
        except RequestError as error:
            return {"error": str(error)}
        except Exception:
            logger.exception("a request failed")
            return {"error": "the image could not be read: an internal error, which the log of the server names."}
        return {"error": result["error"]} if "error" in result else [result]

    def _image(self, inputs: Any) -> Image.Image:
        if isinstance(inputs, Image.Image):
            return _checked(inputs)
        if isinstance(inputs, str):
            if inputs[:8].lower().startswith(("http://", "https://")):
                inputs = _download(inputs, self.private_urls)
            else:
                inputs = _decoded(inputs)
        if not isinstance(inputs, bytes | bytearray):
            raise RequestError(f'"inputs" is of type {type(inputs).__name__}. Expected bytes, base64, data URI or URL.')
        _check_bytes(len(inputs))
        try:
            return _checked(Image.open(io.BytesIO(inputs)))
        except (OSError, SyntaxError, Image.DecompressionBombError) as error:
            reason = (
                "no image" if isinstance(error, UnidentifiedImageError) else f"an image that does not open ({error})"
            )
            raise RequestError(f"{len(inputs)} bytes that are {reason}. Expected PNG, JPEG or the like.") from None


def _settings(parameters: Any) -> dict[str, Any]:
    """Arguments of the pipeline. What is not listed is refused: some would read files or take any amount of memory."""
    parameters = {} if parameters is None else parameters
    if not isinstance(parameters, dict):
        raise RequestError(f'"parameters" is {type(parameters).__name__}. Expected an object.')
    for name, value in parameters.items():
        if name not in PARAMETERS:
            raise RequestError(f"parameter {str(name)[:40]!r} is unknown. Expected some of {', '.join(PARAMETERS)}.")
        if type(value) is not PARAMETERS[name]:
            raise RequestError(f"{name} is {str(value)[:40]!r}. Expected a value of type {PARAMETERS[name].__name__}.")
    if parameters.get("return_boxes", "word") not in ("char", "word"):
        raise RequestError(f"return_boxes is {parameters['return_boxes'][:40]!r}. Expected char or word.")
    if parameters.get("max_new_tokens", 1) < 1:
        raise RequestError(f"max_new_tokens is {parameters['max_new_tokens']}. Expected at least 1.")
    settings = dict(parameters)
    if "num_beams" in settings:
        if not 1 <= settings["num_beams"] <= MAX_BEAMS:
            raise RequestError(f"num_beams is {settings['num_beams']}. Expected 1 to {MAX_BEAMS}.")
        settings["generate_kwargs"] = {"num_beams": settings.pop("num_beams")}
    return settings


def _decoded(text: str) -> bytes:
    """The bytes of base64 or of a data URI. Never a path: files of the server are nobody's business."""
    _check_bytes(len(text) * 3 // 4)
    try:
        return base64.b64decode("".join(text.rpartition(",")[2].split()), validate=True)
    except (binascii.Error, ValueError):
        raise RequestError(
            f"{text[:40]!r} is neither base64 nor a URL. Encode the image's bytes with base64."
        ) from None


def _check_bytes(count: int) -> None:
    if count > MAX_BYTES:
        raise RequestError(f"the image has {count} bytes. Expected at most {MAX_BYTES}: crop it or compress it.")


def _checked(image: Image.Image) -> Image.Image:
    """By its header, before its pixels are decoded."""
    if image.format == "EPS":  # Pillow would hand it to Ghostscript: nobody's program runs here
        raise RequestError("the image is PostScript. Expected PNG, JPEG or the like: render it first.")
    if image.width * image.height > MAX_PIXELS:
        raise RequestError(f"the image has {image.width} x {image.height} px. Expected at most {MAX_PIXELS}: crop it.")
    return image


def _download(url: str, private: bool) -> bytes:
    answer: queue.SimpleQueue[bytes | Exception] = queue.SimpleQueue()

    def work() -> None:
        try:
            answer.put(_content(url, private))
        except Exception as error:
            answer.put(error)

    # A socket's timeout starts anew with every byte and does not cover the name server. A thread can be left behind.
    threading.Thread(target=work, name="download", daemon=True).start()
    try:
        content = answer.get(timeout=DOWNLOAD_SECONDS)
    except queue.Empty:
        content = _too_slow()
    if isinstance(content, OSError | http.client.HTTPException | UnicodeError):
        raise RequestError(f"{url[:80]!r} cannot be fetched ({content}). Send the image itself, as base64.") from None
    if isinstance(content, Exception):
        raise content
    return content


def _content(url: str, private: bool) -> bytes:
    deadline = time.monotonic() + DOWNLOAD_SECONDS
    chunks: list[bytes] = []
    with _opener(private).open(url, timeout=DOWNLOAD_SECONDS) as response:
        while chunk := response.read1(2**16):
            chunks.append(chunk)
            _check_bytes(sum(map(len, chunks)))
            if time.monotonic() > deadline:  # nobody waits for the rest
                raise _too_slow()
    return b"".join(chunks)


def _too_slow() -> TimeoutError:
    return TimeoutError(f"it took longer than {DOWNLOAD_SECONDS} s")


def _opener(private: bool) -> urllib.request.OpenerDirector:
    """Of http(s) alone: that of `build_opener` would follow a redirect to ftp."""
    public = (urllib.request.ProxyHandler({}), _PublicHTTPHandler(), _PublicHTTPSHandler())
    stock = (urllib.request.ProxyHandler(), urllib.request.HTTPHandler(), urllib.request.HTTPSHandler())
    opener = urllib.request.OpenerDirector()
    for handler in (
        *(stock if private else public),
        urllib.request.HTTPRedirectHandler(),
        urllib.request.HTTPErrorProcessor(),
        urllib.request.HTTPDefaultErrorHandler(),
        urllib.request.UnknownHandler(),
    ):
        opener.add_handler(handler)
    return opener


def _check_public(connection: http.client.HTTPConnection) -> None:
    """Looks at the address that was connected to: a name may mean another one at every look-up."""
    peer = ipaddress.ip_address(connection.sock.getpeername()[0])
    if not (getattr(peer, "ipv4_mapped", None) or peer).is_global:
        connection.close()
        raise OSError("its address is not public")


class _PublicHTTPConnection(http.client.HTTPConnection):
    def connect(self) -> None:
        super().connect()
        _check_public(self)


class _PublicHTTPSConnection(http.client.HTTPSConnection):
    def connect(self) -> None:
        super().connect()
        _check_public(self)


class _PublicHTTPHandler(urllib.request.HTTPHandler):
    def http_open(self, req: urllib.request.Request) -> http.client.HTTPResponse:
        return self.do_open(_PublicHTTPConnection, req)


class _PublicHTTPSHandler(urllib.request.HTTPSHandler):
    def https_open(self, req: urllib.request.Request) -> http.client.HTTPResponse:
        return self.do_open(_PublicHTTPSConnection, req)
