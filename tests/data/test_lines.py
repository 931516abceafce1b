"""Readers: every kind of source gives the same rows, and says what is wrong with what it cannot read."""

import json
import os
import sys
from pathlib import Path

import pytest
from datasets import Dataset, Features, Image, Value
from PIL import Image as PilImage

from hf_ocr.data.lines import measurable_lines, pixel_checksums, read_lines, split_lines
from hf_ocr.models.image_processing_text_line import TextLineImageProcessor

PREPARE = TextLineImageProcessor(height=32)
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


def test_texts_of_a_table_stay_as_they_are_written(images):
    """The loader of datasets makes numbers of some and nothing of others."""
    folder = images[0].parent
    (folder / "metadata.csv").write_text("file_name,text\n" + "".join(
        f"{path.name},{text}\n" for path, text in zip(images, ["0017", "NA", ""], strict=True)
    ))  # fmt: skip
    assert read_lines(folder)["text"][:] == ["0017", "NA", None]  # an empty field cannot say that an image is blank
    (folder / "metadata.csv").write_text("image,text\na.png,b\n")
    with pytest.raises(ValueError, match="no column 'file_name'"):
        read_lines(folder)
    (folder / "metadata.csv").unlink()
    texts = [17, "2024-01-05", ""]
    rows = [json.dumps({"file_name": path.name, "text": text}) for path, text in zip(images, texts, strict=True)]
    (folder / "metadata.jsonl").write_text("\n".join(rows))
    assert read_lines(folder)["text"][:] == ["17", "2024-01-05", ""]


@pytest.mark.parametrize("kind", ["csv", "jsonl", "parquet"])
def test_names_of_images_name_no_parts(images, kind):
    """The loader of datasets would take the image for the test part, and the others for none."""
    folder = images[0].parent
    images[0].rename(folder / "test-0.png")
    rows = {"file_name": ["test-0.png", "line 1.png", "line 2.png"], "text": TEXTS}
    table = Dataset.from_dict(rows)
    getattr(table, {"csv": "to_csv", "jsonl": "to_json", "parquet": "to_parquet"}[kind])(folder / f"metadata.{kind}")
    check(read_lines(folder))


def test_lines_of_one_image_stay_together(tmp_path):
    for index in range(40):  # ten pictures, four times each
        PilImage.new("L", (20, 10), index % 10).save(tmp_path / f"{index}.png")
        (tmp_path / f"{index}.gt.txt").write_text(str(index % 10))
    rows = read_lines(tmp_path)
    first, second = split_lines(rows, 0.2, PREPARE, seed=1)
    assert (len(first), len(second)) == (32, 8)
    assert not set(first["text"]) & set(second["text"])
    assert split_lines(rows, 0.2, PREPARE, seed=1)[1]["text"][:] == second["text"][:]
    assert split_lines(rows, 0.2, PREPARE, seed=2)[1]["text"][:] != second["text"][:]
    assert len(split_lines(rows, 0.01, PREPARE)[1]) == 4  # never nothing
    assert len(split_lines(rows, 0.99, PREPARE)[0]) == 4  # nor all
    with pytest.raises(ValueError, match="share to hold back is 1"):
        split_lines(rows, 1, PREPARE)
    with pytest.raises(ValueError, match="1 readable images cannot be split"):
        split_lines(rows.select([0]), 0.5, PREPARE)


def test_what_cannot_be_read_is_not_held_back(tmp_path, images):
    """A truncated file, one that is not there, and no image at all; and equal pixels have many encodings."""
    images[1].write_bytes(images[1].read_bytes()[:40])
    PilImage.open(images[2]).save(tmp_path / "again.bmp")
    paths = [*map(str, images), str(tmp_path / "gone.png"), None, str(tmp_path / "again.bmp")]
    rows = Dataset.from_dict({"image": paths, "text": list("abcdef")}).cast_column("image", Image())
    first, broken, second, gone, none, again = pixel_checksums(rows)
    assert (broken, gone, none) == (None, None, None) and second == again != first
    for seed in range(8):
        kept, held_back = split_lines(rows, 0.5, PREPARE, seed)
        assert held_back["text"][:] in (["a"], ["c", "f"])
        assert sorted([*kept["text"], *held_back["text"]]) == list("abcdef")


def test_what_cannot_be_prepared_is_neither_held_back_nor_measured(images):
    """Images that load, but are no text lines to the model."""
    PilImage.new("L", (40, 2)).save(images[1])
    PilImage.new("L", (32 * PREPARE.max_width, 20)).save(images[2])
    rows = Dataset.from_dict({"image": [*map(str, images), str(images[0])], "text": list("abcd")})
    rows = rows.cast_column("image", Image())
    assert measurable_lines(rows, PREPARE)["text"][:] == ["a", "d"]
    with pytest.raises(ValueError, match="1 readable images cannot be split"):
        split_lines(rows, 0.5, PREPARE)
    with pytest.raises(ValueError, match="none of 2 lines can be measured: 0 have no text, 2 have an image that"):
        measurable_lines(rows.select([1, 2]), PREPARE)


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


