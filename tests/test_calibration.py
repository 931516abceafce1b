"""The temperature that is fitted, with a reader whose right answer is known and with a real one."""

import json
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from datasets import Dataset, Features, Value
from datasets import Image as ImageFeature
from PIL import Image
from tiny_recognizer import lines, tiny_recognizer
from transformers import AutoConfig

from hf_ocr.calibration import CalibrationError, fit_temperature, save_temperature
from hf_ocr.cli import main
from hf_ocr.models.modeling_outputs import Recognition
from hf_ocr.models.reading import read_images


class Boaster:
    """Reads "a" with log-odds that are `boast` times those of being right: divided by it they are true."""

    device = torch.device("cpu")

    def __init__(self, boast):
        self.config = SimpleNamespace(temperature=1.0)
        self.boast = boast
        self.lines = 0

    def recognize(self, pixel_values, widths, num_beams=1, with_characters=True):
        self.lines += len(pixel_values)
        odds = pixel_values[:, 0, 0, 0].double() * 4  # in the grey of the image
        scores = torch.sigmoid(self.boast * odds / self.config.temperature)
        return Recognition(torch.ones(len(scores), 1).long(), scores, raw_scores=torch.ones(len(scores)))


class Alphabet:
    @property
    def image_processor(self):
        return self

    def preprocess(self, images):
        greys = [np.asarray(image)[0, 0] / 127.5 - 1 for image in images]
        return {
            "pixel_values": np.stack([np.full((1, 32, 32), grey, dtype=np.float32) for grey in greys]),
            "widths": np.full(len(images), 32),
        }

    def batch_decode(self, sequences):
        return ["a"] * len(sequences)


def answers(count, seed=0):
    generator = np.random.default_rng(seed)
    greys = generator.integers(0, 256, count)
    right = generator.random(count) < 1 / (1 + np.exp(-4 * (greys / 127.5 - 1)))
    return [
        {"image": Image.new("L", (32, 32), int(grey)), "text": "a" if hit else "b"}
        for grey, hit in zip(greys, right, strict=True)
    ]


@pytest.mark.parametrize("boast", [0.5, 2.5])
def test_the_temperature_undoes_what_the_scores_boast(boast):
    model = Boaster(boast)
    fit = fit_temperature(model, Alphabet(), answers(4000), batch_size=4000)
    assert fit.temperature == pytest.approx(boast, rel=0.1)
    assert fit.after.ece < 0.03 < fit.before.ece
    assert fit.after.brier < fit.before.brier
    assert fit.after.aurc == pytest.approx(fit.before.aurc)  # the order of the lines is the same
    assert model.config.temperature == 1.0
    assert model.lines < 20 * 4000


def test_lines_that_tell_nothing_are_refused_and_the_model_is_left_as_it_was():
    model = Boaster(1.0)
    model.config.temperature = 1.5
    rows = [{"image": Image.new("L", (32, 32), 200), "text": "a"}] * 3
    with pytest.raises(CalibrationError, match="Of 3 lines 3 are read right; expected some right and some wrong"):
        fit_temperature(model, Alphabet(), rows)
    with pytest.raises(CalibrationError, match="Of 3 lines 0 are read right"):
        fit_temperature(model, Alphabet(), [{**row, "text": "b"} for row in rows])
    assert model.config.temperature == 1.5


def test_the_command_writes_one_number_and_the_texts_stay(tmp_path, capsys):
    model, processor = tiny_recognizer()
    folder = tmp_path / "model"
    model.save_pretrained(folder)
    processor.save_pretrained(folder)
    images = lines(12)
    readings = read_images(model, processor, images)
    labels = [reading.text if index % 3 else "no" for index, reading in enumerate(readings)]
    rows = Dataset.from_dict({"image": images, "text": labels}).cast_column("image", ImageFeature())
    rows.to_parquet(tmp_path / "lines.parquet")
    before = json.loads((folder / "config.json").read_text())

    assert main(["calibrate", str(folder), str(tmp_path / "lines.parquet"), "--dry-run"]) == 0
    assert json.loads((folder / "config.json").read_text()) == before
    assert main(["calibrate", str(folder), str(tmp_path / "lines.parquet")]) == 0
    assert "calibration error (ECE)" in capsys.readouterr().out
    after = json.loads((folder / "config.json").read_text())
    temperature = after.pop("temperature")
    before.pop("temperature")
    assert after == before and temperature != 1.0
    assert AutoConfig.from_pretrained(folder).temperature == temperature
    again = read_images(type(model).from_pretrained(folder), processor, images)
    assert [reading.text for reading in again] == [reading.text for reading in readings]
    assert [reading.score for reading in again] != [reading.score for reading in readings]
    assert not list(folder.glob("*.part"))


def test_broken_images_and_lines_without_a_text_are_left_out(tmp_path, capsys):
    model, processor = tiny_recognizer()
    model.save_pretrained(tmp_path / "model")
    processor.save_pretrained(tmp_path / "model")
    images = lines(6)
    labels = [reading.text for reading in read_images(model, processor, images[:5])]
    rows = {
        "image": [*images, {"bytes": b"no image"}, Image.new("L", (9, 2))],
        "text": ["no", *labels[1:], None, "a", "a"],
    }
    Dataset.from_dict(rows, Features({"image": ImageFeature(), "text": Value("string")})).to_parquet(
        tmp_path / "lines.parquet"
    )
    assert main(["calibrate", str(tmp_path / "model"), str(tmp_path / "lines.parquet"), "--dry-run"]) == 0
    assert capsys.readouterr().out.startswith("5 lines; ")


@pytest.mark.parametrize("exif", [b"Exif\0\0garbage!", b"II*\0"])
def test_damaged_exif_hinders_no_fit(tmp_path, exif):
    """The pixels are good; the decoding of datasets fails at it."""
    model, processor = tiny_recognizer()
    images = lines(4)
    labels = ["no", *(reading.text for reading in read_images(model, processor, images[1:]))]
    files = [str(tmp_path / f"{index}.png") for index in range(4)]
    for image, file in zip(images, files, strict=True):
        image.save(file, exif=exif)
    rows = Dataset.from_dict({"image": files, "text": labels}).cast_column("image", ImageFeature())
    drawn = [{"image": image, "text": text} for image, text in zip(images, labels, strict=True)]
    assert fit_temperature(model, processor, rows) == fit_temperature(model, processor, drawn)


def test_the_command_says_what_is_missing(tmp_path, capsys):
    assert main(["calibrate", str(tmp_path / "none"), "lines"]) == 1
    assert "no such folder" in capsys.readouterr().err
    with pytest.raises(CalibrationError, match=r"config\.json: cannot be read"):
        save_temperature(tmp_path, 2.0)
