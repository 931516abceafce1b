"""The rules of size and turned lines are tried where they are used; here the others, and what they are held against."""

import sys
from subprocess import run

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from PIL import Image, ImageDraw

from hf_ocr.models.line_preparation import STRETCHES, stretch_line, text_part


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("stretch", STRETCHES)
def test_a_stretched_line_is_that_of_torch(channels, stretch):
    line = np.random.default_rng(0).uniform(-1, 1, (channels, 40, 213)).astype(np.float32)
    size = (40, round(213 * stretch))
    want = F.interpolate(torch.from_numpy(line)[None], size=size, mode="bilinear", antialias=True)[0].numpy()
    got = stretch_line(line, stretch)
    assert got.shape == want.shape and got.dtype == np.float32
    np.testing.assert_allclose(got, want, atol=1e-4)  # a grey level is 8e-3


def test_lines_are_loaded_without_torch(tmp_path):
    """The modules are copied beside an exported network; here their folder stands in for that of the package."""
    code = """
import sys, types
package = types.ModuleType("alone"); package.__path__ = [sys.argv[1]]; sys.modules["alone"] = package
from alone.image_loading import load_image
from alone.line_preparation import resized_width
import numpy as np
assert load_image(np.zeros((5, 9), np.uint8)).size == (9, 5) and resized_width((9, 5), 40, 64, 999) == 72
assert not {"torch", "transformers", "hf_ocr"} & set(sys.modules)
"""
    folder = sys.modules["hf_ocr.models"].__path__[0]
    done = run([sys.executable, "-c", code, folder], capture_output=True, text=True, cwd=tmp_path)
    assert done.returncode == 0, done.stderr


def printed(size, *ink, ground=230, grey=20):
    """Boxes (left, top, right, bottom) on even ground, as letters fill them: in part."""
    image = Image.new("L", size, ground)
    for left, top, right, bottom in ink:
        pen = ImageDraw.Draw(image)
        pen.rectangle((left, top, right - 1, bottom - 1), outline=grey)
        pen.line((left, top, right - 1, bottom - 1), fill=grey)
    return image


@pytest.mark.parametrize(("ground", "grey"), [(230, 20), (0, 255), (255, 215), (128, 90)])
def test_of_a_loose_crop_the_ink_and_some_ground_is_read(ground, grey):
    image = printed((400, 200), (100, 60, 140, 80), (180, 64, 250, 84), ground=ground, grey=grey)
    assert text_part(image) == text_part(image.convert("RGB")) == (94, 54, 256, 90)
    noisy = np.asarray(image) + np.random.default_rng(0).integers(-3, 4, (200, 400))
    assert text_part(Image.fromarray(noisy.clip(0, 255).astype(np.uint8))) == (94, 54, 256, 90)
    assert text_part(printed((400, 200), (3, 1, 140, 21))) == (0, 0, 145, 26)
    assert text_part(printed((400, 200), (100, 60, 110, 90))) == (92, 52, 118, 98)  # one letter


def test_faint_print_beside_dark_print_is_kept():
    image = printed((400, 100), (20, 40, 100, 64))
    image.paste(printed((80, 24), (0, 0, 80, 24), grey=205), (200, 40))  # yellow on white
    assert text_part(image) == (14, 34, 286, 70)


def test_the_part_of_a_part_is_all_of_it():
    """A sheet on a darker table: its own ground is another than that of the whole."""
    image = Image.new("L", (300, 200), 230)
    image.paste(222, (20, 40, 280, 160))
    image.paste(printed((180, 20), (0, 0, 180, 20), ground=222), (60, 60))
    image.paste(216, (60, 110, 240, 112))
    part = text_part(image)
    assert part != (0, 0, 300, 200)
    cut = image.crop(part)
    assert text_part(cut) == (0, 0, *cut.size)


@pytest.mark.parametrize(
    ("size", "ink"),
    [
        ((400, 32), [(10, 6, 380, 26)]),  # a line as it should be
        ((400, 200), []),  # nothing
        ((400, 200), [(100, 60, 140, 64)]),  # lower than print
        ((400, 200), [(100, 60, 250, 80), (0, 180, 8, 190)]),  # something at the border
        ((400, 200), [(100, 10, 250, 30), (100, 150, 250, 170)]),  # two lines
        ((1000, 60), [(5, 20, 995, 30)]),  # longer than any line
        ((1, 1), []),
        ((1, 300), [(0, 100, 1, 250)]),
    ],
)
def test_any_other_image_is_read_whole(size, ink):
    assert text_part(printed(size, *ink)) == (0, 0, *size)


@pytest.mark.parametrize("box", [(100, 60, 140, 72), (100, 60, 106, 66), (10, 60, 390, 65), (200, 20, 204, 120)])
def test_dashes_dots_and_rules_are_read_whole(box):
    image = Image.new("L", (400, 200), 230)
    image.paste(20, box)
    assert text_part(image) == (0, 0, 400, 200)


def test_blank_paper_is_read_whole():
    grain = np.random.default_rng(0).normal(200, 4, (60, 400))
    assert text_part(Image.fromarray(grain.astype(np.uint8))) == (0, 0, 400, 60)


def test_shaded_ground_is_left_alone():
    shades = np.broadcast_to(np.linspace(150, 250, 400), (200, 400)).astype(np.uint8)
    image = Image.fromarray(shades)
    image.paste(printed((150, 20), (0, 0, 150, 20)), (100, 60))
    assert text_part(image) == (0, 0, 400, 200)
