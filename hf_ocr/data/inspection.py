"""Looking at labelled lines before training on them: what cannot be learnt, what would mislead, what is odd."""

import unicodedata
from collections import Counter, defaultdict
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence, Set
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, Literal

import numpy as np
from tqdm.auto import tqdm

from hf_ocr.data.lines import pixel_checksum, undecoded
from hf_ocr.models.image_loading import load_image
from hf_ocr.models.line_preparation import TALL

__all__ = ["Finding", "Inspection", "inspect_lines"]

Severity = Literal["error", "warning"]
NUM_EXAMPLES = 3
# Beyond this share of unusable lines, of those to train on or of all, the data is not what it is taken for.
MOST_UNUSABLE = 0.1
# Shapes that stand for other letters and digits: Latin ligatures, Arabic presentation forms, half and full width forms.
# The signs among them are those of Arabic and Chinese texts.
PRESENTATION_FORMS = ((0xFB00, 0xFDFF), (0xFE70, 0xFEFC), (0xFF01, 0xFFEE))
JOINERS = "\u200c\u200d"  # format characters that the spelling of Persian and of Indic languages asks for


@dataclass(frozen=True)
class Finding:
    """One thing found.

    Attributes:
        severity: "error": training would go wrong; "warning": it works, with less than all lines or with odd ones.
        what: in words, with counts.
        count: lines concerned.
        examples: up to three, "split, row 12: 'text'".
        cure: what to do.
    """

    severity: Severity
    what: str
    count: int
    examples: tuple[str, ...]
    cure: str


@dataclass(frozen=True)
class Inspection:
    """What is in the data.

    Attributes:
        num_lines: rows of each split.
        findings: errors first.
        widths: px at the model's height, of the readable images, int64 (N,).
        heights: px, as given, int64 (N,).
        lengths: characters of the texts in normal form C, int64 (N,).
        characters: how often each occurs.
    """

    num_lines: dict[str, int]
    findings: tuple[Finding, ...]
    widths: np.ndarray
    heights: np.ndarray
    lengths: np.ndarray
    characters: Counter[str]

    @property
    def errors(self) -> tuple[Finding, ...]:
        """The findings that must be mended first."""
        return tuple(finding for finding in self.findings if finding.severity == "error")


class _Collector:
    """Counts and first examples, by kind of finding; `in_split` counts those of each split."""

    def __init__(self) -> None:
        self.counts: Counter[str] = Counter()
        self.in_split: Counter[tuple[str, str]] = Counter()
        self.examples: dict[str, list[str]] = defaultdict(list)

    def add(self, kind: str, split: str, row: int, said: str) -> None:
        self.counts[kind] += 1
        self.in_split[kind, split] += 1
        if len(self.examples[kind]) < NUM_EXAMPLES:
            self.examples[kind].append(f"{split}, row {row}: {said}")


