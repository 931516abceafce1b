"""What every source of weights shares: the result, the error, the symbols of an alphabet, and what is written."""

import hashlib
import string
import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from hf_ocr.bundle import save_bundle
from hf_ocr.models.tokenization_characters import CharacterTokenizer

PRINTABLE = string.digits + string.ascii_letters + string.punctuation
CARD = """\
---
library_name: transformers
pipeline_tag: image-to-text
tags:
- hf_ocr
- text-recognition
---

# {name} for hf_ocr

Made by `hf-ocr convert {verb}` from `{file}` (SHA-256 `{sha256}`), a {network}.

The weights are those of that file; their licence is the one their maker gave them. {symbols} symbols, the blank
included{left_out}.
"""


class ConversionError(Exception):
    """What cannot be converted: names the thing, what was found, what was expected and the cure."""


@dataclass(frozen=True)
class Conversion:
    """What was written: the folder, the file it was made from, its form, the symbols that were left out."""

    folder: Path
    source: Path
    form: str
    left_out: tuple[str, ...]


def can_be_read(symbol: str) -> bool:
    """Whether a text in normal form C can hold it as one character, as ids are here."""
    return len(symbol) == 1 and unicodedata.normalize("NFC", symbol) == symbol


def named(symbols: tuple[str, ...]) -> str:
    """Symbols by their code points, the empty one left out."""
    return ", ".join(f"U+{ord(symbol[0]):04X}" for symbol in symbols if symbol)


def alphabet_of(source: Path, project: str, published: Sequence[str], outputs: int, alphabet: str | None) -> str:
    """The characters of a head in the order of their ids there, as many as it has outputs beside the blank or end.

    Args:
        source: names the file in errors, `project` the network.
        published: alphabets, of which the one with as many characters is taken when `alphabet` is None.
        outputs: of the head.
        alphabet: as the user gave it.

    Raises:
        ConversionError: none, or one of another size.
    """
    if alphabet is None:
        for characters in published:
            if len(characters) == outputs - 1:
                return characters
        sizes = " or ".join(str(len(characters)) for characters in published)
        raise ConversionError(
            f"{source}: a head of {outputs} outputs, for the blank and {outputs - 1} characters. The published "
            f"alphabets of {project} have {sizes}. Give the characters in the order of their ids (--alphabet)."
        )
    if len(alphabet) != outputs - 1:
        raise ConversionError(
            f"{source}: an alphabet of {len(alphabet)} characters for a head of {outputs} outputs. Expected "
            f"{outputs - 1}, the blank is not one of them. Give the characters in the order of their ids (--alphabet)."
        )
    return alphabet


def readable_alphabet(source: Path, characters: str) -> tuple[list[int], tuple[str, ...], CharacterTokenizer]:
    """Places of the characters that a text can hold, the characters that none can, and the tokenizer of the former.

    Raises:
        ConversionError: no alphabet, as with a character that comes twice; `source` is named.
    """
    kept = [index for index, symbol in enumerate(characters) if can_be_read(symbol)]
    try:
        tokenizer = CharacterTokenizer.from_alphabet([characters[index] for index in kept])
    except ValueError as error:
        raise ConversionError(f"{source}: {error}") from error
    return kept, tuple(symbol for symbol in characters if not can_be_read(symbol)), tokenizer


def write_checkpoint(
    model: Any,
    processor: Any,
    source: Path,
    folder: Path,
    verb: str,
    network: str,
    left_out: tuple[str, ...],
    weights_dtype: torch.dtype | None,
) -> Conversion:
    """Write model, processor and a card that names the file they come from.

    Raises:
        ConversionError: weights that `weights_dtype` cannot hold.
    """
    try:
        save_bundle(model, processor, folder, weights_dtype)
    except ValueError as error:
        raise ConversionError(f"{source}: {error}") from error
    card = CARD.format(
        name=folder.resolve().name,
        verb=verb,
        file=source.name,
        sha256=hashlib.sha256(source.read_bytes()).hexdigest(),
        network=network,
        symbols=model.config.vocab_size,
        left_out=f"; left out, because no text in normal form C holds them: {named(left_out)}" if left_out else "",
    )
    (folder / "README.md").write_text(card, encoding="utf-8")
    return Conversion(folder, source, network, left_out)
