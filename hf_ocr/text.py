"""Strings only: the alphabet of the Latin checkpoints, the normal form of a text, and the charsets of evaluation.

A model's *alphabet* (the characters it can write, kept by its tokenizer) and an evaluation *charset* (the characters
that a protocol compares) are two things. Every function here takes a text and returns a text, so any of them can be
handed to the functions of `hf_ocr.metrics` as their `normalise` argument.
"""

import re
import string
import unicodedata

__all__ = [
    "CHARSET_36",
    "CHARSET_62",
    "CHARSET_94",
    "LATIN_ALPHABET",
    "alphanumerics",
    "ignore_case",
    "lower_alphanumerics",
    "normalise",
    "printable_ascii",
]

CHARSET_36 = string.digits + string.ascii_lowercase
CHARSET_62 = string.digits + string.ascii_uppercase + string.ascii_lowercase
CHARSET_94 = "".join(chr(code) for code in range(0x21, 0x7F))

# Letters in use today outside Latin Extended-A: the Romanian ones with a comma below, the German capital sharp s.
_FURTHER_LETTERS = "ȘșȚțẞ"
_TYPOGRAPHIC_SIGNS = "€“”‘’„‚‹›–—…•†‡™‰№"


def _latin_alphabet() -> str:
    ascii_characters = " " + CHARSET_94
    # An image cannot tell U+00A0 (no-break space) from a space, nor U+00AD (soft hyphen) from a hyphen or nothing.
    latin_1 = "".join(chr(code) for code in range(0xA1, 0x100) if code != 0xAD)
    latin_extended_a = "".join(chr(code) for code in range(0x100, 0x180))
    return "".join(sorted(set(ascii_characters + latin_1 + latin_extended_a + _FURTHER_LETTERS + _TYPOGRAPHIC_SIGNS)))


LATIN_ALPHABET: str = _latin_alphabet()
"""340 characters, each one code point in NFC, sorted by code point, the space first."""

_NOT_36 = re.compile("[^0-9a-z]")
_NOT_62 = re.compile("[^0-9A-Za-z]")
_NOT_94 = re.compile("[^!-~]")


def normalise(text: str) -> str:
    """The text in NFC, every run of white space (no-break and line breaks too) made one space, the ends stripped."""
    return " ".join(unicodedata.normalize("NFC", text).split())


def ignore_case(text: str) -> str:
    """`normalise`, then lower-cased. `str.lower`, not `str.casefold`: ß stays one character, so lengths stay true."""
    return normalise(unicodedata.normalize("NFC", text).lower())


def lower_alphanumerics(text: str) -> str:
    """The 36-character protocol: lower-cased, then everything but a-z and 0-9 dropped, spaces too.

    Accents are **not** folded: `é` is dropped, not compared as `e`, in whichever Unicode form it comes (some published
    figures fold by NFKD first, which differs where the references have accents).
    """
    return _NOT_36.sub("", unicodedata.normalize("NFC", text).lower())


def alphanumerics(text: str) -> str:
    """The 62-character protocol: everything but A-Z, a-z and 0-9 dropped, the case kept. Accents are not folded."""
    return _NOT_62.sub("", unicodedata.normalize("NFC", text))


def printable_ascii(text: str) -> str:
    """The 94-character protocol: everything but printable ASCII dropped, the space too. Accents are not folded."""
    return _NOT_94.sub("", unicodedata.normalize("NFC", text))
