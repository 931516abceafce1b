"""A checkpoint folder that stands alone: weights, code, alphabet, processor; and what a published one holds beside."""

import os
import re
import shutil
from dataclasses import replace
from importlib import resources
from pathlib import Path
from typing import Any

import torch
from huggingface_hub import ModelCard, snapshot_download
from transformers import AutoConfig, AutoModelForTextRecognition, AutoProcessor

from hf_ocr.card import render_card, try_usage
from hf_ocr.models import MODEL_CLASSES
from hf_ocr.record import RunRecord, describe_model, fingerprint
from hf_ocr.registration import default_checkpoint, find_checkpoint
from hf_ocr.standalone import example_lines

SERVING_FILES = ("app.py", "handler.py", "requirements.txt")
LEGAL_FILES = ("LICENSE*", "LICENCE*", "NOTICE*", "MODEL_LICENSES*")
# What transformers names weights, and the index where they are several files.
WEIGHTS = re.compile(r"model(-\d{5}-of-\d{5})?\.safetensors(\.index\.json)?")


def save_bundle(model: Any, processor: Any, folder: str | Path, weights_dtype: torch.dtype | None = None) -> Path:
    """Write a folder that transformers alone reads, with `trust_remote_code=True`, and hf_ocr without.

    This is what `model.save_pretrained(folder)` and `processor.save_pretrained(folder)` write, checked first, and the
    way to store smaller weights.

    Args:
        model: a recognizer of `MODEL_CLASSES`.
        processor: its processor.
        folder: made if it does not exist; files of the same names are overwritten.
        weights_dtype: stored type of the floating point weights, as torch.float16 for half the size; the model's own
            when None. The folder still loads in the model's own type.

    Returns:
        The folder.

    Raises:
        ValueError: an alphabet that does not fit the model's head, or weights that `weights_dtype` cannot hold.
    """
    symbols, outputs = len(processor.tokenizer), model.config.vocab_size
    if symbols != outputs:
        raise ValueError(
            f"the alphabet does not fit the model: {symbols} symbols in the tokenizer, {outputs} outputs in the head. "
            "Save a model with the processor it was trained with."
        )
    weights = model.state_dict()
    if weights_dtype is not None:
        weights = {name: w.to(weights_dtype) if w.is_floating_point() else w for name, w in weights.items()}
        broken = [name for name, tensor in weights.items() if not tensor.isfinite().all()]
        if broken:
            raise ValueError(
                f"{weights_dtype} cannot hold {', '.join(broken)}: not all values are finite. Store the weights in "
                f"{model.dtype}, or look for what made them so large."
            )
    folder = Path(folder)
    model.save_pretrained(folder, state_dict=weights)
    processor.save_pretrained(folder)
    return folder


