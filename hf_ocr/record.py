"""The record of a run, `model_cards/NAME.json`: settings, data by fingerprint, versions, hardware, hours, figures.

The card of a model is rendered from this file alone (`hf_ocr.card`), so what is not in here is not on the card.
"""

import hashlib
import json
import os
import platform
from collections.abc import Mapping
from dataclasses import MISSING, dataclass, field, fields, is_dataclass
from importlib import metadata
from pathlib import Path
from typing import Any

import torch

__all__ = [
    "DataFile",
    "DataSource",
    "Result",
    "RunRecord",
    "Speed",
    "Usage",
    "describe_model",
    "fingerprint",
    "hardware",
    "versions",
]

_PACKAGES = "hf-ocr torch transformers huggingface_hub safetensors numpy pillow accelerate datasets rapidfuzz".split()


@dataclass(frozen=True)
class DataFile:
    """A file or folder by content: its name, its size in bytes, its SHA-256 in hexadecimal."""

    name: str
    size_bytes: int
    sha256: str


@dataclass(frozen=True)
class DataSource:
    """Lines the model was trained on. `origin`: where they come from, in words."""

    name: str
    split: str | None = None
    num_lines: int | None = None
    origin: str | None = None
    licence: str | None = None
    files: tuple[DataFile, ...] = ()


@dataclass(frozen=True)
class Result:
    """A measured set. `report` is what `hf_ocr.report.report_to_dict` gives; `title` the set's name in print."""

    dataset: str
    split: str
    report: dict[str, Any]
    title: str | None = None
    files: tuple[DataFile, ...] = ()


@dataclass(frozen=True)
class Speed:
    """One measured speed: `reader` did `what` at `value` `unit`: ("this model", "receipt lines", 800.0, "lines/s").

    `conditions`: machine, cores, batch, versions, in words. Figures of one comparison share them.
    """

    reader: str
    what: str
    value: float
    unit: str
    conditions: str | None = None


@dataclass(frozen=True)
class Usage:
    """The lines of "Use" as they were run: the image they read, named as in the code, and what they printed.

    `standalone`: also run without this package, by the code beside the weights, and printed the same.
    """

    image: str
    printed: str
    standalone: bool = False


@dataclass(frozen=True)
class RunRecord:
    """All that is known of a trained checkpoint.

    Attributes:
        name: of the checkpoint, and of the two files in `model_cards/`.
        description: what it is, in a sentence or two.
        model: of `describe_model`.
        settings: of the training, as given.
        created: day of the run, YYYY-MM-DD.
        hours: of training.
        steps: optimizer steps.
        lines_seen: training lines read by all processes, repetitions counted.
        hardware, versions: of the functions of those names, called where the training ran.
        training_data, results, speed: what was used and measured.
        results_before: of the weights whose place these took, measured on the same lines.
        weights: the weight files by content, which ties the record to one checkpoint.
        languages: ISO 639-1 codes.
        licence: of the checkpoint, an SPDX identifier in lower case; "unknown" where nobody has said it.
        limits: what it reads badly or not at all, one sentence each; the card adds what the results say of it.
        command, evaluation_command: how to repeat the training and the measurement.
        load_as: what `pipeline(model=...)` takes; None for the checkpoint that is read with when no model is named.
        usage: of `hf_ocr.card.try_usage`.
        pictures: file beside the record -> what it shows.
    """

    name: str
    description: str
    model: dict[str, Any]
    settings: dict[str, Any] = field(default_factory=dict)
    created: str | None = None
    hours: float | None = None
    steps: int | None = None
    lines_seen: int | None = None
    hardware: dict[str, Any] = field(default_factory=dict)
    versions: dict[str, str] = field(default_factory=dict)
    training_data: tuple[DataSource, ...] = ()
    results: tuple[Result, ...] = ()
    results_before: tuple[Result, ...] = ()
    speed: tuple[Speed, ...] = ()
    weights: tuple[DataFile, ...] = ()
    languages: tuple[str, ...] = ()
    licence: str = "unknown"
    limits: tuple[str, ...] = ()
    command: str | None = None
    evaluation_command: str | None = None
    load_as: str | None = None
    usage: Usage | None = None
    pictures: dict[str, str] = field(default_factory=dict)

    def save(self, folder: str | os.PathLike[str]) -> Path:
        """Writes `folder/NAME.json` (UTF-8) and returns its path. Entries that are None or empty are left out.

        Raises ValueError for a value that JSON cannot hold, NaN among them. Absolute `Path`s in `settings` are cut to
        their last part: a record is published, and the folders of one machine mean nothing elsewhere.
        """
        content = _plain(self, "record")
        path = Path(folder) / f"{self.name}.json"
        try:
            text = json.dumps(content, ensure_ascii=False, indent=1, allow_nan=False)
        except ValueError as error:
            raise ValueError(f"The record {self.name!r} holds NaN or infinity; expected finite figures.") from error
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text + "\n", encoding="utf-8")
        return path

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> "RunRecord":
        """Reads what `save` wrote. Raises ValueError for no JSON, and for unknown or missing entries."""
        try:
            content = json.loads(Path(path).read_text(encoding="utf-8"))
        except ValueError as error:
            raise ValueError(f"{path} is no JSON: {error}. Expected a file written by RunRecord.save.") from error
        nested = {
            "training_data": DataSource, "results": Result, "results_before": Result, "speed": Speed,
            "weights": DataFile,
        }  # fmt: skip
        values = _entries(cls, content, str(path))
        for name, kind in nested.items():
            values[name] = tuple(_read(kind, entry, f"{path}: {name}") for entry in values.get(name, ()))
        if "usage" in values:
            values["usage"] = _read(Usage, values["usage"], f"{path}: usage")
        for name in ("languages", "limits"):
            values[name] = tuple(values.get(name, ()))
        return cls(**values)