@pytest.mark.parametrize("fault", ["cut off", "other columns", "damaged"])
def test_one_parquet_file_of_several_that_does_not_fit_is_named(tmp_path, images, fault):
    folder = tmp_path / "parts"
    folder.mkdir()
    parquet(folder / "a.parquet", images)
    parquet(folder / "b.parquet", images, **({"text": "label"} if fault == "other columns" else {}))
    whole = (folder / "b.parquet").read_bytes()
    if fault == "cut off":
        (folder / "b.parquet").write_bytes(whole[:-100])
    elif fault == "damaged":
        (folder / "b.parquet").write_bytes(whole[:4] + bytes(len(whole) - 8) + whole[-4:])
    with pytest.raises(ValueError, match=r"b\.parquet: ends with .* cut off" if fault == "cut off" else "^.*parts: .+"):
        read_lines(folder)


@pytest.mark.parametrize(
    ("name", "body"),
    [
        ("csv", b'file_name,text\na.png,"b'),
        ("jsonl", b'{"file_name": "a'),
        ("jsonl", b'["a.png", "b"]\n'),
        ("jsonl", b"null\n"),
        ("jsonl", b'{"file_name": "a.png", "text": "\\ud800"}\n'),
    ],
)
@pytest.mark.parametrize("encoding", ["utf-8", "latin-1"])
def test_a_table_that_cannot_be_read_is_named(images, name, body, encoding):
    table = images[0].parent / f"metadata.{name}"
    table.write_bytes(body if encoding == "utf-8" else b"\xe4" + body)
    with pytest.raises(ValueError, match=rf"metadata\.{name}: .*Expected {name} in UTF-8"):
        read_lines(table.parent)


def test_a_row_that_is_no_row_is_shown(images):
    """A comma of a text that stands in no quotes would cut it."""
    folder = images[0].parent
    (folder / "metadata.csv").write_text('file_name,text\na.png,"1, 2"\na.png,Total, 12.50\n')
    with pytest.raises(ValueError, match=r"metadata\.csv: row 1 has \[' 12\.50'\] beyond .* with commas in quotes"):
        read_lines(folder)
    (folder / "metadata.csv").unlink()
    (folder / "metadata.jsonl").write_text('{"file_name": "a.png", "text": "b"}\n["a.png", "b"]\n')
    with pytest.raises(ValueError, match=r"metadata\.jsonl: row 1 is a list, expected an object"):
        read_lines(folder)


def test_commas_behind_the_last_column_cut_no_text(images):
    table = images[0].parent / "metadata.csv"
    rows = [f"{path.name},{text},," for path, text in zip(images, TEXTS, strict=True)]
    table.write_text("\n".join(["file_name,text", *rows]), encoding="utf-8")
    check(read_lines(table.parent))


def test_grey_is_grey_however_it_was_stored(tmp_path):
    grey = PilImage.linear_gradient("L").resize((40, 20))
    images = {
        "L": grey,
        "RGB": grey.convert("RGB"),
        "P": grey.convert("P"),
        "red": PilImage.new("RGB", (40, 20), "red"),
    }
    for name, image in images.items():
        image.save(tmp_path / f"{name}.png")
        (tmp_path / f"{name}.gt.txt").write_text(name)
    rows = read_lines(tmp_path)
    assert {image.mode for image in rows["image"]} == {"L", "RGB", "P"}
    checksums = dict(zip(rows["text"], pixel_checksums(rows), strict=True))
    assert checksums["L"] == checksums["RGB"] == checksums["P"] != checksums["red"]


def test_brackets_in_the_name_of_a_file_are_no_pattern(tmp_path, images):
    parquet(tmp_path / "train[0].parquet", images)
    check(read_lines(tmp_path / "train[0].parquet"))


def test_hidden_files_are_no_lines(images):
    folder = images[0].parent
    for path, text in zip(images, TEXTS, strict=True):
        path.with_name(path.stem + ".gt.txt").write_text(text, encoding="utf-8")
    (folder / ".checkpoints").mkdir()
    for hidden in (folder / "._line 0", folder / ".checkpoints" / "line"):
        hidden.with_suffix(".png").write_bytes(b"\0")
        hidden.with_suffix(".gt.txt").write_bytes(b"\xff")
    check(read_lines(folder))
    hidden = folder.rename(folder.with_name(".given"))
    check(read_lines(hidden))


@pytest.mark.skipif(sys.platform != "linux", reason="other systems have no such names")
def test_a_name_that_is_no_text_is_shown(tmp_path):
    path = Path(os.fsdecode(os.fsencode(tmp_path) + b"/caf\xe9.png"))
    PilImage.new("L", (20, 10)).save(path)
    path.with_suffix(".gt.txt").write_text("a")
    with pytest.raises(ValueError, match=r"caf\\udce9\.png': the name is not in UTF-8"):
        read_lines(tmp_path)
