"""One score for a word or a line from the probabilities of its characters or tokens."""

from collections.abc import Callable, Sequence
from math import fsum, prod
from typing import Literal

ScoreAs = Literal["product", "geometric_mean", "mean", "min"]


def _geometric_mean(probabilities: Sequence[float]) -> float:
    return prod(probability ** (1 / len(probabilities)) for probability in probabilities)


_AGGREGATES: dict[ScoreAs, Callable[[Sequence[float]], float]] = {
    "product": prod,
    "geometric_mean": _geometric_mean,
    "mean": lambda probabilities: fsum(probabilities) / len(probabilities),
    "min": min,
}


def aggregate(probabilities: Sequence[float], score_as: ScoreAs) -> float:
    """The probabilities of the steps by which a text came, at least one, as one score in [0, 1].

    Each is that of a step given the image and the steps before, so "product" is the probability of the text. It falls
    with the length of the text; "geometric_mean" is that a step. "mean" hides one bad step in a long text, "min" is
    that step.
    """
    return _AGGREGATES[score_as](probabilities)


def check_score_as(score_as: str) -> None:
    """Raises ValueError for what is not one of the four."""
    if score_as not in _AGGREGATES:
        raise ValueError(f"score_as is {score_as!r}, expected {', '.join(map(repr, _AGGREGATES))}.")
