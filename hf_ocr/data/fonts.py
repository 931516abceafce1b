"""Font faces and word lists for synthetic lines: what a face can draw, which can be read, a split by family."""

import hashlib
import logging
import unicodedata
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
from PIL import Image, ImageFont

from hf_ocr.text import LATIN_ALPHABET

__all__ = ["FontFace", "find_fonts", "load_words", "split_families"]

FaceKind = Literal["text", "mono", "display"]

_PROBE_SIZE = 24
# Parts of the letters and digits that are nearest to a usual form of the same one. Script and blackletter have about
# 0.5 to 0.7, faces like print more than 0.8, pixel faces 0.65 and more.
_LEGIBLE = 0.5
_TEXT_LIKE_PRINT = 0.78
_MONO_LIKE_PRINT = 0.62
# Bytes of outline a glyph: ragged faces above it take 10 to 40 ms a line.
_MAX_OUTLINE = 900
_SHAPE = 16
_LETTERS = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"
_DIGITS = "0123456789"
# Letters whose two cases have one shape in many faces count as one class when a face is judged.
_SAME_SHAPE = str.maketrans("coOpsuvwxzklI0jyf", "COOPSUVWXZKLLOJYF")


@dataclass(frozen=True)
class FontFace:
    """One face of a font file.

    Attributes:
        path: of the file.
        index: of the face in a collection; 0 in a plain file.
        family: typographic family name.
        style: as the file names it ("Bold Italic").
        codepoints: those of the alphabet that the face draws, each with a shape that reads as that character.
        kind: "mono" where all advances are equal, "text" for faces like print, "display" for everything else (script,
            blackletter, comic, decorative, incomplete faces).
    """

    path: str
    index: int
    family: str
    style: str
    codepoints: frozenset[int]
    kind: FaceKind = "text"


def find_fonts(folders: Iterable[str | Path] = ("/usr/share/fonts",), alphabet: str = LATIN_ALPHABET) -> list[FontFace]:
    """The usable faces of all .ttf, .otf, .ttc and .otc files under the folders, in the order of their paths.

    Left out: files that do not open; faces that lack letters of A-Z; symbol faces; letters on boxes; ragged outlines
    that take long to draw; and faces whose letters and digits are so far from the usual forms (found among all faces)
    that a reader would have to guess. Lower-case letters drawn as capitals are taken out of `codepoints`, so that no
    text is labelled in a case that cannot be seen. Takes about 15 ms a file.

    Raises:
        ValueError: a folder that does not exist, or no usable face.
        ImportError: without fontTools (extra `train`).
    """
    logging.getLogger("fontTools").setLevel(logging.ERROR)  # it warns of every oddity of every file
    paths: set[Path] = set()
    names = [str(folder) for folder in folders]
    for folder in names:
        if not Path(folder).is_dir():
            raise ValueError(
                f"{folder}: no such folder of fonts. Install fonts (Debian: fonts-dejavu-core, ...) or name another."
            )
        paths.update(p for p in Path(folder).rglob("*") if p.suffix.lower() in (".ttf", ".otf", ".ttc", ".otc"))
    faces: list[FontFace] = []
    shapes: list[dict[str, np.ndarray]] = []
    shared: dict[frozenset[int], frozenset[int]] = {}
    for path in sorted(paths):
        for face, shape in _faces_of(path, alphabet):
            known = shared.setdefault(face.codepoints, face.codepoints)
            faces.append(replace(face, codepoints=known))
            shapes.append(shape)
    faces = _legible(faces, shapes)
    if not faces:
        raise ValueError(f"{len(paths)} font files in {names}, none with a readable Latin face. Install more fonts.")
    return faces


def _faces_of(path: Path, alphabet: str) -> list[tuple[FontFace, dict[str, np.ndarray]]]:
    from fontTools.ttLib import TTCollection, TTFont  # of the extra `train`; slow to import

    found = []
    try:
        with path.open("rb") as file:
            collection = path.suffix.lower() in (".ttc", ".otc")
            fonts = TTCollection(file, lazy=True).fonts if collection else [TTFont(file, lazy=True)]
            for index, font in enumerate(fonts):
                face = _face(font, path, index, alphabet)
                if face is not None:
                    found.append(face)
    except Exception as error:  # font files are broken in endless ways, and one of them must not end the search
        logging.getLogger(__name__).debug("%s: left out, %s", path, error)
    return found


def _face(font: Any, path: Path, index: int, alphabet: str) -> tuple[FontFace, dict[str, np.ndarray]] | None:
    if not {"cmap", "name", "maxp"} <= set(font.keys()):
        return None
    # Numbers for names: reading the glyph names would take longer than everything else.
    font.setGlyphOrder([".notdef", *map(str, range(1, font["maxp"].numGlyphs))])
    outlines = font.reader.tables.get("glyf")
    if outlines is not None and outlines.length > _MAX_OUTLINE * font["maxp"].numGlyphs:
        return None
    names = font["name"]
    table = font.getBestCmap()
    if table is None:  # a symbol face
        return None
    seen = _look_at(path, index, [c for c in alphabet if table.get(ord(c), ".notdef") != ".notdef"])
    if seen is None:
        return None
    codepoints, kind, shapes = seen
    family, style = names.getBestFamilyName() or path.stem, names.getBestSubFamilyName() or "Regular"
    return FontFace(str(path), index, family, style, codepoints, kind), shapes


