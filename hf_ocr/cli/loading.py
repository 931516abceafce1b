"""From the argument `--model` to a pipeline that reads, or to one line that says what is wrong with it."""

import argparse
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from transformers import pipeline
from transformers.utils import logging

from hf_ocr.registration import default_checkpoint, find_checkpoint

WEIGHTS = ("model.safetensors", "model.safetensors.index.json")


class CommandError(Exception):
    """What ends the command: one line that says what is wrong and what to do."""


def add_model_argument(parser: Any) -> None:
    """Add `--model` to the parser of a verb."""
    parser.add_argument(
        "--model",
        metavar="M",
        help="folder of a checkpoint, or its name on the Hub or among those of the package (hf-ocr info); by default "
        "the package's first choice",
    )


def at_least(least: int) -> Callable[[str], int]:
    """The type of an argument that is a whole number, not below this one; argparse shows the error."""

    def whole(argument: str) -> int:
        number = int(argument)
        if number < least:
            raise argparse.ArgumentTypeError(f"{number}: expected at least {least}")
        return number

    return whole


def load_reader(model: str | None, device: int | None = None) -> Any:
    """The pipeline `text-recognition` with this checkpoint (the shipped one when None) on this device.

    Raises:
        CommandError: the checkpoint is missing, incomplete, damaged, or its parts do not belong together.
    """
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    name = str(default_checkpoint()) if model is None else find_checkpoint(model)
    if Path(name).is_dir() or model is None:
        check_folder(Path(name))
    elif Path(name).exists():
        raise CommandError(f"{name}: is a file. Expected the folder of a checkpoint: give the folder it lies in.")
    try:
        # False, not None: on a terminal transformers would ask, and run the code of the folder at a "y".
        reader = pipeline("text-recognition", model=name, device=device, trust_remote_code=False)
    except Exception as error:  # transformers raises of every kind, with whatever the library below it said
        if "trust_remote_code" in str(error):
            raise CommandError(
                f"{name}: its model is one that neither this package nor transformers has, and comes with code of its "
                "own, which hf-ocr never runs. Look at the .py files beside the weights; to run them all the same, "
                "pipeline('image-to-text', model=..., trust_remote_code=True) in Python."
            ) from error
        tried = "the checkpoint" if Path(name).is_dir() else "no such folder here, and as a name on the Hub it"
        raise CommandError(f"{name}: {tried} cannot be loaded. {one_line(error)}") from error
    if hasattr(reader.model, "recognize"):
        _check_tensors(Path(name), reader.model)
    return reader


def check_folder(folder: Path) -> None:
    """Look at the files of a checkpoint before transformers does, whose errors name the wrong cause or none.

    Raises:
        CommandError: no folder, no configuration, no weights, damaged weights.
    """
    whole = "Copy or download the checkpoint again, whole."
    if not folder.is_dir():
        raise CommandError(f"{folder}: no such checkpoint. Install the package again, or name one with --model.")
    config = folder / "config.json"
    if not config.is_file():
        raise CommandError(
            f"{folder}: has no config.json. Expected the folder of a checkpoint as `save_pretrained` writes it. {whole}"
        )
    try:
        json.loads(config.read_text(encoding="utf-8"))
    except ValueError as error:
        raise CommandError(f"{config}: is not JSON ({error}). {whole}") from error
    if not any((folder / name).is_file() for name in WEIGHTS):
        raise CommandError(f"{folder}: has no weights. Expected {WEIGHTS[0]}; other formats are not read. {whole}")
    for weights in sorted(folder.glob("*.safetensors")):
        try:
            with safe_open(weights, "pt"):
                pass
        except (SafetensorError, OSError) as error:
            raise CommandError(f"{weights}: the weights are damaged ({one_line(error)}). {whole}") from error


def one_line(error: BaseException) -> str:
    """What an exception says, on one line; its name where it says nothing."""
    return " ".join(str(error).split()) or type(error).__name__


def reading_dtype(reader: Any) -> torch.dtype:
    """The type of number that this pipeline computes in on its device."""
    return (
        next(reader._reading_model().parameters()).dtype if hasattr(reader.model, "recognize") else reader.model.dtype
    )


def _check_tensors(folder: Path, model: Any) -> None:
    """transformers fills what the file does not hold with random numbers; the texts would be garbage."""
    weights = folder / WEIGHTS[0]
    if not weights.is_file():
        return
    with safe_open(weights, "pt") as file:
        held = set(file.keys())
    tied = set(getattr(model, "all_tied_weights_keys", None) or {})
    missing = sorted(set(model.state_dict()) - held - tied)
    if missing:
        raise CommandError(
            f"{weights}: lacks {len(missing)} tensors of {type(model).__name__}, the first is {missing[0]}. "
            "Expected the weights that belong to the config.json beside them: copy the checkpoint again, whole."
        )