def inspect_lines(
    splits: Mapping[str, Sequence[Mapping[str, Any]]],
    processor: Any,
    frames: Callable[[int], int] | None = None,
    alphabet_mode: Literal["fail", "union", "new"] = "fail",
    positions: int | None = None,
    max_width: int | None = None,
    train_splits: int = 1,
    alphabet_splits: Collection[str] | None = None,
) -> Inspection:
    """Look at every row of every split; images are decoded, nothing is changed.

    Args:
        splits: {name: rows {"image", "text"}}; first those to train on. An image may be anything `load_image` takes,
            encoded bytes among them: a broken one is then a finding, not an error.
        processor: of the model.
        frames: width of an image at the model's height (px) -> frames of its CTC head; None for a model without one.
        alphabet_mode: what becomes of characters outside the alphabet: "fail" refuses them, "union" adds them, and
            "new" adds them and drops those of the alphabet that no line needs (`resize_alphabet`).
        positions: tokens, the end among them, that the decoder has room for; None for a model without such a bound.
        max_width: px at the model's height, of the lines to train on; None without such a bound.
        train_splits: how many of the splits are trained on; what stands in two of these is no leak.
        alphabet_splits: those whose characters must be in the alphabet, or are added to it, before the others where
            it grows; None for all.
    """
    found = _Collector()
    alphabet: Set[str] = frozenset(processor.tokenizer.alphabet)
    prepare = processor.image_processor
    readable = set() if alphabet_mode == "new" else set(alphabet)  # once the alphabet has grown
    unknown: defaultdict[str, Counter[str]] = defaultdict(Counter)
    characters: Counter[str] = Counter()
    seen: dict[str, tuple[str, int, str]] = {}
    learnt = frozenset(list(splits)[:train_splits])
    widths, heights, lengths = [], [], []
    bar = tqdm(total=sum(len(rows) for rows in splits.values()), desc="inspecting", unit="line", disable=None)
    for split, rows in splits.items():
        for index in range(len(rows)):
            bar.update()
            try:
                row = rows[index]
                image = load_image(undecoded(row["image"]))
                width = prepare.resized_width(*prepare.cut_to_text(image).size)
            except (ValueError, OSError, MemoryError) as error:
                found.add("unreadable", split, index, str(error))
                continue
            text = row["text"]
            if text is None:
                found.add("unlabelled", split, index, f"{image.width} x {image.height} px")
                continue
            if not text.strip():
                found.add("empty", split, index, repr(text))
            elif text != text.strip():
                found.add("spaces", split, index, repr(text))
            composed = unicodedata.normalize("NFC", text)
            if composed != text:
                found.add("not composed", split, index, repr(text))
            if any(c.isalnum() and low <= ord(c) <= high for c in composed for low, high in PRESENTATION_FORMS):
                found.add("presentation forms", split, index, repr(text))
            if any(unicodedata.category(c) in ("Cc", "Cf", "Co", "Cs") for c in composed if c not in JOINERS):
                found.add("controls", split, index, repr(text))
            if any(unicodedata.category(c) == "Zs" for c in composed if c != " "):
                found.add("other spaces", split, index, repr(text))
            if frames is not None and any(unicodedata.bidirectional(c) in ("R", "AL") for c in composed):
                found.add("right to left", split, index, repr(text))
            kind, known = "outside", alphabet
            if alphabet_splits is not None and split not in alphabet_splits:
                kind, known = "outside, learnt" if split in learnt else "outside, measured", readable
            elif alphabet_mode != "fail":
                readable.update(composed)
            if outside := [c for c in composed if c not in known]:
                unknown[kind].update(outside)
                found.add(kind, split, index, repr(text))
            if frames is not None:
                needed = len(composed) + sum(a == b for a, b in pairwise(composed))
                if needed > frames(width):
                    found.add(
                        "too long", split, index, f"{text!r} needs {needed} frames, {width} px give {frames(width)}"
                    )
            if positions is not None:
                inside = "".join(c for c in composed if c in alphabet)  # a new character will be one token
                tokens = len(processor.tokenizer.label_ids(inside)) + len(composed) - len(inside)
                if tokens > positions:
                    found.add(
                        "too long to decode", split, index, f"{text!r} is {tokens} tokens, the decoder has {positions}"
                    )
            if max_width is not None and split in learnt and width > max_width:
                found.add("too wide", split, index, f"{text!r}, {width} px")
            if split in learnt and image.height > TALL * image.width and len(composed.strip()) > 2:
                found.add("turned", split, index, f"{text!r}, {image.width} x {image.height} px")
            key = pixel_checksum(image)
            if key in seen:
                other_split, other_index, other_text = seen[key]
                said = f"{text!r}, the image of {other_split}, row {other_index}"
                if other_split != split and not {other_split, split} <= learnt:
                    found.add("leak", split, index, said)
                elif other_text != composed:
                    found.add("contradiction", split, index, f"{said}: {other_text!r}")
                else:
                    found.add("duplicate", split, index, said)
            else:
                seen[key] = (split, index, composed)
            characters.update(composed)
            widths.append(width)
            heights.append(image.height)
            lengths.append(len(composed))
    bar.close()
    return Inspection(
        num_lines={split: len(rows) for split, rows in splits.items()},
        findings=tuple(_findings(found, unknown, splits, learnt, alphabet_mode != "fail", max_width)),
        widths=np.array(widths, dtype=np.int64),
        heights=np.array(heights, dtype=np.int64),
        lengths=np.array(lengths, dtype=np.int64),
        characters=characters,
    )


