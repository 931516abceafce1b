"""Shards of readings: all rows once and in order, whoever reads, and whatever was there before."""

import json
import os

import pyarrow as pa
import pytest
from pyarrow import parquet
from tiny_recognizer import lines, tiny_recognizer

from hf_ocr.data.image_sets import ImageFiles, StreamedImages
from hf_ocr.models.pipeline_text_recognition import TextRecognitionPipeline
from hf_ocr.shards import columns, read_to_shards

COUNT = 11
BROKEN = 4


@pytest.fixture(scope="module")
def reader():
    model, processor = tiny_recognizer()
    return TextRecognitionPipeline(
        model, tokenizer=processor.tokenizer, image_processor=processor.image_processor, task="text-recognition"
    )


@pytest.fixture(scope="module")
def names(tmp_path_factory):
    """Image files, one of them broken."""
    folder = tmp_path_factory.mktemp("images")
    for number, image in enumerate(lines(COUNT)):
        image.save(folder / f"{number:02}.png")
    (folder / f"{BROKEN:02}.png").write_bytes(b"no image")
    return sorted(map(str, folder.iterdir()))


@pytest.fixture(scope="module")
def expected(reader, names):
    results = reader(names, on_error="skip", return_scores=True, return_boxes="word")
    return [
        {"name": name, "text": result["generated_text"], "score": result.get("score"), "error": result.get("error")}
        | {"words": result.get("words")}
        for name, [result] in zip(names, results, strict=True)
    ]


def read(images, reader, folder, shard_size=3, model="model", **processes):
    read_to_shards(images, reader, folder, model, shard_size, return_boxes="word", **processes)


def rows(folder):
    """The rows of all shards in the order of their names."""
    return [row for path in sorted(folder.glob("*.parquet")) for row in parquet.read_table(path).to_pylist()]


def check(found, expected):
    assert [row["name"] for row in found] == [row["name"] for row in expected]
    assert [row["text"] for row in found] == [row["text"] for row in expected]
    assert [row["error"] for row in found] == [row["error"] for row in expected]
    for row, wanted in zip(found, expected, strict=True):
        assert row["score"] == (None if wanted["score"] is None else pytest.approx(wanted["score"], rel=2e-5))
        assert (row["words"] is None) == (wanted["words"] is None)
        for word, other in zip(row["words"] or [], wanted["words"] or [], strict=True):
            assert word["text"] == other["text"] and word["score"] == pytest.approx(other["score"], rel=2e-5)
            assert word["box"] == pytest.approx(other["box"])


def test_shards_hold_what_the_pipeline_gives(reader, names, expected, tmp_path):
    read(ImageFiles(names), reader, tmp_path)
    found = rows(tmp_path)
    check(found, expected)
    assert any(row["words"] for row in found), "the tiny recognizer must read words here"
    assert "is not an image" in found[BROKEN]["error"] and found[BROKEN]["text"] is None
    assert [(row["part"], row["row"]) for row in found] == [(0, number) for number in range(COUNT)]
    shards = sorted(path.name for path in tmp_path.glob("*.parquet"))
    assert shards == [f"00000-{block:06}.parquet" for block in range(4)]
    assert all(parquet.read_schema(tmp_path / shard).equals(columns()) for shard in shards)


def test_what_is_there_stays_and_the_rest_is_read(reader, names, expected, tmp_path):
    read(ImageFiles(names), reader, tmp_path)
    (tmp_path / "00000-000001.parquet").rename(tmp_path / ".00000-000001.parquet.killed")
    before = {path.name: path.stat().st_ino for path in tmp_path.glob("[0-9]*")}
    read(ImageFiles(names), reader, tmp_path)
    check(rows(tmp_path), expected)
    after = {path.name: path.stat().st_ino for path in tmp_path.glob("[0-9]*")}
    assert after.pop("00000-000001.parquet")
    assert after == before
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        *sorted(before | {"00000-000001.parquet": 0}),
        "_reading.json",
    ]
    assert parquet.read_table(tmp_path).num_rows == COUNT, "the folder is one table"

    def unused(*_, **__):
        raise AssertionError("there is nothing left to read")

    read(ImageFiles(names), unused, tmp_path)


