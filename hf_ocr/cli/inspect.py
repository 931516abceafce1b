"""`hf-ocr inspect`: look at labelled lines before training on them."""

import argparse
from typing import Any

import numpy as np

from hf_ocr.cli.loading import CommandError, add_model_argument, load_reader
from hf_ocr.data.inspection import inspect_lines
from hf_ocr.data.lines import read_lines
from hf_ocr.encoder_decoder import EncoderDecoderProcessor, decoder_positions
from hf_ocr.mgp_str import MgpStrProcessor
from hf_ocr.models.mgp_str_reading import MGP_STR, MgpStrTokenizers

EPILOG = """\
DATA is a parquet file, a folder of parquet files, a folder with metadata.csv or metadata.jsonl beside its images, or a
folder of pairs like line.png and line.gt.txt.

The exit status is 1 when something must be mended first.

examples:
  hf-ocr inspect lines/
  hf-ocr inspect train.parquet --validation validation.parquet --model runs/my-model
  hf-ocr inspect train.parquet --alphabet union
"""

BLOCKS = " ▁▂▃▄▅▆▇█"


def add_parser(verbs: Any) -> None:
    """Add the verb to the command."""
    parser = verbs.add_parser(
        "inspect",
        help="look at labelled lines before training on them",
        description="Finds what cannot be learnt, what would mislead and what is odd in labelled lines.",
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("data", nargs="+", metavar="DATA", help="lines to train on")
    parser.add_argument("--validation", nargs="+", metavar="DATA", help="lines to measure on")
    parser.add_argument("--image-column", default="image", metavar="NAME")
    parser.add_argument("--text-column", default="text", metavar="NAME")
    parser.add_argument(
        "--alphabet",
        choices=("fail", "union", "new"),
        default="fail",
        help="what training would do with new characters",
    )
    add_model_argument(parser)
    parser.set_defaults(run=run)


def run(options: argparse.Namespace) -> int:
    """Print what was found; 1 when there are errors among it."""
    try:
        from datasets import Image
    except ImportError as error:
        raise CommandError('datasets is not installed. Install it with pip install "hf-ocr[train]".') from error
    reader = load_reader(options.model)
    splits = {}
    for name, source in (("train", options.data), ("validation", options.validation)):
        if source:
            try:
                rows = read_lines(source, options.image_column, options.text_column, unlabelled=True)
            except ValueError as error:
                raise CommandError(str(error)) from error
            splits[name] = rows.cast_column("image", Image(decode=False))
    frames = getattr(reader.model.base_model, "frame_count", None)  # only what ends in CTC has it
    processor = reader.processor
    if reader.model.config.model_type == MGP_STR:
        processor = MgpStrProcessor(reader.image_processor, MgpStrTokenizers(reader.tokenizer))
    elif not hasattr(reader.model, "recognize"):
        processor = EncoderDecoderProcessor(reader.image_processor, reader.tokenizer)
    inspection = inspect_lines(splits, processor, frames, options.alphabet, decoder_positions(reader.model))
    print("\n".join(report(inspection)))
    return 1 if inspection.errors else 0


def report(inspection: Any) -> list[str]:
    """The inspection as lines of text."""
    lines = [", ".join(f"{name}: {count:,} lines" for name, count in inspection.num_lines.items())]
    for title, values in (
        ("width, px at the model's height", inspection.widths),
        ("height, px", inspection.heights),
        ("characters", inspection.lengths),
    ):
        if len(values):
            low, middle, high = np.percentile(values, (0, 50, 100))
            lines.append(f"{title:<32} {histogram(values)}  {low:.0f} to {high:.0f}, median {middle:.0f}")
    rare = sorted(character for character, count in inspection.characters.items() if count <= 5)
    lines.append(f"{len(inspection.characters)} characters in use" + (f", rare: {' '.join(rare[:40])}" if rare else ""))
    for finding in inspection.findings:
        lines += ["", f"{finding.severity}: {finding.what}", *(f"  {example}" for example in finding.examples)]
        lines.append(f"  -> {finding.cure}")
    if not inspection.findings:
        lines += ["", "nothing to mend"]
    return lines


def histogram(values: np.ndarray, bins: int = 24) -> str:
    """Counts in equal steps, from the least to the 99th percentile (the rest in the last), as a row of blocks."""
    edges = np.linspace(values.min(), max(np.percentile(values, 99), values.min() + 1), bins + 1)
    counts, _ = np.histogram(np.minimum(values, edges[-1]), edges)
    return "".join(BLOCKS[-(-8 * int(count) // int(counts.max()))] for count in counts)
