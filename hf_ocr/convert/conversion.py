"""What every source of weights shares: the result, the error, and which symbols an alphabet can keep."""

import unicodedata
from dataclasses import dataclass
from pathlib import Path


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