def fingerprint(path: str | os.PathLike[str]) -> DataFile:
    """Size and SHA-256 of a file; of a folder, the SHA-256 over the sorted relative names and hashes of its files.

    Hidden files of a folder, and what a file manager leaves in it, do not count.
    The name is the file's with that of its folder (`sroie_lines/train.parquet`), or the folder's alone.
    """
    path = Path(os.path.abspath(path))  # not resolved: the Hub's cache links names to blobs
    if path.is_file():
        name = f"{path.parent.name}/{path.name}"
        with path.open("rb") as file:
            return DataFile(name, path.stat().st_size, hashlib.file_digest(file, "sha256").hexdigest())
    if not path.is_dir():
        raise FileNotFoundError(f"{path} does not exist; expected a data file or a folder of them.")
    total, digest = 0, hashlib.sha256()
    # As text: on some systems paths are sorted without regard to case.
    for parts in sorted(child.relative_to(path).parts for child in path.rglob("*") if child.is_file()):
        if parts[-1] == "Thumbs.db" or any(part.startswith(".") for part in parts):
            continue
        content = fingerprint(path.joinpath(*parts))
        total += content.size_bytes
        digest.update(f"{'/'.join(parts)}\0{content.sha256}\n".encode())
    return DataFile(path.name, total, digest.hexdigest())


def describe_model(model: Any, processor: Any) -> dict[str, Any]:
    """What a record says of the network: family, parameters, language model, dtype, alphabet, the images it takes.

    `alphabet` is the characters in the order of their ids, special tokens left out.
    """
    tokenizer, image_processor = processor.tokenizer, processor.image_processor
    limits = {
        name: getattr(image_processor, name)
        for name in ("height", "min_width", "max_width", "num_channels")
        if getattr(image_processor, name, None) is not None
    }
    language_model = getattr(model, "language_model", None)
    tables = {} if language_model is None else {"n_grams": len(language_model.keys), "order": language_model.order}
    return {
        "family": model.config.model_type,
        "parameters": sum(parameter.numel() for parameter in model.parameters()),
        **({"language_model": tables} if tables else {}),
        "dtype": str(model.dtype).removeprefix("torch."),
        "alphabet": "".join(tokenizer.alphabet),
        "input": limits,
    }


def versions() -> dict[str, str]:
    """Python's version, and those of the packages that decide what a run gives, as far as they are installed."""
    found = {"python": platform.python_version()}
    for package in _PACKAGES:
        try:
            found[package] = metadata.version(package)
        except metadata.PackageNotFoundError:
            continue
    return found


def hardware() -> dict[str, Any]:
    """The CPU by name, the cores this process may use, the memory in GiB, and the accelerators by name, if any."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    found: dict[str, Any] = {"cpu": _cpu_name(), "cores": cores}
    if hasattr(os, "sysconf") and "SC_PHYS_PAGES" in os.sysconf_names:
        found["memory_gib"] = round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30, 1)
    if torch.cuda.is_available():
        found["accelerators"] = [torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count())]
    return found


def _cpu_name() -> str:
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.exists():
        for line in cpuinfo.read_text(encoding="utf-8", errors="replace").splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()


def _plain(value: Any, where: str) -> Any:
    if is_dataclass(value) and not isinstance(value, type):
        entries = {f.name: _plain(getattr(value, f.name), f"{where}.{f.name}") for f in fields(value)}
        return {name: entry for name, entry in entries.items() if entry is not None and entry not in ([], {})}
    if isinstance(value, Mapping):
        return {str(name): _plain(entry, f"{where}.{name}") for name, entry in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(entry, f"{where}[{index}]") for index, entry in enumerate(value)]
    if isinstance(value, Path):
        return value.name if value.is_absolute() else value.as_posix()
    if value is None or isinstance(value, str | bool | int | float):
        return value
    raise ValueError(
        f"{where} is {str(value)[:60]} ({type(value).__name__}), which JSON cannot hold; expected numbers, strings, "
        "lists and dictionaries of them, paths or dataclasses."
    )


def _entries(kind: type[Any], content: Any, where: str) -> dict[str, Any]:
    if not isinstance(content, dict):
        raise ValueError(
            f"{where} holds {type(content).__name__}; expected an object with the entries of {kind.__name__}."
        )
    known = {f.name: f for f in fields(kind)}
    unknown = sorted(set(content) - set(known))
    missing = sorted(
        name
        for name, f in known.items()
        if name not in content and f.default is MISSING and f.default_factory is MISSING
    )
    if unknown or missing:
        raise ValueError(
            f"{where}: entries unknown: {unknown}, missing: {missing}; expected those of {kind.__name__}: "
            f"{sorted(known)}. Was it written by another version?"
        )
    return dict(content)


def _read(kind: type[Any], content: Any, where: str) -> Any:
    values = _entries(kind, content, where)
    if "files" in values:
        values["files"] = tuple(_read(DataFile, entry, f"{where}: files") for entry in values["files"])
    return kind(**values)
