"""Training checkpoints: written beside, then renamed; exact on resume. Safetensors and JSON, no pickle."""

import json
import os
import random
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import load_file, save_file

from hf_ocr.sharding import part_like, whole

PREFIX = "checkpoint-"


def save_checkpoint(
    folder: str | Path,
    step: int,
    model: torch.nn.Module,
    average: torch.nn.Module,
    optimizer: torch.optim.Optimizer,
    scheduler: Any,
    progress: dict[str, Any],
    random_states: list[dict[str, Any]],
    origin: dict[str, Any],
    keep: int = 2,
    rank: int = 0,
) -> Path:
    """Writes `folder/checkpoint-STEP` and removes all but the newest `keep`.

    Every process calls it, for each may have a part of the weights; process 0 writes.

    A crash while writing, of the machine too, leaves the older checkpoints whole: the files go to a temporary folder
    that is renamed when they have reached the disk.

    Args:
        step: optimizer steps done.
        model, average: the trained weights and their moving average.
        progress: further JSON values to have again after a resume.
        random_states: of `random_state`, one for each process, in the order of their ranks.
        origin: JSON values on which the steps to come depend; whoever goes on must have the same.
        keep: checkpoints that stay.
        rank: of this process.

    Raises:
        OSError: the checkpoint cannot be written; the older ones are as they were.
    """
    folder = Path(folder)
    target = folder / f"{PREFIX}{step}"
    partial = folder / f".partial-{step}"
    moments, settings = _flatten(optimizer.state_dict())
    weights, moments = ({key: whole(part) for key, part in parts.items()} for parts in (model.state_dict(), moments))
    if rank:
        return target
    try:
        shutil.rmtree(partial, ignore_errors=True)
        partial.mkdir(parents=True)
        tensors = {
            f"{rank}.{name}": torch.from_numpy(array)
            for rank, state in enumerate(random_states)
            for name, array in state["arrays"].items()
        }
        for name, content in (
            ("model", weights),
            ("average", average.state_dict()),
            ("optimizer", moments),
            ("random", tensors),
        ):
            # Copies: two layers may share one tensor, which safetensors refuses.
            copies = {key: tensor.clone(memory_format=torch.contiguous_format) for key, tensor in content.items()}
            save_file(copies, partial / f"{name}.safetensors")
        state = {
            "step": step,
            "scheduler": scheduler.state_dict(),
            "optimizer": settings,
            "random": [{name: value for name, value in state.items() if name != "arrays"} for state in random_states],
            "progress": progress,
            "origin": origin,
        }
        (partial / "state.json").write_text(json.dumps(state), encoding="utf-8")
        shutil.rmtree(target, ignore_errors=True)
        for path in (*partial.iterdir(), partial):
            _to_disk(path)
        partial.rename(target)
        _to_disk(folder)
    except Exception as error:  # a full disk comes as OSError, or as an error of safetensors
        shutil.rmtree(partial, ignore_errors=True)
        older = list_checkpoints(folder)
        raise OSError(
            f"{target}: the checkpoint could not be written ({error}). Free space on the disk and start again: the run "
            f"goes on from {older[-1] if older else 'its beginning'}."
        ) from error
    for old in list_checkpoints(folder)[:-keep]:
        shutil.rmtree(old)
    return target


def save_model(model: Any, processor: Any, folder: Path) -> None:
    """`save_pretrained` of both, beside and then renamed, so that what was in the folder is lost to nothing else.

    Raises:
        OSError: they cannot be written; what was in the folder is as it was.
    """
    partial, before = (folder.with_name(f".{kind}-{folder.name}") for kind in ("partial", "before"))
    try:
        for path in (partial, before):
            shutil.rmtree(path, ignore_errors=True)
        model.save_pretrained(partial)
        processor.save_pretrained(partial)
        for path in (*partial.iterdir(), partial):
            _to_disk(path)
        if folder.exists():
            folder.rename(before)
        partial.rename(folder)
        shutil.rmtree(before, ignore_errors=True)
    except Exception as error:
        shutil.rmtree(partial, ignore_errors=True)
        raise OSError(
            f"{folder}: the model could not be written ({error}). Free space on the disk and start again: the run goes "
            "on from its last checkpoint."
        ) from error


