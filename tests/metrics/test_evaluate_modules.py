"""The folders `cer` and `wer` as `evaluate.load` takes them, without a network."""

from pathlib import Path

import pytest

import hf_ocr.metrics

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
    assert metric.compute(**texts, protocol="ignore-case") == {name: expected[1]}


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


def test_evaluate_modules_take_average_and_graphemes(evaluate, tmp_path):
    cer, wer = (evaluate.load(str(METRICS / name), cache_dir=str(tmp_path)) for name in ("cer", "wer"))
    texts = {"references": ["e\u0301", "abcd"], "predictions": ["e", "abcx"]}
    assert cer.compute(**texts) == {"cer": 2 / 6}
    assert cer.compute(**texts, average="macro") == {"cer": (1 / 2 + 1 / 4) / 2}
    assert cer.compute(**texts, graphemes=True) == {"cer": 2 / 5}
    assert wer.compute(references=["a b", "c"], predictions=["a", "c"], average="macro") == {"wer": 1 / 4}
