"""`hf-ocr convert`: weights from elsewhere become a checkpoint."""

import argparse
from pathlib import Path
from typing import Any

import torch
from transformers.utils import logging

from hf_ocr.cli.loading import CommandError
from hf_ocr.convert.rapidocr import ConversionError, convert_rapidocr

EPILOG = """\
rapidocr: PP-OCRv6 small (Apache-2.0), a recognizer of 18,700 characters in 50 languages, out of the wheel of RapidOCR.
It needs the packages of the extra `convert`, and no network: pip install 'hf_ocr[convert]'

examples:
  hf-ocr convert rapidocr pp-ocrv6-small
  hf-ocr read line.png --model pp-ocrv6-small
"""


def add_parser(verbs: Any) -> None:
    """Add the verb to the command."""
    parser = verbs.add_parser(
        "convert",
        help="make a checkpoint of weights from elsewhere",
        description="Makes a checkpoint that reads here, and can be trained, of weights from elsewhere.",
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("source", choices=["rapidocr"], help="where the weights come from")
    parser.add_argument("folder", metavar="FOLDER", help="to write; files of the same names are overwritten")
    parser.add_argument("--float16", action="store_true", help="store the weights in half the size; they are rounded")
    parser.set_defaults(run=run)


def run(options: argparse.Namespace) -> int:
    """Convert, and say what was written."""
    if Path(options.folder).is_file():
        raise CommandError(f"{options.folder}: is a file. Expected a folder, which is made if it does not exist.")
    logging.disable_progress_bar()
    try:
        conversion = convert_rapidocr(options.folder, torch.float16 if options.float16 else None)
    except ConversionError as error:
        raise CommandError(str(error)) from error
    size = sum(path.stat().st_size for path in conversion.folder.iterdir()) / 1e6
    print(f"{conversion.folder}: {conversion.source.name} as a checkpoint, {size:.1f} MB, Apache-2.0")
    if conversion.left_out:
        named = ", ".join(f"U+{ord(symbol[0]):04X}" for symbol in conversion.left_out if symbol)
        print(f"left out of the alphabet, because no text in normal form C holds them: {named}")
    return 0
