"""How sure a rate is, and a difference of two: resampling of lines, or of the documents that they come from.

Lines are given as two arrays (N,), counts and totals, whose sums make the rate: edits and reference lengths, say.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
import numpy.typing as npt

Counts: TypeAlias = npt.NDArray[np.int64]
Rates: TypeAlias = npt.NDArray[np.float64]
Documents: TypeAlias = Sequence[str] | npt.NDArray[np.int64]  # of N lines: names, or numbers for the sake of memory

NUM_RESAMPLINGS = 1000
NUM_PERMUTATIONS = 10_000


@dataclass(frozen=True)
class Figure:
    """A rate with its 95 % interval, as fractions, and the two numbers behind it: `value == count / total`.

    `count` is an integer, save for a mean over lines, where it is the sum of their rates.
    """

    value: float
    low: float
    high: float
    count: float
    total: int


@dataclass(frozen=True)
class Difference:
    """How the second of two readers differs from the first on the same lines; rates as fractions.

    Attributes:
        first, second: their rates.
        value: second - first: below 0, the second makes fewer errors.
        low, high: the 95 % interval of `value`, by the paired bootstrap.
        p_value: how often a difference at least this large, either way, arises when in each line (or document) a coin
            decides which reading is whose: the paired permutation test.
    """

    first: float
    second: float
    value: float
    low: float
    high: float
    p_value: float


def line_rates(counts: Counts, totals: Counts) -> tuple[Rates, Counts]:
    """The rate of each line and a 1 for each, for a mean over lines (macro): float64 and int64 (N,).

    A line whose total is 0, an empty reference, has no rate of its own: it counts 0 where its count is 0 (nothing was
    read) and 1 otherwise.
    """
    rates = np.where(totals > 0, counts / np.maximum(totals, 1), counts > 0)
    return rates, np.ones(len(rates), dtype=np.int64)


def measure(
    counts: Counts | Rates,
    totals: Counts,
    num_samples: int = NUM_RESAMPLINGS,
    seed: int = 0,
    documents: Documents | None = None,
) -> Figure:
    """The rate sum(counts) / sum(totals) of N lines with its interval: `measure(*character_edits(...))`.

    The mean over lines: `measure(*line_rates(*character_edits(...)))`.
    """
    value = rate(counts, totals)
    low, high = bootstrap_interval(counts, totals, num_samples, seed, documents)
    return Figure(value=value, low=low, high=high, count=counts.sum().item(), total=int(totals.sum()))


def bootstrap_interval(
    counts: Counts | Rates,
    totals: Counts,
    num_samples: int = NUM_RESAMPLINGS,
    seed: int = 0,
    documents: Documents | None = None,
) -> tuple[float, float]:
    """The 95 % percentile interval of sum(counts) / sum(totals) over `num_samples` resamplings of the N lines.

    Lines are drawn one by one as if independent; lines of one document are not quite, so their true interval is
    somewhat wider. With `documents`, the document of each line, whole documents are drawn instead. Where every line
    has the same rate (all right, say) the interval has no width, and N says more than it does. The same seed gives the
    same interval.
    """
    rate(counts, totals)
    low, high = np.percentile(_resampled_rates(counts, totals, num_samples, seed, documents), [2.5, 97.5])
    return float(low), float(high)


def paired_difference(
    first: Counts,
    second: Counts,
    totals: Counts,
    num_samples: int = NUM_RESAMPLINGS,
    seed: int = 0,
    documents: Documents | None = None,
) -> Difference:
    """Whether two readers differ: their counts on the same N lines, whose totals are those of the references.

    With `documents`, whole documents are drawn and swapped. The p-value is of `NUM_PERMUTATIONS` permutations and
    never 0: (1 + as extreme ones) / (1 + permutations).
    """
    rates = rate(first, totals), rate(second, totals)
    differences = second - first
    low, high = np.percentile(_resampled_rates(differences, totals, num_samples, seed, documents), [2.5, 97.5])
    swapped = np.abs(differences if documents is None else _by_document(differences, documents))
    sizes, multiplicity = np.unique(swapped, return_counts=True)
    # Of m units that differ by the same size, Binomial(m, 1/2) keep their sign.
    kept = np.random.default_rng(seed).binomial(multiplicity, 0.5, (NUM_PERMUTATIONS, len(sizes)))
    extreme = np.abs((2 * kept - multiplicity) @ sizes) >= abs(differences.sum())
    return Difference(
        first=rates[0],
        second=rates[1],
        value=rates[1] - rates[0],
        low=float(low),
        high=float(high),
        p_value=(1 + int(extreme.sum())) / (1 + NUM_PERMUTATIONS),
    )


def rate(counts: Counts | Rates, totals: Counts) -> float:
    """sum(counts) / sum(totals). Raises ValueError where the totals are 0 in all."""
    total = int(totals.sum())
    if total == 0:
        raise ValueError(
            f"The references of the {len(totals)} lines have length 0 in all, so there is no error rate; expected "
            "at least one character (or word) to read. If `normalise` dropped them all, choose a wider charset."
        )
    return float(counts.sum() / total)


def _resampled_rates(
    counts: Counts | Rates, totals: Counts, num_samples: int, seed: int, documents: Documents | None
) -> Rates:
    """sum(counts) / sum(totals) over N lines drawn with replacement, at most `num_samples` times."""
    # A complex number holds the two of a line, for `unique` is slow on rows.
    lines = counts + 1j * totals
    if documents is not None:
        lines = _by_document(counts, documents) + 1j * _by_document(totals, documents)
    # Lines of the same two numbers are one kind, and drawn together: there are far fewer kinds than lines.
    kinds, multiplicity = np.unique(lines, return_counts=True)
    generator = np.random.default_rng(seed)
    part = max(1, 2_000_000 // len(kinds))  # samples at once: bounds the memory
    sums = np.concatenate(
        [
            generator.multinomial(len(lines), multiplicity / len(lines), min(part, num_samples - done)) @ kinds
            for done in range(0, num_samples, part)
        ]
    )
    sums = sums[sums.imag > 0]  # a draw of empty references alone has no rate; it is left out
    return sums.real / sums.imag


def _by_document(values: Counts | Rates, documents: Documents) -> Rates:
    """The sum over the lines of each document: (D,)."""
    place = np.unique(np.asarray(documents), return_inverse=True)[1]
    sums: Rates = np.zeros(place.max() + 1)
    np.add.at(sums, place, values)
    return sums
