"""Measuring a recognizer: a model and labelled lines -> a `Report`. Training, scripts and cards all measure here."""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Any

import numpy as np
from PIL import Image

from hf_ocr.data.lines import undecoded, undecoded_rows
from hf_ocr.metrics import (
    Calibration,
    Confusions,
    Difference,
    Figure,
    blank_insertions,
    character_edits,
    count_confusions,
    line_matches,
    line_rates,
    measure,
    measure_calibration,
    normalised_edits,
    paired_difference,
    space_edits,
    word_edits,
)
from hf_ocr.models.ctc_reading import eval_mode
from hf_ocr.models.image_loading import load_image
from hf_ocr.models.line_preparation import TALL
from hf_ocr.models.mgp_str_reading import MGP_STR, MgpStrTokenizers
from hf_ocr.models.reading import Reading, read_images
from hf_ocr.models.reading_threads import ReadingThreads
from hf_ocr.models.stock_reading import stock_readings
from hf_ocr.text import PROTOCOLS, ignore_case, lower_alphanumerics, nfc, script

__all__ = ["Blanks", "Bucket", "Prediction", "Report", "Slice", "compare", "evaluate", "predict", "report_on"]

LENGTH_BOUNDS = (1, 5, 9, 17, 33)
"""Lower bounds of the buckets by length, in characters of the reference."""

PIXEL_BOUNDS = (0, 5, 8, 11, 14, 18)
"""Lower bounds of the buckets by px a character, of the crop scaled to a height of 32 px."""

WIDTH_BOUNDS = (0, 64, 128, 256, 512, 1024)
"""Lower bounds of the buckets by width, in px of the crop scaled to a height of 32 px."""

RARITY_BOUNDS = (1, 10, 100, 1000)
"""Lower bounds of the buckets by how often the rarest character of a line stands in all references."""

NUM_SOURCES = 20
"""Sources with a slice of their own, those with most lines; the others share one."""


@dataclass(frozen=True)
class Prediction:
    """One line as it was read. `index` counts the rows from 0; texts are unchanged; width and height in px.

    Width and height are 0 where the image could not be opened. `document` (a page, a receipt) and `source` (a data
    set, a book) are those of the row, if it has them.
    """

    index: int
    reference: str
    prediction: str
    score: float
    width: int
    height: int
    document: str | None = None
    source: str | None = None


@dataclass(frozen=True)
class Bucket:
    """The lines whose measure lies in [low, high); high is None for the last, which has no end."""

    low: int
    high: int | None
    num_lines: int
    exact: Figure
    cer_ignoring_case: Figure


@dataclass(frozen=True)
class Slice:
    """The lines that have something in common, which `name` says."""

    name: str
    num_lines: int
    exact: Figure
    cer_ignoring_case: Figure


@dataclass(frozen=True)
class Blanks:
    """Of the lines whose reference is empty: how many, at how many something was read, and how many characters."""

    num_lines: int
    num_read: int
    num_characters: int


@dataclass(frozen=True)
class Report:
    """What a recognizer made of a set of lines. Figures are fractions with 95 % intervals.

    The figures are computed on the texts in the form of `protocol`, and so are confusions, buckets and slices; lines
    whose reference is empty are in no bucket or slice.

    Attributes:
        num_lines: lines measured; every given row counts.
        exact: share of lines right on lower-case letters and digits (`hf_ocr.text.lower_alphanumerics`); a line of
            which that leaves less than half of the letters, and all where it leaves most lines nothing, on the whole
            text, ignoring case.
        exact_raw: share of lines right with case, signs and spaces.
        cer: character error rate.
        cer_ignoring_case: the same in lower case.
        wer: word error rate.
        cer_macro, wer_macro: the means of the rates of the lines.
        normalised_edit_distance: edits over the length of the longer text, the mean over lines.
        space: space error rate; None where the references have no space.
        blanks: what was read where nothing is printed.
        predictions: one a row, in the order of the rows.
        confusions: characters mistaken, invented and missed.
        by_length: buckets by characters of the reference; empty buckets are left out.
        by_pixels: buckets by width of the crop, scaled to a height of 32 px, over characters of the reference.
        by_width: buckets by that width.
        by_rarity: buckets by how often the rarest character of the line stands in all references.
        by_script: slices by the script of most characters of the reference, most lines first.
        by_source: slices by `Prediction.source`, most lines first; none where no two lines share one.
        seed: of the bootstrap, which draws documents where lines have them, else lines.
        protocol: name of the form in which texts were compared, of `hf_ocr.text.PROTOCOLS`.
        calibration: what the scores say of a line being right as in `exact_raw`; None of readers without scores: where
            all are equal, or some are no probabilities.
    """

    num_lines: int
    exact: Figure
    exact_raw: Figure
    cer: Figure
    cer_ignoring_case: Figure
    wer: Figure
    cer_macro: Figure
    wer_macro: Figure
    normalised_edit_distance: Figure
    space: Figure | None
    blanks: Blanks
    predictions: tuple[Prediction, ...]
    confusions: Confusions
    by_length: tuple[Bucket, ...]
    by_pixels: tuple[Bucket, ...]
    by_width: tuple[Bucket, ...]
    by_rarity: tuple[Bucket, ...]
    by_script: tuple[Slice, ...]
    by_source: tuple[Slice, ...]
    seed: int
    protocol: str
    calibration: Calibration | None

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
        model: a recognizer (`recognize`), or of transformers an encoder-decoder (`generate`) or MGP-STR.
        processor: its processor.
        rows: {"image": PIL.Image.Image, "text": str}, at least one; "document" and "source" are kept. Taken in pieces
            of 32 batches, so that a set need not fit into memory and a progress bar around `rows` moves.
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
    remaining = iter(undecoded_rows(rows))
    while piece := list(islice(remaining, 32 * batch_size)):
        images = [_image(index, row) for index, row in enumerate(piece, start=len(predictions))]
        readings = _read(model, processor, images, batch_size)
        for image, row, reading in zip(images, piece, readings, strict=True):
            predictions.append(
                Prediction(
                    len(predictions),
                    row["text"],
                    reading.text,
                    float(reading.score),
                    *image.size,
                    document=_label(row.get("document")),
                    source=_label(row.get("source")),
                )
            )
    return predictions


