"""Error rates of read lines, counted by line and then averaged.

Edits are Levenshtein edits (insertion, deletion, substitution, each 1), so a rate may exceed 1. Texts are compared as
they are given unless `normalise` names a function of `hf_ocr.text`: a double space counts, and so do a capital and a
difference of Unicode form. Characters are code points, or with `graphemes` grapheme clusters; words are what
`str.split` gives.

Micro averages, the default, are the sum of edits / sum of reference lengths; macro averages are the mean of the rates
of the lines (`hf_ocr.metrics.line_rates` says what an empty reference has for a rate).
"""

from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Literal, TypeAlias

import numpy as np

from hf_ocr.metrics.intervals import Counts, line_rates, rate
from hf_ocr.text import graphemes as split_graphemes

Average: TypeAlias = Literal["micro", "macro"]
Normalise: TypeAlias = Callable[[str], str]


@dataclass(frozen=True)
class Confusions:
    """Edits counted by character.

    Where several alignments have the fewest edits, RapidFuzz takes one of them.

    Attributes:
        substitutions: (character of the reference, character read) -> count.
        insertions: characters read that are not in the reference.
        deletions: characters of the reference that were not read.
    """

    substitutions: Counter[tuple[str, str]]
    insertions: Counter[str]
    deletions: Counter[str]


def character_edits(
    predictions: Sequence[str],
    references: Sequence[str],
    normalise: Normalise | None = None,
    graphemes: bool = False,
) -> tuple[Counts, Counts]:
    """Edits from each reference to its prediction, and the reference's length in characters: two int64 (N,)."""
    return _edits(_pairs(predictions, references, normalise), split_graphemes if graphemes else str)


def word_edits(
    predictions: Sequence[str], references: Sequence[str], normalise: Normalise | None = None
) -> tuple[Counts, Counts]:
    """Edits from each reference to its prediction in words, and the reference's length in words: two int64 (N,)."""
    return _edits(_pairs(predictions, references, normalise), str.split)


def space_edits(
    predictions: Sequence[str], references: Sequence[str], normalise: Normalise | None = None
) -> tuple[Counts, Counts]:
    """Spaces missed and spaces invented in each line, and the spaces of its reference: two int64 (N,).

    Of the character edits those that delete or insert white space, or put another character in its place or it in
    another's. Where several alignments have the fewest edits, RapidFuzz takes one of them.
    """
    pairs = _pairs(predictions, references, normalise)
    edits = [
        sum(
            (tag != "insert" and reference[at].isspace()) != (tag != "delete" and prediction[to].isspace())
            for tag, at, to in edit_operations(reference, prediction)
        )
        for prediction, reference in pairs
    ]
    return _counts(edits), _counts([sum(map(str.isspace, reference)) for _, reference in pairs])


def normalised_edits(
    predictions: Sequence[str],
    references: Sequence[str],
    normalise: Normalise | None = None,
    graphemes: bool = False,
) -> tuple[Counts, Counts]:
    """Character edits of each line, and the length of the longer of its two texts: two int64 (N,)."""
    split = split_graphemes if graphemes else str
    pairs = _pairs(predictions, references, normalise)
    edits, lengths = _edits(pairs, split)
    return edits, np.maximum(lengths, _counts([len(split(prediction)) for prediction, _ in pairs]))


def line_matches(
    predictions: Sequence[str], references: Sequence[str], normalise: Normalise | None = None
) -> tuple[Counts, Counts]:
    """1 for each line read exactly and 0 for the others, and a 1 for every line: two int64 (N,).

    A line whose reference is empty after `normalise` counts as any other: right if the prediction is empty too.
    """
    pairs = _pairs(predictions, references, normalise)
    return _counts([prediction == reference for prediction, reference in pairs]), np.ones(len(pairs), dtype=np.int64)


def blank_insertions(
    predictions: Sequence[str], references: Sequence[str], normalise: Normalise | None = None
) -> Counts:
    """Characters read on each blank image, one whose reference is empty: int64 (number of blank images,)."""
    pairs = _pairs(predictions, references, normalise)
    return _counts([len(prediction) for prediction, reference in pairs if not reference])


def character_error_rate(
    predictions: Sequence[str],
    references: Sequence[str],
    normalise: Normalise | None = None,
    average: Average = "micro",
    graphemes: bool = False,
) -> float:
    """CER as a fraction: sum of character edits / sum of reference lengths, or the mean over lines.

    Raises ValueError for no lines, for lists of unequal length, and where the references hold no character at all.
    """
    return _average(*character_edits(predictions, references, normalise, graphemes), average)


