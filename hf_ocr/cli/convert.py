"""`hf-ocr convert`: weights from elsewhere become a checkpoint."""

import argparse
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from transformers.utils import logging

from hf_ocr.cli.loading import CommandError
from hf_ocr.convert.conversion import Conversion, ConversionError, named
from hf_ocr.convert.crnn import FORMS, convert_crnn
from hf_ocr.convert.parseq import convert_parseq
from hf_ocr.convert.rapidocr import convert_rapidocr

EPILOG = """\
examples:
  hf-ocr convert rapidocr pp-ocrv6-small
  hf-ocr convert crnn crnn.pth crnn-words
  hf-ocr convert crnn best_accuracy.pth my-words --alphabet characters.txt
  hf-ocr convert parseq parseq.pt parseq-words
  hf-ocr read line.png --model my-words
"""
RAPIDOCR = """\
PP-OCRv6 small (Apache-2.0), a recognizer of 18,700 characters in 50 languages, out of the wheel of RapidOCR.
It needs the packages of the extra `convert`, and no network: pip install 'hf_ocr[convert]'
"""
CRNN = f"""\
The state dict of a CRNN, told by the names in it to be one of

{chr(10).join(f"  {form.name}" for form in FORMS)}

Only tensors are read: nothing in the file is run. Other networks of these projects are refused by name.
"""
PARSEQ = """\
A PARSeq of baudm/parseq: a state dict as its releases have them, or a Lightning checkpoint of its trainer.

Only tensors are read: nothing in the file is run.
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
    sources = parser.add_subparsers(title="sources", required=True, metavar="SOURCE")
    rapidocr = _add_source(sources, "rapidocr", "PP-OCRv6 small, out of the wheel of RapidOCR", RAPIDOCR, run_rapidocr)
    crnn = _add_source(sources, "crnn", "a CRNN of crnn.pytorch, the deep text benchmark, docTR", CRNN, run_crnn)
    parseq = _add_source(sources, "parseq", "a PARSeq of its authors' code", PARSEQ, run_parseq)
    for source in (crnn, parseq):
        source.add_argument("weights", metavar="WEIGHTS", help="file of the weights: .pth or .pt, or .safetensors")
        source.add_argument(
            "--alphabet",
            metavar="FILE",
            help="text file (UTF-8) of the characters in the order of their ids, without the blank; line breaks do "
            "not count (default: the published alphabet of as many characters)",
        )
    for source in (rapidocr, crnn, parseq):
        source.add_argument("folder", metavar="FOLDER", help="to write; files of the same names are overwritten")
        source.add_argument(
            "--float16", action="store_true", help="store the weights in half the size; they are rounded"
        )


def _add_source(
    sources: Any, name: str, short: str, long: str, run: Callable[[argparse.Namespace], int]
) -> argparse.ArgumentParser:
    parser: argparse.ArgumentParser = sources.add_parser(
        name, help=short, description=long, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.set_defaults(run=run)
    return parser


def run_rapidocr(options: argparse.Namespace) -> int:
    """Convert, and say what was written."""
    return _convert(options, lambda dtype: convert_rapidocr(options.folder, dtype))


def run_crnn(options: argparse.Namespace) -> int:
    """Convert, and say what was written."""
    return _convert_weights(options, convert_crnn)


def run_parseq(options: argparse.Namespace) -> int:
    """Convert, and say what was written."""
    return _convert_weights(options, convert_parseq)


def _convert_weights(options: argparse.Namespace, convert: Callable[..., Conversion]) -> int:
    alphabet = None if options.alphabet is None else _read_alphabet(options.alphabet)
    return _convert(options, lambda dtype: convert(options.weights, options.folder, alphabet, dtype))


def _convert(options: argparse.Namespace, convert: Callable[[torch.dtype | None], Conversion]) -> int:
    if Path(options.folder).is_file():
        raise CommandError(f"{options.folder}: is a file. Expected a folder, which is made if it does not exist.")
    logging.disable_progress_bar()
    try:
        conversion = convert(torch.float16 if options.float16 else None)
    except ConversionError as error:
        raise CommandError(str(error)) from error
    size = sum(path.stat().st_size for path in conversion.folder.iterdir()) / 1e6
    print(f"{conversion.folder}: {conversion.source.name} as a checkpoint, {size:.1f} MB, {conversion.form}")
    if conversion.left_out:
        print(f"left out of the alphabet, because no text in normal form C holds them: {named(conversion.left_out)}")
    return 0


def _read_alphabet(path: str) -> str:
    try:
        return "".join(Path(path).read_text(encoding="utf-8-sig").splitlines())
    except (OSError, UnicodeDecodeError) as error:
        raise CommandError(
            f"{path}: cannot be read ({error}). Expected a text file in UTF-8 with the characters of the alphabet."
        ) from error
