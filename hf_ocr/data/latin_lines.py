"""What the Latin checkpoints of the package learn from: lines and words, what is held back of them, and texts."""

import random
import zlib
from collections.abc import Iterator
from pathlib import Path

from datasets import Dataset

from hf_ocr.data.fonts import load_words
from hf_ocr.data.synthetic_text import TextSampler
from hf_ocr.data.vocabulary import FREQUENT, RECEIPT

__all__ = ["language_texts", "real_lines"]

# Weight of each synthetic text of a style, and how many there are of each.
STYLE_WEIGHTS = {"receipt": 0.3, "document": 1.0, "screen": 1.0, "scene": 1.0}
SYNTHETIC_TEXTS = 60_000


def _is_held_back(source: str) -> bool:
    """One word in ten, the words of one IIIT5K picture together (the part of the name before "_")."""
    name = source.rsplit("/", 1)[-1]
    return zlib.crc32((name.split("_")[0] if "IIIT5K" in source else source).encode()) % 10 == 0


def real_lines(data: Path, held_back: bool) -> dict[str, Dataset]:
    """The training files, or what is held back for validation: SROIE's own part, a tenth of the words.

    `sroie_cased` and the words have the case of the print; `sroie_upper` and `svt` are annotated in capitals whatever
    the print, the former because a general recognizer could not read it: the harder lines.
    """
    sroie = Dataset.from_parquet(str(data / "sroie_lines" / ("validation.parquet" if held_back else "train.parquet")))
    cased = sroie.filter(lambda text: text is not None, input_columns="text_cased")
    upper = sroie.filter(lambda text: text is None, input_columns="text_cased")
    parts = {
        "sroie_cased": cased.select_columns(["image", "text_cased"]).rename_column("text_cased", "text"),
        "sroie_upper": upper.select_columns(["image", "text"]),
    }
    for name in ("iiit5k", "icdar2015_words"):
        rows = Dataset.from_parquet(str(data / name / "train.parquet"))
        rows = rows.filter(lambda source: _is_held_back(source) == held_back, input_columns="source")
        parts[name] = rows.select_columns(["image", "text"])
    if not held_back:
        svt = Dataset.from_parquet(str(data / "svt_words" / "train.parquet"))
        parts["svt"] = svt.select_columns(["image", "text"])
    return parts


def language_texts(data: Path) -> Iterator[tuple[str, float]]:
    """What a language model is fitted to, each text with its weight, chosen on what is held back.

    Texts of the training files, of which nothing is held back, count most; words and synthetic texts stand for what
    they have not, as other languages.

    Args:
        data: folder with sroie_lines, iiit5k, icdar2015_words and svt_words.
    """
    for name, rows in real_lines(data, held_back=False).items():
        for text in rows["text"]:
            yield text, 3.0
            if name.startswith("sroie"):
                yield from ((word, 0.9) for word in text.split())
    vocabulary = load_words()
    yield from ((word, 3.0) for word in (*FREQUENT, *RECEIPT))
    yield from ((word, 0.2) for word in vocabulary.get("american-english", []))
    sampler = TextSampler(vocabulary)
    for style, weight in STYLE_WEIGHTS.items():
        draw = random.Random(0)
        yield from ((sampler.sample(draw, style), weight) for _ in range(SYNTHETIC_TEXTS))