def _read(model: Any, processor: Any, images: list[Image.Image], batch_size: int) -> list[Reading]:
    if hasattr(model, "recognize"):
        with ReadingThreads(model.device) as readers:
            return read_images(model, processor, images, batch_size, readers=readers)
    mgp_str = model.config.model_type == MGP_STR
    tokenizer = MgpStrTokenizers.of(processor) if mgp_str else processor.tokenizer
    with eval_mode(model):
        found = stock_readings(model, tokenizer, processor.image_processor, images, batch_size, with_scores=True)
        return [readings[0] for readings in found]


def report_on(predictions: Sequence[Prediction], seed: int = 0, protocol: str = "normal") -> Report:
    """The report on lines read already, by any reader.

    Args:
        predictions: at least one.
        seed: of the bootstrap intervals.
        protocol: compares the texts in the form of this name, of `hf_ocr.text.PROTOCOLS`.

    Raises:
        ValueError: no lines, an unknown protocol, or references without a single character in its form.
    """
    read, references = _texts(predictions, protocol)
    counts = _counts(read, references)
    documents = _documents(predictions)

    def figure(name: str, inside: np.ndarray) -> Figure:
        own = None if documents is None else documents[inside]
        return measure(counts[name][0][inside], counts[name][1][inside], seed=seed, documents=own)

    lengths = np.array([len(reference) for reference in references])
    widths = np.array([_width(line, length) for line, length in zip(predictions, lengths, strict=True)])
    frequencies = Counter("".join(references))
    rarities = np.array(
        [min((frequencies[character] for character in reference), default=0) for reference in references]
    )

    def buckets(values: np.ndarray, bounds: tuple[int, ...]) -> tuple[Bucket, ...]:
        """NaN is in none."""
        found = []
        for low, high in zip(bounds, (*bounds[1:], None), strict=True):
            inside = (lengths > 0) & (values >= low) & (values < (np.inf if high is None else high))
            if inside.any():
                figures = figure("exact", inside), figure("cer_ignoring_case", inside)
                found.append(Bucket(low, high, int(inside.sum()), *figures))
        return tuple(found)

    def slices(names: Sequence[str | None]) -> tuple[Slice, ...]:
        found = []
        for name, _ in Counter(names).most_common():
            inside = (lengths > 0) & np.array([other == name for other in names])
            if name is not None and inside.any():
                figures = figure("exact", inside), figure("cer_ignoring_case", inside)
                found.append(Slice(name, int(inside.sum()), *figures))
        return tuple(found)

    lines_of = Counter(line.source for line in predictions if line.source is not None)
    # A name that each line has for itself, of its image file for instance, divides nothing.
    common = {source for source, count in lines_of.most_common(NUM_SOURCES) if count > 1}
    sources = [line.source if line.source in common else line.source and "others" for line in predictions]
    whole = {name: measure(*counted, seed=seed, documents=documents) for name, counted in counts.items()}
    cer_macro, wer_macro, distance = (
        measure(*line_rates(*counted), seed=seed, documents=documents)
        for counted in (counts["cer"], counts["wer"], normalised_edits(read, references))
    )
    spaces = space_edits(read, references)
    invented = blank_insertions(read, references)
    return Report(
        num_lines=len(predictions),
        **whole,
        cer_macro=cer_macro,
        wer_macro=wer_macro,
        normalised_edit_distance=distance,
        space=measure(*spaces, seed=seed, documents=documents) if spaces[1].any() else None,
        blanks=Blanks(len(invented), int((invented > 0).sum()), int(invented.sum())),
        predictions=tuple(predictions),
        confusions=count_confusions(read, references),
        by_length=buckets(lengths, LENGTH_BOUNDS),
        by_pixels=buckets(widths / np.maximum(lengths, 1), PIXEL_BOUNDS),
        by_width=buckets(widths, WIDTH_BOUNDS),
        by_rarity=buckets(rarities, RARITY_BOUNDS),
        by_script=slices([script(reference) for reference in references]),
        by_source=slices(sources) if common else (),
        seed=seed,
        protocol=protocol,
        calibration=_calibration(predictions, counts["exact_raw"][0]),
    )


