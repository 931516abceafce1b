"""From anything that holds an image to a Pillow image in mode "L" or "RGB".

Files, addresses, bytes and arrays arrive with transparency, 16 bits, palettes, CMYK, a turned EXIF orientation, or
damage. `load_image` settles all of it in one place, so that what follows sees 8-bit grey or 8-bit colour only.
"""

import base64
import binascii
import http.client
import io
import os
import queue
import re
import sys
import threading
import time
import urllib.error
import urllib.parse
import urllib.request
from typing import TYPE_CHECKING, Any, Union

import numpy as np
from PIL import ExifTags, Image, ImageFile, ImageOps, UnidentifiedImageError

if TYPE_CHECKING:  # readers of an exported network come without torch
    import torch

# Pillow itself begins to warn of a decompression bomb at 89.5 million pixels; an A4 page at 900 dpi has 78.
MAX_PIXELS = 89_000_000
MAX_BYTES = 100 * 2**20  # of a file, a download or a data URI, before decoding
URL_TIMEOUT = 10.0  # seconds without an answer
LONGEST_TIMEOUT = 86_400.0  # seconds; what is beyond, infinity for one, is more than sockets take
DOWNLOAD_TIMEOUTS = 3  # a whole download may take this many times the timeout

EXPECTED = "a path, an http(s) URL, a data URI, base64, bytes, a PIL image, a NumPy array or a torch tensor"

ImageSource = Union[str, os.PathLike[str], bytes, bytearray, memoryview, Image.Image, np.ndarray, "torch.Tensor"]


class ImageError(ValueError):
    """An image that cannot be read: names the source, what was seen, what was expected and the cure."""


def load_image(source: ImageSource, timeout: float | None = None) -> Image.Image:
    """Load one image as 8-bit grey or colour.

    Args:
        source: path; http(s) URL; data URI; bare base64; encoded bytes; PIL image; NumPy array (H, W), (H, W, 1),
            (H, W, 3) or (H, W, 4); torch tensor (H, W) or (C, H, W) with 1, 3 or 4 channels. Arrays and tensors are
            uint8, uint16 (with nothing above 255, as uint8), bool, or floating point in [0, 1].
        timeout: seconds to wait for a silent server, 10 by default; the whole download may take three times as long.

    Returns:
        A PIL image in mode "L" or "RGB", upright (EXIF orientation applied), transparent parts on white, 16-bit values
        scaled to 8, the first frame of several. An image in one of these modes with nothing to apply comes back as is.

    Raises:
        ImageError: for every image that cannot be read: missing, empty, damaged, not an image, too large (more than
            `MAX_PIXELS` by its header, or `MAX_BYTES`), unreachable, of an unsupported type or range of values.
    """
    if isinstance(source, Image.Image):
        return _to_grey_or_colour(source, f"PIL image of mode {source.mode}")
    if isinstance(source, np.ndarray):
        name = f"array of shape {source.shape}"
        if source.dtype != np.uint8:  # its name takes as long to say as a small array takes to load
            name += f" and dtype {source.dtype}"
        return _from_array(source, name)
    if (torch := sys.modules.get("torch")) and isinstance(source, torch.Tensor):  # whoever has a tensor has torch
        return _from_tensor(source)
    if isinstance(source, bytes | bytearray | memoryview):
        content = bytes(source)
        return _from_bytes(content, f"bytes object ({len(content)} bytes)")
    if isinstance(source, str | os.PathLike):
        return _from_text(os.fsdecode(source), timeout)
    raise ImageError(f"image of type {type(source).__name__}: cannot be read. Expected {EXPECTED}.")


def as_it_is_now(source: Any) -> Any:
    """A copy of an array, a tensor or a PIL image, which its owner may fill with the next one before it is loaded.

    A file of a single image that PIL has not opened yet stays as it is, and so does anything else.
    """
    if isinstance(source, np.ndarray):
        return source.copy()
    if (torch := sys.modules.get("torch")) and isinstance(source, torch.Tensor):
        return source.clone()
    if isinstance(source, Image.Image):
        try:
            if not isinstance(source, ImageFile.ImageFile) or getattr(source, "is_animated", False):
                return source.copy()
        except (OSError, ValueError, SyntaxError, EOFError):  # damage, which is told where it is loaded
            pass
    return source


