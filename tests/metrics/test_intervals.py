import numpy as np
import pytest

from hf_ocr.metrics import (
    bootstrap_interval,
    character_edits,
    line_matches,
    line_rates,
    measure,
    paired_difference,
)


def test_measure_carries_the_counts_and_brackets_the_rate():
    figure = measure(*line_matches(["a"] * 80 + ["b"] * 20, ["a"] * 100))
    assert (figure.count, figure.total, figure.value) == (80, 100, 0.8)
    # The normal approximation: 0.8 +- 1.96 * sqrt(0.8 * 0.2 / 100) = [0.722, 0.878].
    assert figure.low == pytest.approx(0.722, abs=0.02)
    assert figure.high == pytest.approx(0.878, abs=0.02)


def test_the_interval_covers_the_truth_as_often_as_it_says():
    generator = np.random.default_rng(1)
    totals = np.full(200, 10)
    covered = 0
    for _ in range(200):
        low, high = bootstrap_interval(generator.binomial(10, 0.1, 200), totals, num_samples=200)
        covered += low <= 0.1 <= high
    assert 180 <= covered <= 199


def test_the_interval_weighs_lines_by_length():
    # One long line holds nearly all characters: drawn or not drawn, it decides, so the interval is wide.
    edits, lengths = np.array([50] + [0] * 9), np.array([100] + [1] * 9)
    low, high = bootstrap_interval(edits, lengths)
    assert low == 0.0
    assert high > 0.45


def test_the_interval_is_decided_by_the_seed():
    counts = character_edits(["abd", "a", "xyz"] * 30, ["abc", "a", "xy"] * 30)
    assert bootstrap_interval(*counts, seed=3) == bootstrap_interval(*counts, seed=3)
    assert bootstrap_interval(*counts, seed=3) != bootstrap_interval(*counts, seed=4)


def test_resamplings_of_empty_references_alone_are_left_out():
    low, high = bootstrap_interval(np.array([1, 1]), np.array([0, 2]))
    assert (low, high) == (0.5, 1.0)


def test_a_mean_over_lines_has_an_interval_too():
    figure = measure(*line_rates(np.array([1, 0, 3, 0]), np.array([2, 4, 0, 0])))
    assert (figure.count, figure.total, figure.value) == (1.5, 4, 1.5 / 4)
    assert 0.0 <= figure.low < figure.value < figure.high <= 1.0


def test_whole_documents_are_drawn():
    # Ten documents of fifty lines each, five of them all wrong: there are ten things to draw, not five hundred.
    wrong = np.repeat([1, 0] * 5, 50)
    documents = [f"page {index // 50}" for index in range(500)]
    low, high = bootstrap_interval(wrong, np.ones_like(wrong), documents=documents)
    assert (low, high) == pytest.approx((0.2, 0.8), abs=0.11)
    assert bootstrap_interval(wrong, np.ones_like(wrong))[0] > 0.44
    # Each line its own document: the same as lines.
    own = bootstrap_interval(wrong, np.ones_like(wrong), documents=[str(index) for index in range(500)])
    assert own == bootstrap_interval(wrong, np.ones_like(wrong))


def test_documents_weigh_by_their_lines():
    # The long document is wrong throughout, the short ones are right.
    wrong = np.array([1] * 96 + [0] * 4)
    figure = measure(wrong, np.ones_like(wrong), documents=["long"] * 96 + ["a", "b", "c", "d"])
    assert figure.value == 0.96
    assert (figure.low, figure.high) == (0.0, pytest.approx(1.0, abs=0.01))


def test_the_p_value_is_rare_where_nothing_differs():
    generator = np.random.default_rng(2)
    lengths = np.full(100, 10)
    p_values = [
        paired_difference(*generator.binomial(10, 0.2, (2, 100)), lengths, num_samples=2).p_value for _ in range(200)
    ]
    # Of 200, 5 % are expected below 0.05, with a standard deviation of 3.
    assert 2 <= sum(p < 0.05 for p in p_values) <= 20


def test_a_real_difference_is_found_with_its_sign_and_size():
    first = np.array([2, 1, 3, 2, 1, 0, 2, 2] * 10)
    found = paired_difference(first, first // 2, np.full(80, 10))
    assert (found.first, found.second) == (130 / 800, 50 / 800)
    assert found.value == pytest.approx(-0.1)
    assert found.low < found.value < found.high < 0
    assert found.p_value == 1 / 10_001
    back = paired_difference(first // 2, first, np.full(80, 10))
    assert (back.value, back.low, back.high) == pytest.approx((-found.value, -found.high, -found.low), abs=0.002)


def test_the_p_value_of_few_lines_is_that_of_all_sign_changes():
    # Three lines, each better by one: of the eight sign changes two are as extreme.
    found = paired_difference(np.array([1, 1, 1]), np.array([0, 0, 0]), np.array([5, 5, 5]))
    assert found.p_value == pytest.approx(2 / 8, abs=0.02)
    # The same three lines of one document are one unit: both of its signs are as extreme.
    together = paired_difference(np.array([1, 1, 1]), np.array([0, 0, 0]), np.array([5, 5, 5]), documents=["a"] * 3)
    assert together.p_value == 1.0


def test_equal_readings_do_not_differ():
    found = paired_difference(np.array([1, 0]), np.array([1, 0]), np.array([2, 2]))
    assert (found.value, found.low, found.high, found.p_value) == (0.0, 0.0, 0.0, 1.0)
