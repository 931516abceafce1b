"""BatchReader: all forms of a batch, `map` of datasets with processes and its cache, Ray Data with a killed worker."""

import copy
import io
import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
import torch
from datasets import Dataset
from datasets import Image as EncodedImage
from datasets.fingerprint import Hasher
from PIL import Image, ImageDraw, ImageFont
from pyarrow import parquet
from tiny_recognizer import lines, tiny_recognizer
from transformers import pipeline

from hf_ocr.batch_reading import BatchReader

ROOT = Path(__file__).parents[1]
COUNT = 9
BROKEN = 5


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    return save(tmp_path_factory.mktemp("checkpoint"))


def save(folder, seed=0):
    model, processor = tiny_recognizer(seed)
    model.save_pretrained(folder)
    processor.save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def expected(checkpoint):
    read = pipeline("text-recognition", model=str(checkpoint))
    return [result for [result] in read(lines(COUNT), return_scores=True, return_boxes="word")]


def encoded(image):
    buffer = io.BytesIO()
    image.save(buffer, "PNG")
    return buffer.getvalue()


@pytest.fixture(scope="module")
def rows():
    """A data set whose images are not decoded, one of them broken."""
    images = [{"bytes": encoded(image), "path": None} for image in lines(COUNT)]
    images[BROKEN] = {"bytes": b"no image", "path": None}
    rows = Dataset.from_dict({"image": images, "id": list(range(COUNT))})
    return rows.cast_column("image", EncodedImage(decode=False))


def test_every_form_of_an_image_gives_what_the_pipeline_gives(checkpoint, expected, tmp_path):
    paths = []
    for number, image in enumerate(lines(COUNT)):
        paths.append(str(tmp_path / f"{number}.png"))
        image.save(paths[-1])
    as_objects = np.empty(COUNT, object)
    as_objects[:] = [{"bytes": encoded(image), "path": None} for image in lines(COUNT)]
    read = BatchReader(checkpoint, boxes="word", keep=["id"])
    for images in (
        lines(COUNT), paths, np.array(paths), as_objects, [encoded(image) for image in lines(COUNT)],
        [np.asarray(image) for image in lines(COUNT)], [{"bytes": None, "path": path} for path in paths],
    ):  # fmt: skip
        columns = read({"image": images, "id": range(COUNT), "other": range(COUNT)})
        assert columns.keys() == {"id", "text", "score", "error", "words"}
        assert columns["text"] == [result["generated_text"] for result in expected]
        assert columns["score"] == pytest.approx([result["score"] for result in expected], rel=2e-5)
        assert columns["error"] == [""] * COUNT
        assert [[word["text"] for word in words] for words in columns["words"]] == [
            [word["text"] for word in result["words"]] for result in expected
        ]
        assert list(columns["id"]) == list(range(COUNT))


def test_images_of_one_size_in_one_array_are_read(checkpoint):
    image = lines(1)[0]
    columns = BatchReader(checkpoint)({"image": np.stack([np.asarray(image)] * 2)})
    assert columns["text"] == BatchReader(checkpoint, image_column="scan")({"scan": [image] * 2})["text"]


@pytest.mark.parametrize("processes", [None, 2])
def test_map_of_datasets_adds_the_columns(checkpoint, expected, rows, processes):
    torch.nn.Conv2d(1, 8, 3)(torch.zeros(4, 1, 64, 64))  # threads of the parent, which a forked process lacks
    read = BatchReader(checkpoint)
    found = rows.map(read, batched=True, batch_size=2, num_proc=processes, load_from_cache_file=False)
    assert found.column_names == ["image", "id", "text", "score", "error"]
    for number, (row, wanted) in enumerate(zip(found, expected, strict=True)):
        if number == BROKEN:
            assert (row["text"], row["score"]) == ("", 0) and "is not an image" in row["error"]
        else:
            assert (row["text"], row["error"]) == (wanted["generated_text"], "")
            assert row["score"] == pytest.approx(wanted["score"], rel=2e-5)


def test_datasets_knows_what_it_has_read_by_options_and_weights(checkpoint, tmp_path):
    read = BatchReader(checkpoint)
    before = Hasher.hash(read)
    read({"image": lines(1)})
    assert Hasher.hash(read) == before == Hasher.hash(BatchReader(str(checkpoint)))
    folder = save(tmp_path / "checkpoint")
    others = [BatchReader(checkpoint, boxes="word"), BatchReader(checkpoint, keep=["id"]), BatchReader(folder)]
    assert len({before, *map(Hasher.hash, others)}) == 4
    save(folder, seed=1)
    assert Hasher.hash(BatchReader(folder)) != Hasher.hash(others[-1])


def test_a_copy_travels_without_the_model_and_reads_the_same(checkpoint):
    read = BatchReader(checkpoint)
    text = read({"image": lines(2)})["text"]
    state = copy.copy(read).__dict__
    assert not any(isinstance(value, torch.nn.Module) or hasattr(value, "model") for value in state.values())
    assert copy.copy(read)({"image": lines(2)})["text"] == text


def test_a_column_that_is_not_there_is_named(checkpoint):
    with pytest.raises(KeyError, match="image"):
        BatchReader(checkpoint)({"scan": lines(1)})


@pytest.mark.slow
def test_ray_gives_each_row_once_although_a_worker_is_killed(tmp_path):
    """By the script that measures it, which compares every text with those of a plain loop."""
    pytest.importorskip("ray")
    images = []
    for number in range(40):
        image = Image.new("L", (44, 32), 255)
        ImageDraw.Draw(image).text((6, 2), str(number), fill=0, font=ImageFont.load_default(24))
        images.append({"bytes": encoded(image), "path": None})
    parquet.write_table(pa.table({"image": images}), tmp_path / "lines")
    command = [sys.executable, str(ROOT / "scripts" / "benchmark_ray.py"), "--lines", "2000"]
    done = subprocess.run(
        [*command, "--data", str(tmp_path / "lines"), "--output", str(tmp_path / "record.json")],
        env=os.environ | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}, capture_output=True, text=True,
        timeout=1500,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-3000:]
    results = json.loads((tmp_path / "record.json").read_text())["results"]
    assert [result["processes"] for result in results.values()][:3] == [1, 1, 2]
    assert results["2 workers, one killed"]["processes"] >= 2
