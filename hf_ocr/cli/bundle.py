"""`hf-ocr bundle`: a checkpoint becomes a folder to publish."""

import argparse
from pathlib import Path
from typing import Any

from transformers.utils import logging

from hf_ocr.bundle import bundle_checkpoint
from hf_ocr.cli.loading import CommandError, check_folder, one_line
from hf_ocr.models.modeling_text_recognition import CheckpointError
from hf_ocr.standalone import check_standalone

EPILOG = """\
FOLDER then holds config, weights, tokenizer, processors and the code that reads them; README.md, the card; app.py, a
demo for the browser (pip install gradio); handler.py, an inference endpoint; requirements.txt for these two.

At the end it is loaded in a process without this package, which runs the code in FOLDER, and must read the same there.

examples:
  hf-ocr bundle runs/mine/best mine
  hf-ocr push mine USER/mine --private
"""


def add_parser(verbs: Any) -> None:
    """Add the verb to the command."""
    parser = verbs.add_parser(
        "bundle",
        help="write a checkpoint as a folder to publish",
        description="Writes a checkpoint as a folder to publish, which reads without this package.",
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "model", metavar="MODEL", help="folder of a checkpoint, or its name on the Hub or in the package"
    )
    parser.add_argument("folder", metavar="FOLDER", help="to write; files of the same names are overwritten")
    parser.add_argument(
        "--record",
        metavar="JSON",
        help="the run's record, for the card; by default the one in or above the folder MODEL that names its weights",
    )
    parser.set_defaults(run=run)


def run(options: argparse.Namespace) -> int:
    """Write, check, and say what was written."""
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    if Path(options.model).is_dir():
        check_folder(Path(options.model))
    if Path(options.folder).is_file():
        raise CommandError(f"{options.folder}: is a file. Expected a folder, which is made if it does not exist.")
    try:
        folder = bundle_checkpoint(options.model, options.folder, options.record)
        texts = check_standalone(folder)
    except (ValueError, RuntimeError, CheckpointError) as error:
        raise CommandError(one_line(error)) from error
    except OSError as error:  # of the Hub, which names no model, or of a disk
        raise CommandError(f"{options.model}: cannot be bundled. {one_line(error)}") from error
    size = sum(path.stat().st_size for path in folder.rglob("*") if path.is_file()) / 1e6
    print(f"{folder}: {size:.1f} MB; reads {', '.join(map(repr, texts))} with this package and without it")
    return 0
