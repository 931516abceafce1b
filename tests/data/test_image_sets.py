"""Blocks of images: each image in one block, whatever the source; what a block holds depends on its number alone."""

import io
import os
import zipfile

import datasets
import pyarrow as pa
import pytest
from pyarrow import parquet
from tiny_recognizer import lines

from hf_ocr.data.image_sets import ImageFiles, StreamedImages


def encoded(image):
    buffer = io.BytesIO()
    image.save(buffer, "PNG")
    return buffer.getvalue()


@pytest.fixture
def parts(tmp_path):
    """Two parquet files of 7 and 4 rows, in row groups that fit no block."""
    files = []
    for number, count in enumerate((7, 4)):
        images = [{"bytes": encoded(image), "path": f"{number}-{i}"} for i, image in enumerate(lines(count, number))]
        files.append(str(tmp_path / f"{number}.parquet"))
        parquet.write_table(pa.table({"image": images, "id": range(count)}), files[-1], row_group_size=3)
    return files


def everything(images, size, wanted=lambda block: True):
    return [
        [(number, [row.name for row in rows]) for number, rows in images.blocks(part, size, wanted)]
        for part in range(images.num_parts)
    ]


@pytest.mark.parametrize("count, sizes", [(0, [0]), (1, [1]), (3, [3, 0]), (7, [3, 3, 1])])
def test_the_last_block_of_files_is_shorter_than_the_others(count, sizes):
    names = [f"{number}.png" for number in range(count)]
    (blocks,) = everything(ImageFiles(names), 3)
    assert [(number, len(rows)) for number, rows in blocks] == list(enumerate(sizes))
    assert [name for _, rows in blocks for name in rows] == names


def test_files_of_a_data_set_are_its_parts(parts):
    images = StreamedImages(parts)
    assert (images.num_images, images.num_parts) == (11, 2)
    first = [f"0-{row}" for row in range(7)]
    second = [f"1-{row}" for row in range(4)]
    assert everything(images, 3) == [
        [(0, first[:3]), (1, first[3:6]), (2, first[6:])],
        [(0, second[:3]), (1, second[3:])],
    ]
    assert everything(images, 4)[1] == [(0, second), (1, [])]
    assert everything(images, 3, lambda block: block == 1) == [[(1, first[3:6])], [(1, second[3:])]]
    (_, rows), *_ = images.blocks(1, 3, lambda block: True)
    assert rows[0].image == encoded(lines(4, 1)[0])


def test_a_column_of_another_name_and_kind_is_taken(tmp_path):
    path = str(tmp_path / "a.parquet")
    parquet.write_table(pa.table({"scan": [b"x"], "file": ["a.png"]}), path)
    assert list(StreamedImages([path], column="scan").blocks(0, 2, lambda block: True)) == [(0, [(None, b"x")])]
    assert list(StreamedImages([path], column="file").blocks(0, 2, lambda block: True)) == [(0, [("a.png", "a.png")])]
    with pytest.raises(ValueError, match=r"no column 'image', it has scan, file"):
        StreamedImages([path])


def test_images_in_an_archive_come_as_bytes(tmp_path):
    folder = tmp_path / "set"
    folder.mkdir()
    with zipfile.ZipFile(folder / "train.zip", "w") as archive:
        for number, image in enumerate(lines(3)):
            archive.writestr(f"{number}.png", encoded(image))
    images = StreamedImages(str(folder))
    ((_, rows),) = images.blocks(0, 5, lambda block: True)
    assert [row.image for row in rows] == [encoded(image) for image in lines(3)]
    assert [row.name.split("::")[0] for row in rows] == [f"zip://{number}.png" for number in range(3)]


def test_a_data_set_of_the_hub_is_read_from_the_cache(tmp_path, parts, monkeypatch):
    builder = datasets.load_dataset_builder("parquet", data_files={"train": parts}, cache_dir=str(tmp_path / "other"))
    builder.dataset_name = "lines"
    builder.download_and_prepare(output_dir=str(tmp_path / "cache" / "owner___lines" / "default" / "0.0.0" / "hash"))
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")
    images = StreamedImages("owner/lines")
    assert images.num_images == 11
    assert sum(len(rows) for part in everything(images, 3) for _, rows in part) == 11


def test_one_of_several_splits_is_named(tmp_path, parts):
    os.rename(parts[0], tmp_path / "train.parquet")
    os.rename(parts[1], tmp_path / "test.parquet")
    with pytest.raises(ValueError, match=r"no split is named. Choose one of train, test"):
        StreamedImages(str(tmp_path))
    with pytest.raises(ValueError, match=r"no split 'dev'. Choose one of train, test"):
        StreamedImages(str(tmp_path), split="dev")
    assert len(everything(StreamedImages(str(tmp_path), split="test"), 9)[0][0][1]) == 4


@pytest.mark.parametrize("path", ["no/such-data-set", ["missing.parquet"], ["broken.parquet"]])
def test_what_is_no_data_set_is_named(tmp_path, monkeypatch, path):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "broken.parquet").write_bytes(b"PAR1 no more")
    with pytest.raises(ValueError, match=r"cannot be read as a data set .*Expected parquet files"):
        StreamedImages(path)


def test_a_fingerprint_knows_names_sizes_and_column_but_no_times(tmp_path, parts):
    image = tmp_path / "a.png"
    image.write_bytes(b"1")
    names = [str(image), "https://example.com/b.png"]
    before = ImageFiles(names).fingerprint()
    os.utime(image, (0, 0))
    assert ImageFiles(names).fingerprint() == before
    assert ImageFiles(names[::-1]).fingerprint() != before
    image.write_bytes(b"12")
    assert ImageFiles(names).fingerprint() != before
    fingerprints = [
        StreamedImages(parts).fingerprint(),
        StreamedImages(parts[::-1]).fingerprint(),
        StreamedImages(parts, column="id").fingerprint(),
    ]
    assert len({*fingerprints, StreamedImages(parts).fingerprint()}) == 3
