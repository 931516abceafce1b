"""Training batches of lines of like width, as a pure function of (seed, step)."""

import math
import unicodedata
import zlib
from collections import Counter
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from torch.utils.data import Dataset

from hf_ocr.data.lines import undecoded, undecoded_rows
from hf_ocr.models.image_loading import ImageError, load_image

FEW_WIDTHS = 64  # px; of the widths of batches with few shapes, what they are multiples of

Augment = Callable[[Image.Image, np.random.Generator], Image.Image]


@dataclass(frozen=True)
class Source:
    """Rows to draw from.

    Attributes:
        rows: `rows[i]` -> {"image": what `load_image` takes, "text": str}; drawn in a new random order in each pass.
        share: of the lines of every chunk, relative to the other sources.
        augment: PIL, generator -> PIL; None for images taken as they are.
    """

    rows: Any
    share: float = 1.0
    augment: Augment | None = None


class LineChunks(Dataset):
    """Item k is chunk k: `batches_per_chunk` collated batches of lines of like width.

    A chunk takes `lines_per_chunk` rows from the sources by their shares, sorts them by width at the model's height and
    cuts them into batches of an equal number of columns, so that a batch costs the same whatever its width. What
    stands in chunk k depends on (seed, k) alone: a run resumes at a step without walking the data, with any number
    of workers.

    A row that cannot be read, that is wider than `max_width`, or whose text holds characters outside the alphabet, is
    replaced by the next one of its source.

    Args:
        sources: what to mix.
        processor: of the model; makes pixel_values, widths and labels.
        lines_per_chunk: rows of a chunk.
        batches_per_chunk: batches of a chunk; lines_per_chunk / batches_per_chunk lines a batch in the mean.
        max_width: px at the model's height; wider lines cost more than they teach.
        short_chunks: in this many first chunks the limit is a quarter of `max_width`: a CTC model that starts with
            short lines leaves its plateau of blanks sooner.
        seed: of order, choice and augmentation.
        few_shapes: for GPUs, whose library plans a convolution anew for each shape it has not seen. A batch is padded
            to a multiple of 64 px and has a multiple of an eighth of the mean number of lines, for which some lines of
            a chunk may come twice.
        rank, world: this process and their number; rank r gets the chunks k * world + r.
    """

    def __init__(
        self,
        sources: Sequence[Source],
        processor: Any,
        lines_per_chunk: int = 1024,
        batches_per_chunk: int = 16,
        max_width: int = 1024,
        short_chunks: int = 0,
        seed: int = 0,
        few_shapes: bool = False,
        rank: int = 0,
        world: int = 1,
    ) -> None:
        for index, source in enumerate(sources):
            if len(source.rows) == 0 or source.share <= 0:
                raise ValueError(
                    f"source {index} has {len(source.rows)} rows and share {source.share}, expected at least one row "
                    "and a positive share. Leave it out."
                )
        self.sources = [replace(source, rows=undecoded_rows(source.rows)) for source in sources]
        self.processor = processor
        self.lines_per_chunk = lines_per_chunk
        self.batches_per_chunk = batches_per_chunk
        self.max_width = max_width
        self.short_chunks = short_chunks
        self.seed = seed
        self.few_shapes = few_shapes
        self.rank = rank
        self.world = world
        shares = np.array([source.share for source in sources], dtype=np.float64)
        self.shares = shares / shares.sum()
        self.alphabet = frozenset(processor.tokenizer.alphabet)

    @property
    def origin(self) -> dict[str, Any]:
        """On what the chunks depend, as JSON values; of the rows their number alone."""
        return {
            "alphabet": zlib.crc32("".join(sorted(self.alphabet)).encode()),
            "sources": [[len(source.rows), source.share] for source in self.sources],
            "data_seed": self.seed,
            **{name: getattr(self, name) for name in
               ("lines_per_chunk", "batches_per_chunk", "max_width", "short_chunks", "few_shapes")},
        }  # fmt: skip

    def __len__(self) -> int:
        return 2**31

    def __getitem__(self, chunk: int) -> list[dict[str, torch.Tensor]]:
        chunk = chunk * self.world + self.rank
        max_width = self.max_width // 4 if chunk < self.short_chunks else self.max_width
        rows: list[tuple[Image.Image, str]] = []
        for index, share in enumerate(self.shares):
            first, last = (int(np.floor((chunk + k) * self.lines_per_chunk * share)) for k in (0, 1))
            rows += [self._row(index, position, max_width) for position in range(first, last)]
        widths = [self.processor.image_processor.resized_width(*image.size) for image, _ in rows]
        order = np.argsort(widths, kind="stable")
        unit = max(1, self.lines_per_chunk // self.batches_per_chunk // 8) if self.few_shapes else 1
        lines = unit * max(math.ceil(len(order) / unit), self.batches_per_chunk)
        order = order[np.sort(np.resize(np.arange(len(order)), lines))]  # fewer than that: some twice
        columns = np.cumsum(np.asarray(widths)[order])
        numbers = np.arange(1, self.batches_per_chunk)
        cuts = np.searchsorted(columns, numbers * columns[-1] / self.batches_per_chunk) // unit
        cuts = np.maximum.accumulate(cuts - numbers) + numbers  # no batch is empty
        batches = np.split(order, unit * np.clip(cuts, numbers, lines // unit - self.batches_per_chunk + numbers))
        shuffle = np.random.default_rng([self.seed, 1, chunk]).permutation(len(batches))
        return [self._collate([rows[i] for i in batches[b]]) for b in shuffle]

    def _collate(self, rows: list[tuple[Image.Image, str]]) -> dict[str, torch.Tensor]:
        images, texts = zip(*rows, strict=True)
        batch = dict(self.processor(images=list(images), text=list(texts), return_tensors="pt"))
        if self.few_shapes and "widths" in batch:  # other processors give all images one size
            pixels, widest = batch["pixel_values"], self.processor.image_processor.max_width
            width = min(math.ceil(pixels.shape[-1] / FEW_WIDTHS) * FEW_WIDTHS, widest)
            batch["pixel_values"] = F.pad(pixels, (0, width - pixels.shape[-1]))
        return batch

    def _row(self, index: int, position: int, max_width: int) -> tuple[Image.Image, str]:
        source = self.sources[index]
        count = len(source.rows)
        generator = np.random.default_rng([self.seed, 2, index, position])
        order = _order(self.seed, index, position // count, count)
        prepare = self.processor.image_processor
        causes: Counter[str] = Counter()
        for attempt in range(position, position + count):
            try:
                row = source.rows[int(order[attempt % count])]
                image, text = load_image(undecoded(row["image"])), unicodedata.normalize("NFC", row["text"])
                prepare.resized_width(*prepare.cut_to_text(image).size)  # what is too small would be enlarged
            except (OSError, ValueError, SyntaxError, Image.DecompressionBombError):  # of files that are no images
                causes["unreadable"] += 1
                continue
            if not self.alphabet.issuperset(text):
                causes["with characters outside the alphabet"] += 1
                continue
            if source.augment is not None:
                image = source.augment(image.convert("L"), generator)
            image = prepare.cut_to_text(image)
            with suppress(ImageError):  # grown too wide for any model
                if prepare.resized_width(*image.size) <= max_width:
                    return image, text
            causes[f"wider than max_width, {max_width} px"] += 1
        found = ", ".join(f"{number} {cause}" for cause, number in causes.items())
        raise ValueError(f"source {index}: none of its {count} rows can be learnt: {found}. Inspect the data.")


class ChunkSequence(Dataset):
    """The chunks of `first` below number `switch`, then those of `second`: a run that ends on another mix.

    Both must be of one process, and have equal `batches_per_chunk`.
    """

    def __init__(self, first: LineChunks, second: LineChunks, switch: int) -> None:
        if first.batches_per_chunk != second.batches_per_chunk:
            raise ValueError(
                f"chunks of {first.batches_per_chunk} and of {second.batches_per_chunk} batches cannot follow each "
                "other. Give both the same batches_per_chunk."
            )
        self.first = first
        self.second = second
        self.switch = switch
        self.batches_per_chunk = first.batches_per_chunk
        self.rank, self.world = first.rank, first.world

    @property
    def origin(self) -> dict[str, Any]:
        """As of `LineChunks`."""
        return {"first": self.first.origin, "second": self.second.origin, "switch": self.switch}

    def __len__(self) -> int:
        return len(self.second)

    def __getitem__(self, chunk: int) -> list[dict[str, torch.Tensor]]:
        return (self.first if chunk < self.switch else self.second)[chunk]


@lru_cache(maxsize=16)
def _order(seed: int, source: int, epoch: int, count: int) -> np.ndarray | range:
    if count > 10_000_000:  # rendered on demand: every row is new, no pass ever ends
        return range(count)
    return np.random.default_rng([seed, 3, source, epoch]).permutation(count)
