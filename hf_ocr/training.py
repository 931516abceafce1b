"""The training loop: one visible function on accelerate."""

import json
import math
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import torch
from accelerate import Accelerator
from accelerate.utils import set_seed
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn
from torch.utils.data import DataLoader
from tqdm.auto import tqdm
from transformers import PreTrainedModel, get_cosine_with_min_lr_schedule_with_warmup

from hf_ocr.checkpointing import list_checkpoints, load_checkpoint, save_checkpoint
from hf_ocr.data.batches import ChunkSequence, LineChunks
from hf_ocr.evaluation import Report

MAX_BAD_BATCHES = 10


@dataclass(frozen=True)
class TrainingConfig:
    """Settings of `train`.

    Attributes:
        output_dir: checkpoints, the log (log.jsonl) and the final model.
        max_steps: optimizer steps.
        learning_rate: the peak; AdamW.
        weight_decay: none on biases and norms.
        warmup_ratio: share of the steps with a rising rate; then a cosine down to 1 % of the peak.
        max_grad_norm: clip.
        average_decay: of the exponential moving average of the weights, which is what is evaluated and saved.
        mixed_precision: "no", "bf16" or "fp16".
        eval_steps, save_steps: optimizer steps between evaluations and checkpoints.
        dataloader_num_workers: processes that prepare chunks.
        seed: of everything random.
    """

    output_dir: str
    max_steps: int
    learning_rate: float = 1.5e-3
    weight_decay: float = 0.02
    warmup_ratio: float = 0.05
    max_grad_norm: float = 5.0
    average_decay: float = 0.999
    mixed_precision: str = "no"
    eval_steps: int = 500
    save_steps: int = 500
    dataloader_num_workers: int = 0
    seed: int = 0


def train(
    model: torch.nn.Module,
    processor: Any,
    chunks: LineChunks | ChunkSequence,
    config: TrainingConfig,
    evaluate_average: Callable[[torch.nn.Module], dict[str, Report]] | None = None,
) -> torch.nn.Module:
    """Trains a recognizer and writes checkpoints; goes on from the newest one in `config.output_dir`.

    Args:
        model: a recognizer; `forward(**batch)` gives `.loss`.
        processor: saved beside the final weights.
        chunks: the data; `rank` and `world` must be this process's.
        evaluate_average: called with the averaged weights every `eval_steps`; gives a report for each validation set.

    Returns:
        The averaged model, also saved with its processor in `output_dir/final`.
    """
    accelerator = Accelerator(mixed_precision=config.mixed_precision)
    set_seed(config.seed)
    output = Path(config.output_dir)
    output.mkdir(parents=True, exist_ok=True)
    average = AveragedModel(model, multi_avg_fn=get_ema_multi_avg_fn(config.average_decay), use_buffers=True)
    optimizer = torch.optim.AdamW(
        _parameter_groups(model, config.weight_decay), lr=config.learning_rate, betas=(0.9, 0.98), fused=True
    )
    scheduler = get_cosine_with_min_lr_schedule_with_warmup(
        optimizer, round(config.warmup_ratio * config.max_steps), config.max_steps, min_lr_rate=0.01
    )
    average.to(accelerator.device)
    wrapped, optimizer = accelerator.prepare(model, optimizer)
    step = 0
    progress: dict[str, Any] = {"seconds": 0.0, "lines": 0, "skipped": 0, "bad_batches": 0}
    if checkpoints := list_checkpoints(output):
        step, progress = load_checkpoint(checkpoints[-1], model, average, optimizer, scheduler)
    started = time.monotonic() - progress["seconds"]
    batches = _batches_from(chunks, step + progress["bad_batches"], config.dataloader_num_workers)
    bar = tqdm(total=config.max_steps, initial=step, disable=None if accelerator.is_main_process else True)
    model.train()
    losses: list[float] = []
    in_a_row = 0
    while step < config.max_steps:
        batch = {name: tensor.to(accelerator.device) for name, tensor in next(batches).items()}
        buffers = [buffer.clone() for buffer in model.buffers()]
        outputs = wrapped(**batch)
        accelerator.backward(outputs.loss)
        norm = accelerator.clip_grad_norm_(model.parameters(), config.max_grad_norm)
        # One bad batch must reach neither the weights nor the running statistics; a row of them means that the run
        # itself has gone wrong. The norm is the same in every process, so that all of them leave the batch out.
        finite = math.isfinite(float(norm))
        in_a_row = 0 if finite else in_a_row + 1
        if in_a_row == MAX_BAD_BATCHES:
            raise ValueError(
                f"step {step}: loss {outputs.loss.item()}, gradient norm {float(norm)}, not finite for {in_a_row} "
                f"batches in a row. Lower learning_rate (now {config.learning_rate}) and start again: the run goes on "
                f"from the last checkpoint in {output}."
            )
        if not finite:
            for buffer, before in zip(model.buffers(), buffers, strict=True):
                buffer.copy_(before)
            optimizer.zero_grad()
            progress["bad_batches"] += 1
            continue
        optimizer.step()
        scheduler.step()
        optimizer.zero_grad()
        average.update_parameters(model)
        step += 1
        losses.append(outputs.loss.item())
        progress["lines"] += len(batch["labels"])
        progress["skipped"] += int(outputs.skipped)
        progress["seconds"] = round(time.monotonic() - started, 1)
        bar.update()
        if step % 50 == 0:
            bar.set_postfix(loss=f"{sum(losses[-50:]) / len(losses[-50:]):.3f}")
        last = step == config.max_steps
        if step % config.save_steps == 0 or last:
            if accelerator.is_main_process:
                save_checkpoint(output, step, model, average, optimizer, scheduler, progress)
        if evaluate_average is not None and (step % config.eval_steps == 0 or last) and accelerator.is_main_process:
            entry = {
                "step": step,
                **progress,
                "loss": round(sum(losses) / len(losses), 4),
                "learning_rate": scheduler.get_last_lr()[0],
            }
            for name, report in evaluate_average(average.module).items():
                entry[f"{name}_exact"] = round(report.exact.value, 4)
                entry[f"{name}_cer"] = round(report.cer_ignoring_case.value, 4)
            losses.clear()
            with (output / "log.jsonl").open("a", encoding="utf-8") as log:
                log.write(json.dumps(entry) + "\n")
            bar.set_postfix({name: entry[name] for name in entry if name == "loss" or name.endswith("_cer")})
    bar.close()
    if accelerator.is_main_process:
        cast(PreTrainedModel, average.module).save_pretrained(output / "final")
        processor.save_pretrained(output / "final")
    return average.module


def _parameter_groups(model: torch.nn.Module, weight_decay: float) -> list[dict[str, Any]]:
    parameters = [parameter for parameter in model.parameters() if parameter.requires_grad]
    return [
        {"params": [p for p in parameters if p.ndim > 1], "weight_decay": weight_decay},
        {"params": [p for p in parameters if p.ndim <= 1], "weight_decay": 0.0},
    ]


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
