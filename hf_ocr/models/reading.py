"""From images to text: widths, batches, turned lines. The only caller of `recognize` that users of a model need."""

import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Executor
from contextlib import nullcontext
from dataclasses import dataclass
from itertools import islice
from typing import Any, Literal, NamedTuple

import numpy as np
import torch
from PIL import Image

from .confidence import ScoreAs, aggregate, check_score_as
from .ctc_reading import eval_mode
from .image_loading import load_image
from .line_preparation import (
    DOUBTFUL,
    DOUBTFUL_IF_TILTED,
    DOUBTFUL_TO_BOTH,
    STRETCHES,
    bucket_width,
    grey_values,
    level_line,
    stretch_line,
    text_part,
    turned,
)
from .reading_schedule import read_all
from .reading_threads import ReadingThreads

Box = tuple[float, float, float, float]

# Images of one window are sorted by width together: large enough to fill the batches of each width.
BATCHES_PER_WINDOW = 16
# What an unusable image raises while it is loaded (`ImageError`, a ValueError) and prepared.
IMAGE_ERRORS = (ValueError, MemoryError)


class Character(NamedTuple):
    """One character of a reading, its box (left, top, right, bottom) in px of the given image, as high as what was read
    of that (see `text_part`).

    The score is the probability, in [0, 1], given the image and the characters before; of the last one also that the
    text ends there, of the first and the last also of outer spaces, which were read and are left out.
    """

    text: str
    score: float
    box: Box


@dataclass(frozen=True)
class Reading:
    """What was read from one image.

    Attributes:
        text: the text, "" for a blank image.
        score: P(text | image) in [0, 1], with a language model as both see it, or as `score_as` says; of "" always the
            former.
        characters: one entry a character of the text; None unless asked for.
        error: why the image could not be read (only with `on_error="skip"`); the text is then "" and the score 0.
    """

    text: str
    score: float
    characters: list[Character] | None = None
    error: str | None = None


class _Line(NamedTuple):
    """A prepared image in one of its turns; `width` and the size of `pixel_values` are px of the model's input."""

    place: int  # among the images of the window
    degrees: int
    size: tuple[int, int]  # of the given image, px
    part: tuple[int, int, int, int]  # that was read of the turned image, px; all of it where no characters are wanted
    pixel_values: torch.Tensor  # float32 (C, H, W)
    width: int

    def valid(self) -> np.ndarray:
        """float32 (C, H, width), without padding."""
        return self.pixel_values[..., : self.width].numpy()

    @property
    def bucket(self) -> tuple[int, ...]:
        return bucket_width(self.width), *self.pixel_values.shape[:2]


class _Candidate(NamedTuple):
    """One reading of an image, of a line in one turn and width; None for an image that could not be prepared."""

    line: _Line | None
    reading: Reading
    quality: float  # the probability a character at temperature 1
    rank: float  # the logarithm of that, with what a language model adds to it


class _Found:
    """What was read from one image, and how many of its lines are being read."""

    def __init__(self, stretches: Sequence[float], doubtful: float) -> None:
        self.candidates: list[_Candidate] = []
        self.awaited = 0
        self._first: _Line | None = None  # in the better turn, and level if that was better
        self._may_be_tilted = bool(stretches)
        self._stretches = iter(stretches)
        self._doubtful = doubtful

    def best(self) -> _Candidate:
        """Of like ones the upright one."""
        return max(self.candidates, key=lambda item: (item.rank, -item.line.degrees if item.line else 0))

    def then(self, candidate: _Candidate) -> list[_Line]:
        """The line made level, or at its next width, where all that was awaited is read and doubtful."""
        self.candidates.append(candidate)
        self.awaited -= 1
        best = self.best()
        if self.awaited or best.line is None:
            return []
        if not best.reading.text:  # each further look at stains would be a chance to take them for letters
            return []
        again = None
        if self._may_be_tilted and best.quality < DOUBTFUL_IF_TILTED:
            again = level_line(best.line.valid())
        self._may_be_tilted = False
        if again is None:
            self._first = self._first or best.line
            stretch = next(self._stretches, None) if best.quality < self._doubtful else None
            if stretch is None:
                return []
            again = stretch_line(self._first.valid(), stretch)
        self.awaited = 1
        return [best.line._replace(pixel_values=torch.from_numpy(again), width=again.shape[-1])]


def read_images(
    model: Any,
    processor: Any,
    images: Iterable[Any],
    batch_size: int = 64,
    num_beams: int = 1,
    with_characters: bool = False,
    load: Callable[[Any], Image.Image] = load_image,
    on_error: Literal["raise", "skip"] = "raise",
    executor: Executor | None = None,
    score_as: ScoreAs = "product",
    readers: ReadingThreads | None = None,
    **recognize_kwargs: Any,
) -> list[Reading]:
    """Read images of text lines or words; arguments as for `iterate_readings`. The order is kept."""
    return list(
        iterate_readings(
            model, processor, images, batch_size, num_beams, with_characters, load, on_error, executor,
            score_as, readers, **recognize_kwargs,
        )
    )  # fmt: skip


