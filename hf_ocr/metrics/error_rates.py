"""Error rates of read lines, counted by line and then summed (micro): sum of edits / sum of reference lengths.

Edits are Levenshtein edits (insertion, deletion, substitution, each 1), so a rate may exceed 1. Texts are compared as
they are given unless `normalise` names a function of `hf_ocr.text`: a double space counts, and so do a capital and a
difference of Unicode form. Characters are code points; words are what `str.split` gives.
"""

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
import numpy.typing as npt

try:
    from rapidfuzz.distance import Levenshtein
except ImportError as error:
    raise ImportError("Measuring needs RapidFuzz, which is not installed: `pip install hf_ocr[eval]`.") from error

Counts: TypeAlias = npt.NDArray[np.int64]
Normalise: TypeAlias = Callable[[str], str]

NUM_RESAMPLINGS = 1000


@dataclass(frozen=True)
class Figure:
    """A rate with its 95 % interval, as fractions, and the two integers behind it: `value == count / total`."""

    value: float
    low: float
    high: float
    count: int
    total: int


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
    predictions: Sequence[str], references: Sequence[str], normalise: Normalise | None = None
) -> tuple[Counts, Counts]:
    """Edits from each reference to its prediction, and the reference's length in characters: two int64 (N,)."""
    pairs = _pairs(predictions, references, normalise)
    edits = [Levenshtein.distance(reference, prediction) for prediction, reference in pairs]
    return _counts(edits), _counts([len(reference) for _, reference in pairs])


def word_edits(
    predictions: Sequence[str], references: Sequence[str], normalise: Normalise | None = None
) -> tuple[Counts, Counts]:
    """Edits from each reference to its prediction in words, and the reference's length in words: two int64 (N,)."""
    texts = _pairs(predictions, references, normalise)
    pairs = [(prediction.split(), reference.split()) for prediction, reference in texts]
    edits = [Levenshtein.distance(reference, prediction) for prediction, reference in pairs]
    return _counts(edits), _counts([len(reference) for _, reference in pairs])


def line_matches(
    predictions: Sequence[str], references: Sequence[str], normalise: Normalise | None = None
) -> tuple[Counts, Counts]:
    """1 for each line read exactly and 0 for the others, and a 1 for every line: two int64 (N,).

    A line whose reference is empty after `normalise` counts as any other: right if the prediction is empty too.
    """
    pairs = _pairs(predictions, references, normalise)
    return _counts([prediction == reference for prediction, reference in pairs]), np.ones(len(pairs), dtype=np.int64)


def character_error_rate(
    predictions: Sequence[str], references: Sequence[str], normalise: Normalise | None = None
) -> float:
    """CER as a fraction: sum of character edits / sum of reference lengths.

    Raises ValueError for no lines, for lists of unequal length, and where the references hold no character at all.
    """
    return _rate(*character_edits(predictions, references, normalise))


def word_error_rate(predictions: Sequence[str], references: Sequence[str], normalise: Normalise | None = None) -> float:
    """WER as a fraction: sum of word edits / number of reference words. Raises as `character_error_rate` does."""
    return _rate(*word_edits(predictions, references, normalise))


def exact_match(predictions: Sequence[str], references: Sequence[str], normalise: Normalise | None = None) -> float:
    """The share of lines whose prediction equals the reference. Raises ValueError for no lines and unequal lengths."""
    return _rate(*line_matches(predictions, references, normalise))


def count_confusions(
    predictions: Sequence[str], references: Sequence[str], normalise: Normalise | None = None
) -> Confusions:
    """Which characters were mistaken for which, invented and missed. Raises as `exact_match` does."""
    confusions = Confusions(Counter(), Counter(), Counter())
    for prediction, reference in _pairs(predictions, references, normalise):
        for edit in Levenshtein.editops(reference, prediction):
            if edit.tag == "replace":
                confusions.substitutions[reference[edit.src_pos], prediction[edit.dest_pos]] += 1
            elif edit.tag == "insert":
                confusions.insertions[prediction[edit.dest_pos]] += 1
            else:
                confusions.deletions[reference[edit.src_pos]] += 1
    return confusions


def measure(counts: Counts, totals: Counts, num_samples: int = NUM_RESAMPLINGS, seed: int = 0) -> Figure:
    """The rate sum(counts) / sum(totals) of N lines with its interval: `measure(*character_edits(...))`."""
    value = _rate(counts, totals)
    low, high = bootstrap_interval(counts, totals, num_samples, seed)
    return Figure(value=value, low=low, high=high, count=int(counts.sum()), total=int(totals.sum()))


def bootstrap_interval(
    counts: Counts, totals: Counts, num_samples: int = NUM_RESAMPLINGS, seed: int = 0
) -> tuple[float, float]:
    """The 95 % percentile interval of sum(counts) / sum(totals) over `num_samples` resamplings of the N lines.

    Lines are drawn one by one as if independent; lines of one document are not quite, so the true interval is somewhat
    wider. Where every line has the same rate (all right, say) the interval has no width, and N says more than it does.
    The same seed gives the same interval.
    """
    _rate(counts, totals)
    generator = np.random.default_rng(seed)
    rates = np.full(num_samples, np.nan)
    for sample in range(num_samples):
        drawn = generator.integers(len(counts), size=len(counts))
        total = totals[drawn].sum()
        # A draw of empty references alone has no rate; it is left out.
        if total:
            rates[sample] = counts[drawn].sum() / total
    low, high = np.nanpercentile(rates, [2.5, 97.5])
    return float(low), float(high)


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


def _counts(values: Sequence[int]) -> Counts:
    return np.asarray(values, dtype=np.int64)


def _rate(counts: Counts, totals: Counts) -> float:
    total = int(totals.sum())
    if total == 0:
        raise ValueError(
            f"The references of the {len(totals)} lines have length 0 in all, so there is no error rate; expected "
            "at least one character (or word) to read. If `normalise` dropped them all, choose a wider charset."
        )
    return int(counts.sum()) / total
