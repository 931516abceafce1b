"""The loop: it logs and saves, a stopped run goes on exactly, a crash while saving costs nothing."""

import copy
import json
import os
import shutil
from pathlib import Path

import pytest
import torch
from accelerate import Accelerator, PartialState
from accelerate.state import AcceleratorState
from accelerate.utils import DistributedType
from tiny_training import parts, settings

from hf_ocr.checkpointing import list_checkpoints, random_state, save_checkpoint, save_model
from hf_ocr.data.batches import LineChunks, Source
from hf_ocr.distillation import Teacher
from hf_ocr.evaluation import Prediction, evaluate, report_on
from hf_ocr.models.configuration_crnn import CrnnConfig
from hf_ocr.models.modeling_crnn import CrnnForTextRecognition
from hf_ocr.training import AT_LEAST_ONE, train


def test_it_logs_what_the_average_reads_and_saves_it(tmp_path):
    model, processor, chunks, rows = parts()
    measured = []

    def validate(average):
        measured.append(evaluate(average, processor, rows))
        return {"words": measured[-1]}

    average = train(model, processor, chunks, settings(tmp_path, eval_steps=6), validate)
    entries = [json.loads(line) for line in (tmp_path / "log.jsonl").read_text().splitlines()]
    assert [entry["step"] for entry in entries] == [6, 12]
    for name in ("exact", "cer", "cer_ignoring_case", "wer"):
        assert [entry[f"words_{name}"] for entry in entries] == [round(r.figures[name], 4) for r in measured]
    assert entries[-1]["lines"] == 12 * 8
    loaded = CrnnForTextRecognition.from_pretrained(tmp_path / "final")
    assert all(torch.equal(a, b) for a, b in zip(loaded.parameters(), average.parameters(), strict=True))
    assert not all(torch.equal(a, b) for a, b in zip(loaded.parameters(), model.parameters(), strict=True))


def test_a_short_run_saves_what_it_learnt(tmp_path):
    """Not the mean of many steps, which would be little else than the weights that it began with."""
    model, processor, chunks, _ = parts()
    start = {name: parameter.detach().clone() for name, parameter in model.named_parameters()}
    average = train(model, processor, chunks, settings(tmp_path, average_decay=0.999))
    kept = [
        float((mean.detach() - start[name]).norm() / (last.detach() - start[name]).norm())
        for (name, mean), last in zip(average.named_parameters(), model.parameters(), strict=True)
        if mean.ndim > 1
    ]
    assert min(kept) > 0.5


@pytest.mark.parametrize("name", AT_LEAST_ONE)
def test_numbers_that_make_no_run_are_refused(tmp_path, name):
    with pytest.raises(ValueError, match=f"{name} is 0, expected at least 1"):
        train(*parts()[:3], settings(tmp_path, **{name: 0}))


@pytest.mark.parametrize(("name", "value"), [("warmup_ratio", 5), ("warmup_ratio", -0.1), ("average_decay", 1)])
def test_shares_that_are_none_are_refused(tmp_path, name, value):
    with pytest.raises(ValueError, match=f"{name} is {value}, expected at least 0 and less than 1"):
        train(*parts()[:3], settings(tmp_path, **{name: value}))


def test_a_copy_of_a_checkpoint_is_no_checkpoint(tmp_path):
    """Neither a run that saves nor one that goes on stumbles over it."""
    model, processor, chunks, _ = parts()
    for name in ("checkpoint-2-copy", "checkpoint-old"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "state.json").write_text("{}")
    train(model, processor, chunks, settings(tmp_path, max_steps=4, save_steps=2))
    assert [path.name for path in list_checkpoints(tmp_path)] == ["checkpoint-2", "checkpoint-4"]


@pytest.mark.parametrize("stop", [4, 8])
def test_a_stopped_run_goes_on_bit_by_bit(tmp_path, stop):
    whole = train(*parts()[:3], settings(tmp_path / "whole"))

    class StopError(Exception):
        pass

    def interrupt(average):
        raise StopError

    with pytest.raises(StopError):
        train(*parts()[:3], settings(tmp_path / "parts", eval_steps=stop), interrupt)
    torch.manual_seed(99)  # another process would have another random state
    resumed = train(*parts()[:3], settings(tmp_path / "parts"))
    for (name, a), (_, b) in zip(whole.state_dict().items(), resumed.state_dict().items(), strict=True):
        assert torch.equal(a, b), name


