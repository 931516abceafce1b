"""Synthetic text lines and words, rendered when taken: row i is a function of (seed, i) alone.

Five styles: "receipt" (thermal and matrix print, scanned), "document" (print and typewriting), "form" (the same on
lines, in frames, beside boxes to tick), "screen" (small anti-aliased type) and "scene" (signs and labels in
photographs). A label holds exactly what is drawn, except that a wide gap between columns is one space. Text of
neighbouring lines and words that shows at the edges is not in the label.
"""

import math
import random
from bisect import bisect
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from hf_ocr.data.fonts import FontFace
from hf_ocr.data.synthetic_styles import STYLES, blank
from hf_ocr.data.synthetic_text import TextSampler

__all__ = ["SyntheticLines"]

DEFAULT_STYLES = {"receipt": 0.3, "document": 0.15, "screen": 0.1, "scene": 0.45}

_FACE_SHARES: dict[str, dict[str, float]] = {
    "receipt": {"mono": 0.5, "text": 0.45, "display": 0.05},
    "document": {"mono": 0.17, "text": 0.75, "display": 0.08},
    "form": {"mono": 0.2, "text": 0.75, "display": 0.05},
    "screen": {"mono": 0.25, "text": 0.7, "display": 0.05},
    "scene": {"mono": 0.06, "text": 0.56, "display": 0.38},
}
_BLANK_SHARE = 0.03
_HEAVY = ("bold", "black", "heavy")


class SyntheticLines:
    """A source of rows {"image": PIL mode "L", "text": str}, as good as endless.

    The image has the size that such a crop has in the wild (text 8 to 60 px high): a processor brings it to the height
    of the model. About three rows in a hundred are blank, with the text "".

    Args:
        faces: from `find_fonts`; characters that a face lacks are never drawn with it.
        words: {list name: words}, from `load_words`.
        seed: with the index of a row, decides everything about it.
        styles: shares of the styles, any of "receipt", "document", "form", "screen", "scene"; they need not sum to 1.

    Raises:
        ValueError: no faces, no words, or an unknown style.
        IndexError: (on access) a negative index or one past the end.
    """

    def __init__(
        self,
        faces: Sequence[FontFace],
        words: Mapping[str, Sequence[str]],
        seed: int = 0,
        styles: Mapping[str, float] | None = None,
    ) -> None:
        styles = dict(DEFAULT_STYLES if styles is None else styles)
        unknown = sorted(set(styles) - set(STYLES))
        if unknown or not styles or min(styles.values()) < 0 or sum(styles.values()) <= 0:
            raise ValueError(f"styles is {styles}, expected positive shares of {sorted(STYLES)}.")
        if not faces:
            raise ValueError("faces is empty, expected at least one face. Use hf_ocr.data.fonts.find_fonts().")
        self.seed = seed
        self._styles = (list(styles), np.cumsum(list(styles.values())).tolist())
        self._texts = TextSampler(words)
        self._shelves = {
            kind: _shelf([face for face in faces if face.kind == kind]) for kind in ("text", "mono", "display")
        }
        self._shelves = {kind: shelf for kind, shelf in self._shelves.items() if shelf[0]}
        most = max(len(face.codepoints) for face in faces)
        self._broad = _shelf([face for face in faces if len(face.codepoints) >= 0.97 * most])

    def __len__(self) -> int:
        return 2**31

    def __getitem__(self, index: int) -> dict[str, Any]:
        if not 0 <= index < len(self):
            raise IndexError(f"index {index}, expected 0 to {len(self) - 1}.")
        draw = random.Random(f"{self.seed}:{index}")
        style = draw.choices(self._styles[0], cum_weights=self._styles[1])[0]
        if draw.random() < _BLANK_SHARE:
            return {"image": blank(draw, style), "text": ""}
        while True:
            text, face = self._text_and_face(draw, style)
            image = STYLES[style](draw, text, face, lambda: self._neighbour(draw, style, face))  # noqa: B023
            if image is not None:
                return {"image": image, "text": text}

    def _text_and_face(self, draw: random.Random, style: str) -> tuple[str, FontFace]:
        """A text, and a face that has all its characters: text first, so that rare characters keep their share."""
        names = [kind for kind in _FACE_SHARES[style] if kind in self._shelves]
        weights = [_FACE_SHARES[style][kind] for kind in names]
        for _ in range(50):
            text = self._texts.sample(draw, style)
            needed = frozenset(map(ord, text))
            capitals = text.upper()
            for attempt in range(6):
                shelf = self._broad if attempt == 5 else self._shelves[draw.choices(names, weights)[0]]
                face = _pick(shelf, draw, heavy=style == "scene")
                if needed <= face.codepoints:
                    return text, face
                if (
                    ord("a") not in face.codepoints
                    and frozenset(map(ord, capitals)) <= face.codepoints
                    and len(capitals) == len(text)
                ):
                    return capitals, face
        face = _pick(self._broad, draw, heavy=False)
        text = " ".join("".join(c for c in text if ord(c) in face.codepoints).split())
        return text or chr(max(face.codepoints)), face

    def _neighbour(self, draw: random.Random, style: str, face: FontFace) -> str:
        text = self._texts.sample(draw, style)
        return "".join(c for c in text if ord(c) in face.codepoints)


_Shelf = tuple[list[list[FontFace]], list[float]]


def _shelf(faces: Sequence[FontFace]) -> _Shelf:
    """Families and their cumulative weights: the n families of a folder share sqrt(n), lest odd collections flood."""
    families: dict[str, list[FontFace]] = {}
    for face in faces:
        families.setdefault(face.family, []).append(face)
    folders: dict[Path, int] = {}
    for members in families.values():
        folder = Path(members[0].path).parent
        folders[folder] = folders.get(folder, 0) + 1
    weights = [1 / math.sqrt(folders[Path(members[0].path).parent]) for members in families.values()]
    return list(families.values()), np.cumsum(weights).tolist()


def _pick(shelf: _Shelf, draw: random.Random, heavy: bool) -> FontFace:
    families, cumulative = shelf
    members = families[min(len(families) - 1, bisect(cumulative, draw.random() * cumulative[-1]))]
    if heavy and len(members) > 1 and draw.random() < 0.4:
        members = [face for face in members if any(word in face.style.lower() for word in _HEAVY)] or members
    return draw.choice(members)
