"""Measuring a recognizer: a model and labelled lines -> a `Report`. Training, scripts and cards all measure here."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Any

import numpy as np
from PIL import Image

from hf_ocr.metrics import Confusions, Figure, character_edits, count_confusions, line_matches, measure, word_edits
from hf_ocr.models.reading import TALL, read_images
from hf_ocr.text import ignore_case, lower_alphanumerics, normalise

__all__ = ["Bucket", "Prediction", "Report", "evaluate", "predict", "report_on"]

LENGTH_BOUNDS = (1, 5, 9, 17, 33)
"""Lower bounds of the buckets by length, in characters of the reference."""

PIXEL_BOUNDS = (0, 5, 8, 11, 14, 18)
"""Lower bounds of the buckets by px a character, of the crop scaled to a height of 32 px."""


@dataclass(frozen=True)
class Prediction:
    """One line as it was read. `index` counts the rows from 0; texts are unchanged; width and height in px."""

    index: int
    reference: str
    prediction: str
    score: float
    width: int
    height: int


@dataclass(frozen=True)
class Bucket:
    """The lines whose measure lies in [low, high); high is None for the last, which has no end."""

    low: int
    high: int | None
    num_lines: int
    exact: Figure
    cer_ignoring_case: Figure


@dataclass(frozen=True)
class Report:
    """What a recognizer made of a set of lines. Figures are fractions with 95 % intervals.

    Attributes:
        num_lines: lines measured; every given row counts.
        exact: share of lines right on lower-case letters and digits (`hf_ocr.text.lower_alphanumerics`); where most
            references have none of a-z and 0-9, on the whole text, ignoring case.
        exact_raw: share of lines right with case, signs and spaces; NFC, white space collapsed.
        cer: character error rate on the texts of `exact_raw`.
        cer_ignoring_case: the same in lower case.
        wer: word error rate on the texts of `exact_raw`.
        predictions: one a row, in the order of the rows.
        confusions: characters mistaken, invented and missed, on the texts of `exact_raw`.
        by_length: buckets by characters of the reference; empty ones are left out, and so are empty references.
        by_pixels: buckets by width of the crop, scaled to a height of 32 px, over characters of the reference.
        seed: of the bootstrap.
    """

    num_lines: int
    exact: Figure
    exact_raw: Figure
    cer: Figure
    cer_ignoring_case: Figure
    wer: Figure
    predictions: tuple[Prediction, ...]
    confusions: Confusions
    by_length: tuple[Bucket, ...]
    by_pixels: tuple[Bucket, ...]
    seed: int

    @property
    def figures(self) -> dict[str, float]:
        """The five rates as plain fractions, by field name: what a log or a progress bar wants."""
        names = ("exact", "exact_raw", "cer", "cer_ignoring_case", "wer")
        return {name: getattr(self, name).value for name in names}


def evaluate(
    model: Any, processor: Any, rows: Iterable[Mapping[str, Any]], batch_size: int = 64, seed: int = 0
) -> Report:
    """Reads labelled lines and measures what was read.

    Args:
        model: a recognizer (`recognize`).
        processor: its processor.
        rows: {"image": PIL.Image.Image, "text": str}, at least one. Taken in pieces of 32 batches, so
            that a set need not fit into memory and a progress bar around `rows` moves.
        batch_size: lines read together; it has no influence on the figures.
        seed: of the bootstrap intervals.

    Raises:
        ValueError: no rows, a row without a picture or text, or references without a single character.
    """
    predictions = predict(model, processor, rows, batch_size)
    if not predictions:
        raise ValueError("evaluate got no rows; expected at least one {'image', 'text'}. Is the split empty?")
    return report_on(predictions, seed)


def predict(model: Any, processor: Any, rows: Iterable[Mapping[str, Any]], batch_size: int = 64) -> list[Prediction]:
    """What `evaluate` measures: each row as it was read, in order. Arguments as for `evaluate`."""
    predictions: list[Prediction] = []
    remaining = iter(rows)
    while piece := list(islice(remaining, 32 * batch_size)):
        images, references = [], []
        for index, row in enumerate(piece, start=len(predictions)):
            image, reference = _checked(index, row)
            images.append(image)
            references.append(reference)
        readings = read_images(model, processor, images, batch_size)
        for image, reference, reading in zip(images, references, readings, strict=True):
            predictions.append(
                Prediction(len(predictions), reference, reading.text, float(reading.score), image.width, image.height)
            )
    return predictions


def report_on(predictions: Sequence[Prediction], seed: int = 0) -> Report:
    """The report on lines read already, by any reader. Raises as `hf_ocr.metrics.character_error_rate` does."""
    read = [normalise(line.prediction) for line in predictions]
    references = [normalise(line.reference) for line in predictions]
    in_latin = sum(bool(lower_alphanumerics(reference)) for reference in references)
    # Of Devanagari or Arabic the protocol would leave nothing, and nothing is always equal to nothing.
    protocol = lower_alphanumerics if 2 * in_latin >= len(references) else ignore_case
    exact = line_matches(read, references, protocol)
    without_case = character_edits(read, references, ignore_case)

    lengths = np.array([len(reference) for reference in references])
    pixels = np.array([_pixels_per_character(line, n) for line, n in zip(predictions, lengths, strict=True)])

    def buckets(values: np.ndarray, bounds: tuple[int, ...]) -> tuple[Bucket, ...]:
        found = []
        for low, high in zip(bounds, (*bounds[1:], None), strict=True):
            inside = (lengths > 0) & (values >= low) & (values < (np.inf if high is None else high))
            if inside.any():
                exact_figure = measure(exact[0][inside], exact[1][inside], seed=seed)
                cer_figure = measure(without_case[0][inside], without_case[1][inside], seed=seed)
                found.append(Bucket(low, high, int(inside.sum()), exact_figure, cer_figure))
        return tuple(found)

    return Report(
        num_lines=len(predictions),
        exact=measure(*exact, seed=seed),
        exact_raw=measure(*line_matches(read, references), seed=seed),
        cer=measure(*character_edits(read, references), seed=seed),
        cer_ignoring_case=measure(*without_case, seed=seed),
        wer=measure(*word_edits(read, references), seed=seed),
        predictions=tuple(predictions),
        confusions=count_confusions(read, references),
        by_length=buckets(lengths, LENGTH_BOUNDS),
        by_pixels=buckets(pixels, PIXEL_BOUNDS),
        seed=seed,
    )


def _checked(index: int, row: Mapping[str, Any]) -> tuple[Image.Image, str]:
    image, text = row.get("image"), row.get("text")
    if not isinstance(image, Image.Image):
        raise ValueError(
            f"Row {index}: 'image' is {image!r:.60} ({type(image).__name__}); expected a PIL image. "
            "The readers of hf_ocr.data give such rows."
        )
    if not isinstance(text, str):
        raise ValueError(
            f"Row {index}: 'text' is {text!r:.60} ({type(text).__name__}); expected a string. "
            "Leave unlabelled rows out."
        )
    return image, text


def _pixels_per_character(line: Prediction, num_characters: int) -> float:
    width, height = line.width, line.height
    # A crop of several characters that stands upright is a line turned by a quarter, and is read so.
    if num_characters > 1 and height > TALL * width:
        width, height = height, width
    return width * 32 / height / max(num_characters, 1)
