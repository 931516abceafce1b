"""What the training loop makes of its settings: groups of parameters, a schedule, a moving average."""

from collections.abc import Callable
from typing import Any

import torch
from torch.optim.swa_utils import get_ema_multi_avg_fn
from transformers import get_scheduler

__all__ = ["moving_average", "parameter_groups", "schedule"]


def parameter_groups(model: torch.nn.Module, weight_decay: float) -> list[dict[str, Any]]:
    """What an optimizer takes: no decay of biases and norms."""
    parameters = [parameter for parameter in model.parameters() if parameter.requires_grad]
    return [
        {"params": [p for p in parameters if p.ndim > 1], "weight_decay": weight_decay},
        {"params": [p for p in parameters if p.ndim <= 1], "weight_decay": 0.0},
    ]


def schedule(name: str, optimizer: torch.optim.Optimizer, peak: float, steps: int, warmup_ratio: float) -> Any:
    """The learning rate over the steps: "cosine" (down to 1 % of the peak), "linear" or "one_cycle".

    Raises ValueError for another name.
    """
    warm_up = round(warmup_ratio * steps)
    if name == "one_cycle":
        return torch.optim.lr_scheduler.OneCycleLR(optimizer, peak, steps + 1, pct_start=max(warm_up, 1) / steps)
    if name == "linear":
        return get_scheduler("linear", optimizer, warm_up, steps)
    if name == "cosine":
        specific = {"min_lr_rate": 0.01}
        return get_scheduler("cosine_with_min_lr", optimizer, warm_up, steps, specific)
    raise ValueError(f"lr_scheduler_type is {name!r}, expected 'cosine', 'linear' or 'one_cycle'.")


def moving_average(decay: float) -> Callable[[Any, Any, Any], None]:
    """Of lists of tensors, in place; after n steps the decay is at most (1 + n) / (10 + n)."""

    def update(averages: Any, currents: Any, count: Any) -> None:
        get_ema_multi_avg_fn(min(decay, (1 + int(count)) / (10 + int(count))))(averages, currents, count)

    return update