def _findings(
    found: _Collector,
    unknown: Mapping[str, Counter[str]],
    splits: Mapping[str, Sequence[Mapping[str, Any]]],
    learnt: Set[str],
    alphabet_grows: bool,
    max_width: int | None,
) -> Iterable[Finding]:
    total = sum(len(rows) for rows in splits.values())
    many = {
        kind: count > MOST_UNUSABLE * total
        or any(found.in_split[kind, split] > MOST_UNUSABLE * len(splits[split]) for split in learnt)
        for kind, count in found.counts.items()
    }

    def outside(kind: str) -> str:
        shown = ", ".join(f"{c!r} (U+{ord(c):04X}, {n} times)" for c, n in unknown[kind].most_common(8))
        return f"texts with characters outside the alphabet: {shown}"

    def severity(kind: str) -> Severity:
        return "error" if many.get(kind) else "warning"

    kinds: dict[str, tuple[Severity, str, str]] = {
        "unreadable": (
            severity("unreadable"),
            "images that cannot be read",
            "Mend or remove them; so many are not left out." if many.get("unreadable") else "They are left out.",
        ),
        "leak": (
            "error",
            "images that stand in two splits, so that the figures would be too good",
            "Remove them from one of the splits, or split by document.",
        ),
        "contradiction": ("warning", "images that occur again with another text", "Correct the text that is wrong."),
        "outside": (
            "warning" if alphabet_grows else "error",
            outside("outside"),
            "They are added to the alphabet."
            if alphabet_grows
            else "Let the alphabet grow (--alphabet union), or correct the texts.",
        ),
        "outside, learnt": (
            "warning",
            f"replayed {outside('outside, learnt')}",
            "They are left out: let the alphabet grow (--alphabet union), or correct the texts.",
        ),
        "outside, measured": (
            "warning",
            f"measured {outside('outside, measured')}",
            "These characters cannot be read, and count as errors: correct the texts, or give lines to train on that "
            "have them (--alphabet union).",
        ),
        "too long": (
            severity("too long"),
            "texts with more characters than their image has frames for (CTC)",
            "Check that image and text belong together; such lines are left out of the loss.",
        ),
        "too long to decode": (
            severity("too long to decode"),
            "texts with more tokens than the decoder has positions for",
            "Cut such lines into parts; they are left out of the loss.",
        ),
        "too wide": (
            "warning",
            f"images to train on that are wider than {max_width} px at the model's height",
            "They are left out: raise --max_width, or cut such lines into parts.",
        ),
        "unlabelled": (
            "error" if found.counts["unlabelled"] == total else "warning",
            "images that have no text",
            "They are left out, or read by --teacher_model where there is one. A text stands in the table, or beside "
            "line.png as line.gt.txt.",
        ),
        "empty": (
            severity("empty"),
            "lines without text",
            "Right for images that are blank. An image that nobody has transcribed needs its empty .gt.txt or its row "
            "removed, or it would teach that there is nothing to read.",
        ),
        "turned": (
            "warning",
            f"images to train on that are taller than {TALL} times their width, with texts of three characters or more",
            "Turn those whose text runs upwards or downwards: reading tries every turn, training takes them as they "
            "are.",
        ),
        "spaces": (
            "warning",
            "texts with white space before or behind them",
            "Remove it: nothing on the image shows it.",
        ),
        "not composed": (
            "warning",
            "texts that are not in Unicode normal form C",
            "Nothing needs to be done: they are composed when they are encoded, and in every measure.",
        ),
        "presentation forms": (
            "warning",
            "texts with presentation forms (ligatures, shaped Arabic letters, full-width forms)",
            "Write the plain letters: unicodedata.normalize('NFKC', text).",
        ),
        "controls": (
            "warning",
            "texts with control or format characters (line breaks, tabs, direction marks)",
            "Remove them: nothing on the image shows them.",
        ),
        "other spaces": (
            "warning",
            "texts with other spaces than the plain one (no-break, thin, wide)",
            "Write plain spaces: on the image they look alike.",
        ),
        "right to left": (
            "warning",
            "texts with letters that run from right to left",
            "CTC reads an image from left to right: give all texts in the order in which they stand there (get_display "
            "of python-bidi), and turn what is read back in the same way.",
        ),
        "duplicate": ("warning", "images that occur again with the same text", "Keep one of each, or mean it."),
    }
    findings = [
        Finding(kinds[kind][0], f"{count} {kinds[kind][1]}", count, tuple(found.examples[kind]), kinds[kind][2])
        for kind, count in found.counts.items()
    ]
    return sorted(findings, key=lambda finding: (finding.severity != "error", -finding.count))
