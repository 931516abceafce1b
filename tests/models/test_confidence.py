"""The score of a word or a line from those of its characters."""

import pytest

from hf_ocr.models.confidence import aggregate, check_score_as


@pytest.mark.parametrize(
    ("score_as", "expected"), [("product", 0.125), ("geometric_mean", 0.5), ("mean", 0.5625), ("min", 0.25)]
)
def test_what_each_aggregate_makes_of_the_same_steps(score_as, expected):
    steps = [0.25, 1.0, 1.0, 0.5] if score_as != "geometric_mean" else [0.25, 1.0]
    if score_as == "mean":
        steps = [0.25, 0.5, 0.5, 1.0]
    assert aggregate(steps, score_as) == pytest.approx(expected)
    assert aggregate([0.3], score_as) == pytest.approx(0.3)
    assert aggregate([0.0, 1.0], score_as) == (0.5 if score_as == "mean" else 0.0)


def test_the_geometric_mean_of_a_long_text_does_not_vanish():
    assert aggregate([1e-3] * 2000, "geometric_mean") == pytest.approx(1e-3)


def test_an_unknown_name_is_told_the_known_ones():
    with pytest.raises(ValueError, match="score_as is 'max', expected 'product', 'geometric_mean', 'mean', 'min'"):
        check_score_as("max")
