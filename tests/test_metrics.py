from pathlib import Path

import numpy as np
import pytest

import hf_ocr.metrics
from hf_ocr.metrics import (
    bootstrap_interval,
    character_edits,
    character_error_rate,
    count_confusions,
    exact_match,
    line_matches,
    measure,
    word_edits,
    word_error_rate,
)
from hf_ocr.text import ignore_case, lower_alphanumerics, normalise

# By hand: "kitten" > "sitting" 3 edits; "Total 5" > "total  5" 2 (a case, a space); "ab" > "" 2; "" > "x" 1.
REFERENCES = ["kitten", "Total 5", "ab", ""]
PREDICTIONS = ["sitting", "total  5", "", "x"]


def test_character_edits_are_those_counted_by_hand():
    edits, lengths = character_edits(PREDICTIONS, REFERENCES)
    assert edits.tolist() == [3, 2, 2, 1]
    assert lengths.tolist() == [6, 7, 2, 0]


def test_cer_sums_edits_over_summed_lengths():
    assert character_error_rate(PREDICTIONS, REFERENCES) == 8 / 15
    assert character_error_rate(PREDICTIONS, REFERENCES, normalise) == 7 / 15
    assert character_error_rate(PREDICTIONS, REFERENCES, ignore_case) == 6 / 15


def test_cer_may_exceed_one():
    assert character_error_rate(["abcd"], ["x"]) == 4.0


def test_wer_counts_words():
    edits, words = word_edits(["the cat sat", "one"], ["the bat  sat down", "one two"])
    assert edits.tolist() == [2, 1]
    assert words.tolist() == [4, 2]
    assert word_error_rate(["the cat sat", "one"], ["the bat  sat down", "one two"]) == 0.5
    assert word_error_rate(["THE BAT"], ["the bat"]) == 1.0
    assert word_error_rate(["THE BAT"], ["the bat"], ignore_case) == 0.0


def test_exact_match_counts_lines_that_the_protocol_empties():
    predictions, references = ["RM 5.00", "***", "x", "A"], ["rm5:00", "%", ":", "B"]
    assert exact_match(predictions, references) == 0.0
    assert exact_match(predictions, references, lower_alphanumerics) == 0.5


def test_confusions_tell_the_printed_from_the_read():
    confusions = count_confusions(["RM12,9O", "ab", "xx"], ["RM12.90", "abc", "x"])
    assert confusions.substitutions == {(".", ","): 1, ("0", "O"): 1}
    assert confusions.insertions == {"x": 1}
    assert confusions.deletions == {"c": 1}


@pytest.mark.parametrize("rate", [character_error_rate, word_error_rate])
def test_rates_without_a_reference_are_refused(rate):
    with pytest.raises(ValueError, match="length 0 in all"):
        rate(["x", ""], ["", ""])
    with pytest.raises(ValueError, match="length 0 in all"):
        rate(["1"], ["?"], lower_alphanumerics)


@pytest.mark.parametrize("rate", [character_error_rate, word_error_rate, exact_match])
def test_bad_lists_are_refused_by_name(rate):
    with pytest.raises(ValueError, match="No lines"):
        rate([], [])
    with pytest.raises(ValueError, match="2 predictions for 1 references"):
        rate(["a", "b"], ["a"])
    with pytest.raises(TypeError, match="predictions is one string"):
        rate("abc", ["a", "b", "c"])
    with pytest.raises(TypeError, match=r"references\[1\] is None"):
        rate(["a", "b"], ["a", None])


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


METRICS = Path(hf_ocr.metrics.__file__).parent


@pytest.fixture(scope="module")
def evaluate():
    return pytest.importorskip("evaluate")


@pytest.mark.parametrize(
    ("name", "path"), [("cer", "cer"), ("cer", "cer/cer.py"), ("wer", "wer"), ("wer", "wer/wer.py")]
)
def test_evaluate_modules_load_by_path(evaluate, name, path, tmp_path):
    metric = evaluate.load(str(METRICS / path), cache_dir=str(tmp_path))
    expected = {"cer": (2 / 7, 1 / 7), "wer": (1.0, 0.5)}[name]
    texts = {"references": ["Total 5"], "predictions": ["total 6"]}
    assert metric.compute(**texts) == {name: expected[0]}
    assert metric.compute(**texts, ignore_case=True) == {name: expected[1]}


def test_evaluate_modules_add_up_and_combine(evaluate, tmp_path):
    both = evaluate.combine([evaluate.load(str(METRICS / name), cache_dir=str(tmp_path)) for name in ("cer", "wer")])
    both.add_batch(references=["ab"], predictions=["ax"])
    both.add_batch(references=["cdef"], predictions=["cdef"])
    assert both.compute() == {"cer": 1 / 6, "wer": 0.5}


@pytest.mark.parametrize("name", ["cer", "wer"])
def test_evaluate_modules_refuse_nothing_to_measure(evaluate, name, tmp_path):
    metric = evaluate.load(str(METRICS / name), cache_dir=str(tmp_path))
    with pytest.raises(ValueError, match="length 0 in all"):
        metric.compute(references=[""], predictions=["a"])
    with pytest.raises(ValueError, match="No lines"):
        metric.compute(references=[], predictions=[])