def test_a_crash_while_saving_leaves_the_older_checkpoint(tmp_path):
    model, processor, chunks, _ = parts()
    train(model, processor, chunks, settings(tmp_path))
    before = [path.name for path in list_checkpoints(tmp_path)]
    assert before == ["checkpoint-8", "checkpoint-12"]

    class Unwritable:
        def state_dict(self):
            raise OSError("No space left on device")

    optimizer = torch.optim.AdamW(model.parameters())
    with pytest.raises(OSError, match=r"checkpoint-16: .* \(No space left on device\).* goes on from .*checkpoint-12"):
        save_checkpoint(tmp_path, 16, model, model, optimizer, Unwritable(), {}, [random_state()], {})
    assert [path.name for path in list_checkpoints(tmp_path)] == before


def test_a_checkpoint_is_on_the_disk_before_it_has_its_name(tmp_path, monkeypatch):
    """A rename may survive a loss of power that what was renamed does not."""
    synced = []
    monkeypatch.setattr(os, "fsync", lambda descriptor: synced.append(Path(f"/proc/self/fd/{descriptor}").readlink()))
    train(*parts()[:3], settings(tmp_path, max_steps=4))
    (checkpoint,) = list_checkpoints(tmp_path)
    partial = tmp_path / ".partial-4"
    assert {path.name for path in synced if path.parent == partial} == {path.name for path in checkpoint.iterdir()}
    assert synced[synced.index(partial) + 1] == tmp_path


@pytest.mark.parametrize(
    "change",
    ["learning_rate", "max_steps", "metric_for_best_model", "lines", "files", "alphabet", "weights", "teacher"],
)
def test_another_run_does_not_go_on_with_these_checkpoints(tmp_path, change):
    """It would end as neither of both, without a word."""
    train(*parts()[:3], settings(tmp_path, max_steps=4), origin={"files": 1})
    before = {path.name: path.read_bytes() for path in (tmp_path / "checkpoint-4").iterdir()}
    model, processor, chunks, rows = parts()
    values, teacher, files = {"max_steps": 4}, None, 1
    others = {"learning_rate": 1e-4, "max_steps": 8, "metric_for_best_model": "wer"}
    if change in others:
        values[change] = others[change]
    if change == "lines":
        chunks.sources = [Source(rows[:-1])]
    elif change == "files":
        files = 2
    elif change == "alphabet":
        chunks.alphabet = chunks.alphabet - {"a"}
    elif change == "weights":
        model.classifier.bias.data[0] += 1
    elif change == "teacher":
        teacher = Teacher(parts()[0], processor, processor)
    named = {"lines": "sources", "weights": "first weights"}.get(change, change)
    with pytest.raises(ValueError, match=rf"checkpoint-4: was written by another run: .*{named}.*another folder"):
        train(model, processor, chunks, settings(tmp_path, **values), None, teacher, {"files": files})
    assert before == {path.name: path.read_bytes() for path in (tmp_path / "checkpoint-4").iterdir()}


def test_what_no_weights_depend_on_may_change(tmp_path, capsys):
    train(*parts()[:3], settings(tmp_path, save_steps=8))
    shutil.rmtree(tmp_path / "checkpoint-12")
    free = {"eval_steps": 3, "save_steps": 2, "save_total_limit": 9, "early_stopping_patience": 5}
    train(*parts()[:3], settings(tmp_path, **free, dataloader_num_workers=1))
    assert f"goes on from {tmp_path / 'checkpoint-8'}, of 12 steps" in capsys.readouterr().out


def test_a_run_that_goes_on_logs_what_the_whole_one_does(tmp_path):
    """The loss is the mean since the last evaluation, whenever the run was stopped; nothing is logged twice."""

    def logged(folder):
        entries = [json.loads(line) for line in (folder / "log.jsonl").read_text().splitlines()]
        return [{**entry, "seconds": None} for entry in entries]

    def run(folder, **kwargs):
        model, processor, chunks, rows = parts()
        values = settings(folder, eval_steps=6, **kwargs)
        train(model, processor, chunks, values, lambda average: {"words": evaluate(average, processor, rows)})

    run(tmp_path / "whole")
    run(tmp_path / "parts")
    shutil.rmtree(tmp_path / "parts" / "checkpoint-12")
    with (tmp_path / "parts" / "log.jsonl").open("a") as log:
        log.write('{"step": 1')  # killed as it wrote
    run(tmp_path / "parts")
    assert logged(tmp_path / "parts") == logged(tmp_path / "whole")


def test_no_clipping_is_not_no_learning(tmp_path):
    """As in transformers, where 0 means that gradients are taken as they are."""
    model, processor, chunks, _ = parts()
    before = copy.deepcopy(model.state_dict())
    train(model, processor, chunks, settings(tmp_path, max_steps=4, max_grad_norm=0.0, weight_decay=0.0))
    assert not any(torch.equal(p, before[name]) for name, p in model.named_parameters() if p.ndim > 1)


