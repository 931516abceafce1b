"""`hf-ocr export`: a checkpoint becomes a folder for another runtime."""

import argparse
from itertools import islice
from pathlib import Path
from tempfile import TemporaryDirectory
from time import perf_counter
from typing import Any

from hf_ocr.cli.loading import CommandError, load_reader, one_line
from hf_ocr.data.lines import measurable_lines, read_lines, undecoded, undecoded_rows
from hf_ocr.export.onnx_export import ExportError, export_onnx
from hf_ocr.export.onnx_reader import OnnxReader
from hf_ocr.metrics import character_error_rate
from hf_ocr.models.image_loading import load_image
from hf_ocr.text import ignore_case

CALIBRATION_LINES, MEASURED_LINES = 128, 256  # at most; drawn from those given

EPILOG = """\
onnx: the network for ONNX Runtime, the alphabet, and onnx_reader.py, which needs onnxruntime, NumPy and Pillow and
neither torch nor this package. Recognizers with CTC (CRNN, PP-OCR) can be exported. Needs the packages of the extra
`onnx`: pip install 'hf_ocr[onnx]'

With --int8 the network computes in whole numbers: a quarter of the size, and faster where the CPU has instructions for
it (AVX512-VNNI and the like). The ranges of its values come from lines like those that it will read (--calibration,
DATA as for `inspect`). What that costs and gains is measured on others of these lines, which it needs the extra `train`
for, and printed beside the figures of float32.

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
    parser.add_argument(
        "model", metavar="MODEL", help="folder of a checkpoint, or its name on the Hub or in the package"
    )
    parser.add_argument("folder", metavar="FOLDER", help="to write; files of the same names are overwritten")
    parser.add_argument("--to", choices=["onnx"], default="onnx", help="the runtime (default: onnx)")
    parser.add_argument("--int8", action="store_true", help="compute in whole numbers; wants --calibration")
    parser.add_argument("--calibration", metavar="DATA", help="lines like those that will be read")
    parser.set_defaults(run=run)


def run(options: argparse.Namespace) -> int:
    """Export, and say what was written."""
    if options.int8 != (options.calibration is not None):
        raise CommandError(
            "--int8 and --calibration DATA go together. Give a few hundred lines like those that will be read."
        )
    if Path(options.folder).is_file():
        raise CommandError(f"{options.folder}: is a file. Expected a folder, which is made if it does not exist.")
    reader = load_reader(options.model)
    # That of another model prepares no lines; such a model is refused below.
    prepare = reader.processor.image_processor if hasattr(reader.model, "recognize") else None
    rows = _lines(options.calibration, prepare) if options.int8 else []
    calibration = max(min(CALIBRATION_LINES, len(rows) // 2), 1)
    try:
        folder = export_onnx(
            reader.model,
            reader.processor,
            options.folder,
            (row["image"] for row in islice(rows, calibration)) if options.int8 else None,
        )
        print(f"{folder}: {'int8' if options.int8 else 'float32'} for ONNX Runtime, {_size(folder):.1f} MB")
        if measured := list(islice(rows, calibration, calibration + MEASURED_LINES)):
            with TemporaryDirectory() as float32:
                export_onnx(reader.model, reader.processor, float32)
                print(f"{len(measured)} other lines of {options.calibration}:")
                for name, exported in (("int8", folder), ("float32", Path(float32))):
                    print(f"{name:8} {_figures(exported, measured)}")
    except (ExportError, ValueError) as error:
        raise CommandError(one_line(error)) from error
    return 0


def _lines(source: str, image_processor: Any) -> list[dict[str, Any]]:
    try:
        rows = read_lines(source).shuffle(seed=0)
        drawn = rows.select(range(min(len(rows), CALIBRATION_LINES + MEASURED_LINES)))
        stored = undecoded_rows(measurable_lines(drawn, image_processor))
        return [{"image": load_image(undecoded(row["image"])), "text": row["text"]} for row in stored]
    except ImportError as error:
        raise CommandError('datasets is not installed. Install it with pip install "hf-ocr[train]".') from error
    except (ValueError, OSError) as error:
        raise CommandError(one_line(error)) from error


def _figures(folder: Path, rows: list[dict[str, Any]]) -> str:
    """What it reads of these lines, ignoring case as labels often do, how fast, and its size."""
    reader = OnnxReader(folder)
    reader.read(rows[0]["image"])
    start = perf_counter()
    texts = [reading.text for reading in reader.read_many(row["image"] for row in rows)]
    speed = len(rows) / (perf_counter() - start)
    rate = character_error_rate(texts, [row["text"] for row in rows], ignore_case)
    return f"CER ignoring case {100 * rate:.2f} %, {speed:.0f} lines a second, {_size(folder):.1f} MB"


def _size(folder: Path) -> float:
    """MB of the files."""
    return sum(path.stat().st_size for path in folder.iterdir() if path.is_file()) / 1e6
