"""The training loop: one visible function on accelerate, for one process and for many."""

import json
import math
import time
import zlib
from collections.abc import Callable, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Literal, cast

import torch
from accelerate import Accelerator, PartialState
from accelerate.utils import DistributedType, broadcast, gather_object, set_seed
from torch.optim.swa_utils import AveragedModel
from torch.utils.data import DataLoader
from tqdm.auto import tqdm
from transformers import PreTrainedModel

from hf_ocr.checkpointing import list_checkpoints, load_checkpoint, random_state, save_checkpoint, save_model
from hf_ocr.data.batches import ChunkSequence, LineChunks
from hf_ocr.data.lines import undecoded_rows
from hf_ocr.distillation import Teacher
from hf_ocr.evaluation import Report, predict, report_on
from hf_ocr.optimization import moving_average, parameter_groups, schedule
from hf_ocr.sharding import set_up_sharding, whole_view

LOG = "log.jsonl"
MAX_BAD_BATCHES = 10
METRICS = ("exact", "cer", "cer_ignoring_case", "wer")
# Settings that no weights depend on.
FREE = ("output_dir", "eval_steps", "save_steps", "save_total_limit", "early_stopping_patience",
        "dataloader_num_workers", "report_to")  # fmt: skip
AT_LEAST_ONE = ("max_steps", "gradient_accumulation_steps", "eval_steps", "save_steps", "save_total_limit",
                "early_stopping_patience")  # fmt: skip
UNSUPPORTED = (DistributedType.DEEPSPEED, DistributedType.MEGATRON_LM)


@dataclass(frozen=True)
class TrainingConfig:
    """Settings of `train`. A step is one update of the weights; a batch is what one process reads at once.

    Attributes:
        output_dir: checkpoints, the log (log.jsonl), the best and the final model.
        max_steps: optimizer steps.
        gradient_accumulation_steps: batches of each process that make one step.
        learning_rate: the peak; AdamW.
        lr_scheduler_type: behind the warm-up "cosine" goes down to 1 % of the peak and "linear" to 0; "one_cycle" is
            a cosine up and down in which the momentum goes the other way (Smith and Topin, arXiv:1708.07120).
        weight_decay: none on biases and norms.
        warmup_ratio: share of the steps with a rising rate.
        max_grad_norm: clip; 0 does not.
        average_decay: of the exponential moving average of the weights, which is what is evaluated and saved; less in
            the first steps, or a short run would mostly keep what it began with.
        distillation_weight: of the loss against a teacher, beside that against the labels.
        freeze_steps: in this many first steps only the vocabulary layers learn, for a head that is new.
        mixed_precision: "no", "bf16" or "fp16"; None: as accelerate is configured.
        gradient_checkpointing: compute layers again in the backward pass instead of keeping what they gave: less
            memory, more time.
        eval_steps, save_steps: steps between evaluations and checkpoints.
        save_total_limit: checkpoints that stay.
        metric_for_best_model: of the first validation set, which says what weights are the best: an error rate, or the
            share of lines read exactly.
        early_stopping_patience: stop after this many evaluations in a row without a better one; None: never.
        dataloader_num_workers: processes that prepare chunks, for each process that trains.
        report_to: trackers of accelerate, "tensorboard" for one; None: the log alone.
        seed: of everything random.
    """

    output_dir: str
    max_steps: int
    gradient_accumulation_steps: int = 1
    learning_rate: float = 1.5e-3
    lr_scheduler_type: Literal["cosine", "linear", "one_cycle"] = "cosine"
    weight_decay: float = 0.02
    warmup_ratio: float = 0.05
    max_grad_norm: float = 5.0
    average_decay: float = 0.999
    distillation_weight: float = 1.0
    freeze_steps: int = 0
    mixed_precision: str | None = None
    gradient_checkpointing: bool = False
    eval_steps: int = 500
    save_steps: int = 500
    save_total_limit: int = 2
    metric_for_best_model: Literal["cer", "cer_ignoring_case", "wer", "exact"] = "cer"
    early_stopping_patience: int | None = None
    dataloader_num_workers: int = 0
    report_to: str | None = None
    seed: int = 0


