import base64
import http.server
import io
import os
import socket
import struct
import threading
import time
import urllib.parse
import warnings
import zlib
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from hf_ocr.models import image_loading
from hf_ocr.models.image_loading import ImageError, load_image


def gradient(height: int = 6, width: int = 9) -> np.ndarray:
    return np.linspace(0, 255, height * width).astype(np.uint8).reshape(height, width)


def encoded(image: Image.Image, format: str = "PNG", **options: object) -> bytes:
    stream = io.BytesIO()
    image.save(stream, format=format, **options)
    return stream.getvalue()


PNG = encoded(Image.fromarray(gradient()))


def png_with_header_size(width: int, height: int) -> bytes:
    header = struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0)

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    return (
        b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(b"\0" * 100)) + chunk(b"IEND", b"")
    )


# What can be given


@pytest.mark.parametrize("name", ["line.png", "Straße 12 čtyři řádky.png"])
def test_paths_with_spaces_and_letters_of_all_kinds(tmp_path: Path, name: str) -> None:
    path = tmp_path / name
    path.write_bytes(PNG)
    for source in (path, str(path)):
        assert np.array_equal(np.asarray(load_image(source)), gradient())


def test_bytes_base64_and_data_uris_give_the_same_pixels() -> None:
    text = base64.b64encode(PNG + b"\0" * (-len(PNG) % 3 + 1)).decode()
    assert text.endswith("==")
    sources = [
        PNG,
        bytearray(PNG),
        memoryview(PNG),
        text,
        text.rstrip("="),
        "\n".join(text[i : i + 20] for i in range(0, len(text), 20)),
        f"data:image/png;base64,{text}",
        f"data:image/png;base64,{''.join(f'%{ord(letter):02X}' for letter in text)}",
        f"data:image/png,{urllib.parse.quote_from_bytes(PNG)}",
    ]
    for source in sources:
        assert np.array_equal(np.asarray(load_image(source)), gradient())


def test_plain_pil_images_come_back_as_they_are() -> None:
    for mode in ("L", "RGB"):
        image = Image.new(mode, (4, 3))
        assert load_image(image) is image


@pytest.mark.parametrize(
    "array",
    [
        gradient(),
        gradient()[:, :, None],
        gradient().astype(np.uint16) * 257,
        (gradient().astype(np.uint16) * 257).astype(">u2"),
        gradient() / 255,
        (gradient() / 255).astype(np.float32),
        gradient()[:, ::-1][:, ::-1],
    ],
)
def test_arrays_of_every_accepted_dtype(array: np.ndarray) -> None:
    image = load_image(array)
    assert image.mode == "L"
    assert np.array_equal(np.asarray(image), gradient())


def test_bool_and_half_precision_arrays() -> None:
    assert np.array_equal(np.asarray(load_image(gradient() > 100)), (gradient() > 100) * np.uint8(255))
    assert np.abs(np.asarray(load_image((gradient() / 255).astype(np.float16))).astype(int) - gradient()).max() <= 1


