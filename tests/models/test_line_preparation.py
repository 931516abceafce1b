"""The rules of size and turned lines are tried where they are used; here the others, and what they are held against."""

import sys
import tracemalloc
from subprocess import run

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from PIL import Image, ImageDraw

from hf_ocr.models.line_preparation import CUT, STRETCHES, grey_values, level_line, stretch_line, text_part


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("stretch", STRETCHES)
def test_a_stretched_line_is_that_of_torch(channels, stretch):
    line = np.random.default_rng(0).uniform(-1, 1, (channels, 40, 213)).astype(np.float32)
    size = (40, round(213 * stretch))
    want = F.interpolate(torch.from_numpy(line)[None], size=size, mode="bilinear", antialias=True)[0].numpy()
    got = stretch_line(line, stretch)
    assert got.shape == want.shape and got.dtype == np.float32
    np.testing.assert_allclose(got, want, atol=1e-4)  # a grey level is 8e-3


def written(slope, channels=1, ground=0.8, grey=-0.9, size=(600, 38)):
    """Strokes 8 px high on a line that falls by `slope` px a px, each at its place; float32 (channels, H, W)."""
    image = Image.new("F", size, ground)
    for x in range(20, size[0] - 20, 12):
        middle = size[1] / 2 + slope * (x + 2 - size[0] / 2)
        ImageDraw.Draw(image).rectangle((x, middle - 4, x + 4, middle + 3), fill=grey)
    return np.stack([np.asarray(image)] * channels)


@pytest.mark.parametrize(("slope", "ground", "grey"), [(0.03, 0.8, -0.9), (-0.03, -1.0, 0.2), (0.015, 0.8, -0.9)])
@pytest.mark.parametrize("channels", [1, 3])
def test_a_tilted_line_is_made_level_and_as_high_as_it_was_without_its_tilt(slope, ground, grey, channels):
    line = written(slope, channels, ground, grey)
    level = level_line(line)
    assert level.dtype == np.float32 and level.shape[:2] == line.shape[:2]
    scale = 38 / (38 - abs(slope) * 600)
    assert level.shape[2] == pytest.approx(600 * scale, abs=1)
    assert level_line(level) is None
    ink = np.abs(level - ground).min(0) > abs(grey - ground) / 2
    rows = np.flatnonzero(ink.any(axis=1))
    assert rows[-1] - rows[0] < 8 * scale + 4 and abs(rows.mean() - 18.5) < 2
    # Characters stay at their shares of the width.
    before = np.flatnonzero((np.abs(line - ground).min(0) > 0.1).any(axis=0))
    after = np.flatnonzero(ink.any(axis=0))
    np.testing.assert_allclose([after[0], after[-1]], [before[0] * scale, (before[-1] + 1) * scale - 1], atol=2)


def test_of_a_steep_line_no_more_than_its_share_is_cut_off_and_what_was_outside_is_ground():
    level = level_line(written(0.06, ground=0.7))
    assert level.shape[2] == round(600 / (1 - 2 * CUT))
    np.testing.assert_allclose(level[:, :, [0, -1]], 0.7, atol=1e-3)


@pytest.mark.parametrize("slope", [0.0, 0.004])
def test_a_level_line_is_none_to_make_level(slope):
    assert level_line(written(slope)) is None


@pytest.mark.parametrize("width", [1, 64, 900])
def test_nor_is_one_that_cannot_be_told(width):
    assert level_line(np.full((1, 38, width), 0.5, np.float32)) is None
    assert level_line(np.random.default_rng(0).uniform(-1, 1, (3, 38, width)).astype(np.float32)) is None


