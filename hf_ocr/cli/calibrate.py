"""`hf-ocr calibrate`: scores that are as often right as they say."""

import argparse
from pathlib import Path
from typing import Any

from hf_ocr.calibration import CalibrationError, fit_temperature, save_temperature
from hf_ocr.cli.loading import CommandError, load_reader, one_line
from hf_ocr.data.lines import measurable_lines, read_lines

EPILOG = """\
DATA is a parquet file, a folder of parquet files, a folder with metadata.csv or metadata.jsonl beside its images, or a
folder of pairs like line.png and line.gt.txt: lines like those to be read, on which MODEL was not trained. A line is
right when it is read to the letter; with labels in capitals whatever the print, the scores learn to expect that.
Lines without a text, and images that are broken or no text lines, are left out.

One number in MODEL's config.json is changed, the temperature. What is read stays the same.

examples:
  hf-ocr calibrate runs/my-model/best validation.parquet
  hf-ocr calibrate runs/my-model/best lines/ more-lines/ --dry-run
"""


def add_parser(verbs: Any) -> None:
    """Add the verb to the command."""
    parser = verbs.add_parser(
        "calibrate",
        help="make the scores of a model as often right as they say",
        description="Fits the temperature of a model's scores on labelled lines and writes it into the model's folder.",
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("model", metavar="MODEL", help="folder of a checkpoint")
    parser.add_argument("data", nargs="+", metavar="DATA", help="labelled lines")
    parser.add_argument("--image-column", default="image", metavar="NAME")
    parser.add_argument("--text-column", default="text", metavar="NAME")
    parser.add_argument("--dry-run", action="store_true", help="print, and write nothing")
    parser.set_defaults(run=run)


def run(options: argparse.Namespace) -> int:
    """Fit, print and write."""
    folder = Path(options.model)
    if not folder.is_dir():
        raise CommandError(f"{folder}: no such folder. Expected a checkpoint on this machine: download it first.")
    reader = load_reader(options.model)
    if not hasattr(reader.model, "recognize"):
        raise CommandError(
            f"{folder}: {type(reader.model).__name__} only generates. Expected a recognizer, whose configuration has a "
            "temperature."
        )
    try:
        given = read_lines(options.data, options.image_column, options.text_column)
        rows = measurable_lines(given, reader.processor.image_processor)
        fit = fit_temperature(reader._reading_model(), reader.processor, rows)
    except ImportError as error:
        raise CommandError('datasets is not installed. Install it with pip install "hf-ocr[train]".') from error
    except (ValueError, OSError) as error:
        raise CommandError(one_line(error)) from error
    print(f"{len(rows)} lines; on them, scores at temperature 1 and at {fit.temperature:g}:")
    for title, name in (("calibration error (ECE)", "ece"), ("Brier score", "brier")):
        print(f"{title:<24} {getattr(fit.before, name):.4f} {getattr(fit.after, name):.4f}")
    if options.dry_run:
        return 0
    try:
        save_temperature(folder, fit.temperature)
    except CalibrationError as error:
        raise CommandError(str(error)) from error
    print(f"written to {folder / 'config.json'}")
    return 0
