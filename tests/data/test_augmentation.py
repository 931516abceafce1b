import random

import numpy as np
import pytest
from PIL import Image, ImageDraw, ImageFont

from hf_ocr.data.augmentation import (
    add_noise,
    augment,
    blur,
    contrast,
    cut_out,
    elastic,
    homography,
    jpeg,
    lower_resolution,
    mapped,
    motion_blur,
    noise_field,
    warp,
)


@pytest.fixture
def line() -> Image.Image:
    image = Image.new("L", (240, 40), 230)
    ImageDraw.Draw(image).text((8, 6), "Total 12.50 RM", fill=20, font=ImageFont.load_default(26))
    return image


def as_array(image: Image.Image) -> np.ndarray:
    return np.asarray(image, dtype=np.float64)


@pytest.mark.parametrize("kind", ["line", "word"])
def test_augment_is_a_function_of_its_generator(line, kind):
    for seed in range(30):
        one, other = (augment(line, np.random.default_rng(seed), kind) for _ in range(2))
        assert one.mode == "L" and one.size == other.size
        assert one.tobytes() == other.tobytes()


def test_augment_leaves_about_one_in_seven_alone_and_never_its_argument(line):
    before = line.tobytes()
    rng = np.random.default_rng(0)
    results = [augment(line, rng) for _ in range(400)]
    same = sum(r.tobytes() == before for r in results)
    assert 40 <= same <= 110
    assert line.tobytes() == before
    assert all(r is not line for r in results)


@pytest.mark.parametrize(
    ("kind", "size"), [("line", (600, 40)), ("word", (60, 30)), ("word", (5, 40)), ("line", (3, 3))]
)
def test_augment_keeps_the_size_within_bounds(kind, size):
    image = Image.fromarray(np.random.default_rng(0).integers(0, 256, size[::-1], dtype=np.uint8))
    rng = np.random.default_rng(1)
    for _ in range(200):
        width, height = augment(image, rng, kind).size
        assert 3 <= width <= 2.2 * size[0] + 6.5 * size[1]
        assert 3 <= height <= 2.5 * size[1] + 0.5 * size[0]


def test_augment_keeps_the_ink_in_the_picture(line):
    """The dark part stays about as large as it was: nothing is cut away or washed out."""
    rng = np.random.default_rng(2)
    wanted = (as_array(line) < 128).sum()
    for _ in range(300):
        result = as_array(augment(line, rng))
        if np.median(result) < 100:  # inverted
            result = 255 - result
        middle = (np.percentile(result, 1) + np.median(result)) / 2
        assert np.median(result) - np.percentile(result, 1) > 35
        scale = line.width * line.height / result.size
        assert 0.3 * wanted < (result < middle).sum() * max(scale, 0.5) < 4 * wanted


@pytest.mark.parametrize("kind", ["line", "word"])
def test_augment_cuts_neither_end_off(kind):
    image = Image.new("L", (240, 40), 230)
    pen = ImageDraw.Draw(image)
    pen.rectangle((6, 8, 20, 32), fill=20)
    pen.rectangle((219, 8, 233, 32), fill=20)
    rng = np.random.default_rng(3)
    loose = 0
    for _ in range(200):
        result = as_array(augment(image, rng, kind))
        if result.max() - np.median(result) > np.median(result) - result.min():  # inverted
            result = 255 - result
        middle = (result.min() + np.median(result)) / 2
        columns = ((result < middle).sum(axis=0) > 0.15 * result.shape[0]).nonzero()[0]
        assert columns[-1] - columns[0] > 0.6 * (result.shape[1] - 4 * result.shape[0])
        loose += columns[-1] - columns[0] < 0.6 * result.shape[1]
    assert 2 <= loose <= 20  # empty ground behind an end, of twice the height and more


def test_augment_refuses_other_modes_and_kinds(line):
    with pytest.raises(ValueError, match="'RGB'"):
        augment(line.convert("RGB"), np.random.default_rng(0))
    with pytest.raises(ValueError, match="'page'"):
        augment(line, np.random.default_rng(0), "page")


def test_noise_has_the_deviation_asked_for():
    flat = Image.new("L", (300, 100), 128)
    fine = as_array(add_noise(flat, 10, random.Random(0)))
    assert abs(fine.std() - 10) < 0.7 and abs(fine.mean() - 128) < 1
    coarse = as_array(add_noise(flat, 10, random.Random(0), grain=3))
    assert 5 < coarse.std() < 14

    def neighbours(values):
        return np.corrcoef(values[:, :-1].ravel(), values[:, 1:].ravel())[0, 1]

    assert neighbours(coarse) > 0.5 > 0.1 > abs(neighbours(fine))