def test_colour_arrays_and_tensors_keep_their_channels() -> None:
    colour = np.stack([gradient(), 255 - gradient(), gradient() // 2], axis=2)
    assert np.array_equal(np.asarray(load_image(colour)), colour)
    channels_first = torch.from_numpy(colour.transpose(2, 0, 1).copy())
    assert np.array_equal(np.asarray(load_image(channels_first)), colour)
    assert np.array_equal(np.asarray(load_image((channels_first / 255).requires_grad_())), colour)
    assert load_image((channels_first / 255).bfloat16()).mode == "RGB"
    assert np.array_equal(np.asarray(load_image(channels_first[:1])), gradient())
    assert np.array_equal(np.asarray(load_image(channels_first[0])), gradient())


def test_a_small_overshoot_of_resampled_floats_is_clipped() -> None:
    assert np.asarray(load_image(np.array([[-0.05, 1.05, 0.999]]))).tolist() == [[0, 255, 255]]


# Modes of files and PIL images


def test_transparent_pixels_become_white_and_half_transparent_ones_mix() -> None:
    rgba = np.zeros((1, 3, 4), np.uint8)
    rgba[0, :, 3] = (0, 255, 51)  # transparent, opaque, a fifth: all black
    want = [255, 0, 204]
    assert np.asarray(load_image(rgba))[0, :, 1].tolist() == want
    assert np.asarray(load_image(Image.fromarray(rgba).convert("RGBa")))[0, :, 1].tolist() == want
    grey = load_image(Image.fromarray(rgba).convert("LA"))
    assert grey.mode == "L"
    assert np.asarray(grey)[0].tolist() == want
    image = load_image(encoded(Image.fromarray(rgba)))
    assert image.mode == "RGB"
    assert np.asarray(image)[0, :, 1].tolist() == want


def test_a_transparent_colour_of_palette_grey_and_colour_files() -> None:
    palette = Image.fromarray(np.array([[0, 1, 2]], np.uint8), "P")
    palette.putpalette([0, 0, 0, 10, 20, 30, 200, 100, 50])
    one_colour = load_image(encoded(palette, transparency=0))
    assert np.asarray(one_colour)[0].tolist() == [[255, 255, 255], [10, 20, 30], [200, 100, 50]]
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        an_alpha_each = load_image(encoded(palette, transparency=b"\xff\x00\xff"))
    assert np.asarray(an_alpha_each)[0].tolist() == [[0, 0, 0], [255, 255, 255], [200, 100, 50]]
    grey = load_image(encoded(Image.fromarray(np.array([[7, 8]], np.uint8)), transparency=7))
    assert np.asarray(grey)[0].reshape(2, -1)[:, 0].tolist() == [255, 8]
    colour = load_image(encoded(Image.new("RGB", (2, 1), (9, 8, 7)), transparency=(9, 8, 7)))
    assert np.asarray(colour)[0].tolist() == [[255, 255, 255]] * 2


def test_palette_without_transparency_and_one_bit() -> None:
    palette = Image.fromarray(np.array([[0, 1]], np.uint8), "P")
    palette.putpalette([1, 2, 3, 250, 251, 252])
    assert np.asarray(load_image(palette))[0].tolist() == [[1, 2, 3], [250, 251, 252]]
    bits = load_image(encoded(Image.fromarray(gradient() > 99)))
    assert bits.mode == "L"
    assert np.array_equal(np.asarray(bits), (gradient() > 99) * np.uint8(255))


def test_sixteen_bit_files_are_scaled_not_cut() -> None:
    values = np.array([[0, 128, 200, 257, 32896, 65535]], np.uint16)
    want = [[0, 0, 1, 1, 128, 255]]
    for image in (Image.fromarray(values), Image.fromarray(values.astype(np.int32))):
        assert image.mode in ("I;16", "I")
        assert np.asarray(load_image(image)).tolist() == want
    for format in ("PNG", "TIFF"):
        assert np.asarray(load_image(encoded(Image.fromarray(values), format))).tolist() == want
    big_endian = Image.frombytes("I;16B", (6, 1), values.astype(">u2").tobytes())
    assert np.asarray(load_image(big_endian)).tolist() == want


def test_wide_modes_that_hold_eight_bit_values_keep_them() -> None:
    grey = Image.fromarray(gradient())
    for mode in ("I", "F"):
        assert np.array_equal(np.asarray(load_image(grey.convert(mode))), gradient())
    fractions = Image.fromarray((gradient() / 255).astype(np.float32))
    assert np.array_equal(np.asarray(load_image(fractions)), gradient())


def test_cmyk_photographs_are_not_inverted() -> None:
    cmyk = Image.new("RGB", (32, 32), (250, 120, 10)).convert("CMYK")
    for source in (cmyk, encoded(cmyk, "JPEG", quality=95)):
        image = load_image(source)
        assert image.mode == "RGB"
        assert np.abs(np.asarray(image).mean((0, 1)) - (250, 120, 10)).max() < 6


def test_exif_orientation_is_applied_to_files_and_to_opened_images(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6  # the camera was turned: 90 degrees clockwise make it upright
    content = encoded(Image.fromarray(gradient()), "PNG", exif=exif)
    want = np.rot90(gradient(), -1)
    assert np.array_equal(np.asarray(load_image(content)), want)
    path = tmp_path / "turned.png"
    path.write_bytes(content)
    with Image.open(path) as opened:
        assert np.array_equal(np.asarray(load_image(opened)), want)
        in_memory = opened.copy()
    assert np.array_equal(np.asarray(load_image(in_memory)), want)


def test_an_upright_image_in_memory_comes_back_as_it_is() -> None:
    image = Image.open(io.BytesIO(encoded(Image.fromarray(gradient()), "PNG", dpi=(300, 300)))).copy()
    assert image.info and load_image(image) is image


@pytest.mark.parametrize("exif", [b"Exif\0\0hello world", b"Exif\0\0II*\0", b"Exif\0\0MM\0*\xff\xff\xff\xff nonsense"])
def test_damaged_exif_does_not_cost_the_image(exif: bytes) -> None:
    content = encoded(Image.fromarray(gradient()), "PNG", exif=exif)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        assert np.array_equal(np.asarray(load_image(content)), gradient())


@pytest.mark.parametrize("format", ["GIF", "TIFF", "WEBP"])
def test_of_several_frames_the_first_is_read(format: str) -> None:
    frames = [Image.new("L", (8, 8), value) for value in (10, 200, 90)]
    options = {"lossless": True} if format == "WEBP" else {}
    content = encoded(frames[0], format, save_all=True, append_images=frames[1:], **options)
    assert np.asarray(load_image(content).convert("L")).max() == 10


# What cannot be read: the source, what was seen, and a cure


def message_of(source: object, **options: object) -> str:
    with pytest.raises(ImageError) as caught:
        load_image(source, **options)
    assert isinstance(caught.value, ValueError)
    return str(caught.value)


def test_a_missing_path_a_directory_and_a_pipe(tmp_path: Path) -> None:
    missing = message_of(tmp_path / "no such line.png")
    assert "no such line.png" in missing
    assert "no such file" in missing
    assert "working directory" in missing
    assert "is a directory" in message_of(tmp_path)
    fifo = tmp_path / "pipe"
    os.mkfifo(fifo)
    assert "not a regular file" in message_of(fifo)  # opening it would wait for ever


def test_text_that_looks_like_base64_but_holds_no_image_is_a_missing_file() -> None:
    for text in ("abcd", base64.b64encode(b"just some words " * 9).decode(), "null\0byte", "x" * 100_000, ""):
        message = message_of(text)
        assert "no such file" in message
        assert len(message) < 600


def test_an_empty_file_and_empty_bytes(tmp_path: Path) -> None:
    path = tmp_path / "empty.png"
    path.touch()
    assert "empty.png" in message_of(path)
    assert "is empty (0 bytes)" in message_of(path)
    assert "is empty (0 bytes)" in message_of(b"")


def test_a_text_file_named_png_shows_how_it_begins(tmp_path: Path) -> None:
    path = tmp_path / "words.png"
    path.write_text("Dear Sir or Madam")
    message = message_of(path)
    assert "not an image" in message
    assert "b'Dear Sir or Mada'" in message


@pytest.mark.parametrize("format", ["JPEG", "PNG", "TIFF", "GIF", "WEBP", "BMP"])
def test_truncated_files_of_every_kind(tmp_path: Path, format: str) -> None:
    noise = np.random.default_rng(0).integers(0, 256, (64, 64), np.uint8)
    content = encoded(Image.fromarray(noise), format)
    path = tmp_path / f"half.{format.lower()}"
    path.write_bytes(content[: len(content) // 2])
    message = message_of(path)
    assert "half." in message
    assert "damaged" in message or "not an image" in message
    text = base64.b64encode(content[: len(content) // 2]).decode()
    message_of(f"data:image/x;base64,{text}")


def test_every_cut_of_a_png_and_a_jpeg_reads_or_says_why() -> None:
    for content in (PNG, encoded(Image.fromarray(gradient()), "JPEG")):
        for length in range(0, len(content), 7):
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                try:
                    load_image(content[:length])
                except ImageError:
                    pass


def test_a_decompression_bomb_is_refused_by_its_header_alone() -> None:
    limit = Image.MAX_IMAGE_PIXELS
    for size in ((9_500, 9_500), (30_000, 30_000)):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            start = time.monotonic()
            message = message_of(png_with_header_size(*size))
        assert time.monotonic() - start < 1
        assert "89,000,000 pixels" in message
        assert "damaged" not in message
    assert limit == Image.MAX_IMAGE_PIXELS
    with warnings.catch_warnings():  # under "error", Pillow raises its warning
        warnings.simplefilter("error")
        assert "89,000,000 pixels" in message_of(png_with_header_size(9_500, 9_500))
    assert "89,000,000 pixels" in message_of(np.broadcast_to(np.uint8(0), (10_000, 10_000)))


def test_too_many_bytes(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(image_loading, "MAX_BYTES", 50)
    path = tmp_path / "large.png"
    path.write_bytes(PNG)
    for source in (path, PNG, "data:image/png;base64," + base64.b64encode(PNG).decode()):
        assert "Expected at most 50" in message_of(source)


def test_postscript_is_not_handed_to_an_outside_program() -> None:
    content = encoded(Image.new("RGB", (4, 4)), "EPS")
    for source in (content, Image.open(io.BytesIO(content))):
        assert "PostScript" in message_of(source)


def test_data_uris_with_faults() -> None:
    assert "no comma" in message_of("data:image/png;base64")
    assert "not base64" in message_of("data:image/png;base64,@@@@")
    assert "not an image" in message_of("data:text/plain,hello")
    assert "is empty" in message_of("data:image/png;base64,")


@pytest.mark.parametrize(
    ("array", "words"),
    [
        (np.full((4, 4), np.nan), "16 values are NaN"),
        (np.array([[0.0, np.inf]]), "1 values are NaN or infinite"),
        (np.zeros((0, 5), np.uint8), "without a pixel"),
        (np.zeros((5, 0, 3), np.uint8), "without a pixel"),
        (np.full((4, 4), 255.0), "divide by 255"),
        (np.full((4, 4), -1.0), "undo the normalisation"),
        (np.zeros((4, 4), np.int64), "convert to uint8"),
        (np.zeros((4, 4), complex), "convert to uint8"),
        (np.zeros((3, 4, 4, 3), np.uint8), "index a batch"),
        (np.zeros((3, 9, 9), np.uint8), "transpose"),
        (np.zeros(7, np.uint8), "not one image"),
    ],
)
def test_arrays_that_are_no_image(array: np.ndarray, words: str) -> None:
    message = message_of(array)
    assert words in message
    assert f"array of shape {array.shape}" in message


@pytest.mark.parametrize(
    "tensor",
    [torch.zeros(8, 8).to_sparse(), torch.zeros(8, 8, device="meta"), torch.zeros(8, 8).to(torch.float8_e4m3fn)],
)
def test_tensors_of_which_no_array_can_be_made(tensor: torch.Tensor) -> None:
    with pytest.raises(ImageError, match=r"tensor of shape .* and dtype torch.float.*: no array can be made"):
        load_image(tensor)


def test_a_tensor_is_called_by_its_own_dtype() -> None:
    with pytest.raises(ImageError, match=r"tensor of shape .* and dtype torch.bfloat16: its values lie between 200"):
        load_image(torch.full((8, 8), 200.0).bfloat16())
    with pytest.raises(ImageError, match=r"array of shape .* and dtype float32: its values lie between 200"):
        load_image(np.full((8, 8), 200, np.float32))


def test_tensors_and_other_types_that_are_no_image() -> None:
    assert "permute" in message_of(torch.zeros(5, 5, 3, dtype=torch.uint8))
    assert "index a batch" in message_of(torch.zeros(2, 1, 5, 5))
    assert "NaN" in message_of(torch.full((2, 2), float("nan")))
    for source in (None, 3, ["a.png"], {"bytes": b""}):
        assert f"image of type {type(source).__name__}" in message_of(source)


def test_pil_images_that_cannot_be_read(tmp_path: Path) -> None:
    assert "without a pixel" in message_of(Image.new("L", (0, 5)))
    assert "between -3" in message_of(Image.new("I", (2, 2), -3))
    assert "NaN" in message_of(Image.new("F", (2, 2), float("nan")))
    path = tmp_path / "gone.png"
    path.write_bytes(PNG[:-30])
    with Image.open(path) as opened:
        assert "cannot be read" in message_of(opened)


# Over the network, from this machine to itself


class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        kind = urllib.parse.unquote(self.path).split("?")[0]
        if kind == "/missing.png":
            self.send_error(404)
        elif kind == "/moved.png":
            self.send_response(302)
            self.send_header("Location", "/ein Bild ä.png")
            self.end_headers()
        elif kind == "/silent.png":
            time.sleep(3)
        elif kind == "/slow header.png":
            for letter in b"HTTP/1.0 200 OK":
                self.wfile.write(bytes([letter]))
                self.wfile.flush()
                time.sleep(0.1)
        elif kind == "/flood.png":
            self.send_response(200)
            self.end_headers()
            while True:
                self.wfile.write(bytes(2**16))
        elif kind == "/slow.png":  # a byte now and then keeps a socket's timeout from ever running out
            self.send_response(200)
            self.end_headers()
            for _ in range(40):
                self.wfile.write(b"x")
                self.wfile.flush()
                time.sleep(0.1)
        else:
            body = b"<html>sorry</html>" if kind == "/page.png" else PNG
            self.send_response(200)
            if kind == "/large.png":
                self.send_header("Content-Length", str(10**12))
            elif kind != "/unannounced.png":
                self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

    def log_message(self, *args: object) -> None:
        pass

    def handle_one_request(self) -> None:
        try:
            super().handle_one_request()
        except OSError:  # the client gave up, which is what some tests want
            self.close_connection = True


@pytest.fixture(scope="module")
def server() -> Iterator[str]:
    with pytest.MonkeyPatch.context() as patch, http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as running:
        patch.setenv("no_proxy", "127.0.0.1")
        running.daemon_threads = True
        threading.Thread(target=running.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True).start()
        yield f"http://127.0.0.1:{running.server_address[1]}"
        running.shutdown()
        running.block_on_close = False


@pytest.mark.parametrize(
    "path", ["/ein Bild ä.png", "/ein%20Bild%20%C3%A4.png?size=a b", "/moved.png", "/unannounced.png"]
)
def test_urls_with_spaces_letters_and_redirects(server: str, path: str) -> None:
    assert np.array_equal(np.asarray(load_image(server + path)), gradient())
    assert np.array_equal(np.asarray(load_image("HTTP" + server[4:] + path)), gradient())


def test_urls_that_give_no_image(server: str, monkeypatch: pytest.MonkeyPatch) -> None:
    assert "404" in message_of(f"{server}/missing.png")
    assert "b'<html>sorry</htm'" in message_of(f"{server}/page.png")
    assert "1,000,000,000,000 bytes" in message_of(f"{server}/large.png")
    assert "cannot be fetched" in message_of("http://[::bad/line.png")
    assert "timeout is 0" in message_of(f"{server}/line.png", timeout=0)
    monkeypatch.setattr(image_loading, "MAX_BYTES", 50)
    assert "Expected at most 50" in message_of(f"{server}/flood.png")  # no Content-Length announces it


def test_unreachable_silent_and_dripping_servers_end_in_bounded_time(server: str) -> None:
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        closed = f"http://127.0.0.1:{unused.getsockname()[1]}/a.png"
    for url, words in (
        (closed, "cannot be fetched"),
        (f"{server}/silent.png", "timeout 0.2 s"),
        (f"{server}/slow.png", "took longer than 0.6 s"),
        (f"{server}/slow header.png", "took longer than 0.6 s"),
    ):
        start = time.monotonic()
        message = message_of(url, timeout=0.2)
        assert time.monotonic() - start < 1.5
        assert words in message
        assert url in message
    # Only the thread that waits for the rest of a header is left; that of the slow body has ended by itself.
    assert sum(thread.name == "load_image" for thread in threading.enumerate()) <= 1


def test_a_host_that_does_not_exist() -> None:
    assert "name.invalid" in message_of("http://name.invalid/a.png", timeout=0.2)


def test_8_bit_values_in_16_bits_were_not_scaled():
    """`Image.convert("I;16")` and `astype` make such images, which would be all black."""
    values = np.array([[0, 128, 255]], np.uint8)
    wide = values.astype(np.uint16)
    for source in (wide, Image.fromarray(wide), Image.fromarray(values).convert("I;16"), values.astype(np.int32)):
        source = Image.fromarray(source) if getattr(source, "dtype", None) == np.int32 else source
        assert np.array_equal(np.asarray(load_image(source)), values)
