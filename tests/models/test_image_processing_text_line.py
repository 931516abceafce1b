from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from hf_ocr.models.image_loading import ImageError
from hf_ocr.models.image_processing_text_line import TextLineImageProcessor


def line(width: int, height: int = 32, seed: int = 0) -> Image.Image:
    return Image.fromarray(np.random.default_rng(seed).integers(0, 256, (height, width), np.uint8))


def test_the_batch_holds_each_line_scaled_to_minus_one_to_one_and_zero_behind_it() -> None:
    lines = [line(100), line(230, seed=1), line(64, seed=2)]
    batch = TextLineImageProcessor()(lines, return_tensors="pt")
    assert batch["pixel_values"].shape == (3, 1, 32, 230)
    assert batch["pixel_values"].dtype == torch.float32
    assert batch["pixel_values"].is_contiguous()
    assert batch["widths"].dtype == torch.int64
    assert batch["widths"].tolist() == [100, 230, 64]
    for row, image in zip(batch["pixel_values"], lines, strict=True):
        want = torch.from_numpy(np.array(image)).float() / 127.5 - 1
        assert torch.allclose(row[0, :, : image.width], want, atol=1e-6)
        assert (row[:, :, image.width :] == 0).all()


def test_neighbours_do_not_change_a_line() -> None:
    processor = TextLineImageProcessor()
    alone = processor([line(90, 45)], return_tensors="np")
    beside = processor([line(500, 40, seed=5), line(90, 45)], return_tensors="np")
    width = int(alone["widths"][0])
    assert np.array_equal(alone["pixel_values"][0], beside["pixel_values"][1, :, :, :width])


@pytest.mark.parametrize(
    ("size", "height", "want"),
    [
        ((320, 32), 32, 320),
        ((100, 50), 32, 64),
        ((101, 48), 32, 67),
        ((100, 48), 32, 67),
        ((300, 20), 48, 720),
        ((10, 32), 32, 64),
        ((3, 3), 32, 64),
        ((4096, 32), 32, 4096),
    ],
)
def test_width_follows_the_aspect_down_to_the_minimum(size: tuple[int, int], height: int, want: int) -> None:
    processor = TextLineImageProcessor(height=height)
    assert processor.resized_width(*size) == want
    batch = processor(Image.new("L", size), return_tensors="np")
    assert batch["pixel_values"].shape == (1, 1, height, want)
    assert batch["widths"].tolist() == [want]


def test_narrow_lines_are_widened_not_padded() -> None:
    image = Image.fromarray(np.tile(np.array([0, 255], np.uint8).repeat(16), (32, 1)))  # left half black
    values = TextLineImageProcessor()(image, return_tensors="np")["pixel_values"][0, 0]
    assert values.shape == (32, 64)
    assert (values[:, :28] == -1).all()
    assert (values[:, 36:] == 1).all()


def test_shrinking_greys_thin_strokes_instead_of_losing_them() -> None:
    pixels = np.full((320, 1000), 255, np.uint8)
    pixels[:, 503:505] = 0  # a stroke of 2 px in a line made ten times smaller
    values = TextLineImageProcessor()(pixels, return_tensors="np")["pixel_values"][0, 0]
    assert values[:, 48:53].min() < 0.9
    assert values[:, :40].min() == 1


def test_grey_is_luma_and_colour_stays_colour() -> None:
    red = Image.new("RGB", (64, 32), (255, 0, 0))
    grey = TextLineImageProcessor()(red, return_tensors="np")["pixel_values"]
    assert np.allclose(grey, 76 / 127.5 - 1, atol=1e-6)
    colour = TextLineImageProcessor(num_channels=3)([red, line(80)], return_tensors="np")["pixel_values"]
    assert colour.shape == (2, 3, 32, 80)
    assert (colour[0, 0, :, :64] == 1).all()
    assert (colour[0, 1:, :, :64] == -1).all()
    assert np.array_equal(colour[1, 0], colour[1, 2])


def test_narrow_lines_padded_with_black_and_wide_ones_as_ever() -> None:
    processor = TextLineImageProcessor(narrow="pad", min_width=64)
    batch = processor([Image.new("L", (20, 32), 255), line(90)], return_tensors="np")
    assert batch["widths"].tolist() == [64, 90]
    values = batch["pixel_values"][0, 0]
    assert (values[:, :20] == 1).all() and (values[:, 20:64] == -1).all() and (values[:, 64:] == 0).all()
    assert [processor.text_width(*size) for size in ((20, 32), (90, 32), (3, 300))] == [20, 90, 1]
    assert processor.resized_width(20, 32) == 64


def test_one_width_for_all_stretches() -> None:
    processor = TextLineImageProcessor(min_width=100, max_width=100)
    batch = processor([line(20), line(900), line(30, 400)], return_tensors="np")
    assert batch["pixel_values"].shape == (3, 1, 32, 100) and batch["widths"].tolist() == [100] * 3
    assert processor.text_width(20, 32) == 100


def test_lines_are_resized_by_the_filter_of_the_settings() -> None:
    image = Image.effect_noise((90, 50), 60)
    cubic = TextLineImageProcessor(resample=3)(image, return_tensors="np")["pixel_values"][0, 0]
    assert np.allclose(cubic, np.asarray(image.resize((64, 32), Image.Resampling.BICUBIC)) / 127.5 - 1, atol=1e-6)
    linear = TextLineImageProcessor()(image, return_tensors="np")["pixel_values"][0, 0]
    assert np.allclose(linear, np.asarray(image.resize((64, 32), Image.Resampling.BILINEAR)) / 127.5 - 1, atol=1e-6)


