"""The command `hf-ocr`: one file a verb."""

import argparse
import os
import sys
from collections.abc import Sequence

from hf_ocr.cli import bundle, calibrate, convert, evaluate, export, info, inspect, push, read
from hf_ocr.cli.loading import CommandError, one_line

__all__ = ["main"]


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command with these arguments (those of the process when None) and return its exit status.

    0: all is well. 1: at least one image was not read, or nothing could be; stderr says why. 2: unknown arguments.
    """
    parser = argparse.ArgumentParser(prog="hf-ocr", description="Reads images of text lines and words.")
    verbs = parser.add_subparsers(title="verbs", required=True, metavar="VERB")
    for verb in (read, evaluate, inspect, calibrate, info, convert, export, bundle, push):
        verb.add_parser(verbs)
    options = parser.parse_args(arguments)
    for stream in (sys.stdout, sys.stderr):
        # Readings hold letters that not every encoding has, file names bytes that are no text.
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(encoding="utf-8", errors="surrogateescape")
    try:
        status: int = options.run(options)
        sys.stdout.flush()
    except CommandError as error:
        print(f"hf-ocr: {error}", file=sys.stderr)
        return 1
    except BrokenPipeError:
        # Whoever reads our output has enough, as `head` has. Python would complain once more when it exits.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    except OSError as error:  # a full disk, a folder that may not be written, a file where a folder should be
        print(f"hf-ocr: {one_line(error)}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 130
    return status