def train(
    model: torch.nn.Module,
    processor: Any,
    chunks: LineChunks | ChunkSequence,
    config: TrainingConfig,
    evaluate_average: Callable[[torch.nn.Module], dict[str, Report]] | None = None,
    teacher: Teacher | None = None,
    origin: dict[str, Any] | None = None,
) -> torch.nn.Module:
    """Trains a recognizer and writes checkpoints; goes on from the newest one in `config.output_dir`.

    A step is the mean over the lines of all its batches in all processes, whatever their sizes. A run goes on with the
    settings, weights and lines that it began with, for with others it would end as neither of both; those named in FREE
    may change.

    Args:
        model: a recognizer; `forward(**batch)` gives `.loss`, the mean over the lines it does not skip.
        processor: saved beside the weights.
        chunks: the data; `rank` and `world` must be this process's.
        evaluate_average: called in every process with the averaged weights, every `eval_steps`; gives a report for each
            validation set (`evaluate_in_all_processes`). The first set decides which weights are the best.
        teacher: an earlier model, against forgetting; None: the labels alone.
        origin: what else a run that goes on must find as it was, as JSON values: of what files the lines are.

    Raises:
        ValueError: a setting of AT_LEAST_ONE below that, a share that is none, an unknown schedule or metric, a tracker
            that is not installed, fp16 on a CPU, chunks of another process, checkpoints of another run, or of other
            steps in other processes, a configuration of accelerate that the loop cannot keep, gradient checkpointing of
            a model without layers for it, or a loss that stays not finite.

    Returns:
        The averaged model, also saved with its processor in `output_dir/final`; the best one, where there is an
        evaluation, in `output_dir/best`.
    """
    for name in AT_LEAST_ONE:
        if (value := getattr(config, name)) is not None and value < 1:
            raise ValueError(f"{name} is {value}, expected at least 1.")
    for name, share in (("warmup_ratio", config.warmup_ratio), ("average_decay", config.average_decay)):
        if not 0 <= share < 1:
            raise ValueError(f"{name} is {share}, expected at least 0 and less than 1.")
    if config.metric_for_best_model not in METRICS:
        raise ValueError(f"metric_for_best_model is {config.metric_for_best_model!r}, expected one of {METRICS}.")
    accelerator = Accelerator(
        mixed_precision=config.mixed_precision, log_with=config.report_to, project_dir=config.output_dir
    )
    if accelerator.distributed_type in UNSUPPORTED:
        raise ValueError(
            f"accelerate is configured for {accelerator.distributed_type.value}, which has a training loop of its own. "
            "Choose plain data parallelism (distributed_type: MULTI_GPU) in `accelerate config`, for these models fit "
            "on any device, or FSDP."
        )
    if accelerator.distributed_type == DistributedType.FSDP:
        set_up_sharding(accelerator.state.fsdp_plugin)
    if config.report_to is not None and not accelerator.log_with:
        raise ValueError(f"report_to is {config.report_to!r}, which is not installed. Install it, or leave it out.")
    if accelerator.mixed_precision == "fp16" and accelerator.device.type == "cpu":
        raise ValueError("mixed_precision is fp16, which a CPU does not train in. Choose bf16, or no.")
    place = accelerator.process_index, accelerator.num_processes
    if (chunks.rank, chunks.world) != place:
        raise ValueError(
            f"the chunks are those of process {chunks.rank} of {chunks.world}, this is process {place[0]} of "
            f"{place[1]}: it would learn other lines than it should. Make them with this rank and world."
        )
    if config.gradient_checkpointing:
        if not getattr(model, "supports_gradient_checkpointing", False):
            raise ValueError(
                f"gradient_checkpointing: {type(model).__name__} has no layers that can be computed again. Leave it "
                "out; gradient_accumulation_steps with smaller batches saves memory too."
            )
        cast(PreTrainedModel, model).gradient_checkpointing_enable()
    set_seed(config.seed)
    origin = (origin or {}) | _origin(model, chunks, config, teacher)
    origin["mixed_precision"] = accelerator.mixed_precision
    output = Path(config.output_dir)
    output.mkdir(parents=True, exist_ok=True)
    average = AveragedModel(model, multi_avg_fn=moving_average(config.average_decay), use_buffers=True)
    optimizer = torch.optim.AdamW(
        parameter_groups(model, config.weight_decay), lr=config.learning_rate, betas=(0.9, 0.98), fused=True
    )
    scheduler = schedule(
        config.lr_scheduler_type, optimizer, config.learning_rate, config.max_steps, config.warmup_ratio
    )
    average.to(accelerator.device)
    wrapped, optimizer = accelerator.prepare(model, optimizer)
    trackers = config.report_to is not None
    if trackers:
        accelerator.init_trackers("training")
    step = 0
    progress: dict[str, Any] = {"seconds": 0.0, "lines": 0, "skipped": 0, "bad_batches": 0}
    progress |= {"best": None, "evaluations_since_best": 0}
    losses: list[float] = []
    if checkpoints := list_checkpoints(output):
        step, saved = load_checkpoint(checkpoints[-1], model, average, optimizer, scheduler, origin, *place)
        accelerator.print(f"goes on from {checkpoints[-1]}, of {config.max_steps} steps")
        losses = saved.pop("losses")
        if accelerator.scaler is not None:
            accelerator.scaler.load_state_dict(saved.pop("scaler"))
        progress |= saved
    if len(found := set(gather_object([step]))) > 1:
        raise ValueError(
            f"the processes find checkpoints of different steps in {output}: {sorted(found)}. Expected one folder that "
            "all machines share."
        )
    started = time.monotonic() - progress["seconds"]
    read = (step + progress["bad_batches"]) * config.gradient_accumulation_steps
    batches = _batches_from(chunks, read, config.dataloader_num_workers)
    bar = tqdm(total=config.max_steps, initial=step, disable=None if accelerator.is_main_process else True)
    if accelerator.is_main_process:
        _shorten_log(output / LOG, step)
    model.train()
    in_a_row = 0
    patience = math.inf if config.early_stopping_patience is None else config.early_stopping_patience
    while step < config.max_steps and progress["evaluations_since_best"] < patience:
        buffers = [buffer.clone() for buffer in model.buffers()]
        sums = torch.zeros(3, dtype=torch.float64)  # lines, lines in the loss, loss
        for left in reversed(range(config.gradient_accumulation_steps)):
            batch = {name: tensor.to(accelerator.device) for name, tensor in next(batches).items()}
            with accelerator.no_sync(wrapped) if left else nullcontext():
                with accelerator.autocast():  # `prepare` sees to it, but not where weights are sharded
                    outputs = wrapped(**batch)
                loss = outputs.loss
                if teacher is not None:
                    loss = loss + config.distillation_weight * teacher.loss(batch, outputs)
                lines = len(batch["labels"])
                counted = lines - int(outputs.skipped)
                accelerator.backward(loss * counted)
            sums += torch.tensor([lines, counted, loss.item() * counted], dtype=torch.float64)
        total_lines, total_counted, total_loss = cast(
            torch.Tensor, accelerator.reduce(sums.to(accelerator.device, torch.float32))
        ).tolist()
        # Summed over the lines of this process, and the mean over processes, so far: now the mean over all lines.
        gradients = [parameter.grad for parameter in model.parameters() if parameter.grad is not None]
        torch._foreach_mul_(gradients, accelerator.num_processes / max(total_counted, 1))
        if step < config.freeze_steps:
            _keep_gradients_of(model, cast(Any, model).vocabulary_layers())
        norm = accelerator.clip_grad_norm_(model.parameters(), config.max_grad_norm or math.inf)
        # One bad batch must reach neither the weights nor the running statistics; a row of them means that the run
        # itself has gone wrong. The norm is the same in every process, so that all of them leave the batch out.
        finite = math.isfinite(float(norm))
        scale = 1.0 if accelerator.scaler is None else accelerator.scaler.get_scale()
        if finite:
            in_a_row = 0
        elif scale <= 1 or not math.isfinite(total_loss):  # else it is the scale of fp16 that is too large yet
            in_a_row += 1
        if in_a_row == MAX_BAD_BATCHES:
            raise ValueError(
                f"step {step}: loss {total_loss / max(total_counted, 1)}, gradient norm {float(norm)}, not finite for "
                f"{in_a_row} batches in a row. Begin in another folder with a lower learning_rate (now "
                f"{config.learning_rate}), from {output / 'best'} if it is there."
            )
        if not finite:
            for buffer, before in zip(model.buffers(), buffers, strict=True):
                buffer.copy_(before)
            if accelerator.scaler is not None:
                accelerator.scaler.update()  # an overflow of fp16: the next step is scaled less
            optimizer.zero_grad()
            progress["bad_batches"] += 1
            continue
        optimizer.step()
        scheduler.step()
        optimizer.zero_grad()
        average.update_parameters(whole_view(model))
        step += 1
        losses.append(total_loss / max(total_counted, 1))
        progress["lines"] += round(total_lines)
        progress["skipped"] += round(total_lines - total_counted)
        progress["seconds"] = round(time.monotonic() - started, 1)
        bar.update()
        if step % 50 == 0:
            bar.set_postfix(loss=f"{sum(losses[-50:]) / len(losses[-50:]):.3f}")
        last = step == config.max_steps
        if evaluate_average is not None and (step % config.eval_steps == 0 or last):
            broadcast(list(average.module.buffers()))  # batch norms of each process have seen its own lines
            reports = evaluate_average(average.module)
            first = next(iter(reports.values()))
            _note_best(progress, first.figures, config.metric_for_best_model)
            entry = {
                "step": step,
                **{name: value for name, value in progress.items() if name != "evaluations_since_best"},
                "best": round(progress["best"], 4),
                "loss": round(sum(losses) / len(losses), 4),
                "learning_rate": scheduler.get_last_lr()[0],
                **_figures(reports),
            }
            losses.clear()
            if accelerator.is_main_process:
                if progress["evaluations_since_best"] == 0:
                    save_model(average.module, processor, output / "best")
                with (output / LOG).open("a", encoding="utf-8") as log:
                    log.write(json.dumps(entry) + "\n")
            if trackers:
                accelerator.log(entry, step)
            bar.set_postfix({name: entry[name] for name in entry if name == "loss" or name.endswith("_cer")})
            last = last or progress["evaluations_since_best"] >= patience
        if step % config.save_steps == 0 or last:
            states = gather_object([random_state()])
            scaler = {} if accelerator.scaler is None else {"scaler": accelerator.scaler.state_dict()}
            save_checkpoint(
                output, step, model, average, optimizer, scheduler, progress | scaler | {"losses": losses}, states,
                origin, config.save_total_limit, accelerator.process_index,
            )  # fmt: skip
    bar.close()
    if accelerator.is_main_process:
        save_model(average.module, processor, output / "final")
    accelerator.wait_for_everyone()
    for tracker in accelerator.trackers:  # not `end_training`: it ends the group of processes too
        tracker.finish()
    return average.module