@pytest.mark.parametrize("num_channels", [1, 3])
@pytest.mark.parametrize("height", [38, 30])  # the second is that of the part: nothing is resized
def test_of_a_loose_crop_the_part_with_text_is_prepared(height: int, num_channels: int) -> None:
    pixels = np.full((100, 300, 3), 230, np.uint8)
    pixels[40:60, 30:270:3] = (20, 60, 90)
    image = Image.fromarray(pixels)
    prepare = TextLineImageProcessor(height=height, num_channels=num_channels)
    part = prepare.cut_to_text(image)
    assert part.size == (248, 30)
    given, cut = prepare(image), prepare(part)
    assert given["pixel_values"].shape[3] == round(248 * height / 30)
    np.testing.assert_array_equal(given["pixel_values"], cut["pixel_values"])


def test_mean_and_std() -> None:
    values = TextLineImageProcessor(mean=0.25, std=2.0)(Image.new("L", (64, 32), 255), return_tensors="np")
    assert np.allclose(values["pixel_values"], 0.375)
    processor = TextLineImageProcessor(num_channels=3, mean=[0.0, 0.5, 1.0], std=[1.0, 0.5, 0.25])
    values = processor(Image.new("RGB", (64, 32), "white"), return_tensors="np")["pixel_values"][0]
    assert np.allclose(values[:, 5, 5], [1.0, 1.0, 0.0], atol=1e-6)


def test_tensors_arrays_or_arrays_by_default() -> None:
    processor = TextLineImageProcessor()
    assert isinstance(processor(line(70), return_tensors="pt")["pixel_values"], torch.Tensor)
    for kind in ("np", None):
        batch = processor(line(70), return_tensors=kind)
        assert isinstance(batch["pixel_values"], np.ndarray)
        assert batch["pixel_values"].dtype == np.float32
        assert batch["widths"].dtype == np.int64


@pytest.mark.parametrize("kind", ["pt", "np", None])
def test_an_empty_list_is_a_batch_of_none(kind: str | None) -> None:
    batch = TextLineImageProcessor(num_channels=3)([], return_tensors=kind)
    assert tuple(batch["pixel_values"].shape) == (0, 3, 32, 64)
    assert tuple(batch["widths"].shape) == (0,)
    assert str(batch["widths"].dtype).endswith("int64")


def test_whatever_can_be_loaded_can_be_prepared(tmp_path: Path) -> None:
    image = line(120)
    path = tmp_path / "line.png"
    image.save(path)
    pixels = np.asarray(image)
    sources = [image, path, str(path), path.read_bytes(), pixels, torch.from_numpy(pixels.copy()), pixels / 255]
    values = TextLineImageProcessor()(tuple(sources), return_tensors="np")["pixel_values"]
    assert values.shape == (7, 1, 32, 120)
    assert (values == values[0]).all()


@pytest.mark.parametrize(
    ("size", "words"),
    [
        ((1, 1), "too small"),
        ((200, 2), "at least 3 px"),
        ((2, 200), "at least 3 px"),
        ((50_000, 32), "50000 px wide at height 32"),
        ((10, 30_000), "far too tall"),
        ((4097, 32), "raise max_width"),
    ],
)
def test_what_is_no_text_line_is_refused_with_its_size(size: tuple[int, int], words: str) -> None:
    processor = TextLineImageProcessor()
    with pytest.raises(ImageError, match=f"image of {size[0]} x {size[1]} px.*") as caught:
        processor(Image.new("L", size))
    assert words in str(caught.value)
    with pytest.raises(ImageError):
        processor.resized_width(*size)


def test_the_place_of_a_bad_image_in_its_batch_is_named() -> None:
    with pytest.raises(ImageError, match=r"image 1 of 2: 'nowhere\.png': no such file"):
        TextLineImageProcessor()([line(70), "nowhere.png"])


@pytest.mark.parametrize(
    "settings",
    [
        {"height": 0},
        {"height": "32"},
        {"height": 10**9},
        {"min_width": 0},
        {"min_width": 100, "max_width": 99},
        {"max_width": True},
        {"num_channels": 2},
        {"std": 0.0},
        {"std": float("nan")},
        {"std": 1e-30},
        {"mean": [0.5]},
        {"mean": [0.5, 0.5, "0.5"]},
        {"mean": float("inf")},
        {"narrow": "crop"},
        {"resample": 9},
        {"resample": "cubic"},
    ],
    ids=str,
)
def test_settings_that_make_no_image(settings: dict[str, object]) -> None:
    with pytest.raises(
        ValueError, match=rf"TextLineImageProcessor: {next(iter(settings))} is .*, expected .*\. Change"
    ):
        TextLineImageProcessor(**{"num_channels": 3, **settings})


def test_a_setting_may_not_take_the_place_of_a_method() -> None:
    with pytest.raises(ValueError, match="'preprocess' is no setting"):
        TextLineImageProcessor(preprocess=1)


def test_settings_survive_saving_and_can_be_overridden(tmp_path: Path) -> None:
    settings = {"height": 48, "min_width": 80, "max_width": 2000, "num_channels": 3, "mean": 0.4, "std": 0.2}
    settings |= {"narrow": "pad", "resample": 3}
    processor = TextLineImageProcessor(**settings)
    processor.save_pretrained(tmp_path)
    loaded = TextLineImageProcessor.from_pretrained(tmp_path)
    assert {name: getattr(loaded, name) for name in settings} == settings
    assert loaded.to_dict() == processor.to_dict()
    image = line(90, 30)
    assert np.array_equal(processor(image)["pixel_values"], loaded(image)["pixel_values"])
    assert TextLineImageProcessor.from_pretrained(tmp_path, height=40).height == 40
    with pytest.raises(ValueError, match="num_channels is 7"):
        TextLineImageProcessor.from_pretrained(tmp_path, num_channels=7)
