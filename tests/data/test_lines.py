"""Readers: every kind of source gives the same rows, and says what is wrong with what it cannot read."""

import json

import pytest
from datasets import Dataset, Features, Image, Value
from PIL import Image as PilImage

from hf_ocr.data.lines import read_lines

TEXTS = ["one", "zwölf", " two words"]


@pytest.fixture
def images(tmp_path):
    paths = []
    for index in range(3):
        path = tmp_path / "images" / f"line {index}.png"
        path.parent.mkdir(exist_ok=True)
        PilImage.new("L", (40 + index, 20), 255 - index).save(path)
        paths.append(path)
    return paths


def check(rows):
    assert rows.column_names == ["image", "text"]
    rows = sorted(rows, key=lambda row: row["image"].width)
    assert [row["text"] for row in rows] == TEXTS
    assert [row["image"].size for row in rows] == [(40, 20), (41, 20), (42, 20)]


def parquet(path, images, **names):
    image, text = names.get("image", "image"), names.get("text", "text")
    rows = {image: [str(p) for p in images], text: TEXTS, "more": [1, 2, 3]}
    features = Features({image: Image(), text: Value("string"), "more": Value("int64")})
    Dataset.from_dict(rows, features=features).to_parquet(path)


def test_parquet_file_and_folder(tmp_path, images):
    folder = tmp_path / "parts"
    folder.mkdir()
    parquet(folder / "train.parquet", images)
    check(read_lines(folder / "train.parquet"))
    check(read_lines(folder))


def test_named_columns(tmp_path, images):
    parquet(tmp_path / "x.parquet", images, image="crop", text="label")
    check(read_lines(tmp_path / "x.parquet", image_column="crop", text_column="label"))
    with pytest.raises(ValueError, match=r"no column 'image'.*crop"):
        read_lines(tmp_path / "x.parquet")


@pytest.mark.parametrize("kind", ["csv", "jsonl"])
def test_image_folder(images, kind):
    folder = images[0].parent
    if kind == "csv":
        body = "file_name,text\n" + "".join(f'{p.name},"{t}"\n' for p, t in zip(images, TEXTS, strict=True))
    else:
        lines = [json.dumps({"file_name": p.name, "text": t}) for p, t in zip(images, TEXTS, strict=True)]
        body = "\n".join(lines) + "\n"
    (folder / f"metadata.{kind}").write_text(body, encoding="utf-8")
    check(read_lines(folder))


def test_pairs(images):
    for path, text in zip(images, TEXTS, strict=True):
        path.with_name(path.stem + ".gt.txt").write_text(text + "\n", encoding="utf-8")
    check(read_lines(images[0].parent))


def test_a_mark_in_front_of_the_text_is_no_character(images):
    for path, text in zip(images, TEXTS, strict=True):
        path.with_name(path.stem + ".gt.txt").write_text(text, encoding="utf-8-sig")
    check(read_lines(images[0].parent))


def test_images_without_a_text_are_given_where_they_are_wanted(images):
    for path, text in zip(images[:2], TEXTS, strict=False):
        path.with_name(path.stem + ".gt.txt").write_text(text, encoding="utf-8")
    assert read_lines(images[0].parent)["text"][:] == TEXTS[:2]
    assert read_lines([images[0].parent], unlabelled=True)["text"][:] == [*TEXTS[:2], None]


def test_a_list_is_joined(tmp_path, images):
    parquet(tmp_path / "x.parquet", images)
    assert len(read_lines([tmp_path / "x.parquet", tmp_path / "x.parquet"])) == 6


def test_further_columns_are_kept_where_they_are(tmp_path, images):
    parquet(tmp_path / "x.parquet", images)
    for image, text in zip(images, TEXTS, strict=True):
        image.with_suffix(".gt.txt").write_text(text, encoding="utf-8")
    rows = read_lines([tmp_path / "x.parquet", images[0].parent], more_columns=["more", "document"])
    assert rows.column_names == ["image", "text", "more"]
    assert rows["more"][:] == [1, 2, 3, None, None, None]


def test_errors_name_the_source(tmp_path, images):
    with pytest.raises(ValueError, match="absent: no such file"):
        read_lines(tmp_path / "absent")
    with pytest.raises(ValueError, match="3 images, none with a text"):
        read_lines(images[0].parent)
    label = images[0].with_name(images[0].stem + ".gt.txt")
    label.write_bytes("Käse".encode("latin-1"))
    with pytest.raises(ValueError, match=rf"{label.name}: .*Expected UTF-8"):
        read_lines(images[0].parent)
    (tmp_path / "y.parquet").write_text("not parquet")
    with pytest.raises(ValueError, match="parquet: begins with"):
        read_lines(tmp_path / "y.parquet")
