"""`hf-ocr info`: what is installed, and what would read."""

import argparse
import json
from pathlib import Path
from typing import Any

from hf_ocr.cli.loading import add_model_argument, load_reader, reading_dtype
from hf_ocr.record import hardware, versions
from hf_ocr.registration import default_checkpoint, shipped_checkpoints

EPILOG = """\
examples:
  hf-ocr info
  hf-ocr info --model runs/my-model
"""


def add_parser(verbs: Any) -> None:
    """Add the verb to the command."""
    parser = verbs.add_parser(
        "info",
        help="print versions, the shipped checkpoints, and how a model would read",
        description="Prints versions, the shipped checkpoints, and how a model would read on this machine.",
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add_model_argument(parser)
    parser.set_defaults(run=run)


def run(options: argparse.Namespace) -> int:
    """Print; a model that cannot be loaded ends the command with its error, below what could be said."""
    print("versions     " + ", ".join(f"{package} {version}" for package, version in versions().items()))
    machine = hardware()
    print(
        f"machine      {machine['cpu']}, {machine['cores']} core{'s' if machine['cores'] > 1 else ''}, "
        + ", ".join(machine.get("accelerators", ["no GPU"]))
    )
    for folder in shipped_checkpoints():
        print(f"checkpoint   {folder.name}: {_size(folder):.1f} MB, an alphabet of {_alphabet_size(folder)} characters")
    reader = load_reader(options.model)
    name = default_checkpoint().name if options.model is None else options.model
    parameters = sum(parameter.numel() for parameter in reader.model.parameters())
    print(
        f"reads with   {name}: {type(reader.model).__name__}, {parameters / 1e6:.2f} M parameters, "
        f"{len(reader.tokenizer)} symbols"
    )
    print(f"device       {reader.device}, in {str(reading_dtype(reader)).removeprefix('torch.')}")
    return 0


def _size(folder: Path) -> float:
    """Of all files, in MB."""
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file()) / 1e6


def _alphabet_size(folder: Path) -> int:
    """The characters of `vocab.json`; the names of special symbols are longer than one."""
    return sum(len(symbol) == 1 for symbol in json.loads((folder / "vocab.json").read_text(encoding="utf-8")))
