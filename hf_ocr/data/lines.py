"""Rows {"image", "text"} from files: parquet, an image folder with metadata, or pairs of image and `.gt.txt`."""

from __future__ import annotations

import csv
import glob
import hashlib
import json
import os
from collections import defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from PIL import Image as PilImage

from hf_ocr.models.image_loading import load_image

if TYPE_CHECKING:  # an extra: the command imports this module, and reading needs no data sets
    from datasets import Dataset

TABLES = ("csv", "jsonl", "parquet")
IMAGE_SUFFIXES = frozenset({".png", ".jpg", ".jpeg", ".webp", ".tif", ".tiff", ".bmp", ".gif", ".ppm", ".pgm"})


def read_lines(
    source: str | Path | Sequence[str | Path],
    image_column: str = "image",
    text_column: str = "text",
    more_columns: Sequence[str] = (),
    unlabelled: bool = False,
) -> Dataset:
    """Text lines with their images; images are decoded when a row is taken.

    Args:
        source: a parquet file; a folder of parquet files; a folder with metadata.csv, metadata.jsonl or
            metadata.parquet, of which `file_name` names the images; a folder of pairs `line.png` and `line.gt.txt`
            (UTF-8); or a list of these, which are joined. An empty field of metadata.csv is no text; an empty
            `.gt.txt`, or "" in the other tables, is the text of a blank image.
        image_column, text_column: their names in the source.
        more_columns: columns to keep where a source has them.
        unlabelled: images of a folder that have no `.gt.txt` are given too, with the text None.

    Returns:
        A Dataset with the columns "image" (PIL) and "text" (str), and those of `more_columns` that there are (None in
        the rows of a source that lacks them).

    Raises:
        ValueError: a missing path, a folder that is none of these, missing columns, or a source without rows.
    """
    from datasets import Image, Value, concatenate_datasets

    if not isinstance(source, str | Path):
        return concatenate_datasets(
            [read_lines(one, image_column, text_column, more_columns, unlabelled) for one in source]
        )
    path = Path(source)
    if not path.exists():
        raise ValueError(f"{path}: no such file or folder. Give a parquet file, or a folder of images with texts.")
    if path.is_file():
        rows = _parquet([path])
    elif parquets := sorted(p for p in path.glob("*.parquet") if p.stem != "metadata"):
        rows = _parquet(parquets)
    elif tables := [table for table in (path / f"metadata.{kind}" for kind in TABLES) if table.exists()]:
        rows = _table(tables[0])
    else:
        rows = _pairs(path, unlabelled)
        image_column, text_column = "image", "text"
    for column in (image_column, text_column):
        if column not in rows.column_names:
            raise ValueError(
                f"{path}: no column {column!r}, it has {rows.column_names}. Name the column that is meant."
            )
    more = [column for column in more_columns if column in rows.column_names]
    rows = rows.select_columns([image_column, text_column, *more])
    if image_column != "image":
        rows = rows.rename_column(image_column, "image")
    if text_column != "text":
        rows = rows.rename_column(text_column, "text")
    if len(rows) == 0:
        raise ValueError(f"{path}: no rows. Expected at least one image with its text.")
    return rows.cast_column("image", Image()).cast_column("text", Value("string"))


def split_lines(rows: Dataset, share: float, image_processor: Any, seed: int = 0) -> tuple[Dataset, Dataset]:
    """Rows to train on and rows held back, drawn at random; those of equal images stay together.

    Images that cannot be read are not held back.

    Args:
        rows: as of `read_lines`.
        share: of the images to hold back: at least one of them, and not all.
        image_processor: of the model: what it cannot prepare cannot be read.

    Raises:
        ValueError: a share outside (0, 1), or less than two images that can be read.
    """
    if not 0 < share < 1:
        raise ValueError(f"the share to hold back is {share}, expected one between 0 and 1.")
    places = defaultdict(list)
    for index, checksum in enumerate(pixel_checksums(rows, image_processor)):
        places[checksum].append(index)
    places.pop(None, None)  # what is broken stays where it is looked at
    if len(places) < 2:
        raise ValueError(f"{len(places)} readable images cannot be split into two parts. Give lines to validate on.")
    images = list(places.values())
    count = min(max(1, round(share * len(images))), len(images) - 1)
    chosen = np.random.default_rng(seed).permutation(len(images))[:count]
    held_back = sorted(index for image in chosen for index in images[image])
    return rows.select(sorted({*range(len(rows))} - {*held_back})), rows.select(held_back)


def measurable_lines(rows: Dataset, image_processor: Any) -> Dataset:
    """The rows that have a text and an image that can be read and that the model's image processor can prepare.

    Raises:
        ValueError: none of them has a character, so that no rate can be measured.
    """
    labelled = rows.filter(lambda text: text is not None, input_columns="text")
    checksums = pixel_checksums(labelled, image_processor)
    found = labelled.select([index for index, checksum in enumerate(checksums) if checksum is not None])
    if not any(text.strip() for text in found["text"]):
        raise ValueError(
            f"none of {len(rows)} lines can be measured: {len(rows) - len(labelled)} have no text, "
            f"{len(labelled) - len(found)} have an image that cannot be read, {len(found)} have a text without a "
            "character. Give others; `hf-ocr inspect` shows what is wrong with these."
        )
    return found