def iterate_readings(
    model: Any,
    processor: Any,
    images: Iterable[Any],
    batch_size: int = 64,
    num_beams: int = 1,
    with_characters: bool = False,
    load: Callable[[Any], Image.Image] = load_image,
    on_error: Literal["raise", "skip"] = "raise",
    executor: Executor | None = None,
    score_as: ScoreAs = "product",
    readers: ReadingThreads | None = None,
    **recognize_kwargs: Any,
) -> Iterator[Reading]:
    """Read images of text lines or words, lazily and in order.

    Batches hold images of one width bucket, padded to the bucket's width, so that what is read from an image does
    not depend on its neighbours. An image taller than 1.5 times its width is read upright and turned by 90 and 270
    degrees, and as long as its reading is doubtful it is read again, made level if it is tilted and then at other
    widths, unless the model stretches all images to one; the reading with the best probability a character, at
    temperature 1 and with what a language model adds to it, is kept.

    Args:
        model: a recognizer (anything with `recognize`), on any device, in any mode.
        processor: its `image_processor` turns an image into `pixel_values` and `widths`; it turns ids into text
            (`batch_decode`).
        images: anything `load` takes. `BATCHES_PER_WINDOW * batch_size` are taken at a time (with a batch size of 1:
            one).
        batch_size: images read at once, by each of the readers.
        num_beams: 1 for the model's fastest search.
        with_characters: also give a score and a box for each character.
        load: makes an upright PIL image of each element of `images`; boxes are in px of that.
        on_error: "raise", or "skip": an image that cannot be loaded or prepared gives a `Reading` with its error.
        executor: loads and prepares images; in the calling thread when None.
        score_as: the score of a reading from those of its characters, see `aggregate` in `confidence`; all but
            "product" take as long as characters.
        readers: on a CPU, read as many batches of several images at once; one after the other when None.
        recognize_kwargs: further arguments of `model.recognize`.

    Raises:
        ValueError: a batch size below 1, an unknown `score_as`, boxes of a model that has none; with "raise" also
            whatever loading or preparing an image raised.
    """
    if not isinstance(batch_size, int) or batch_size < 1:
        raise ValueError(f"batch_size is {batch_size!r}, expected at least 1.")
    check_score_as(score_as)
    # A model whose configuration fixes the width sees a stretched line as it saw the line, only blurred.
    stretches: tuple[float, ...] = () if hasattr(getattr(model, "config", None), "image_width") else STRETCHES
    doubtful = DOUBTFUL
    if getattr(model, "language_model", None) is not None:
        doubtful, stretches = DOUBTFUL_TO_BOTH, stretches[-1:]
    recognize_kwargs["num_beams"] = num_beams
    recognize_kwargs["with_characters"] = with_characters or score_as != "product"

    def prepare(item: tuple[int, Any]) -> list[_Line] | Reading:
        index, source = item
        try:
            return _prepare(processor, index, load(source), with_characters)
        except IMAGE_ERRORS as error:
            if on_error == "raise":
                raise
            return Reading("", 0.0, [] if with_characters else None, error=str(error) or type(error).__name__)

    def recognize(batch: list[_Line]) -> list[_Candidate]:
        return list(_recognize(model, processor, batch, with_characters, score_as, recognize_kwargs))

    remaining = iter(images)
    window = batch_size * BATCHES_PER_WINDOW if batch_size > 1 else 1
    failure: Exception | None = None
    while failure is None:
        sources, failure = _taken(remaining, window)
        if not sources:
            break
        found = [_Found(stretches, doubtful) for _ in sources]

        def lines(sources: list[Any] = sources, found: list[_Found] = found) -> Iterator[_Line]:
            prepared = (map if executor is None else executor.map)(prepare, enumerate(sources))
            for image, item in zip(found, prepared, strict=True):
                if isinstance(item, Reading):
                    image.candidates.append(_Candidate(None, item, 0.0, -math.inf))
                else:
                    image.awaited = len(item)
                    yield from item

        def then(candidate: _Candidate, found: list[_Found] = found) -> list[_Line]:
            return found[candidate.line.place].then(candidate) if candidate.line else []

        side_by_side = readers if len(sources) > 1 else None  # one image has all of torch's threads
        # Held here for all of them: the first reader that is done would put the others back into training.
        with eval_mode(model) if side_by_side and isinstance(model, torch.nn.Module) else nullcontext():
            read_all(lines(), recognize, then, batch_size, side_by_side)
        for image in found:
            yield image.best().reading
    if failure is not None:
        raise failure


def _taken(remaining: Iterator[Any], count: int) -> tuple[list[Any], Exception | None]:
    """The next `count`, or those before the iterator failed, which are read all the same, and how it failed."""
    sources = []
    try:
        for source in islice(remaining, count):
            sources.append(source)
    except Exception as error:
        return sources, error
    return sources, None