def _from_text(text: str, timeout: float | None) -> Image.Image:
    head = text[:8].lower()
    if head.startswith(("http://", "https://")):
        return _from_bytes(_fetch(text, timeout), _shortened(text))
    if head.startswith("data:"):
        return _from_data_uri(text)
    # isfile and exists answer False, rather than raise, for text too long or odd for a path, as base64 is.
    name = _shortened(text)
    if os.path.isdir(text):
        raise ImageError(f"{name}: is a directory. Expected an image file; give the files inside it one by one.")
    if os.path.isfile(text):
        return _from_file(text, name)
    if os.path.exists(text):
        raise ImageError(f"{name}: is not a regular file. Expected an image file; read it first and give the bytes.")
    content = _base64_content(text)
    if content is not None and _is_image(content):
        return _from_bytes(content, f"base64 text ({len(text)} characters)")
    raise ImageError(
        f"{name}: no such file, nor base64 of an image. Expected {EXPECTED}. "
        "Check the spelling; relative paths start at the working directory."
    )


def _from_file(path: str, name: str) -> Image.Image:
    try:
        size = os.path.getsize(path)
        _check_bytes(size, name)
        with open(path, "rb") as file:
            return _decode(file, name)
    except OSError as error:
        raise ImageError(
            f"{name}: the file cannot be opened ({error.strerror or error}). Check its permissions."
        ) from error


def _from_data_uri(text: str) -> Image.Image:
    header, comma, payload = text.partition(",")
    name = f"data URI {_shortened(header)}"
    if not comma:
        raise ImageError(f"{name}: has no comma before its data. Expected data:image/png;base64,... in full.")
    if header.lower().rstrip().endswith(";base64"):
        content = _base64_content(urllib.parse.unquote(payload))
        if content is None:
            raise ImageError(f"{name}: its data is not base64. Encode the image's bytes with base64.b64encode.")
    else:
        content = urllib.parse.unquote_to_bytes(payload)
    return _from_bytes(content, name)


def _base64_content(text: str) -> bytes | None:
    compact = re.sub(r"\s+", "", text)
    try:
        return base64.b64decode(compact + "=" * (-len(compact) % 4), validate=True)
    except (binascii.Error, ValueError):
        return None


def _is_image(content: bytes) -> bool:
    """Whether Pillow knows the format; a damaged image still is one, and deserves the error of its damage."""
    try:
        with Image.open(io.BytesIO(content)):
            return True
    except (Image.DecompressionBombError, Image.DecompressionBombWarning):
        return True
    except Exception:
        return False


def _from_bytes(content: bytes, name: str) -> Image.Image:
    _check_bytes(len(content), name)
    return _decode(io.BytesIO(content), name)


def _check_bytes(size: int, name: str) -> None:
    if size == 0:
        raise ImageError(f"{name}: is empty (0 bytes). Expected an encoded image; write or download it again.")
    if size > MAX_BYTES:
        raise ImageError(
            f"{name}: has {size:,} bytes. Expected at most {MAX_BYTES:,}; crop it, or save it with compression."
        )


def _check_size(size: tuple[int, int], name: str) -> None:
    width, height = size
    if width < 1 or height < 1:
        raise ImageError(f"{name}: is {width} x {height} px, without a pixel. Expected at least 1 x 1; check the crop.")
    if width * height > MAX_PIXELS:
        raise ImageError(
            f"{name}: is {width:,} x {height:,} px. Expected at most {MAX_PIXELS:,} pixels; crop it or scale it down."
        )


def _check_header(image: Image.Image, name: str) -> None:
    """Of an opened image, before its pixels are made."""
    _check_size(image.size, name)
    if image.format == "EPS" and getattr(image, "tile", None):  # no tiles are left of one that was loaded
        raise ImageError(
            f"{name}: is PostScript, which Pillow would hand to an outside program. Expected pixels; "
            "render it to PNG first."
        )


def _open(file: Any) -> Image.Image:
    """Pillow alone tries formats that have no signature before WebP, in several times the time."""
    try:
        return Image.open(file, formats=("JPEG", "PNG", "WEBP"))
    except UnidentifiedImageError:
        return Image.open(file)


