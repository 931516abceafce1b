"""Checkpoints side by side on validation lines, the shipped one first: chooses what publish_latin.py is to publish.

    python scripts/choose_latin.py --data DATA --model runs/first/final runs/second/final
    python scripts/choose_latin.py --data DATA --model runs/first/final --mean 0.5

With --mean a mean of the weights stands for each model: so much of it, the rest of the shipped one. The lines are those
of the training script's validation, receipts with empty ground about them, and synthetic lines of another seed than the
test's in font families that no training line used. The test files are not read.
"""

import argparse
import json
from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch
from publish_latin import install, loose_lines
from train_crnn_latin import load_reader, validation_sets

from hf_ocr.data.fonts import find_fonts, load_words, split_families
from hf_ocr.data.synthetic_lines import SyntheticLines
from hf_ocr.evaluation import evaluate
from hf_ocr.models.pipeline_text_recognition import cpu_computes_bfloat16
from hf_ocr.registration import DEFAULT_CHECKPOINT, default_checkpoint

SEED = 30_000  # of synthetic lines; the test's is 20,000


def sets(data: Path, lines: int) -> Iterator[tuple[str, Any]]:
    """Name and rows, of synthetic lines so many."""
    real = validation_sets(data)
    yield from real.items()
    yield "loose receipts", loose_lines(real["sroie"], count=len(real["sroie"]))
    _, unseen = split_families(find_fonts(), held_out=0.15, seed=0)
    for style in ("document", "scene"):
        drawn = SyntheticLines(unseen, load_words(), seed=SEED, styles={style: 1.0})
        yield f"{style}s", [row for row in (drawn[index] for index in range(lines)) if row["text"]]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="folder with sroie_lines, iiit5k, icdar2015_words")
    parser.add_argument("--checkpoint", default=DEFAULT_CHECKPOINT, help="the shipped one to compare with")
    parser.add_argument("--model", type=Path, nargs="+", default=[], help="checkpoint folders")
    parser.add_argument("--mean", type=float, default=1.0, help="share of each model in the mean with the shipped one")
    parser.add_argument("--lines", type=int, default=500, help="synthetic lines of each style")
    parser.add_argument("--output", type=Path, help="JSON file for the figures")
    arguments = parser.parse_args()
    shipped = default_checkpoint().parent / arguments.checkpoint
    dtype = torch.bfloat16 if cpu_computes_bfloat16() else torch.float32
    chosen = list(sets(arguments.data, arguments.lines))
    figures: dict[str, dict[str, dict[str, float]]] = {}
    print(" | ".join(["exact (CER ignoring case), %", *(f"{name} ({len(rows)})" for name, rows in chosen)]))
    for model in [shipped, *arguments.model]:
        with TemporaryDirectory() as scratch:
            folder = model
            if arguments.mean < 1 and model != shipped:
                folder = Path(scratch, "mean")
                install([model, shipped], [arguments.mean, 1 - arguments.mean], folder)
            reader, processor = load_reader(folder, dtype)
        found = {name: evaluate(reader, processor, rows) for name, rows in chosen}
        figures[str(model)] = {
            name: {key: report.figures[key] for key in ("exact", "cer_ignoring_case")} for name, report in found.items()
        }
        cells = [
            f"{100 * own['exact']:.1f} ({100 * own['cer_ignoring_case']:.2f})" for own in figures[str(model)].values()
        ]
        print(" | ".join([str(model), *cells]), flush=True)
    if arguments.output:
        arguments.output.write_text(json.dumps(figures, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