def test_noise_field_is_as_large_as_asked_for():
    for height, width in ((1, 1), (30, 2000), (700, 10), (512, 512)):
        assert noise_field(height, width, random.Random(1)).shape == (height, width)


def test_blur_and_motion_blur_smooth_and_keep_the_mean(line):
    sharp = as_array(line)
    for smooth in (blur(line, 1.5), motion_blur(line, 4, 0)):
        values = as_array(smooth)
        assert np.abs(np.diff(values, axis=1)).mean() < 0.8 * np.abs(np.diff(sharp, axis=1)).mean()
        assert abs(values.mean() - sharp.mean()) < 2
    horizontal = np.abs(np.diff(as_array(motion_blur(line, 5, 0)), axis=1)).mean()
    vertical = np.abs(np.diff(as_array(motion_blur(line, 5, 90)), axis=1)).mean()
    assert horizontal < 0.8 * vertical


def test_lower_resolution_shrinks_or_restores(line):
    assert lower_resolution(line, 0.5, restore=False).size == (120, 20)
    restored = lower_resolution(line, 0.4)
    assert restored.size == line.size
    assert np.abs(as_array(restored) - as_array(line)).mean() > 2


def test_contrast_is_linear_about_the_middle():
    ramp = Image.fromarray(np.arange(256, dtype=np.uint8)[None].repeat(4, 0))
    assert np.abs(as_array(contrast(ramp)) - as_array(ramp)).max() <= 1
    doubled = as_array(contrast(ramp, gain=2.0))[0]
    assert doubled[0] == 0 and doubled[255] == 255 and abs(doubled[140] - doubled[120] - 40) <= 1
    assert as_array(contrast(ramp, gamma=2.0))[0, 128] < 70


def test_jpeg_keeps_size_and_loses_detail(line):
    bad, good = jpeg(line, 10), jpeg(line, 95)
    assert bad.size == good.size == line.size and bad.mode == "L"
    assert np.abs(as_array(bad) - as_array(line)).mean() > np.abs(as_array(good) - as_array(line)).mean()


def test_cut_out_changes_little(line):
    before = line.tobytes()
    for seed in range(50):
        changed = as_array(cut_out(line, random.Random(seed), 2)) != as_array(line)
        assert changed.mean() < 0.06
    assert line.tobytes() == before


def test_warp_follows_the_matrix():
    image = Image.new("L", (40, 20), 0)
    image.putpixel((10, 5), 255)
    shift = np.array([[1.0, 0, 7], [0, 1, 3], [0, 0, 1]])
    moved = np.asarray(warp(image, shift, (60, 30), fill=9))
    assert moved[8, 17] == 255 and moved.shape == (30, 60)
    assert moved[0, 0] == 9


def test_homography_turns_counter_clockwise_about_the_middle():
    matrix = homography(100, 20, angle=90)
    right_end = mapped(matrix, np.array([[100.0, 10.0]]))[0]
    assert np.allclose(right_end, [0, -50])  # y points down: up is negative
    narrow = mapped(homography(100, 20, tilt_x=0.2), np.array([[100.0, 0], [100.0, 20], [0.0, 0], [0.0, 20]]))
    assert narrow[1, 1] - narrow[0, 1] < 20 < narrow[3, 1] - narrow[2, 1]
    stretched = mapped(homography(100, 20, stretch=1.5, scale=0.5), np.array([[0.0, 0], [100.0, 20]]))
    assert np.allclose(stretched[1] - stretched[0], [75, 10])


def test_elastic_takes_what_is_a_pixel_wide():
    assert elastic(Image.new("L", (1, 16), 7), random.Random(0), 0.2).getextrema() == (7, 7)


def test_elastic_moves_ink_and_loses_none():
    picture = Image.new("L", (160, 40), 255)
    ImageDraw.Draw(picture).rectangle((20, 10, 139, 29), fill=0)
    still = np.asarray(elastic(picture, random.Random(0), 0.0))
    assert np.abs(still.astype(int) - np.asarray(picture)).max() <= 1
    ink = (255 - np.asarray(picture).astype(float)).sum()
    for seed in range(20):
        moved = np.asarray(elastic(picture, random.Random(seed), 0.2))
        assert moved.shape == (40, 160)
        assert np.abs(moved.astype(int) - np.asarray(picture)).max() > 100
        assert 0.6 < (255 - moved.astype(float)).sum() / ink < 1.15
        assert np.array_equal(moved, np.asarray(elastic(picture, random.Random(seed), 0.2)))