def _decode(file: Any, name: str) -> Image.Image:
    """Decode a binary file object; the size in the header is checked before any pixel is made."""
    try:
        with _open(file) as image:
            _check_header(image, name)
            image.load()
            return _to_grey_or_colour(image, name)
    except (ImageError, MemoryError):
        raise
    except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        raise ImageError(
            f"{name}: {error} Expected at most {MAX_PIXELS:,} pixels; crop it or scale it down."
        ) from error
    except UnidentifiedImageError as error:
        file.seek(0)
        raise ImageError(
            f"{name}: is not an image that Pillow knows, it begins with {file.read(16)!r}. Expected PNG, JPEG, TIFF, "
            "WebP, BMP, GIF or the like; check that the file is what its name says."
        ) from error
    except Exception as error:  # Pillow's readers raise whatever the damage leads them to
        raise ImageError(
            f"{name}: the image is damaged ({error}). Expected a complete image; copy or download it again."
        ) from error


def _to_grey_or_colour(image: Image.Image, name: str) -> Image.Image:
    _check_header(image, name)
    try:
        image.load()
        return _flatten(_upright(image), name)
    except (ImageError, MemoryError):
        raise
    except Exception as error:  # a lazily opened image, whose file is damaged, gone or closed
        raise ImageError(
            f"{name}: its pixels cannot be read ({error}). Expected a complete 8 or 16-bit image; "
            "load it again, or convert it to RGB first."
        ) from error


def _upright(image: Image.Image) -> Image.Image:
    try:
        # Of an image in memory that stands upright `exif_transpose` makes a copy.
        if type(image) is Image.Image and image.getexif().get(ExifTags.Base.Orientation, 1) == 1:
            return image
        return ImageOps.exif_transpose(image)
    except Exception:
        # Damaged EXIF data says nothing about the pixels: they are good as they were stored.
        return image


def _flatten(image: Image.Image, name: str) -> Image.Image:
    """To mode "L" or "RGB"; transparency on white, since text on a transparent ground is nearly always dark."""
    if image.mode == "I" or image.mode == "F" or image.mode.startswith("I;16"):
        return _from_wide(np.asarray(image), name)
    if image.has_transparency_data:
        grey = image.mode in ("1", "L", "LA", "La")
        image = image.convert("LA" if grey else "RGBA")
        white = Image.new("L" if grey else "RGB", image.size, "white")
        white.paste(image.convert(white.mode), mask=image.getchannel("A"))
        return white
    if image.mode in ("L", "RGB"):
        return image
    return image.convert("L" if image.mode == "1" else "RGB")


def _from_wide(pixels: np.ndarray, name: str) -> Image.Image:
    """(H, W) of a PIL mode with more than 8 bits a pixel. What white is the values say: 8-bit ones were not scaled."""
    if pixels.dtype.kind == "f":
        _check_finite(pixels, name)
        white = 1.0 if pixels.max() <= 1 else 255.0
    elif pixels.max() <= 255:
        white = 255.0
    else:
        white = 65535.0
    if pixels.min() < 0 or pixels.max() > white:
        raise ImageError(
            f"{name}: its values lie between {pixels.min()} and {pixels.max()}. Expected 0 to {white:.0f}; "
            "scale them to 0 to 255 and convert to uint8."
        )
    return Image.fromarray(np.rint(pixels * (255.0 / white)).astype(np.uint8))


def _from_tensor(tensor: "torch.Tensor") -> Image.Image:
    name = f"tensor of shape {tuple(tensor.shape)} and dtype {tensor.dtype}"
    if tensor.ndim not in (2, 3) or (tensor.ndim == 3 and tensor.shape[0] not in (1, 3, 4)):
        raise ImageError(
            f"{name}: is not one image. Expected (H, W), or (C, H, W) with 1, 3 or 4 channels; "
            "index a batch, permute (H, W, C)."
        )
    try:
        tensor = tensor.detach().cpu()
        if str(tensor.dtype) == "torch.bfloat16":  # NumPy has no such type
            tensor = tensor.float()
        pixels = (tensor if tensor.ndim == 2 else tensor.permute(1, 2, 0)).resolve_conj().resolve_neg().numpy()
    except (TypeError, RuntimeError) as error:  # sparse, quantized, of a dtype without a like, without data
        raise ImageError(
            f"{name}: no array can be made of it ({error}). Expected a dense tensor of uint8 or floats; convert it."
        ) from error
    return _from_array(pixels, name)


def _from_array(pixels: np.ndarray, name: str) -> Image.Image:
    if pixels.ndim not in (2, 3) or (pixels.ndim == 3 and pixels.shape[2] not in (1, 3, 4)):
        raise ImageError(
            f"{name}: is not one image. Expected (H, W), (H, W, 1), (H, W, 3) or (H, W, 4); "
            "index a batch, transpose (C, H, W)."
        )
    _check_size((pixels.shape[1], pixels.shape[0]), name)
    if pixels.ndim == 3 and pixels.shape[2] == 1:
        pixels = pixels[:, :, 0]
    return _flatten(Image.fromarray(np.ascontiguousarray(_to_uint8(pixels, name))), name)