def _look_at(
    path: Path, index: int, characters: Sequence[str]
) -> tuple[frozenset[int], FaceKind, dict[str, np.ndarray]] | None:
    """Draw every character once; None where the face cannot be used."""
    if not set("ABCDEFGHIJKLMNOPQRSTUVWXYZ") <= set(characters):
        return None
    font = ImageFont.truetype(str(path), _PROBE_SIZE, index=index, layout_engine=ImageFont.Layout.BASIC)
    drawn: dict[str, tuple[np.ndarray, int, int]] = {}  # pixels, top, height
    for character in characters:
        if character == " ":
            continue
        mask, (_, top) = font.getmask2(character, mode="L", anchor="ls")
        width, height = mask.size
        if width and height and width < 5 * _PROBE_SIZE and height < 5 * _PROBE_SIZE:
            pixels = np.frombuffer(bytes(mask), dtype=np.uint8).reshape(height, width)
            if pixels.max() > 60:
                drawn[character] = (pixels, top, height)
    capitals = [drawn[c] for c in "ABCDEFGHIJKLMNOPQRSTUVWXYZ" if c in drawn]
    if len(capitals) < 26 or len({p.tobytes() for p, _, _ in capitals}) < 25:
        return None
    cap_height = float(np.median([height for _, _, height in capitals]))
    # White letters on black boxes: the full stop is as tall as a capital, or a thin letter is nearly all ink.
    if ("." in drawn and drawn["."][2] > 0.6 * cap_height) or np.mean(drawn["L"][0]) > 0.72 * 255:
        return None
    kept = set(drawn)
    if _unicase(drawn):
        kept -= {c for c in kept if c.islower()}
    else:
        kept -= {c for c in kept if c != c.upper() and c.upper() in drawn and _same(drawn[c], drawn[c.upper()])}
    if "/" in drawn:  # some faces draw one stroke for every sign they lack
        kept -= {c for c in "()[]{}|\\&%" if c in drawn and _same(drawn[c], drawn["/"])}
    if "?" in drawn:
        kept -= {c for c in kept if c not in "?" and _same(drawn[c], drawn["?"])}
    by_shape: dict[tuple[int, bytes], list[str]] = {}
    for c in kept:
        by_shape.setdefault((drawn[c][1], drawn[c][0].tobytes()), []).append(c)
    for same in by_shape.values():
        if len(same) > 4:  # a box, drawn for whatever is missing
            kept -= set(same)
        elif len(same) > 1:  # an accented letter drawn without its accent
            bases = {unicodedata.normalize("NFD", c)[0] for c in same}
            if len(bases) == 1:
                kept -= {c for c in same if len(unicodedata.normalize("NFD", c)) > 1}
    if len(kept & set(_DIGITS)) < 8:
        kept -= set(_DIGITS)
    # Some faces give the space no width, or that of a page.
    if " " in characters and 0.1 * _PROBE_SIZE < font.getlength(" ") < _PROBE_SIZE:
        kept.add(" ")
    complete = all(chr(code) in kept for code in range(0x21, 0x7F) if chr(code) not in "^`~|\\")
    advances = {round(font.getlength(c), 2) for c in "iWm.M0"} if complete else set()
    kind: FaceKind = "mono" if len(advances) == 1 else "text" if complete else "display"
    shapes = {c: _shape(*drawn[c]) for c in _LETTERS + _DIGITS if c in kept and c in drawn}
    return frozenset(map(ord, kept)), kind, shapes


def _same(one: tuple[np.ndarray, int, int], other: tuple[np.ndarray, int, int]) -> bool:
    return one[1] == other[1] and one[0].shape == other[0].shape and one[0].tobytes() == other[0].tobytes()


def _unicase(drawn: Mapping[str, tuple[np.ndarray, int, int]]) -> bool:
    """Whether the lower-case letters are (small) capitals: g, p, q, y do not descend, b, d, h, l equal a."""
    if not set("abdghlpqyx") <= set(drawn):
        return True
    bottom = drawn["x"][1] + drawn["x"][2]
    descending = sum(drawn[c][1] + drawn[c][2] > bottom + 2 for c in "gpqy")
    ascending = sum(drawn[c][1] < drawn["a"][1] - 1 for c in "bdhl")
    return descending < 2 and ascending < 2


