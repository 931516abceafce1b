"""The language model beside an exported network: chooses among the texts of an image, with NumPy alone."""

import os
from collections import defaultdict
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

SURE = 1e-6  # nats: of a text that is nearly certain no power is taken


class Choice(NamedTuple):
    """A text, its symbols int64 (characters,).

    What the language model adds to its log-probability, and the power to which its probability given the image is
    raised: that is the one given both.
    """

    symbols: np.ndarray
    fluency: float
    power: float


@dataclass(frozen=True)
class LanguageModel:
    """A model's tables and what its readings are chosen by, each an entry of the file.

    Chooses as `recognize_with_ctc` of hf_ocr does: the text that image and language model together find most probable,
    of those that leave the best path at no more than its most doubtful frames.

    Attributes:
        classes: int16 (V,), of each symbol; 0 stands for the ends of a text.
        signs: bool (V,), which symbols are neither letters nor digits.
        keys: int64 (N,), ascending: of an n-gram the classes, the last one lowest, and its length above `key_bits`.
        log_probs: int16 (N,), of the last character after those before it, `unit` nats each.
        backoffs: int16 (N,), what is added where another character follows than ever did.
        order: n, characters of the longest n-grams.
        key_bits: bits of a key that hold classes, `key_bits // order` each.
        unit: nats.
        weight: of a log-probability of the language model beside that of the image.
        bonus: nats that it gets for each character.
        certain: P(text | image) from which on it is not asked.
        frames: most frames at which a path leaves the best one.
        choices: symbols looked at in each of these.
        paths: paths kept.
        texts: texts of an image to choose from; those with other signs than the first are left out.
    """

    classes: np.ndarray
    signs: np.ndarray
    keys: np.ndarray
    log_probs: np.ndarray
    backoffs: np.ndarray
    order: int
    key_bits: int
    unit: float
    weight: float
    bonus: float
    certain: float
    frames: int
    choices: int
    paths: int
    texts: int

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> "LanguageModel":
        """From a file that `np.savez` wrote."""
        with np.load(path) as entries:
            return cls(**{name: entry if entry.ndim else entry.item() for name, entry in entries.items()})

    def choose(self, logits: np.ndarray, path: float) -> "Choice":
        """The text of one image.

        Args:
            logits: float32 (T, V), the largest of each frame 0.
            path: log-probability of the best path.
        """
        texts, costs = self.likely_texts(logits)
        signs = [[symbol for symbol in text if self.signs[symbol]] for text in texts]
        same = [row for row, found in enumerate(signs) if found == signs[0]]
        texts, costs = [texts[row] for row in same], costs[same]
        lengths = np.array([len(text) for text in texts])
        fluency = self.weight * (self.score(texts) + self.bonus * (1 + lengths))  # the end is one
        joint = costs + fluency
        best = int(joint.argmax())
        # What the image gives to all of these texts together, shared out as both see them.
        by_both = min(joint[best] - np.logaddexp.reduce(joint) + np.logaddexp.reduce(costs) + path, 0.0)
        power = by_both / min(costs[best] + path, -SURE)
        return Choice(np.array(texts[best], dtype=np.int64), float(fluency[best]), float(power))

    def likely_texts(self, logits: np.ndarray) -> tuple[list[tuple[int, ...]], np.ndarray]:
        """Texts, best first, and of each float64 (R,), by how much less probable it is than the best path."""
        choices = np.argsort(-logits, axis=1, kind="stable")[:, : self.choices]
        costs = np.take_along_axis(logits, choices, axis=1).astype(np.float64)
        doubtful = np.argsort(-costs[:, 1], kind="stable")[: self.frames]
        paths, picked = np.zeros(1), np.zeros((1, 0), dtype=np.int64)  # which symbol at each doubtful frame
        for frame in doubtful:
            grown = (paths[:, None] + costs[frame]).ravel()
            kept = np.argsort(-grown, kind="stable")[: self.paths]
            before, choice = np.divmod(kept, costs.shape[1])
            paths, picked = grown[kept], np.column_stack([picked[before], choices[frame, choice]])
        chosen = np.repeat(choices[None, :, 0], len(paths), axis=0)
        chosen[:, doubtful] = picked
        probabilities: dict[tuple[int, ...], float] = defaultdict(float)
        for path, log_prob in zip(chosen, paths, strict=True):
            probabilities[tuple(path[is_character(path)].tolist())] += np.exp(log_prob)
        texts = sorted(probabilities, key=probabilities.__getitem__, reverse=True)[: self.texts]
        with np.errstate(divide="ignore"):
            return texts, np.log([probabilities[text] for text in texts])

    def score(self, texts: list[tuple[int, ...]]) -> np.ndarray:
        """log P of whole texts, their end included, float64 (R,)."""
        ends = np.array([[len(text)] for text in texts])
        symbols = np.zeros((len(texts), self.order + int(ends.max()) + 1), dtype=np.int64)
        for row, text in zip(symbols, texts, strict=True):
            row[self.order : self.order + len(text)] = text
        classes = self.classes[symbols].astype(np.int64)
        lengths = np.arange(1, self.order + 1)
        # From one place before the text to its end, the n-grams of each length that end there: (R, L + 2, order).
        ending = np.lib.stride_tricks.sliding_window_view(classes, self.order, axis=1)[:, :, ::-1]
        keys = (ending << (lengths - 1) * (self.key_bits // self.order)).cumsum(2) + (lengths << self.key_bits)
        index = np.searchsorted(self.keys, keys).clip(max=len(self.keys) - 1)
        known = self.keys[index] == keys
        log_probs, backoffs = self.log_probs[index].astype(np.int64), self.backoffs[index] * known
        total = log_probs[:, 1:, 0]
        for longer in range(1, self.order):
            total = np.where(known[:, 1:, longer], log_probs[:, 1:, longer], total + backoffs[:, :-1, longer - 1])
        places = np.arange(total.shape[1]) <= ends
        return (total * places).sum(1) * self.unit


def is_character(path: np.ndarray) -> np.ndarray:
    """bool (T,): where a path of CTC, int64 (T,), has the first of a run that is no blank (0)."""
    kept = path != 0
    kept[1:] &= path[1:] != path[:-1]
    return kept
