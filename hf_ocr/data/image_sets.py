"""Images to read, in any number: files and addresses, or the rows of a data set that is streamed.

Either comes in parts, a part in blocks of one size. What a block holds depends on its part, its number and that size
alone, so that processes can share the blocks and a later run can go on with other processes.
"""

import glob
import hashlib
import os
import zipfile
import zlib
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, NamedTuple

FETCHED_AT_ONCE = 16


class Row(NamedTuple):
    """One image: its path or address where it has one, and what `load_image` or the pipeline takes."""

    name: str | None
    image: Any


class ImageFiles:
    """Paths and addresses, in the order given: one part.

    Args:
        names: paths and addresses.
    """

    num_parts = 1

    def __init__(self, names: Sequence[str]) -> None:
        self.names = names
        self.num_images = len(names)

    def fingerprint(self) -> str:
        """SHA-256 over names and sizes (bytes): not over times, which change when the same files are copied anew."""
        return _fingerprint(self.names)

    def blocks(self, part: int, size: int, wanted: Callable[[int], bool]) -> Iterator[tuple[int, list[Row]]]:
        """(number, rows) of the wanted blocks in order; the last one holds fewer rows than `size`, maybe none."""
        for number in range(self.num_images // size + 1):
            if wanted(number):
                yield number, [Row(name, name) for name in self.names[number * size : (number + 1) * size]]


class StreamedImages:
    """The images of a data set, streamed: nothing is decoded or copied to a cache. A part is a file of the data set.

    Args:
        path: parquet files; or whatever `datasets.load_dataset` takes: a name on the Hub, a folder.
        name: the configuration of the data set, where it has several.
        split: may be left out where there is one only.
        column: the images; by default the first column of that kind, else "image". Encoded bytes, paths, addresses.

    Attributes:
        num_images: None where only reading all of it would tell.

    Raises:
        ValueError: it cannot be loaded, or has no such split or column.
    """

    def __init__(
        self,
        path: str | Sequence[str],
        name: str | None = None,
        split: str | None = None,
        column: str | None = None,
    ) -> None:
        from datasets import Image, load_dataset_builder
        from pyarrow import parquet

        files = None if isinstance(path, str) else list(path)
        title = str(path) if files is None else ", ".join(files[:3]) + (", ..." if len(files) > 3 else "")
        try:
            if files is None:
                builder = load_dataset_builder(path, name)
            else:
                self.num_images: int | None = sum(parquet.read_metadata(file).num_rows for file in files)
                builder = load_dataset_builder("parquet", name, data_files={"train": list(map(glob.escape, files))})
            splits = builder.as_streaming_dataset()
        except Exception as error:  # of every kind, as the format, the file system and the network have it
            raise ValueError(
                f"{title}: cannot be read as a data set ({' '.join(str(error).split())}). Expected parquet files, a "
                "folder, or the name of a data set that `datasets.load_dataset` takes."
            ) from error
        if split is None and len(splits) == 1:
            split = next(iter(splits))
        if split not in splits:
            given = "no split is named" if split is None else f"there is no split {split!r}"
            raise ValueError(f"{title}: {given}. Choose one of {', '.join(map(str, splits))}.")
        rows = splits[split]
        features = rows.features or {}
        columns = rows.column_names or list(next(iter(rows), {}))
        images = [key for key, feature in features.items() if isinstance(feature, Image)]
        column = column or next(iter(images), "image")
        if column not in columns:
            raise ValueError(
                f"{title}: no column {column!r}, it has {', '.join(columns)}. Name the one with the images."
            )
        self._tables = rows.select_columns([column]).with_format("arrow")
        self.num_parts: int = rows.num_shards
        if files is None:
            info = (builder.info.splits or {}).get(split)
            self.num_images = info.num_examples if info else None
        # Paths on the Hub hold the commit; a data set that comes from the cache has a hash and no files.
        data_files = (builder.config.data_files or {}).get(split)
        self._identity = [*(data_files or [builder.hash]), str(split), column]

    def fingerprint(self) -> str:
        """SHA-256 over the names of the files (on the Hub with the commit), sizes of local ones, split and column."""
        return _fingerprint(self._identity)

    def blocks(self, part: int, size: int, wanted: Callable[[int], bool]) -> Iterator[tuple[int, list[Row]]]:
        """(number, rows) of the wanted blocks in order; the last one holds fewer rows than `size`, maybe none."""
        number, full = -1, True
        for number, table in enumerate(self._tables.shard(self.num_parts, part).iter(size)):
            full = table.num_rows == size
            if wanted(number):
                with ThreadPoolExecutor(FETCHED_AT_ONCE) as executor:
                    yield number, list(executor.map(_row, table.column(0).to_pylist()))
        if full and wanted(number + 1):
            yield number + 1, []


def _row(image: Any) -> Row:
    """From a value as the data set stores it."""
    if not isinstance(image, dict):
        return Row(image if isinstance(image, str) else None, image)
    name, content = image.get("path"), image.get("bytes")
    if content is None and name is not None and not os.path.exists(name):
        import fsspec  # comes with huggingface_hub

        try:
            with fsspec.open(name) as file:  # in an archive, or on the Hub
                content = file.read()
        except (FileNotFoundError, zipfile.BadZipFile, zlib.error):
            return Row(name, name)  # which cannot be loaded: this image alone is broken
    return Row(name, name if content is None else content)


def _fingerprint(names: Sequence[str]) -> str:
    digest = hashlib.sha256()
    for name in names:
        size = os.path.getsize(name) if os.path.isfile(name) else None
        digest.update(f"{name}\0{size}\n".encode(errors="surrogateescape"))
    return digest.hexdigest()