def _shape(pixels: np.ndarray, top: int, height: int) -> np.ndarray:
    """Unit vector of the letter scaled to a square."""
    square = Image.fromarray(pixels).resize((_SHAPE, _SHAPE), Image.Resampling.BOX)
    vector = np.asarray(square, dtype=np.float32).ravel()
    vector = vector - vector.mean()
    return vector / (np.linalg.norm(vector) + 1e-6)


def _legible(faces: list[FontFace], shapes: list[dict[str, np.ndarray]]) -> list[FontFace]:
    """Faces most of whose letters are nearest to a usual form of the same letter; the others are hard to read."""
    representatives: dict[tuple[str, bool], int] = {}  # one upright and one slanted face a family
    for number, face in enumerate(faces):
        slanted = "italic" in face.style.lower() or "oblique" in face.style.lower()
        representatives.setdefault((face.family, slanted), number)
    names = _LETTERS + _DIGITS
    classes = np.array([ord(name.translate(_SAME_SHAPE)) for name in names])
    forms, form_classes = [], []
    for name, letter in zip(names, classes, strict=True):
        vectors = [shapes[number][name] for number in representatives.values() if name in shapes[number]]
        if vectors:
            usual = _usual_forms(np.stack(vectors))
            forms.append(usual)
            form_classes += [letter] * len(usual)
    if not forms:
        return []
    all_forms, all_classes = np.concatenate(forms), np.array(form_classes)
    kept = []
    for face, shape in zip(faces, shapes, strict=True):
        rows = [row for row, name in enumerate(names) if name in shape]
        nearest = np.argmax(np.stack([shape[names[row]] for row in rows]) @ all_forms.T, axis=1)
        right = float(np.mean(all_classes[nearest] == classes[rows]))
        if right >= _LEGIBLE:
            like_print = right >= (_MONO_LIKE_PRINT if face.kind == "mono" else _TEXT_LIKE_PRINT)
            kept.append(face if like_print else replace(face, kind="display"))
    return kept


def _usual_forms(vectors: np.ndarray, count: int = 6) -> np.ndarray:
    """Means of at most `count` clusters of unit vectors (n, d), small clusters left out: float32 (at most count, d)."""
    start = np.random.default_rng(0).choice(len(vectors), min(count, len(vectors)), replace=False)
    means = vectors[np.sort(start)]
    for _ in range(8):
        nearest = np.argmax(vectors @ means.T, axis=1)
        means = np.stack(
            [vectors[nearest == k].mean(axis=0) if (nearest == k).any() else means[k] for k in range(len(means))]
        )
        means /= np.linalg.norm(means, axis=1, keepdims=True) + 1e-6
    sizes = np.bincount(np.argmax(vectors @ means.T, axis=1), minlength=len(means))
    return means[sizes >= min(12, len(vectors) // count, sizes.max())]


def split_families(
    faces: Sequence[FontFace], held_out: float = 0.15, seed: int = 0
) -> tuple[list[FontFace], list[FontFace]]:
    """(train, held out): about `held_out` of the families, decided by a hash of seed and family name alone.

    So a family keeps its side whatever other fonts are installed.
    """
    train: list[FontFace] = []
    held: list[FontFace] = []
    for face in faces:
        digest = hashlib.sha256(f"{seed}:{face.family.lower()}".encode()).digest()
        part = int.from_bytes(digest[:8], "big") / 2**64
        (held if part < held_out else train).append(face)
    return train, held


def load_words(
    sources: Iterable[str | Path] | None = None, at_most: int = 120_000, alphabet: str = LATIN_ALPHABET
) -> dict[str, list[str]]:
    """Word lists, one word a line in UTF-8, by the name of their file.

    Args:
        sources: files; None for every list in /usr/share/dict (links to another list are left out).
        at_most: of a list; longer ones are thinned evenly.
        alphabet: words with other characters are left out.

    Returns:
        {file name: words in NFC}, no empty list.

    Raises:
        ValueError: no words.
    """
    if sources is None:
        folder = Path("/usr/share/dict")
        files = sorted({p.resolve() for p in folder.iterdir() if p.is_file()} if folder.is_dir() else ())
        files = [p for p in files if p.parent == folder and not p.name.startswith("README")]
    else:
        files = [Path(source) for source in sources]
    allowed = frozenset(alphabet) - {" "}
    lists: dict[str, list[str]] = {}
    for file in files:
        lines = file.read_bytes().splitlines()
        lines = [line for line in lines if not line.endswith(b"'s")]
        if len(lines) > at_most:
            lines = [lines[i * len(lines) // at_most] for i in range(at_most)]
        words = [unicodedata.normalize("NFC", line.decode("utf-8", "ignore").strip()) for line in lines]
        words = [word for word in words if word and len(word) <= 24 and allowed.issuperset(word)]
        if words:
            lists[file.name] = words
    if not lists:
        raise ValueError(
            f"no words in {[str(f) for f in files]}. Give a file with one word a line (on Debian: install wamerican)."
        )
    return lists