def compare(first: Report, second: Report) -> dict[str, Difference]:
    """The paired test of two reports on the same lines, for each of the five rates of `Report.figures`.

    Whole documents are drawn and swapped where lines have them. Seed and protocol are those of the first report.

    Raises:
        ValueError: reports on other lines.
    """
    if [line.reference for line in first.predictions] != [line.reference for line in second.predictions]:
        raise ValueError(
            f"The reports are not on the same lines ({first.num_lines} and {second.num_lines}); expected the same "
            "references in the same order. Read the same rows with both models."
        )
    ours, theirs = (_counts(*_texts(report.predictions, first.protocol)) for report in (first, second))
    documents = _documents(first.predictions)
    return {
        name: paired_difference(counts, theirs[name][0], totals, seed=first.seed, documents=documents)
        for name, (counts, totals) in ours.items()
    }


def _calibration(predictions: Sequence[Prediction], right: np.ndarray) -> Calibration | None:
    scores = np.array([line.score for line in predictions])
    if not ((scores >= 0) & (scores <= 1)).all() or scores.min() == scores.max():
        return None
    return measure_calibration(scores, right)


def _texts(predictions: Sequence[Prediction], protocol: str) -> tuple[list[str], list[str]]:
    if protocol not in PROTOCOLS:
        raise ValueError(f"protocol is {protocol!r}, expected one of {', '.join(PROTOCOLS)}.")
    form = PROTOCOLS[protocol][0]
    return [form(line.prediction) for line in predictions], [form(line.reference) for line in predictions]


def _counts(read: Sequence[str], references: Sequence[str]) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """The five rates by line, as `hf_ocr.metrics` counts them."""
    right, lines = line_matches(read, references, lower_alphanumerics)
    # Of Devanagari, Arabic or signs the protocol would leave little, and nothing is always equal to nothing.
    kept = np.array([len(lower_alphanumerics(reference)) for reference in references])
    whole = 2 * kept < [sum(map(str.isalnum, reference)) for reference in references]
    whole |= 2 * np.count_nonzero(kept) < len(references)
    return {
        "exact": (np.where(whole, line_matches(read, references, ignore_case)[0], right), lines),
        "exact_raw": line_matches(read, references),
        "cer": character_edits(read, references),
        "cer_ignoring_case": character_edits(read, references, _lower),
        "wer": word_edits(read, references),
    }


def _lower(text: str) -> str:
    """As `ignore_case`, the white space left as the protocol has it."""
    return nfc(text.lower())


def _documents(predictions: Sequence[Prediction]) -> np.ndarray | None:
    """The number of each line's document, of its own for one without a document; None where no line has one."""
    if all(line.document is None for line in predictions):
        return None
    numbers: dict[int | str, int] = {}
    names = (line.index if line.document is None else line.document for line in predictions)
    return np.array([numbers.setdefault(name, len(numbers)) for name in names])


def _image(index: int, row: Mapping[str, Any]) -> Image.Image:
    """The image of a row that can be measured."""
    image, text = row.get("image"), row.get("text")
    if isinstance(image, Mapping):  # as a data set has it
        image = load_image(undecoded(image))
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
    return image


def _label(value: Any) -> str | None:
    return None if value is None else str(value)


def _width(line: Prediction, num_characters: int) -> float:
    """px of the crop scaled to a height of 32 px; NaN of an image that could not be opened."""
    width, height = line.width, line.height
    if not height:
        return float("nan")
    # A crop of several characters that stands upright is a line turned by a quarter, and is read so.
    if num_characters > 1 and height > TALL * width:
        width, height = height, width
    return width * 32 / height
