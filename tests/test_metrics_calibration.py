"""ECE, Brier score and the risk-coverage curve against sums by hand and known distributions."""

import numpy as np
import pytest

from hf_ocr.metrics.calibration import (
    brier_score,
    calibration_bins,
    expected_calibration_error,
    measure_calibration,
    risk_coverage_curve,
)

SCORES = [0.9, 0.1, 0.6, 0.8]
RIGHT = [True, False, False, True]


def test_figures_of_four_readings_by_hand():
    assert brier_score(SCORES, RIGHT) == pytest.approx((0.01 + 0.01 + 0.36 + 0.04) / 4)
    assert calibration_bins(SCORES, RIGHT, 2) == [(pytest.approx(0.35), 0.0, 2), (pytest.approx(0.85), 1.0, 2)]
    assert expected_calibration_error(SCORES, RIGHT, 2) == pytest.approx((0.35 + 0.15) / 2)
    coverage, risk = risk_coverage_curve(SCORES, RIGHT)
    assert coverage.tolist() == [0.25, 0.5, 0.75, 1.0]
    assert risk.tolist() == pytest.approx([0, 0, 1 / 3, 0.5])
    found = measure_calibration(SCORES, RIGHT)
    assert found.aurc == pytest.approx((1 / 3 + 1 / 2) / 4)
    assert found.risk_coverage[9] == (0.5, 0.0)
    assert found.risk_coverage[10] == (0.75, pytest.approx(1 / 3))
    assert len(found.risk_coverage) == 20 and found.risk_coverage[-1] == (1.0, 0.5)


def test_calibrated_scores_have_nearly_no_error_and_boastful_ones_theirs():
    generator = np.random.default_rng(0)
    scores = generator.random(200_000)
    right = generator.random(200_000) < scores
    assert expected_calibration_error(scores, right) < 0.005
    assert brier_score(scores, right) == pytest.approx(1 / 6, abs=0.003)
    assert expected_calibration_error(scores**0.5, right) == pytest.approx(1 / 6, abs=0.005)
    # ranking alone counts for the curve: the risk of the best share c is c / 2
    coverage, risk = risk_coverage_curve(scores**0.5, right)
    assert np.abs(risk - coverage / 2)[1000:].max() < 0.02


def test_bins_hold_equally_many_readings_however_the_scores_lie():
    scores = 1 - np.linspace(0, 1e-3, 100)
    counts = [count for *_, count in calibration_bins(scores, np.ones(100), 15)]
    assert sum(counts) == 100 and max(counts) - min(counts) <= 1


def test_equal_scores_count_alike_in_any_order():
    scores = np.array([0.5] * 6 + [0.9] * 2)
    right = np.array([True, True, True, False, False, False, True, False])
    forth = measure_calibration(scores, right)
    assert forth == measure_calibration(scores[::-1], right[::-1])
    order = [5, 3, 1, 0, 2, 4, 7, 6]
    assert forth == measure_calibration(scores[order], right[order])
    assert forth.aurc == pytest.approx(0.5)


@pytest.mark.parametrize("figure", [brier_score, expected_calibration_error, risk_coverage_curve, calibration_bins])
def test_what_cannot_be_measured_is_named(figure):
    for scores, right, message in (
        ([], [], "at least one"),
        ([0.5], [True, False], r"scores have shape \(1,\) and right \(2,\)"),
        ([0.5, float("nan")], [True, True], "scores hold nan"),
        ([0.5, 98.0], [True, True], "scores hold 98.0"),
    ):
        with pytest.raises(ValueError, match=message):
            figure(scores, right)
