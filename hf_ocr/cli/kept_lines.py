"""Results on disk as they come: JSON lines, of which the first says what they are results of."""

import json
import os
from pathlib import Path
from typing import Any, TextIO

from hf_ocr.cli.loading import CommandError


def open_kept(path: Path, origin: dict[str, Any]) -> tuple[list[dict[str, Any]], TextIO]:
    """What an earlier run left in the file, and the file, open for the lines to come.

    A last line that was not written whole is cut off; whoever writes does so by `keep`.

    Args:
        path: made, with its folder, where it is not there.
        origin: what the results depend on, as JSON gives it back.

    Raises:
        CommandError: the file has results of another origin, or of two commands at once, or is not of this kind.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    written = path.read_bytes() if path.exists() else b""
    whole = written[: written.rfind(b"\n") + 1]
    try:
        first, *kept = map(json.loads, whole.splitlines()) if whole else (origin,)
    except ValueError as error:
        raise CommandError(f"{path}: is damaged ({error}). Delete it, and all lines are read again.") from error
    if first != origin:
        known = first if isinstance(first, dict) else {}
        others = [name for name in origin if known.get(name) != origin[name]]
        raise CommandError(
            f"{path}: differs from what this command reads in: {', '.join(others or known)}. Name another folder with "
            "--output, or delete the file."
        )
    if [entry.get("index") for entry in kept] != list(range(len(kept))):
        raise CommandError(f"{path}: two commands wrote to it at once. Delete it, and all lines are read again.")
    if written:
        os.truncate(path, len(whole))
    file = path.open("a", encoding="utf-8")
    if not whole:
        keep(file, origin)
    return kept, file


def keep(file: TextIO, entry: dict[str, Any]) -> None:
    """Write one line, so that a process that is killed has written it. Results have an "index", from 0 on."""
    file.write(json.dumps(entry, ensure_ascii=False) + "\n")
    file.flush()