def list_checkpoints(folder: str | Path) -> list[Path]:
    """Complete checkpoints of a run, oldest first; not what somebody has put beside them, as checkpoint-200-copy."""
    found = [
        path
        for path in Path(folder).glob(f"{PREFIX}*")
        if path.name.removeprefix(PREFIX).isdecimal() and (path / "state.json").exists()
    ]
    return sorted(found, key=lambda path: int(path.name.removeprefix(PREFIX)))


def load_checkpoint(
    checkpoint: str | Path,
    model: torch.nn.Module,
    average: torch.nn.Module,
    optimizer: torch.optim.Optimizer,
    scheduler: Any,
    origin: dict[str, Any],
    rank: int = 0,
    world: int = 1,
) -> tuple[int, dict[str, Any]]:
    """Puts everything back, the random states of process `rank` of `world` included.

    Args:
        origin: as for `save_checkpoint`.

    Returns:
        The optimizer steps done, and the `progress` that was saved.

    Raises:
        ValueError: another number of processes wrote it, or a run of another origin.
    """
    checkpoint = Path(checkpoint)
    state = json.loads((checkpoint / "state.json").read_text(encoding="utf-8"))
    if len(state["random"]) != world:
        raise ValueError(
            f"{checkpoint}: was written by {len(state['random'])} processes, now there are {world}, which would read "
            "other batches. Resume with as many as before, or begin anew in another folder."
        )
    written, now = state["origin"], json.loads(json.dumps(origin))
    others = [
        f"{name} {written.get(name)!r}, now {now.get(name)!r}"
        for name in sorted({*written, *now})
        if written.get(name) != now.get(name)
    ]
    if others:
        raise ValueError(
            f"{checkpoint}: was written by another run: {'; '.join(others)}. Give the same settings to go on with it, "
            "or another folder to begin anew; it may begin with the weights of this one."
        )
    weights, parts = load_file(checkpoint / "model.safetensors"), model.state_dict()
    model.load_state_dict({name: part_like(tensor, parts.get(name)) for name, tensor in weights.items()})
    average.load_state_dict(load_file(checkpoint / "average.safetensors"))
    optimizer.load_state_dict(_unflatten(load_file(checkpoint / "optimizer.safetensors"), state["optimizer"]))
    for parameter, values in optimizer.state.items():
        values.update({name: part_like(value, parameter) for name, value in values.items() if value.ndim})
    scheduler.load_state_dict(state["scheduler"])
    tensors = load_file(checkpoint / "random.safetensors")
    own = {name.split(".", 1)[1]: tensor.numpy() for name, tensor in tensors.items() if name.startswith(f"{rank}.")}
    _set_random_state({**state["random"][rank], "arrays": own})
    return state["step"], state["progress"]


def _to_disk(path: Path) -> None:
    """A file or, where the system can open them, a folder: a rename may be on the disk before what was renamed."""
    if path.is_file() or hasattr(os, "O_DIRECTORY"):
        descriptor = os.open(path, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


def random_state() -> dict[str, Any]:
    """The states of all random generators of this process: "arrays", and JSON values.

    NumPy arrays and no tensors: `gather_object` of torch 2.13 cannot send the latter.
    """
    numpy_state = np.random.get_state(legacy=False)
    arrays = {"torch": torch.get_rng_state().numpy(), "numpy": numpy_state["state"].pop("key")}
    for device in range(torch.cuda.device_count()):
        arrays[f"cuda.{device}"] = torch.cuda.get_rng_state(device).numpy()
    return {"python": random.getstate(), "numpy": numpy_state, "arrays": arrays}


def _set_random_state(state: dict[str, Any]) -> None:
    arrays = state["arrays"]
    torch.set_rng_state(torch.from_numpy(arrays["torch"]))
    for device in range(torch.cuda.device_count()):
        if f"cuda.{device}" in arrays:
            torch.cuda.set_rng_state(torch.from_numpy(arrays[f"cuda.{device}"]), device)
    numpy_state = dict(state["numpy"])
    numpy_state["state"] = {"key": arrays["numpy"], **numpy_state["state"]}
    np.random.set_state(numpy_state)
    version, numbers, gauss = state["python"]
    random.setstate((version, tuple(numbers), gauss))


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
