"""`hf-ocr export`: a checkpoint becomes a folder for another runtime."""

import argparse
from itertools import islice
from pathlib import Path
from typing import Any

from hf_ocr.cli.loading import CommandError, load_reader, one_line
from hf_ocr.data.lines import read_lines
from hf_ocr.export.onnx_export import ExportError, export_onnx

CALIBRATION_LINES = 128  # evenly spaced among those given

EPILOG = """\
onnx: the network for ONNX Runtime, the alphabet, and onnx_reader.py, which needs onnxruntime, NumPy and Pillow and
neither torch nor this package. Recognizers with CTC (CRNN, PP-OCR) can be exported. Needs the packages of the extra
`onnx`: pip install 'hf_ocr[onnx]'

With --int8 the network computes in whole numbers: a quarter of the size, and faster where the CPU has instructions for
it (AVX512-VNNI and the like). The ranges of its values come from lines like those that it will read (--calibration,
DATA as for `inspect`). Measure what it reads: python scripts/benchmark_reading.py --model MODEL --calibration DATA ...

examples:
  hf-ocr export runs/mine/best mine-onnx
  hf-ocr export runs/mine/best mine-int8 --int8 --calibration lines/
  python mine-int8/onnx_reader.py line.png
"""


def add_parser(verbs: Any) -> None:
    """Add the verb to the command."""
    parser = verbs.add_parser(
        "export",
        help="make a checkpoint a folder for another runtime",
        description="Writes a checkpoint as a folder that another runtime reads with.",
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("model", metavar="MODEL", help="folder of a checkpoint, or its name on the Hub")
    parser.add_argument("folder", metavar="FOLDER", help="to write; files of the same names are overwritten")
    parser.add_argument("--to", choices=["onnx"], default="onnx", help="the runtime (default: onnx)")
    parser.add_argument("--int8", action="store_true", help="compute in whole numbers; wants --calibration")
    parser.add_argument("--calibration", metavar="DATA", help="lines like those that will be read")
    parser.set_defaults(run=run)


def run(options: argparse.Namespace) -> int:
    """Export, and say what was written."""
    if options.int8 != (options.calibration is not None):
        raise CommandError(
            "--int8 and --calibration DATA go together. Give a hundred lines or so like those that will be read; "
            "their texts are not used."
        )
    if Path(options.folder).is_file():
        raise CommandError(f"{options.folder}: is a file. Expected a folder, which is made if it does not exist.")
    images = _calibration_images(options.calibration) if options.int8 else None
    reader = load_reader(options.model)
    try:
        folder = export_onnx(reader.model, reader.processor, options.folder, images)
    except (ExportError, ValueError) as error:
        raise CommandError(one_line(error)) from error
    size = sum(path.stat().st_size for path in folder.iterdir()) / 1e6
    print(f"{folder}: {'int8' if options.int8 else 'float32'} for ONNX Runtime, {size:.1f} MB")
    return 0


def _calibration_images(source: str) -> list[Any]:
    try:
        rows = read_lines(source)
    except ImportError as error:
        raise CommandError('datasets is not installed. Install it with pip install "hf-ocr[train]".') from error
    except ValueError as error:
        raise CommandError(one_line(error)) from error
    step = max(len(rows) // CALIBRATION_LINES, 1)
    return [rows[index]["image"] for index in islice(range(0, len(rows), step), CALIBRATION_LINES)]
