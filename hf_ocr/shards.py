"""What was read from any number of images, as parquet files that are written as it goes; killed runs go on exactly.

A shard `PART-BLOCK.parquet` holds what was read from one block of a set of images (`hf_ocr.data.image_sets`), a row an
image. In the order of their names the shards have the rows in the order of the images. The columns:

    part    int32    part (file) of the data set, from 0; 0 for image files
    row     int64    row of the image in its part, from 0
    name    string   path or address of the image; null where it has none
    text    string   null where the image could not be read
    score   float    P(text | image) in [0, 1]; null where the image could not be read
    words   list of {text: string, score: float, box: [left, top, right, bottom] float, px of the image};
            null where the image could not be read, or the model cannot tell where its words stand
    error   string   why the image could not be read; null where it was

A shard is written under another name and renamed, so that what is there is whole. `_reading.json` beside the shards
says what was read with what; a run that would read something else into the same folder is refused. pandas, pyarrow and
datasets take the folder as one table: they leave out names that begin as this one does.
"""

import json
import os
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from tqdm import tqdm

from hf_ocr.data.image_sets import ImageFiles, Row, StreamedImages

RECORD = "_reading.json"


def columns() -> Any:
    """The schema of a shard."""
    import pyarrow as pa

    word = [("text", pa.string()), ("score", pa.float32()), ("box", pa.list_(pa.float32(), 4))]
    return pa.schema(
        [
            ("part", pa.int32()),
            ("row", pa.int64()),
            ("name", pa.string()),
            ("text", pa.string()),
            ("score", pa.float32()),
            ("words", pa.list_(pa.struct(word))),
            ("error", pa.string()),
        ]
    )


def read_to_shards(
    images: ImageFiles | StreamedImages,
    reader: Any,
    folder: str | Path,
    model: str,
    shard_size: int = 1024,
    rank: int = 0,
    world: int = 1,
    **settings: Any,
) -> tuple[int, int]:
    """Read what is not read yet, and write it shard by shard.

    Processes share the work without a word to each other: with at least as many parts as processes, part i is read by
    process i mod `world`; with fewer, block j of every part by process j mod `world`. Since the rows of a shard depend
    on its name alone, a run may go on with another number of processes.

    Args:
        images: what to read.
        reader: the pipeline `text-recognition`.
        folder: of the shards; made where it is missing.
        model: what the reader is, to tell it from others: a fingerprint of its checkpoint.
        shard_size: images in a shard.
        rank, world: number of this process, and of all.
        settings: arguments of the pipeline, as `batch_size` and `return_boxes="word"`.

    Returns:
        How many images were read now, by this process, and how many it could not read.

    Raises:
        ValueError: the folder holds what was read from other images, with another model, or in other shards.
    """
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    _check_record(
        folder,
        {
            "images": images.fingerprint(),
            "num_images": images.num_images,
            "model": model,
            "boxes": settings.get("return_boxes") is not None,
            "shard_size": shard_size,
        },
    )
    done = _Shards(folder)
    read = failed = 0
    # `disable=None` shows the bar on a terminal only.
    with tqdm(
        total=images.num_images, initial=done.num_rows(), unit="image", disable=None if rank == 0 else True
    ) as bar:
        for part in range(images.num_parts):
            by_part = images.num_parts >= world
            if (by_part and part % world != rank) or done.is_complete(part, shard_size):
                continue

            def wanted(block: int, part: int = part, by_part: bool = by_part) -> bool:
                return (by_part or block % world == rank) and (part, block) not in done.rows

            for block, rows in images.blocks(part, shard_size, wanted):
                found = list(_read(reader, rows, part, block * shard_size, bar, settings))
                _write(folder / f"{part:05}-{block:06}.parquet", found)
                errors = sum(row["error"] is not None for row in found)
                read, failed = read + len(found) - errors, failed + errors
                bar.n = done.num_rows()  # with the shards of the other processes
                bar.refresh()
    return read, failed


def _read(
    reader: Any, rows: list[Row], part: int, first: int, bar: tqdm, settings: dict[str, Any]
) -> Iterator[dict[str, Any]]:
    results = reader((row.image for row in rows), return_scores=True, on_error="skip", **settings)
    for number, (row, (result, *_)) in enumerate(zip(rows, results, strict=True), first):
        bar.update()
        # The name of a file may hold bytes that are no text.
        name = None if row.name is None else row.name.encode(errors="backslashreplace").decode()
        yield {"part": part, "row": number, "name": name, "text": result["generated_text"]} | {
            key: result.get(key) for key in ("score", "words", "error")
        }


def _write(path: Path, rows: list[dict[str, Any]]) -> None:
    import pyarrow as pa
    from pyarrow import parquet

    table = pa.Table.from_pylist(rows, schema=columns())
    partial = path.with_name(f".{path.name}.{uuid.uuid4().hex}")
    with partial.open("xb") as file:
        parquet.write_table(table, file)
        file.flush()
        os.fsync(file.fileno())
    partial.replace(path)
    for left in path.parent.glob(f".{path.name}.*"):  # by a run that was killed
        left.unlink(missing_ok=True)


def _check_record(folder: Path, record: dict[str, Any]) -> None:
    path = folder / RECORD
    if not path.exists():
        partial = path.with_name(f".{RECORD}.{uuid.uuid4().hex}")
        partial.write_text(json.dumps(record, indent=2), encoding="utf-8")
        partial.replace(path)
    found = json.loads(path.read_text(encoding="utf-8"))
    if others := [
        f"{key} {found.get(key)!r}, now {value!r}" for key, value in record.items() if found.get(key) != value
    ]:
        raise ValueError(
            f"{path}: the shards beside it come from another run ({'; '.join(others)}). Go on with the images, the "
            "model and the shard size of that run, or give another folder."
        )


class _Shards:
    """The shards in a folder: `rows` has the number of rows of each (part, block)."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.rows: dict[tuple[int, int], int] = {}

    def num_rows(self) -> int:
        """The rows in all shards that are there now."""
        from pyarrow import parquet

        for path in self.folder.glob("[0-9]*-[0-9]*.parquet"):
            part, block = map(int, path.stem.split("-"))
            if (part, block) not in self.rows:
                try:
                    self.rows[part, block] = parquet.read_metadata(path).num_rows
                except ValueError as error:
                    raise ValueError(
                        f"{path}: is not a shard ({error}). Delete it: its images will be read again."
                    ) from error
        return sum(self.rows.values())

    def is_complete(self, part: int, shard_size: int) -> bool:
        """Whether nothing of this part is left to read: the shard that ends it has fewer rows than the others."""
        blocks = {block: rows for (of, block), rows in self.rows.items() if of == part}
        return bool(blocks) and blocks[max(blocks)] < shard_size and len(blocks) == max(blocks) + 1