def _to_uint8(pixels: np.ndarray, name: str) -> np.ndarray:
    kind, size = pixels.dtype.kind, pixels.dtype.itemsize
    if kind == "u" and size == 1:
        return pixels
    if kind == "b":
        return pixels.astype(np.uint8) * 255
    if kind == "u" and size == 2:
        if pixels.max() <= 255:
            return pixels.astype(np.uint8)
        return np.rint(pixels * (255.0 / 65535.0)).astype(np.uint8)
    if kind == "f":
        _check_finite(pixels, name)
        low, high = float(pixels.min()), float(pixels.max())
        if low < -0.1 or high > 1.1:  # bicubic resampling overshoots; other scales lie far outside
            raise ImageError(
                f"{name}: its values lie between {low:g} and {high:g}. Expected 0 to 1 for floating point; "
                "divide by 255, undo the normalisation, or convert to uint8."
            )
        return np.rint(pixels.clip(0, 1).astype(np.float32) * 255).astype(np.uint8)
    raise ImageError(
        f"{name}: of this dtype white is unknown. Expected uint8, uint16, bool or float; convert to uint8."
    )


def _check_finite(pixels: np.ndarray, name: str) -> None:
    if not np.isfinite(pixels).all():
        count = int(pixels.size - np.isfinite(pixels).sum())
        raise ImageError(f"{name}: {count} values are NaN or infinite. Expected numbers; replace them first.")


def _fetch(url: str, timeout: float | None) -> bytes:
    """The bytes behind an http(s) URL within a bounded time, whatever name server and server do."""
    timeout = URL_TIMEOUT if timeout is None else min(timeout, LONGEST_TIMEOUT)
    name = _shortened(url)
    if not timeout > 0:
        raise ImageError(f"{name}: timeout is {timeout}. Expected seconds above 0.")
    limit = DOWNLOAD_TIMEOUTS * timeout
    answer: queue.SimpleQueue[bytes | Exception] = queue.SimpleQueue()

    def work() -> None:
        try:
            answer.put(_download(url, name, timeout, time.monotonic() + limit))
        except Exception as error:
            answer.put(error)

    # A socket's timeout starts anew with every byte and does not cover the name server. A thread can be left behind.
    threading.Thread(target=work, name="load_image", daemon=True).start()
    try:
        content = answer.get(timeout=limit)
    except queue.Empty:
        raise _too_slow(name, limit) from None
    if isinstance(content, Exception):
        raise content
    return content


def _download(url: str, name: str, timeout: float, deadline: float) -> bytes:
    try:
        parts = urllib.parse.urlsplit(url)
        # As browsers do: letters outside ASCII and spaces are escaped, what is escaped already stays.
        path, query = (urllib.parse.quote(part, safe="/:@!$&'()*+,;=?%~[]") for part in (parts.path, parts.query))
        request = urllib.request.Request(
            urllib.parse.urlunsplit((parts.scheme, parts.netloc, path, query, "")), headers={"User-Agent": "hf_ocr"}
        )
        with urllib.request.urlopen(request, timeout=timeout) as response:
            _check_bytes(int(response.headers.get("Content-Length") or 1), name)
            chunks: list[bytes] = []
            size = 0
            while chunk := response.read1(2**16):
                chunks.append(chunk)
                size += len(chunk)
                _check_bytes(size, name)
                if time.monotonic() > deadline:
                    raise _too_slow(name, DOWNLOAD_TIMEOUTS * timeout)
            return b"".join(chunks)
    except ImageError:
        raise
    except (OSError, http.client.HTTPException, ValueError) as error:
        if isinstance(error, urllib.error.HTTPError):  # it holds the connection
            error.close()
        raise ImageError(
            f"{name}: cannot be fetched ({error}; timeout {timeout:g} s). Expected the address of an image; "
            "check it and the connection, or download the file and give its path."
        ) from error


def _too_slow(name: str, limit: float) -> ImageError:
    return ImageError(
        f"{name}: the download took longer than {limit:g} s. Expected it to end by then; "
        "give a larger timeout, or download the file and give its path."
    )


def _shortened(text: str) -> str:
    return repr(text if len(text) <= 120 else f"{text[:80]}...{text[-20:]}")