def pixel_checksums(rows: Dataset, image_processor: Any = None) -> list[str | None]:
    """Of the decoded image of each row; equal images have equal ones, and what cannot be decoded has None.

    So has what the image processor cannot prepare, where one is given.
    """
    encoded = undecoded_rows(rows)

    def checksum(index: int) -> str | None:
        try:
            image = load_image(undecoded(encoded[index]["image"]))
            if image_processor is not None:
                image_processor.resized_width(*image_processor.cut_to_text(image).size)
            return pixel_checksum(image)
        except (OSError, ValueError):  # as `load_image` says of what is no image
            return None

    return [checksum(index) for index in range(len(rows))]


def pixel_checksum(image: PilImage.Image) -> str:
    """SHA-1 in hexadecimal of size and pixels in RGB: grey is grey, however many channels it was stored in."""
    pixels = repr(image.size).encode() + image.convert("RGB").tobytes()
    return hashlib.sha1(pixels, usedforsecurity=False).hexdigest()


def undecoded_rows(rows: Any) -> Any:
    """Rows whose images are as they are stored, for `undecoded`, where they are a data set that would decode them.

    `load_image` forgives damage at which the decoding of datasets fails, of EXIF data for instance.
    """
    if not getattr((getattr(rows, "features", None) or {}).get("image"), "decode", False):
        return rows
    from datasets import Image

    return rows.cast_column("image", Image(decode=False))


def undecoded(image: Any) -> Any:
    """What `datasets` gives for an image column that is not decoded, as `load_image` takes it."""
    if isinstance(image, Mapping) and {"bytes", "path"} >= set(image):
        return image["path"] if image.get("bytes") is None else image["bytes"]
    return image


def _parquet(files: list[Path]) -> Dataset:
    from datasets import Dataset
    from datasets.exceptions import DatasetGenerationError

    for file in files:
        with file.open("rb") as stream:
            magic = stream.read(4)
            if magic != b"PAR1":
                raise ValueError(
                    f"{file}: begins with {magic!r}, expected a parquet file. Give a parquet file or a folder."
                )
            stream.seek(-4, os.SEEK_END)
            if (end := stream.read()) != magic:
                raise ValueError(f"{file}: ends with {end!r}, expected {magic!r}: it is cut off. Copy it again, whole.")
    try:
        return Dataset.from_parquet([glob.escape(str(file)) for file in files])
    except DatasetGenerationError as error:
        source, cause = files[0] if len(files) == 1 else files[0].parent, error.__cause__ or error
        raise ValueError(
            f"{source}: {cause}. Expected whole parquet files that all have the same columns: give those that differ "
            "one by one, and copy a damaged one again."
        ) from error


def _table(file: Path) -> Dataset:
    """Not by the loader of datasets, which makes a number of 0017, nothing of NA, a date of 2024-01-05, and parts of
    images that have "test" or "train" in their names."""
    from datasets import Dataset

    if file.suffix == ".parquet":
        rows = [dict(row) for row in _parquet([file])]
    else:
        try:
            with file.open(encoding="utf-8-sig", newline="") as stream:
                if file.suffix == ".csv":
                    rows = [
                        {name: value or None for name, value in row.items()}
                        for row in csv.DictReader(stream, strict=True)
                    ]
                else:
                    rows = [json.loads(line) for line in stream if line.strip()]
            for index, row in enumerate(rows):
                if not isinstance(row, dict):
                    raise ValueError(f"row {index} is a {type(row).__name__}, expected an object with a file_name")
                json.dumps(row, ensure_ascii=False).encode()  # half a character, as "\ud800", cannot be written
                surplus = row.pop(None, None)  # where the reader of csv puts them
                if surplus and any(surplus):
                    raise ValueError(f"row {index} has {surplus} beyond its columns; put texts with commas in quotes")
        except (csv.Error, ValueError) as error:
            raise ValueError(
                f"{file}: {error}. Expected {file.suffix[1:]} in UTF-8: correct or write it again."
            ) from error
    names = list(dict.fromkeys(name for row in rows for name in row))
    if "file_name" not in names:
        raise ValueError(f"{file}: no column 'file_name', it has {names}. Expected the images' names.")

    def texts(name: str) -> list[str | None]:
        return [None if row.get(name) is None else str(row[name]) for row in rows]

    images = [None if name is None else str(file.parent / name) for name in texts("file_name")]
    return Dataset.from_dict({name: texts(name) for name in names} | {"image": images})


def _text(label: Path) -> str:
    """Without the mark that some editors put in front of UTF-8."""
    try:
        return label.read_text(encoding="utf-8-sig").strip("\r\n")
    except UnicodeDecodeError as error:
        raise ValueError(f"{label}: {error}. Expected UTF-8; save it again as that.") from error


def _pairs(folder: Path, unlabelled: bool) -> Dataset:
    from datasets import Dataset

    images = sorted(
        path
        for path in folder.rglob("*")
        if path.suffix.lower() in IMAGE_SUFFIXES
        and not any(part.startswith(".") for part in path.relative_to(folder).parts)
    )
    pairs = [(image, image.with_name(image.name.removesuffix(image.suffix) + ".gt.txt")) for image in images]
    pairs = [(image, label) for image, label in pairs if unlabelled or label.exists()]
    if not pairs:
        raise ValueError(
            f"{folder}: {len(images)} images, none with a text. Expected parquet files, metadata.csv or "
            "metadata.jsonl, or pairs like line.png and line.gt.txt."
        )
    for image, _ in pairs:
        try:
            str(image).encode()
        except UnicodeEncodeError as error:
            raise ValueError(f"{str(image)!r}: the name is not in UTF-8. Rename it.") from error
    texts = [_text(label) if label.exists() else None for _, label in pairs]
    return Dataset.from_dict({"image": [str(image) for image, _ in pairs], "text": texts})