def evaluate_in_all_processes(
    model: Any, processor: Any, rows: Sequence[Any], batch_size: int = 64, seed: int = 0
) -> Report:
    """`evaluate`, each process with its share of the rows; every one gets the whole report, each row counted once.

    Args:
        rows: all of them, in every process.
    """
    state, rows = PartialState(), undecoded_rows(rows)
    own = range(state.process_index, len(rows), state.num_processes)
    read = predict(model, processor, (rows[index] for index in own), batch_size)
    placed = [replace(prediction, index=index) for prediction, index in zip(read, own, strict=True)]
    return report_on(sorted(gather_object(placed), key=lambda prediction: prediction.index), seed)


def _origin(
    model: torch.nn.Module, chunks: LineChunks | ChunkSequence, config: TrainingConfig, teacher: Teacher | None
) -> dict[str, Any]:
    """All on which the weights of a run depend, of large things a checksum."""
    return {
        **{name: value for name, value in asdict(config).items() if name not in FREE},
        **chunks.origin,
        "first weights": _checksum(model),
        "weights of the teacher": None if teacher is None else _checksum(teacher.model),
    }


def _checksum(model: torch.nn.Module) -> int:
    checksum = 0
    for tensor in model.state_dict().values():
        checksum = zlib.crc32(tensor.detach().cpu().flatten().view(torch.uint8).numpy(), checksum)
    return checksum


