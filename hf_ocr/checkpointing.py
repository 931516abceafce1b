"""Training checkpoints: written beside, then renamed; exact on resume. Safetensors and JSON, no pickle."""

import json
import random
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import load_file, save_file

PREFIX = "checkpoint-"


def save_checkpoint(
    folder: str | Path,
    step: int,
    model: torch.nn.Module,
    average: torch.nn.Module,
    optimizer: torch.optim.Optimizer,
    scheduler: Any,
    progress: dict[str, Any],
    keep: int = 2,
) -> Path:
    """Writes `folder/checkpoint-STEP` and removes all but the newest `keep`.

    A crash while writing leaves the older checkpoints whole: the files go to a temporary folder that is renamed last.

    Args:
        step: optimizer steps done.
        model, average: the trained weights and their moving average.
        progress: further JSON values to have again after a resume.
    """
    folder = Path(folder)
    target = folder / f"{PREFIX}{step}"
    partial = folder / f".partial-{step}"
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir(parents=True)
    save_file(_contiguous(model.state_dict()), partial / "model.safetensors")
    save_file(_contiguous(average.state_dict()), partial / "average.safetensors")
    moments, settings = _flatten(optimizer.state_dict())
    save_file(moments, partial / "optimizer.safetensors")
    numpy_state = np.random.get_state(legacy=False)
    key = torch.from_numpy(numpy_state["state"].pop("key"))
    save_file({"numpy": key, **_random_tensors()}, partial / "random.safetensors")
    state = {
        "step": step,
        "scheduler": scheduler.state_dict(),
        "optimizer": settings,
        "python_random": random.getstate(),
        "numpy_random": numpy_state,
        "progress": progress,
    }
    (partial / "state.json").write_text(json.dumps(state), encoding="utf-8")
    shutil.rmtree(target, ignore_errors=True)
    partial.rename(target)
    for old in list_checkpoints(folder)[:-keep]:
        shutil.rmtree(old)
    return target


def list_checkpoints(folder: str | Path) -> list[Path]:
    """Complete checkpoints of a run, oldest first."""
    found = [path for path in Path(folder).glob(f"{PREFIX}*") if (path / "state.json").exists()]
    return sorted(found, key=lambda path: int(path.name.removeprefix(PREFIX)))


def load_checkpoint(
    checkpoint: str | Path,
    model: torch.nn.Module,
    average: torch.nn.Module,
    optimizer: torch.optim.Optimizer,
    scheduler: Any,
) -> tuple[int, dict[str, Any]]:
    """Puts everything back, random states included.

    Returns:
        The optimizer steps done, and the `progress` that was saved.
    """
    checkpoint = Path(checkpoint)
    state = json.loads((checkpoint / "state.json").read_text(encoding="utf-8"))
    model.load_state_dict(load_file(checkpoint / "model.safetensors"))
    average.load_state_dict(load_file(checkpoint / "average.safetensors"))
    optimizer.load_state_dict(_unflatten(load_file(checkpoint / "optimizer.safetensors"), state["optimizer"]))
    scheduler.load_state_dict(state["scheduler"])
    tensors = load_file(checkpoint / "random.safetensors")
    torch.set_rng_state(tensors["torch"])
    for device in range(torch.cuda.device_count()):
        if f"cuda.{device}" in tensors:
            torch.cuda.set_rng_state(tensors[f"cuda.{device}"], device)
    numpy_state = state["numpy_random"]
    numpy_state["state"] = {"key": tensors["numpy"].numpy(), **numpy_state["state"]}
    np.random.set_state(numpy_state)
    version, numbers, gauss = state["python_random"]
    random.setstate((version, tuple(numbers), gauss))
    return state["step"], state["progress"]


def _contiguous(tensors: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    return {name: tensor.contiguous() for name, tensor in tensors.items()}


def _random_tensors() -> dict[str, torch.Tensor]:
    tensors = {"torch": torch.get_rng_state()}
    for device in range(torch.cuda.device_count()):
        tensors[f"cuda.{device}"] = torch.cuda.get_rng_state(device)
    return tensors


def _flatten(state: dict[str, Any]) -> tuple[dict[str, torch.Tensor], list[dict[str, Any]]]:
    tensors = {
        f"{index}.{name}": torch.as_tensor(value).contiguous()
        for index, values in state["state"].items()
        for name, value in values.items()
    }
    return tensors, state["param_groups"]


def _unflatten(tensors: dict[str, torch.Tensor], groups: list[dict[str, Any]]) -> dict[str, Any]:
    state: dict[int, dict[str, torch.Tensor]] = {}
    for key, tensor in tensors.items():
        index, name = key.split(".", 1)
        state.setdefault(int(index), {})[name] = tensor
    return {"state": state, "param_groups": groups}