@pytest.mark.parametrize("shard_size", [1, 3, COUNT, 99])
@pytest.mark.parametrize("world", [1, 2, 3])
def test_processes_share_the_shards_and_another_number_of_them_goes_on(
    reader, names, expected, tmp_path, world, shard_size
):
    images = ImageFiles(names)
    for rank in range(world):
        before = {path.name: path.stat().st_ino for path in tmp_path.glob("*.parquet")}
        read(images, reader, tmp_path, shard_size, rank=rank, world=world)
        after = {path.name: path.stat().st_ino for path in tmp_path.glob("*.parquet")}
        assert before.items() <= after.items()
        blocks = {int(name[6:12]) for name in after.keys() - before.keys()}
        assert {block % world for block in blocks} <= {rank}
    check(rows(tmp_path), expected)
    os.unlink(tmp_path / "00000-000000.parquet")
    for rank in range(world + 1):
        read(images, reader, tmp_path, shard_size, rank=rank, world=world + 1)
    check(rows(tmp_path), expected)


@pytest.mark.parametrize("world", [1, 2, 3])
def test_parts_of_a_data_set_are_shared(reader, names, expected, tmp_path, monkeypatch, world):
    """Two files: with three processes each block finds its reader all the same."""
    files = []
    for part, of in enumerate((names[:7], names[7:])):
        images = []
        for name in of:
            with open(name, "rb") as file:
                images.append({"bytes": file.read(), "path": name})
        files.append(str(tmp_path / f"{part}.parquet"))
        parquet.write_table(pa.table({"image": images}), files[-1])
    folder = tmp_path / "out"
    for rank in range(world):
        before = set(folder.glob("*.parquet"))
        read(StreamedImages(files), reader, folder, 2, rank=rank, world=world)
        new = [path.name for path in set(folder.glob("*.parquet")) - before]
        assert new or world == 3
        assert {(int(name[:5]) if world < 3 else int(name[6:12])) % world for name in new} <= {rank}
    found = rows(folder)
    assert [(row["part"], row["row"]) for row in found] == [(0, i) for i in range(7)] + [(1, i) for i in range(4)]
    assert [row["text"] for row in found] == [row["text"] for row in expected]
    # What has been read is not streamed again.
    monkeypatch.setattr(StreamedImages, "blocks", None)
    read(StreamedImages(files), reader, folder, 2, rank=0, world=world)


def test_a_damaged_shard_is_named(reader, names, tmp_path):
    read(ImageFiles(names[:4]), reader, tmp_path)
    (tmp_path / "00000-000001.parquet").write_bytes(b"")
    with pytest.raises(ValueError, match=r"00000-000001.parquet: is not a shard .*Delete it"):
        read(ImageFiles(names[:4]), reader, tmp_path)


def test_other_images_models_and_sizes_are_refused(reader, names, tmp_path):
    read(ImageFiles(names[:2]), reader, tmp_path)
    before = rows(tmp_path)
    for change in ({"images": ImageFiles(names[:3])}, {"shard_size": 4}, {"model": "other"}):
        with pytest.raises(ValueError, match=r"come from another run \((images|shard_size|model) .*another folder"):
            read(**{"images": ImageFiles(names[:2]), "reader": reader, "folder": tmp_path} | change)
    assert rows(tmp_path) == before
    assert json.loads((tmp_path / "_reading.json").read_text())["shard_size"] == 3


def test_a_name_that_is_no_text_is_written_with_escapes(reader, names, tmp_path):
    name = os.fsdecode(os.fsencode(tmp_path / "sch") + b"\xf6n.png")
    try:
        os.link(names[0], name)
    except OSError:
        pytest.skip("this file system takes text only")
    read(ImageFiles([name]), reader, tmp_path / "out")
    assert rows(tmp_path / "out")[0]["name"].endswith("sch\\udcf6n.png")
    assert rows(tmp_path / "out")[0]["error"] is None