def words_of(characters: list[Character], score_as: ScoreAs) -> Iterator[Character]:
    """Runs of characters between white space: one score of theirs, the box around their boxes."""
    word: list[Character] = []
    for character in [*characters, Character(" ", 1.0, (0.0, 0.0, 0.0, 0.0))]:
        if not character.text.isspace():
            word.append(character)
        elif word:
            lefts, tops, rights, bottoms = zip(*(item.box for item in word), strict=True)
            yield Character(
                "".join(item.text for item in word),
                aggregate([item.score for item in word], score_as),
                (min(lefts), min(tops), max(rights), max(bottoms)),
            )
            word = []


def _prepare(processor: Any, index: int, image: Image.Image, with_characters: bool) -> list[_Line]:
    lines = []
    for degrees, upright in turned(image).items():
        inputs = processor.image_processor.preprocess([upright])  # of which it takes the part with text, by itself
        part = text_part(grey_values(upright)) if with_characters else (0, 0, *upright.size)
        pixel_values = torch.from_numpy(inputs["pixel_values"][0])
        lines.append(_Line(index, degrees, image.size, part, pixel_values, int(inputs["widths"][0])))
    return lines


def _recognize(
    model: Any,
    processor: Any,
    batch: Sequence[_Line],
    with_characters: bool,
    score_as: ScoreAs,
    recognize_kwargs: dict[str, Any],
) -> Iterator[_Candidate]:
    channels, height = batch[0].pixel_values.shape[:2]
    pixel_values = torch.zeros(len(batch), channels, height, bucket_width(batch[0].width))
    for row, line in zip(pixel_values, batch, strict=True):
        row[..., : line.width] = line.pixel_values[..., : line.width]
    with torch.inference_mode():
        recognition = model.recognize(
            pixel_values.to(model.device),
            widths=torch.tensor([line.width for line in batch], device=model.device),
            **recognize_kwargs,
        )
    if with_characters and recognition.character_spans is None:
        raise ValueError("this model cannot tell where its characters stand. Read without boxes.")
    texts = processor.batch_decode(recognition.sequences)
    scores = recognition.scores.tolist()
    raw_scores = scores if recognition.raw_scores is None else recognition.raw_scores.tolist()
    fluency = [0.0] * len(batch) if recognition.fluency is None else recognition.fluency.tolist()
    for row, (line, read, score, raw, added) in enumerate(zip(batch, texts, scores, raw_scores, fluency, strict=True)):
        text = read.strip()  # a line has no outer spaces; one is read where something drawn stands beside the text
        characters = None
        if with_characters or score_as != "product":
            shown = _without_outer_spaces(processor, recognition, row)
            if score_as != "product" and text:
                score = aggregate(shown.scores, score_as)
            if with_characters:
                characters = _characters(processor, recognition, row, shown, line)
        share = 1 / max(len(text), 1)
        rank = share * (math.log(raw) + added) if raw else -math.inf
        yield _Candidate(line, Reading(text, score, characters), raw**share, rank)


class _Shown(NamedTuple):
    """The symbols of a text without those that are outer spaces or nothing: the first of them, and what each is."""

    first: int
    symbols: list[str]
    scores: list[float]


def _without_outer_spaces(processor: Any, recognition: Any, row: int) -> _Shown:
    """What is left out counts for its neighbour, so that the product of the scores stays that of what was read."""
    sequence = recognition.sequences[row]
    symbols = processor.batch_decode(sequence[sequence != 0][:, None])
    scores = recognition.character_scores[row, : len(symbols)].tolist()
    printed = [place for place, symbol in enumerate(symbols) if symbol.strip()]
    if not printed:
        return _Shown(0, [], [])
    first, last = printed[0], printed[-1]
    inner = scores[first : last + 1]
    inner[0] *= math.prod(scores[:first])
    inner[-1] *= math.prod(scores[last + 1 :])
    return _Shown(first, symbols[first : last + 1], inner)


def _characters(processor: Any, recognition: Any, row: int, shown: _Shown, line: _Line) -> list[Character]:
    left, top, right, bottom = line.part
    size = right - left, bottom - top
    prepare = processor.image_processor
    columns = line.width * prepare.text_width(*size) / prepare.resized_width(*size)  # those that are no padding
    places = slice(shown.first, shown.first + len(shown.symbols))
    spans = (left + recognition.character_spans[row, places] * (size[0] / columns)).clamp(max=right).tolist()
    return [
        Character(symbol, score, _box(start, end, line))
        for symbol, score, (start, end) in zip(shown.symbols, shown.scores, spans, strict=True)
    ]


def _box(start: float, end: float, line: _Line) -> Box:
    """Columns [start, end) of the turned image, as high as the part that was read, as a box of the given image, px."""
    top, bottom = float(line.part[1]), float(line.part[3])
    width, height = line.size
    if line.degrees == 90:  # counter-clockwise: its columns are the rows of the given image
        return (width - bottom, start, width - top, end)
    if line.degrees == 270:
        return (top, height - end, bottom, height - start)
    return (start, top, end, bottom)
