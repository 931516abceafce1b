"""The tensors of a file of weights that somebody else saved; no code in it is run."""

import zipfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file

from hf_ocr.convert.conversion import ConversionError

# What DistributedDataParallel, torch.compile and a Lightning module with a network inside put before every name.
WRAPPERS = ("module.", "_orig_mod.", "model.")
SAVE_AGAIN = "Load the network where it was trained, and save network.state_dict()."


def read_tensors(source: str | Path) -> dict[str, torch.Tensor]:
    """{name: tensor} of a state dict, as safetensors or as `torch.save` writes it; without the names of wrappers.

    That of a network inside a checkpoint of Lightning is found.

    Raises:
        ConversionError: no such file, damaged, more than tensors in it, or tensors that are not what they seem.
    """
    source = Path(source)
    if not source.is_file():
        raise ConversionError(f"{source}: no such file. Expected the weights of a network, as .pth; check the path.")
    content: Any
    try:
        if source.suffix == ".safetensors":
            content = load_file(source)
        else:
            _check_archive(source)
            content = torch.load(  # noqa: TID251  published as pickles; of these weights_only takes tensors alone
                source, map_location="cpu", weights_only=True
            )
    except ConversionError:
        raise
    except (SafetensorError, OSError) as error:
        raise ConversionError(f"{source}: cannot be read ({error}). Copy or download it again, whole.") from error
    except Exception as error:  # of pickle, zip and torch, as the damage has it
        raise ConversionError(
            f"{source}: is damaged, or holds more than tensors, and reading those would run code of the file "
            f"({str(error).partition('.')[0]}). Expected a state dict. {SAVE_AGAIN}"
        ) from error
    if isinstance(content, dict) and isinstance(content.get("state_dict"), dict):  # a checkpoint of Lightning
        content = content["state_dict"]
    if not isinstance(content, dict) or not all(isinstance(name, str) for name in content):
        raise ConversionError(f"{source}: holds a {type(content).__name__}. Expected a state dict. {SAVE_AGAIN}")
    tensors = {}
    for name, tensor in content.items():
        _check_tensor(source, name, tensor)
        while name.startswith(WRAPPERS):
            name = name.partition(".")[2]
        tensors[name] = tensor
    return tensors


class SourceWeights:
    """Tensors that are taken by name and shape, each once.

    Args:
        source: names the file in errors.
        tensors: {name: tensor}.
    """

    def __init__(self, source: Path, tensors: dict[str, torch.Tensor]) -> None:
        self.source = source
        self._left = dict(tensors)

    def take(self, name: str, shape: Sequence[int | None]) -> torch.Tensor:
        """The tensor of this name in float32; None in `shape` stands for any size.

        Raises:
            ConversionError: there is none, it has another shape, or not all of its values are finite.
        """
        tensor = self._left.pop(name, None)
        expected = f"({', '.join('any' if size is None else str(size) for size in shape)})"
        if tensor is None:
            raise ConversionError(
                f"{self.source}: has no {name} of shape {expected}. Convert another file, of one of the networks that "
                "`hf-ocr convert --help` names."
            )
        if tensor.ndim != len(shape) or any(
            want not in (None, size) for want, size in zip(shape, tensor.shape, strict=True)
        ):
            raise ConversionError(
                f"{self.source}: {name} has shape {tuple(tensor.shape)}, expected {expected}. Convert another file, of "
                "one of the networks that `hf-ocr convert --help` names."
            )
        if not tensor.isfinite().all():
            raise ConversionError(
                f"{self.source}: {name} holds values that are NaN or infinite, expected numbers. Take an earlier "
                "checkpoint of the training."
            )
        return tensor.float()

    def size(self, name: str, axis: int) -> int:
        """The size of an axis of a tensor that is yet to be taken.

        Raises:
            ConversionError: there is no such tensor, or it has no such axis.
        """
        tensor = self._left.get(name)
        if tensor is None or tensor.ndim <= axis:
            tensor = self.take(name, (None,) * (axis + 1))
        return tensor.shape[axis]

    def has(self, name: str) -> bool:
        """Whether a tensor of this name is yet to be taken."""
        return name in self._left

    def check_empty(self) -> None:
        """Nothing may be left: what is not taken was part of what the network computed.

        Raises:
            ConversionError: tensors were not taken.
        """
        if self._left:
            raise ConversionError(
                f"{self.source}: has {len(self._left)} tensors more than the network, the first is "
                f"{min(self._left)}. Convert another file, of one of the networks that `hf-ocr convert --help` names."
            )


def _check_archive(source: Path) -> None:
    """`torch.save` compresses nothing: what grows when it is unpacked is not from there."""
    if zipfile.is_zipfile(source):
        with zipfile.ZipFile(source) as archive:
            unpacked = sum(entry.file_size for entry in archive.infolist())
        if unpacked > source.stat().st_size:
            raise ConversionError(
                f"{source}: {source.stat().st_size:,} bytes that unpack to {unpacked:,}. Expected an archive without "
                f"compression, as torch.save writes it. {SAVE_AGAIN}"
            )


def _check_tensor(source: Path, name: str, tensor: object) -> None:
    if not isinstance(tensor, torch.Tensor) or tensor.layout != torch.strided:
        raise ConversionError(f"{source}: {name} is no tensor. Expected a state dict. {SAVE_AGAIN}")
    stored = tensor.untyped_storage().nbytes()
    if tensor.numel() * tensor.element_size() > stored:
        raise ConversionError(
            f"{source}: {name} of shape {tuple(tensor.shape)} is a view of {stored:,} bytes. "
            f"Expected tensors that are stored in full. {SAVE_AGAIN}"
        )
