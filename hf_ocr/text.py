"""Strings only: the alphabet of the Latin checkpoints, the normal form of a text, and the charsets of evaluation.

A model's *alphabet* (the characters it can write, kept by its tokenizer) and an evaluation *charset* (the characters
that a protocol compares) are two things. Every function here takes a text and returns a text, so any of them can be
handed to the functions of `hf_ocr.metrics` as their `normalise` argument.
"""

import re
import string
import unicodedata
from collections import Counter
from collections.abc import Callable

import regex

__all__ = [
    "CHARSET_36",
    "CHARSET_62",
    "CHARSET_94",
    "LATIN_ALPHABET",
    "PROTOCOLS",
    "alphanumerics",
    "fold_accents",
    "graphemes",
    "ignore_case",
    "lower_alphanumerics",
    "nfc",
    "normalise",
    "parseq_36",
    "parseq_62",
    "parseq_94",
    "printable_ascii",
    "script",
    "without_punctuation",
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
_PUNCTUATION = regex.compile(r"\p{P}")
_GRAPHEME = regex.compile(r"\X")
_SCRIPTS = (
    "Arabic Armenian Bengali Cyrillic Devanagari Ethiopic Georgian Greek Gujarati Gurmukhi Han Hangul Hebrew Hiragana "
    "Kannada Katakana Khmer Lao Latin Malayalam Mongolian Myanmar Oriya Sinhala Tamil Telugu Thai Tibetan"
).split()
_LETTER = regex.compile("|".join(rf"(?P<{name}>\p{{Script={name}}})" for name in _SCRIPTS) + r"|(?P<other>\p{L})")


def graphemes(text: str) -> list[str]:
    """The extended grapheme clusters (Unicode UAX 29) of the text: what a reader takes for one character."""
    return _GRAPHEME.findall(text)


def script(text: str) -> str:
    """The script of most of its characters, by its Unicode name; "other" for rare scripts, "no letters" for none."""
    counts = Counter(match.lastgroup for match in _LETTER.finditer(text))
    return max(counts, key=lambda name: (counts[name], name)) if counts else "no letters"


def nfc(text: str) -> str:
    """The text in NFC and nothing else: case, every space and every sign count."""
    return unicodedata.normalize("NFC", text)


def normalise(text: str) -> str:
    """The text in NFC, every run of white space (no-break and line breaks too) made one space, the ends stripped."""
    return " ".join(unicodedata.normalize("NFC", text).split())


def ignore_case(text: str) -> str:
    """`normalise`, then lower-cased. `str.lower`, not `str.casefold`: ß stays one character, so lengths stay true."""
    return normalise(unicodedata.normalize("NFC", text).lower())


def fold_accents(text: str) -> str:
    """`normalise`, then without combining marks: é is e. Letters of their own (ø, ß, ı) stay; the case too.

    Vowel signs of Indic scripts and the points of Hebrew and Arabic are such marks as well, and go.
    """
    bare = "".join(c for c in unicodedata.normalize("NFD", text) if not unicodedata.category(c).startswith("M"))
    return normalise(bare)


def without_punctuation(text: str) -> str:
    """`normalise`, without punctuation (Unicode category P: hyphens, quotes, brackets, %, &). $, + and = stay."""
    return normalise(_PUNCTUATION.sub("", text))


def lower_alphanumerics(text: str) -> str:
    """The 36-character protocol: lower-cased, then everything but a-z and 0-9 dropped, spaces too.

    Accents are **not** folded: `é` is dropped, not compared as `e`, in whichever Unicode form it comes (published
    figures fold first, see `parseq_36`, which differs where the references have accents).
    """
    return _NOT_36.sub("", unicodedata.normalize("NFC", text).lower())


def alphanumerics(text: str) -> str:
    """The 62-character protocol: everything but A-Z, a-z and 0-9 dropped, the case kept. Accents are not folded."""
    return _NOT_62.sub("", unicodedata.normalize("NFC", text))


def printable_ascii(text: str) -> str:
    """The 94-character protocol: everything but printable ASCII dropped, the space too. Accents are not folded."""
    return _NOT_94.sub("", unicodedata.normalize("NFC", text))


def parseq_36(text: str) -> str:
    """`lower_alphanumerics` of what NFKD leaves in ASCII: é is compared as e.

    The label of PARSeq's data sets (Bautista and Atienza, ECCV 2022, code), which most published figures follow.
    """
    return lower_alphanumerics(_to_ascii(text))


def parseq_62(text: str) -> str:
    """`alphanumerics` of what NFKD leaves in ASCII; as `parseq_36`."""
    return alphanumerics(_to_ascii(text))


def parseq_94(text: str) -> str:
    """`printable_ascii` of what NFKD leaves in ASCII; as `parseq_36`."""
    return printable_ascii(_to_ascii(text))


def _to_ascii(text: str) -> str:
    return unicodedata.normalize("NFKD", text).encode("ascii", "ignore").decode()


PROTOCOLS: dict[str, tuple[Callable[[str], str], str]] = {
    "normal": (normalise, "NFC, white space collapsed"),
    "nfc": (nfc, "NFC, white space as it is"),
    "ignore-case": (ignore_case, "NFC, white space collapsed, lower-cased"),
    "fold-accents": (fold_accents, "accents folded, white space collapsed"),
    "no-punctuation": (without_punctuation, "NFC, punctuation dropped, white space collapsed"),
    "36": (parseq_36, "NFKD to ASCII, lower-cased, all but a-z and 0-9 dropped"),
    "62": (parseq_62, "NFKD to ASCII, all but A-Z, a-z and 0-9 dropped"),
    "94": (parseq_94, "NFKD to ASCII, all but printable ASCII dropped, spaces too"),
}
"""Name of a protocol, on the command line and in reports -> its function, and what to say of it beside a figure."""