def _shorten_log(log: Path, step: int) -> None:
    """A run that goes on writes the entries behind its checkpoint again."""
    if log.exists():
        lines = log.read_text(encoding="utf-8").splitlines(keepends=True)
        log.write_text(
            "".join(line for line in lines if line.endswith("\n") and json.loads(line)["step"] <= step),
            encoding="utf-8",
        )


def _figures(reports: dict[str, Report]) -> dict[str, float]:
    figures: dict[str, float] = {}
    for name, report in reports.items():
        figures |= {f"{name}_{metric}": round(report.figures[metric], 4) for metric in METRICS}
    return figures


def _note_best(progress: dict[str, Any], figures: Mapping[str, float], metric: str) -> None:
    """Of the figures of the first set, as they are: rounded ones would call a little better the same."""
    sign = -1 if metric == "exact" else 1
    if progress["best"] is None or sign * figures[metric] < sign * progress["best"]:
        progress["best"], progress["evaluations_since_best"] = figures[metric], 0
    else:
        progress["evaluations_since_best"] += 1


def _keep_gradients_of(model: torch.nn.Module, layers: list[torch.nn.Module]) -> None:
    """The optimizer leaves alone what has no gradient."""
    kept = {id(parameter) for layer in layers for parameter in layer.parameters()}
    for parameter in model.parameters():
        if id(parameter) not in kept:
            parameter.grad = None


def _batches_from(chunks: LineChunks | ChunkSequence, position: int, workers: int) -> Any:
    """The batches from number `position` on, without end."""
    first, done = divmod(position, chunks.batches_per_chunk)
    loader = DataLoader(
        chunks,
        batch_size=None,
        sampler=range(first, len(chunks)),
        num_workers=workers,
        prefetch_factor=2 if workers else None,
        # A generator of its own: creating the iterator would draw from the global one and change dropout on resume.
        generator=torch.Generator(),
    )
    for index, chunk in enumerate(loader):
        yield from chunk[done if index == 0 else 0 :]
