"""Whether scores can be trusted: calibration error, Brier score, and what is gained by rejecting the doubtful.

`scores` are floats (n,) in [0, 1], `right` booleans (n,): whether the reading with that score is right. Readings of one
score count as the mean of them all, so that no figure depends on their order.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

NUM_BINS = 15
COVERAGES = np.arange(1, 21) / 20


@dataclass(frozen=True)
class Calibration:
    """What the scores of readings are worth.

    Attributes:
        ece: expected calibration error over bins of equally many readings.
        brier: mean squared distance of the score from 1 (right) or 0 (wrong).
        aurc: area under the risk-coverage curve.
        bins: (mean score, share right, readings) of each bin, low scores first.
        risk_coverage: (coverage, risk): the share of errors among the readings kept, at every twentieth of coverage.
    """

    ece: float
    brier: float
    aurc: float
    bins: tuple[tuple[float, float, int], ...]
    risk_coverage: tuple[tuple[float, float], ...]


def measure_calibration(scores: Sequence[float] | np.ndarray, right: Sequence[Any] | np.ndarray) -> Calibration:
    """All figures of this module. Raises as they do."""
    coverage, risk = risk_coverage_curve(scores, right)
    kept = np.maximum(np.ceil(COVERAGES * len(coverage) - 1e-9).astype(int), 1) - 1
    return Calibration(
        ece=expected_calibration_error(scores, right),
        brier=brier_score(scores, right),
        aurc=float(risk.mean()),
        bins=tuple(calibration_bins(scores, right)),
        risk_coverage=tuple(zip(coverage[kept].tolist(), risk[kept].tolist(), strict=True)),
    )


def calibration_bins(
    scores: Sequence[float] | np.ndarray, right: Sequence[Any] | np.ndarray, num_bins: int = NUM_BINS
) -> list[tuple[float, float, int]]:
    """(mean score, share right, readings) of bins of equally many readings, low scores first.

    Raises:
        ValueError: nothing to measure, unequal lengths, or scores outside [0, 1].
    """
    score, share = _ascending(scores, right)
    return [
        (float(own.mean()), float(hits.mean()), len(own))
        for own, hits in zip(np.array_split(score, num_bins), np.array_split(share, num_bins), strict=True)
        if len(own)
    ]


def expected_calibration_error(
    scores: Sequence[float] | np.ndarray, right: Sequence[Any] | np.ndarray, num_bins: int = NUM_BINS
) -> float:
    """The mean distance of score and share right over bins of equally many readings (Nguyen and O'Connor 2015).

    Bins of equal width, as Guo et al. 2017 have them, hold nearly all readings of a good model in the last one.

    Raises:
        ValueError: as `calibration_bins`.
    """
    bins = calibration_bins(scores, right, num_bins)
    return sum(abs(score - share) * count for score, share, count in bins) / sum(count for *_, count in bins)


def brier_score(scores: Sequence[float] | np.ndarray, right: Sequence[Any] | np.ndarray) -> float:
    """The mean squared distance of the score from 1 where the reading is right, from 0 where it is wrong (Brier 1950).

    Raises:
        ValueError: as `calibration_bins`.
    """
    score, hit = _checked(scores, right)
    return float(((score - hit) ** 2).mean())


def risk_coverage_curve(
    scores: Sequence[float] | np.ndarray, right: Sequence[Any] | np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Coverage (n,) and risk (n,): the share of errors among the 1, 2, ..., n readings with the best scores.

    El-Yaniv and Wiener 2010. Its area (AURC) is the mean of the risks: 0 where nothing is wrong.

    Raises:
        ValueError: as `calibration_bins`.
    """
    _, share = _ascending(scores, right)
    kept = np.arange(1, len(share) + 1)
    return kept / len(share), np.cumsum(1 - share[::-1]) / kept


def _ascending(
    scores: Sequence[float] | np.ndarray, right: Sequence[Any] | np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Scores ascending, and for each the share right of all readings with this very score."""
    score, hit = _checked(scores, right)
    values, place, counts = np.unique(score, return_inverse=True, return_counts=True)
    shares = np.bincount(place, hit) / counts
    return np.repeat(values, counts), np.repeat(shares, counts)


def _checked(scores: Sequence[float] | np.ndarray, right: Sequence[Any] | np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    score, hit = np.asarray(scores, dtype=float), np.asarray(right, dtype=bool)
    if score.shape != hit.shape or score.ndim != 1 or not len(score):
        raise ValueError(
            f"scores have shape {score.shape} and right {hit.shape}, expected one of each a reading, at least one."
        )
    if not ((score >= 0) & (score <= 1)).all():
        wrong = score[~((score >= 0) & (score <= 1))][0]
        raise ValueError(f"scores hold {wrong}, expected probabilities in [0, 1].")
    return score, hit.astype(float)