def test_slopes_are_the_same_however_many_are_compared_at_once_and_a_wide_line_takes_little_memory(monkeypatch):
    lines = [written(slope, size=(600, 38)) for slope in (-0.06, -0.03, 0.03, 0.06)]
    together = [level_line(line) for line in lines]
    monkeypatch.setattr("hf_ocr.models.line_preparation.SLOPES", 7)
    for line, level in zip(lines, together, strict=True):
        np.testing.assert_array_equal(level_line(line), level)
    monkeypatch.undo()
    wide = written(0.003, size=(8192, 38))
    tracemalloc.start()
    assert level_line(wide) is not None
    most = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert most < 60e6  # 320 MB with all slopes in one array


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


def part_of(image):
    return text_part(grey_values(image))


@pytest.mark.parametrize(("ground", "grey"), [(230, 20), (0, 255), (255, 215), (128, 90)])
def test_of_a_loose_crop_the_ink_and_some_ground_is_read(ground, grey):
    image = printed((400, 200), (100, 60, 140, 80), (180, 64, 250, 84), ground=ground, grey=grey)
    assert part_of(image) == part_of(image.convert("RGB")) == (94, 54, 256, 90)
    noisy = np.asarray(image) + np.random.default_rng(0).integers(-3, 4, (200, 400))
    assert part_of(Image.fromarray(noisy.clip(0, 255).astype(np.uint8))) == (94, 54, 256, 90)
    assert part_of(printed((400, 200), (3, 1, 140, 21))) == (0, 0, 145, 26)
    assert part_of(printed((400, 200), (100, 60, 110, 90))) == (92, 52, 118, 98)  # one letter


@pytest.mark.parametrize("top", [30, 44, 140])  # through a quarter of the height, just above it, through three
@pytest.mark.parametrize(("ground", "grey"), [(230, 20), (0, 255)])
def test_a_loose_crop_is_cut_wherever_its_ink_stands(top, ground, grey):
    image = printed((400, 200), (100, top, 200, top + 24), ground=ground, grey=grey)
    assert part_of(image) == (94, top - 6, 206, top + 30)


def test_ink_and_ground_of_just_the_share_that_is_loose_are_cut():
    assert part_of(printed((400, 20), (20, 5, 180, 15))) == (18, 3, 182, 17)
    assert part_of(printed((400, 20), (20, 5, 180, 16))) == (0, 0, 400, 20)


def test_faint_print_beside_dark_print_is_kept():
    image = printed((400, 100), (20, 40, 100, 64))
    image.paste(printed((80, 24), (0, 0, 80, 24), grey=205), (200, 40))  # yellow on white
    assert part_of(image) == (14, 34, 286, 70)


def test_the_part_of_a_part_is_all_of_it():
    """A sheet on a darker table: its own ground is another than that of the whole."""
    image = Image.new("L", (300, 200), 230)
    image.paste(222, (20, 40, 280, 160))
    image.paste(printed((180, 20), (0, 0, 180, 20), ground=222), (60, 60))
    image.paste(216, (60, 110, 240, 112))
    part = part_of(image)
    assert part != (0, 0, 300, 200)
    cut = image.crop(part)
    assert part_of(cut) == (0, 0, *cut.size)


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
    assert part_of(printed(size, *ink)) == (0, 0, *size)


@pytest.mark.parametrize("box", [(100, 60, 140, 72), (100, 60, 106, 66), (10, 60, 390, 65), (200, 20, 204, 120)])
def test_dashes_dots_and_rules_are_read_whole(box):
    image = Image.new("L", (400, 200), 230)
    image.paste(20, box)
    assert part_of(image) == (0, 0, 400, 200)


def test_blank_paper_is_read_whole():
    grain = np.random.default_rng(0).normal(200, 4, (60, 400))
    assert part_of(Image.fromarray(grain.astype(np.uint8))) == (0, 0, 400, 60)


def test_shaded_ground_is_left_alone():
    shades = np.broadcast_to(np.linspace(150, 250, 400), (200, 400)).astype(np.uint8)
    image = Image.fromarray(shades)
    image.paste(printed((150, 20), (0, 0, 150, 20)), (100, 60))
    assert part_of(image) == (0, 0, 400, 200)
