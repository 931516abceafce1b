"""`hf-ocr push`: a folder goes to the Hub."""

import argparse
import sys
from pathlib import Path
from typing import Any

from huggingface_hub.utils.tqdm import disable_progress_bars
from transformers.utils import logging

from hf_ocr.cli.loading import CommandError, check_folder, one_line
from hf_ocr.push import PushError, push
from hf_ocr.standalone import StandaloneError, check_standalone

EPILOG = """\
The folder is read without this package first, which runs the code in it. All files are one commit; when the network
dies, nothing is half-published, and the same command completes it. The token is that of `hf auth login`, or HF_TOKEN.

examples:
  hf-ocr push mine USER/mine --private
  hf-ocr push mine ORGANISATION/receipts --pull-request
"""


def add_parser(verbs: Any) -> None:
    """Add the verb to the command."""
    parser = verbs.add_parser(
        "push",
        help="publish a folder on the Hub",
        description="Publishes a folder, which `hf-ocr bundle` wrote, on the Hub.",
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("folder", metavar="FOLDER", help="what to publish")
    parser.add_argument("repo", metavar="REPO", help="USER/NAME or ORGANISATION/NAME; made if it does not exist")
    parser.add_argument("--private", action="store_true", help="only you, or the organisation, may read it")
    parser.add_argument("--revision", metavar="R", help="branch to write to, made if it does not exist")
    parser.add_argument("--pull-request", action="store_true", help="propose the change instead of making it")
    parser.set_defaults(run=run)


def run(options: argparse.Namespace) -> int:
    """Check, publish, and print the address."""
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    if not sys.stderr.isatty():
        disable_progress_bars()
    check_folder(Path(options.folder))
    try:
        check_standalone(options.folder)
        print(push(options.folder, options.repo, options.private, options.revision, options.pull_request))
    except (PushError, StandaloneError) as error:
        raise CommandError(one_line(error)) from error
    return 0
