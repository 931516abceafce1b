"""Finding a learning rate: one short run in which it rises, after Smith (arXiv:1506.01186, section 3.3)."""

import copy
import math
import os
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import torch
from accelerate import Accelerator
from tqdm.auto import tqdm

__all__ = ["Sweep", "draw_sweep", "sweep_learning_rates"]

SMOOTHING = 0.9
MOST_RISE = 3.0  # of the loss over its least, where the sweep ends


@dataclass(frozen=True)
class Sweep:
    """What a sweep saw.

    Attributes:
        rates: learning rates, rising.
        losses: the loss at each, smoothed.
        suggestion: a tenth of the rate with the least loss: high, and far from where training breaks down.
            It says nothing for a model that reads these lines already, whose loss only rises: then look at the picture.
    """

    rates: tuple[float, ...]
    losses: tuple[float, ...]
    suggestion: float


def sweep_learning_rates(
    model: torch.nn.Module,
    batches: Iterable[dict[str, torch.Tensor]],
    lowest: float = 1e-6,
    highest: float = 1e-1,
    steps: int = 100,
    mixed_precision: str | None = None,
) -> Sweep:
    """Train a copy of the model with a rate that rises from step to step, until the loss runs away.

    Args:
        model: a recognizer; not changed.
        batches: at least `steps` of them.
        lowest, highest: first and last rate, in equal ratios.
        steps: between them.
        mixed_precision: as `TrainingConfig` has it.

    Raises:
        ValueError: fewer batches than steps, or a loss that is not finite at the lowest rates.
    """
    accelerator = Accelerator(mixed_precision=mixed_precision)
    trained = accelerator.prepare_model(copy.deepcopy(model).train().to(accelerator.device), evaluation_mode=True)
    optimizer = accelerator.prepare_optimizer(torch.optim.AdamW(trained.parameters(), lr=lowest, betas=(0.9, 0.98)))
    rates: list[float] = []
    losses: list[float] = []
    mean = 0.0
    given: Any = iter(batches)
    for step in tqdm(range(steps), desc="learning rates", disable=None):
        batch = next(given, None)
        if batch is None:
            raise ValueError(f"there were {step} batches, expected at least {steps}. Give more, or take fewer steps.")
        rate = lowest * (highest / lowest) ** (step / max(steps - 1, 1))
        for group in optimizer.param_groups:
            group["lr"] = rate
        loss = trained(**{name: tensor.to(accelerator.device) for name, tensor in batch.items()}).loss
        accelerator.backward(loss)
        mean = SMOOTHING * mean + (1 - SMOOTHING) * loss.item()
        smooth = mean / (1 - SMOOTHING ** (step + 1))
        if not math.isfinite(smooth) or (losses and smooth > MOST_RISE * min(losses)):
            break
        rates.append(rate)
        losses.append(smooth)
        norm = accelerator.clip_grad_norm_(trained.parameters(), 5.0)
        if torch.isfinite(norm):  # else the scale of fp16 is too large yet
            optimizer.step()
        elif accelerator.scaler is not None:
            accelerator.scaler.update()
        optimizer.zero_grad()
    if not losses:
        raise ValueError("the loss is not finite before the first step. Look at the data with `hf-ocr inspect`.")
    best = losses.index(min(losses))
    return Sweep(tuple(rates), tuple(losses), rates[best] / 10)


def draw_sweep(sweep: Sweep, target: str | os.PathLike[str]) -> None:
    """The losses of a sweep as a picture, with the suggested rate; the suffix of `target` says the format."""
    from matplotlib.figure import Figure as Picture

    picture = Picture(figsize=(6, 4), layout="constrained")
    axes = picture.subplots()
    axes.plot(sweep.rates, sweep.losses)
    axes.axvline(sweep.suggestion, linestyle="--", label=f"{sweep.suggestion:.1e}")
    axes.set(xlabel="learning rate", ylabel="loss, smoothed", xscale="log")
    axes.legend()
    picture.savefig(target)