@pytest.mark.parametrize(
    ("values", "message"),
    [({"report_to": "wandb"}, "report_to is 'wandb', which is not installed"), ({"mixed_precision": "fp16"}, "a CPU")],
)
def test_what_accelerate_would_pass_over_is_refused(tmp_path, values, message):
    AcceleratorState._reset_state()  # which would refuse another precision than that of an earlier test
    with pytest.raises(ValueError, match=message):
        train(*parts()[:3], settings(tmp_path, **values))
    AcceleratorState._reset_state()


def test_a_full_disk_leaves_the_best_weights(tmp_path):
    model, processor, _, _ = parts()
    save_model(model, processor, tmp_path / "best")
    before = (tmp_path / "best" / "model.safetensors").read_bytes()

    class Unwritable:
        def save_pretrained(self, folder):
            raise RuntimeError("No space left on device")

    model.classifier.bias.data += 1
    with pytest.raises(OSError, match=r"best: the model could not be written \(No space left"):
        save_model(model, Unwritable(), tmp_path / "best")
    assert (tmp_path / "best" / "model.safetensors").read_bytes() == before
    save_model(model, processor, tmp_path / "best")
    assert (tmp_path / "best" / "model.safetensors").read_bytes() != before
    assert [path.name for path in tmp_path.iterdir()] == ["best"]


def test_chunks_of_another_process_are_refused(tmp_path):
    model, processor, chunks, _ = parts()
    chunks.rank, chunks.world = 1, 2
    with pytest.raises(ValueError, match="process 1 of 2, this is process 0 of 1"):
        train(model, processor, chunks, settings(tmp_path))


@pytest.mark.parametrize(("metric", "best"), [("cer", 1), ("cer_ignoring_case", 2), ("exact", 2), ("wer", 0)])
def test_the_best_is_what_the_metric_says(tmp_path, metric, best):
    model, processor, chunks, _ = parts()
    readings = [("abcd", "x"), ("abcx", "yz"), ("ABCD", "yz")]
    seen = []

    def validate(average):
        seen.append(copy.deepcopy(average.state_dict()))
        read = readings[len(seen) - 1]
        lines = zip(read, ("abcd", "yz"), strict=True)
        return {"words": report_on([Prediction(0, label, text, 1.0, 40, 10) for text, label in lines])}

    values = settings(tmp_path, max_steps=6, eval_steps=2, metric_for_best_model=metric)
    train(model, processor, chunks, values, validate)
    found = CrnnForTextRecognition.from_pretrained(tmp_path / "best").state_dict()
    assert all(torch.equal(tensor, seen[best][name]) for name, tensor in found.items())


def test_a_little_better_is_better(tmp_path):
    """The log is rounded, the choice is not: one character of 30,000."""
    model, processor, chunks, _ = parts()
    seen = []

    def validate(average):
        seen.append(copy.deepcopy(average.state_dict()))
        lines, wrong = ["abc" * 5000, "def" * 5000], 4 - len(seen)
        read = [lines[0], lines[1][:-wrong] + "x" * wrong]
        return {"words": report_on([Prediction(0, a, b, 1.0, 40, 10) for a, b in zip(lines, read, strict=True)])}

    train(model, processor, chunks, settings(tmp_path, max_steps=6, eval_steps=2, early_stopping_patience=1), validate)
    found = CrnnForTextRecognition.from_pretrained(tmp_path / "best").state_dict()
    assert len(seen) == 3 and all(torch.equal(tensor, seen[2][name]) for name, tensor in found.items())
    best = [json.loads(line)["best"] for line in (tmp_path / "log.jsonl").read_text().splitlines()]
    assert best == [0.0001, 0.0001, 0.0]


def test_an_unknown_metric_is_refused(tmp_path):
    with pytest.raises(ValueError, match="metric_for_best_model is 'loss', expected one of"):
        train(*parts()[:3], settings(tmp_path, metric_for_best_model="loss"))


class OneBadBatch(LineChunks):
    """Batch 1 of chunk 2 holds NaN."""

    def __getitem__(self, chunk):
        batches = super().__getitem__(chunk)
        if chunk == 2:
            batches[1]["pixel_values"][:, :, :, 5] = float("nan")
        return batches


def test_a_bad_batch_reaches_nothing_and_shifts_no_resume(tmp_path):
    def run(folder, **kwargs):
        model, processor, chunks, _ = parts()
        bad = OneBadBatch(chunks.sources, processor, lines_per_chunk=16, batches_per_chunk=2)
        return train(model, processor, bad, settings(folder, **kwargs))

    whole = run(tmp_path / "whole")
    assert all(tensor.isfinite().all() for tensor in whole.state_dict().values())
    run(tmp_path / "parts", save_steps=8)
    shutil.rmtree(tmp_path / "parts" / "checkpoint-12")
    resumed = run(tmp_path / "parts")
    assert all(torch.equal(a, b) for a, b in zip(whole.parameters(), resumed.parameters(), strict=True))