def bundle_checkpoint(
    source: str | os.PathLike[str], folder: str | os.PathLike[str], record: str | os.PathLike[str] | None = None
) -> Path:
    """Write a checkpoint as a folder to publish.

    Besides what `save_bundle` writes, with the weights as they are stored, it holds the card (README.md), a demo for
    the browser (app.py, with examples/), an inference endpoint (handler.py), the packages these need
    (requirements.txt), and the licences that lie beside the checkpoint. The lines that the card shows are run, as seen
    from above the folder, on the first example.

    Args:
        source: folder of a recognizer of `MODEL_CLASSES`, or its name on the Hub or in the package.
        folder: made if it does not exist; files of the same names are overwritten.
        record: file of the run record from which the card is rendered, with the card's pictures beside it. When None,
            the one in or above `source` whose weights are these; where there is none, the card says what the model is
            and gives no figures.

    Returns:
        The folder.

    Raises:
        ValueError: no recognizer of this package, an alphabet that does not fit it, a folder that is the source, or a
            record of other weights.
        RuntimeError: the lines that the card shows do not run, or read something else without this package.
    """
    name = find_checkpoint(source)
    source = Path(name) if Path(name).is_dir() else Path(snapshot_download(name))
    folder = Path(folder)
    if folder.resolve() == source.resolve():
        raise ValueError(f"{folder}: is the checkpoint itself. Expected another folder to write.")
    # Code of the package reads it, never that of the folder.
    config = AutoConfig.from_pretrained(source, trust_remote_code=False)
    if not isinstance(config, tuple(family.config_class for family in MODEL_CLASSES)):
        raise ValueError(
            f"{source}: is a {config.model_type} of transformers. Expected a recognizer of hf_ocr; others need no code "
            "beside them."
        )
    model = AutoModelForTextRecognition.from_pretrained(source, trust_remote_code=False)
    processor = AutoProcessor.from_pretrained(source, trust_remote_code=False)
    stored = sorted(file for file in source.iterdir() if WEIGHTS.fullmatch(file.name))
    weights = [file for file in stored if file.suffix == ".safetensors"]
    path = Path(record) if record is not None else _record_beside(source, weights)
    found = (
        _record_of(path, weights)
        if path
        else _bare_record(folder.resolve().name, model, processor, weights, licence_of(source))
    )
    save_bundle(model, processor, folder)
    for file in [file for file in folder.iterdir() if WEIGHTS.fullmatch(file.name)]:
        file.unlink()
    for file in [*stored, *(file for names in LEGAL_FILES for file in source.glob(names))]:
        shutil.copyfile(file, folder / file.name)
    for picture in found.pictures:
        shutil.copyfile((path or source).parent / Path(picture).name, folder / Path(picture).name)
    for name in SERVING_FILES:
        (folder / name).write_bytes((resources.files("hf_ocr") / "serving" / name).read_bytes())
    (folder / "examples").mkdir(exist_ok=True)
    for index, line in enumerate(example_lines(), 1):
        line.save(folder / "examples" / f"line-{index}.png")
    place = folder.resolve()
    found = replace(found, load_as=place.name)
    found = try_usage(found, f"{place.name}/examples/line-1.png", place.parent, standalone=True)
    (folder / "README.md").write_text(str(render_card(found)), encoding="utf-8")
    return folder


def licence_of(folder: Path) -> str:
    """What the card in the folder of a checkpoint names as its licence; "unknown" where none does.

    The checkpoints of the package, which have no card beside them, are under its own.
    """
    if folder.resolve().parent == default_checkpoint().parent.resolve():
        return "apache-2.0"
    card = folder / "README.md"
    if not card.is_file():
        return "unknown"
    try:
        licence = ModelCard(card.read_text(encoding="utf-8")).data.get("license")
    except Exception:  # of the YAML parser, or of a value in it
        return "unknown"
    return licence if isinstance(licence, str) else "unknown"


def _record_beside(source: Path, weights: list[Path]) -> Path | None:
    """Where training puts it: above the checkpoint, or in it."""
    for path in sorted([*source.glob("*.json"), *source.resolve().parent.glob("*.json")]):
        try:
            _record_of(path, weights)
        except (ValueError, OSError):  # other JSON, the record of another run
            continue
        return path
    return None


def _record_of(path: Path, weights: list[Path]) -> RunRecord:
    record = RunRecord.load(path)
    if not {file.sha256 for file in record.weights} >= {fingerprint(file).sha256 for file in weights}:
        raise ValueError(
            f"{path}: is the record of other weights, whose figures would be published. Expected the SHA-256 of "
            f"{', '.join(file.name for file in weights)} among its `weights`."
        )
    return record


def _bare_record(name: str, model: Any, processor: Any, weights: list[Path], licence: str) -> RunRecord:
    return RunRecord(
        name=name,
        description="A text recognizer. No record of its training is at hand, so nothing is said of data and figures.",
        model=describe_model(model, processor),
        weights=tuple(fingerprint(path) for path in weights),
        licence=licence,
        limits=("How well it reads is not known: measure it on lines of yours before relying on it.",),
    )
