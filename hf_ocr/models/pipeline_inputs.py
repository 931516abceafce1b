"""From what a pipeline is called with to one image after the other, none of which fails or changes before its turn."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from io import IOBase
from typing import Any, NamedTuple

from torch.utils.data import Dataset, IterableDataset

from .image_loading import as_it_is_now


class Broken(NamedTuple):
    """Stands for an image that its data set could not give."""

    name: str
    error: Exception


def images_of(inputs: Any) -> Iterator[Any] | None:
    """The images of a data set, a sequence or an iterator, lazily; None for what is a single image, or none at all.

    What an iterator gives is copied where it may be changed for the next: an array, a page of a TIFF.

    Raises:
        ValueError: rows without a column of images, or several data sets.
    """
    if hasattr(inputs, "column_names"):
        return _image_column(inputs)
    if isinstance(inputs, str | bytes | bytearray | memoryview | dict | IOBase):  # a file is an iterator too
        return None
    if isinstance(inputs, list | tuple):
        return iter(inputs)
    if isinstance(inputs, Iterator | IterableDataset):
        return map(_as_it_is_now, inputs)
    if isinstance(inputs, Sequence | Dataset):
        return _rows(inputs, lambda row: row)
    return None


def _as_it_is_now(item: Any) -> Any:
    if isinstance(item, dict) and "image" in item:
        return item | {"image": as_it_is_now(item["image"])}
    return as_it_is_now(item)


def _rows(rows: Any, image_of: Callable[[Any], Any]) -> Iterator[Any]:
    """Row after row; one that cannot be had, as one whose image cannot be decoded, stops none of the others."""
    for index in range(len(rows)):
        try:
            image = image_of(rows[index])
        except Exception as error:  # of every kind, for it is the data set's own
            image = Broken(f"row {index} of the {type(rows).__name__}", error)
        yield image


def _image_column(dataset: Any) -> Iterator[Any]:
    """The images of a `datasets.Dataset` of rows, not decoded: each is then loaded, and fails, on its own."""
    if not hasattr(dataset, "features"):
        given = f"has the splits {', '.join(dataset)}" if isinstance(dataset, dict) else "is no data set of rows"
        raise ValueError(f"the {type(dataset).__name__} {given}. Expected a datasets.Dataset, as one of its splits is.")
    features = dataset.features or {}
    names = [name for name, feature in features.items() if type(feature).__name__ == "Image"]
    column = next(iter(names), "image")
    if (getattr(dataset, "format", None) or {}).get("type") == "custom":  # a transform of the user's makes the images
        return _rows(dataset, lambda row: row[column])
    if not names and column not in (dataset.column_names or [column]):
        raise ValueError(
            f"the data set has no column of images, only {', '.join(dataset.column_names)}. Rename the column with "
            'the images to "image", or pass KeyDataset(dataset, column).'
        )
    if not names:
        return (row[column] for row in dataset)
    stored = type(features[column])
    rows: Iterable[Any] = dataset.with_format(None).cast_column(column, stored(decode=False))
    return (_fetched(row[column], stored()) for row in rows)


def _fetched(value: Any, feature: Any) -> Any:
    """The image that a streamed row only names, in an archive or on the Hub; other values as they are."""
    path = value.get("path") if isinstance(value, dict) and value.get("bytes") is None else None
    if path is None or "://" not in path or path.lower().startswith(("http://", "https://")):
        return value
    try:
        return feature.decode_example(value)
    except Exception as error:  # of every kind, as the format, the file system and the network have it
        return Broken(path, error)