def test_a_loss_that_is_not_finite_stops_the_run(tmp_path):
    model, processor, chunks, _ = parts()
    with torch.no_grad():
        model.classifier.bias.fill_(float("nan"))
    with pytest.raises(ValueError, match="not finite for 10 batches in a row"):
        train(model, processor, chunks, settings(tmp_path))


class WithoutNorm(CrnnForTextRecognition):
    """Batch norm in its frozen form: it makes a batch more than the sum of its lines."""

    def train(self, mode=True):
        super().train(mode)
        for module in self.modules():
            if isinstance(module, torch.nn.BatchNorm2d):
                module.eval()
        return self


def accumulated(folder, batches, lines):
    _, processor, chunks, rows = parts()
    torch.manual_seed(0)
    model = WithoutNorm(
        CrnnConfig.small(
            vocab_size=len(processor.tokenizer), image_height=32, conv_channels=[8, 16, 16, 16, 24, 24, 32, 32],
            lstm_hidden_size=32, dropout=0.0,
        )
    )  # fmt: skip
    chunks = LineChunks([Source(rows)], processor, lines_per_chunk=8, batches_per_chunk=batches)
    values = {"max_steps": 1, "gradient_accumulation_steps": batches, "average_decay": 0.0, "warmup_ratio": 0.0}
    return train(model, processor, chunks, settings(folder, **values)).state_dict()


def test_eight_batches_of_about_one_line_equal_one_of_eight(tmp_path):
    """Batches of unequal numbers of lines: only a mean over all lines makes them equal."""
    one, eight = accumulated(tmp_path / "one", 1, 8), accumulated(tmp_path / "eight", 4, 2)
    for name, tensor in one.items():
        assert torch.allclose(tensor, eight[name], atol=1e-6), name


@pytest.mark.parametrize("name", ["cosine", "linear", "one_cycle"])
def test_schedules_rise_and_fall(tmp_path, name):
    model, processor, chunks, rows = parts()

    def validate(average):
        return {"words": evaluate(average, processor, rows)}

    values = {"max_steps": 8, "eval_steps": 1, "warmup_ratio": 0.5, "lr_scheduler_type": name}
    train(model, processor, chunks, settings(tmp_path, **values), validate)
    rates = [json.loads(line)["learning_rate"] for line in (tmp_path / "log.jsonl").read_text().splitlines()]
    assert rates[0] < max(rates) > rates[-1]
    assert max(rates) == pytest.approx(1.5e-3, rel=0.1)
    assert rates[-1] < 0.02 * max(rates)


def test_first_steps_can_be_for_the_head_alone(tmp_path):
    model, processor, chunks, _ = parts()
    before = {name: parameter.clone() for name, parameter in model.named_parameters()}
    train(model, processor, chunks, settings(tmp_path / "frozen", max_steps=4, freeze_steps=4))
    changed = {name for name, parameter in model.named_parameters() if not torch.equal(parameter, before[name])}
    assert changed == {"classifier.weight", "classifier.bias"}
    train(model, processor, chunks, settings(tmp_path / "free", max_steps=4, freeze_steps=2))
    assert not torch.equal(
        model.crnn.convolutions[0].convolution.weight, before["crnn.convolutions.0.convolution.weight"]
    )


def test_it_stops_early_and_keeps_the_best(tmp_path):
    model, processor, chunks, _ = parts()
    seen = []

    def validate(average):
        seen.append(copy.deepcopy(average.state_dict()))
        read = ["ab", "abcd", "abc", "ab", "abc", "abcd"][len(seen) - 1]
        return {"words": report_on([Prediction(0, "abcd", read, 1.0, 40, 10)])}

    values = settings(tmp_path, max_steps=50, eval_steps=2, save_steps=1000, early_stopping_patience=3)
    train(model, processor, chunks, values, validate)
    assert [path.name for path in list_checkpoints(tmp_path)] == ["checkpoint-10"]
    best = CrnnForTextRecognition.from_pretrained(tmp_path / "best").state_dict()
    assert all(torch.equal(tensor, seen[1][name]) for name, tensor in best.items())
    train(*parts()[:3], values, validate)  # what has stopped does not go on
    assert len(seen) == 5


def test_other_training_loops_are_refused_with_the_cure(tmp_path, monkeypatch):
    """Megatron-LM is not installed, so accelerate's state is told what it would say there."""
    model, processor, chunks, _ = parts()
    Accelerator()
    monkeypatch.setitem(PartialState._shared_state, "distributed_type", DistributedType.MEGATRON_LM)
    with pytest.raises(ValueError, match=r"configured for MEGATRON_LM.*distributed_type: MULTI_GPU"):
        train(model, processor, chunks, settings(tmp_path))