def word_error_rate(
    predictions: Sequence[str],
    references: Sequence[str],
    normalise: Normalise | None = None,
    average: Average = "micro",
) -> float:
    """WER as a fraction: sum of word edits / number of reference words. Raises as `character_error_rate` does."""
    return _average(*word_edits(predictions, references, normalise), average)


def space_error_rate(
    predictions: Sequence[str], references: Sequence[str], normalise: Normalise | None = None
) -> float:
    """Spaces missed and invented / spaces of the references. Raises ValueError where these have none."""
    return rate(*space_edits(predictions, references, normalise))


def normalised_edit_distance(
    predictions: Sequence[str],
    references: Sequence[str],
    normalise: Normalise | None = None,
    average: Average = "macro",
    graphemes: bool = False,
) -> float:
    """Edits / length of the longer text, in [0, 1]: the mean over lines, as text-reading competitions have it.

    Two empty texts have distance 0. ICDAR's 1-N.E.D. is 1 less this. Raises as `exact_match` does.
    """
    edits, lengths = normalised_edits(predictions, references, normalise, graphemes)
    return float(edits.sum() and _average(edits, lengths, average))


def exact_match(predictions: Sequence[str], references: Sequence[str], normalise: Normalise | None = None) -> float:
    """The share of lines whose prediction equals the reference. Raises ValueError for no lines and unequal lengths."""
    return rate(*line_matches(predictions, references, normalise))


def count_confusions(
    predictions: Sequence[str],
    references: Sequence[str],
    normalise: Normalise | None = None,
    graphemes: bool = False,
) -> Confusions:
    """Which characters were mistaken for which, invented and missed. Raises as `exact_match` does."""
    confusions = Confusions(Counter(), Counter(), Counter())
    for predicted, printed in _pairs(predictions, references, normalise):
        prediction, reference = (split_graphemes(t) if graphemes else t for t in (predicted, printed))
        for tag, at, to in edit_operations(reference, prediction):
            if tag == "replace":
                confusions.substitutions[reference[at], prediction[to]] += 1
            elif tag == "insert":
                confusions.insertions[prediction[to]] += 1
            else:
                confusions.deletions[reference[at]] += 1
    return confusions


def edit_operations(reference: Sequence[str], prediction: Sequence[str]) -> Iterable[tuple[str, int, int]]:
    """("replace", "insert" or "delete", place in the reference, place in the prediction) of each edit, in order.

    Where several alignments have the fewest edits, RapidFuzz takes one of them.
    """
    return () if reference == prediction else _levenshtein().editops(reference, prediction).as_list()


def _pairs(predictions: Sequence[str], references: Sequence[str], normalise: Normalise | None) -> list[tuple[str, str]]:
    for name, texts in (("predictions", predictions), ("references", references)):
        if isinstance(texts, str):
            raise TypeError(f"{name} is one string, {texts[:40]!r}; expected a list of strings: put it in a list.")
        for index, text in enumerate(texts):
            if not isinstance(text, str):
                raise TypeError(f"{name}[{index}] is {text!r:.60} ({type(text).__name__}); expected a string.")
    if len(predictions) != len(references):
        raise ValueError(
            f"{len(predictions)} predictions for {len(references)} references; expected one prediction a reference."
        )
    if not references:
        raise ValueError("No lines to measure: predictions and references are empty; expected at least one pair.")
    if normalise is None:
        return list(zip(predictions, references, strict=True))
    return [(normalise(p), normalise(r)) for p, r in zip(predictions, references, strict=True)]


def _edits(pairs: Iterable[tuple[str, str]], split: Callable[[str], Sequence[str]]) -> tuple[Counts, Counts]:
    levenshtein = _levenshtein()
    edits, lengths = [], []
    # No split text outlives its turn: a million lists at once cost ten times this in garbage collection.
    for prediction, reference in pairs:
        symbols = split(reference)
        edits.append(0 if prediction == reference else levenshtein.distance(symbols, split(prediction)))
        lengths.append(len(symbols))
    return _counts(edits), _counts(lengths)


def _levenshtein() -> Any:
    try:
        from rapidfuzz.distance import Levenshtein
    except ImportError as error:
        raise ImportError("Measuring needs RapidFuzz, which is not installed: `pip install hf_ocr[eval]`.") from error
    return Levenshtein


def _average(counts: Counts, totals: Counts, average: Average) -> float:
    if average not in ("micro", "macro"):
        raise ValueError(f'average is {average!r}, expected "micro" or "macro".')
    micro = rate(counts, totals)  # refuses what has no character, whichever average
    return micro if average == "micro" else float(line_rates(counts, totals)[0].mean())


def _counts(values: Sequence[int]) -> Counts:
    return np.asarray(values, dtype=np.int64)
