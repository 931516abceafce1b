"""Prints the size of the package at the end of a run, for information."""

from pathlib import Path
from statistics import median

from architecture import guards

LIMIT = 400


def pytest_terminal_summary(terminalreporter):
    root = Path(__file__).parents[2]
    lines = {
        name: len(path.read_text(encoding="utf-8").splitlines())
        for name, path in guards.modules(root).items()
        if path.stat().st_size
    }
    terminalreporter.section("size")
    terminalreporter.line(
        f"hf_ocr: {len(lines)} modules, {sum(lines.values()):,} lines, median {median(lines.values()):.0f}"
    )
    for name, count in sorted(lines.items(), key=lambda item: -item[1])[:5]:
        terminalreporter.line(f"{count:6} {name}{'  (split it by noun?)' if count > LIMIT else ''}")
