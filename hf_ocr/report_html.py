"""A `Report`, or two on the same lines, as one web page that needs nothing beside itself."""

import base64
import io
from collections import Counter
from collections.abc import Mapping, Sequence
from html import escape
from typing import Any

from PIL import Image

from hf_ocr.evaluation import Bucket, Prediction, Report, Slice, compare
from hf_ocr.metrics import Difference, Figure, edit_operations
from hf_ocr.models.image_loading import load_image
from hf_ocr.report import (
    BREAKDOWNS,
    FIGURES,
    draw_calibration,
    figure_protocol,
    interval_method,
    most_frequent,
    percent,
    slice_name,
    worst_lines,
)
from hf_ocr.text import PROTOCOLS, normalise

__all__ = ["report_to_html"]

HEADLINE = ("cer", "wer", "exact_raw")
PLOTTED = ("by_length", "by_pixels", "by_width")
COLOURS = ("#2563a8", "#c2571a")
NUM_CONFUSIONS = 15
PICTURE_SIZE = (1000, 96)  # px, at most; shown at half of it

# Text stays text, in the fonts of whoever looks; the salt makes the same report the same page.
SVG: Any = {"svg.fonttype": "none", "svg.hashsalt": "hf_ocr", "font.family": "sans-serif"}

STYLE = """
:root { --ink: #1d2430; --pale: #667085; --line: #e3e7ed; --first: #2563a8; --second: #c2571a; }
* { box-sizing: border-box; }
body { margin: 0 auto; max-width: 1080px; padding: 32px 24px 64px; color: var(--ink); background: #fff;
  font: 15px/1.5 system-ui, -apple-system, "Segoe UI", Roboto, "Noto Sans", sans-serif; }
h1 { font-size: 26px; line-height: 1.25; margin: 0 0 4px; overflow-wrap: anywhere; }
h2 { font-size: 18px; margin: 44px 0 10px; padding-top: 14px; border-top: 1px solid var(--line); }
h3 { font-size: 14px; margin: 0 0 6px; color: var(--pale); font-weight: 600; } .columns + h3 { margin-top: 24px; }
p { margin: 4px 0; max-width: 80ch; }
.pale, small { color: var(--pale); } small { font-size: 12.5px; }
.facts { color: var(--pale); overflow-wrap: anywhere; } .facts b { color: var(--ink); font-weight: 600; }
.tiles { display: grid; grid-template-columns: repeat(auto-fit, minmax(200px, 1fr)); gap: 14px; margin: 22px 0 0; }
.tile { border: 1px solid var(--line); border-radius: 8px; padding: 12px 16px; }
.tile .value { font-size: 27px; font-weight: 650; font-variant-numeric: tabular-nums; line-height: 1.3; }
.first { color: var(--first); } .second { color: var(--second); }
.wide { overflow-x: auto; }
table { border-collapse: collapse; width: 100%; font-variant-numeric: tabular-nums; }
th { text-align: left; font-weight: 600; font-size: 13px; color: var(--pale); }
th, td { padding: 5px 14px 5px 0; border-bottom: 1px solid var(--line); vertical-align: top; }
.number { text-align: right; white-space: nowrap; }
.columns { display: grid; grid-template-columns: repeat(auto-fit, minmax(280px, 1fr)); gap: 28px; }
.plots img { width: 100%; height: auto; display: block; }
.bar { display: block; height: 9px; min-width: 1px; border-radius: 2px; background: var(--first); margin-top: 7px; }
td.bars { width: 45%; min-width: 72px; } .wide td:last-child:not(.number, .bars) { min-width: 26ch; }
.text { font-family: "DejaVu Sans Mono", "Noto Sans Mono", Consolas, monospace; white-space: pre-wrap;
  overflow-wrap: anywhere; unicode-bidi: plaintext; }
.lines article { display: grid; grid-template-columns: minmax(120px, 34%) 1fr; gap: 4px 20px; align-items: start;
  padding: 12px 0; border-bottom: 1px solid var(--line); }
.crop { max-width: 100%; max-height: 48px; width: auto; height: auto; border: 1px solid var(--line); }
.lines dl { display: grid; grid-template-columns: max-content 1fr; gap: 1px 14px; margin: 0; }
.lines dt { color: var(--pale); max-width: 18ch; overflow: hidden; text-overflow: ellipsis; white-space: nowrap; }
.lines dd { margin: 0; }
ins { background: #fbd0c9; border-radius: 2px; text-decoration: none; }
del { border-left: 2px solid #d92d20; margin: 0 1px; text-decoration: none; }
@media print { article, .tile { break-inside: avoid; } }
"""


def report_to_html(
    report: Report,
    title: str,
    pictures: Mapping[int, Image.Image] | None = None,
    second: Report | None = None,
    names: Sequence[str] = ("first", "second"),
    facts: Mapping[str, str] | None = None,
) -> str:
    """A page with figures, plots, slices, confusions and the worst lines; no script, no address, light on the eye.

    Args:
        report: measured on the lines.
        title: of the page.
        pictures: index of a line -> its image, for the worst lines (`hf_ocr.report.worst_lines(report)`).
        second: of another reader on the same lines, to be compared.
        names: of the two readers.
        facts: what else to say at the top, name -> value.

    Returns:
        HTML in UTF-8, with all pictures inside. Every text from outside is escaped.

    Raises:
        ValueError: `second` is on other lines.
        ImportError: matplotlib is not installed.
    """
    reports = [report] if second is None else [report, second]
    whose = "" if second is None else f"<h3>{escape(names[0])}</h3>"
    sections = [
        ("Figures", _figures(reports, names)),
        ("Difference", "" if second is None else _differences(compare(report, second), names)),
        ("Where the errors are", _plots(reports, names) + whose + _slices(report)),
        ("Scores", _scores(reports, names)),
        ("Blank lines", _blanks(reports, names)),
        ("Characters", whose + _confusions(report)),
        ("Worst lines", _worst(reports, names, pictures or {})),
    ]
    body = "\n".join(f"<section><h2>{heading}</h2>\n{content}</section>" for heading, content in sections if content)
    return (
        '<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"<title>{escape(title)}</title>\n<style>{STYLE}</style>\n</head>\n<body>\n"
        f"<header><h1>{escape(title)}</h1>\n{_facts(report, facts or {})}{_tiles(reports, names)}</header>\n"
        f"{body}\n</body>\n</html>\n"
    )


def _facts(report: Report, facts: Mapping[str, str]) -> str:
    told = {**facts, "lines": f"{report.num_lines:,}", "texts compared": PROTOCOLS[report.protocol][1]}
    shown = " · ".join(f"{escape(name)} <b>{escape(value)}</b>" for name, value in told.items())
    return f'<p class="facts">{shown}</p>\n'


def _tiles(reports: Sequence[Report], names: Sequence[str]) -> str:
    tiles = []
    for name in HEADLINE:
        values = [
            f'<div class="value {order}">{100 * figure.value:.2f} %</div>'
            f"<small>{_interval(figure)}{_of(names[number]) if len(reports) > 1 else ''}</small>"
            for number, order in enumerate(("first", "second")[: len(reports)])
            for figure in [getattr(reports[number], name)]
        ]
        tiles.append(f'<div class="tile"><h3>{FIGURES[name][0]}</h3>{"".join(values)}</div>')
    return f'<div class="tiles">{"".join(tiles)}</div>\n'


def _of(name: str) -> str:
    return f" · {escape(name)}"


def _interval(figure: Figure) -> str:
    return f"{100 * figure.low:.2f} to {100 * figure.high:.2f}"


def _figures(reports: Sequence[Report], names: Sequence[str]) -> str:
    rows = [
        (title, *(percent(figure) if figure else "" for figure in figures), figure_protocol(reports[0], name))
        for name, (title, _) in FIGURES.items()
        if any(figures := [getattr(report, name) for report in reports])
    ]
    heads = names if len(reports) > 1 else ("rate",)
    note = f"In brackets: {interval_method(reports[0])}."
    return _table(("figure", *heads, "texts compared"), rows, range(1, 1 + len(reports))) + _note(note)


def _differences(differences: Mapping[str, Difference], names: Sequence[str]) -> str:
    rows = [
        (
            FIGURES[name][0],
            f"{100 * d.value:+.2f}",
            f"{100 * d.low:+.2f} to {100 * d.high:+.2f}",
            f"{d.p_value:.4f}",
        )
        for name, d in differences.items()
    ]
    head = (f"{names[1]} less {names[0]}", "points", "95 % interval", "p")
    note = (
        "Both read the same lines. Interval: paired bootstrap. p: how often a difference this large, either way, "
        "arises when a coin decides in each line (or document) whose reading is whose."
    )
    return _table(head, rows, (1, 2, 3)) + _note(note)


def _plots(reports: Sequence[Report], names: Sequence[str]) -> str:
    """The CER by length, size and width, with intervals."""
    try:
        import matplotlib
        from matplotlib.figure import Figure as Picture
    except ImportError as error:
        raise ImportError("The plots need matplotlib, which is not installed: `pip install hf_ocr[eval]`.") from error

    shown = []
    for field in PLOTTED:
        with matplotlib.rc_context(SVG):
            picture = Picture(figsize=(4.4, 2.9), layout="constrained")
            axes = picture.subplots()
            places = sorted(
                {part.low: slice_name(part) for report in reports for part in getattr(report, field)}.items()
            )
            order = {low: position for position, (low, _) in enumerate(places)}
            for number, (report, colour) in enumerate(zip(reports, COLOURS, strict=False)):
                parts = getattr(report, field)
                figures = [part.cer_ignoring_case for part in parts]
                axes.errorbar(
                    [order[part.low] + 0.12 * (number - (len(reports) - 1) / 2) for part in parts],
                    [100 * figure.value for figure in figures],
                    [
                        [100 * (figure.value - figure.low) for figure in figures],
                        [100 * (figure.high - figure.value) for figure in figures],
                    ],
                    fmt="o-", color=colour, markersize=4, linewidth=1.4, elinewidth=1, capsize=2.5,
                )  # fmt: skip
            axes.set_xticks(
                range(len(places)), [name.replace(" to under ", "\u2013") for _, name in places], fontsize=8
            )
            axes.tick_params("y", labelsize=8)
            axes.set_xlabel(BREAKDOWNS[field], fontsize=9)
            axes.set_ylabel("CER ignoring case, %", fontsize=9)
            axes.set_ylim(bottom=0)
            axes.grid(axis="y", color="#e3e7ed", linewidth=0.8)
            axes.spines[["top", "right"]].set_visible(False)
            drawn = io.BytesIO()
            picture.savefig(drawn, format="svg", metadata={"Date": None, "Creator": None})
        what = f"CER ignoring case by {BREAKDOWNS[field]}"
        shown.append(f'<img alt="{what}" src="{_embedded(drawn, "svg+xml")}">')
    legend = ""
    if len(reports) > 1:
        legend = f'<p><b class="first">{escape(names[0])}</b> · <b class="second">{escape(names[1])}</b></p>'
    return f'{legend}<div class="columns plots">{"".join(shown)}</div>\n'


def _scores(reports: Sequence[Report], names: Sequence[str]) -> str:
    """What the scores are worth; readers without scores are left out."""
    import matplotlib

    measured = [(name, r, r.calibration) for name, r in zip(names, reports, strict=False) if r.calibration is not None]
    if not measured:
        return ""
    rows = [(name, f"{100 * c.ece:.2f} %", f"{c.brier:.4f}", f"{c.aurc:.4f}") for name, _, c in measured]
    shown = []
    for name, report, _ in measured:
        drawn = io.BytesIO()
        with matplotlib.rc_context(SVG):
            draw_calibration(report, drawn, "svg")
        what = f"calibration and risk over coverage, {escape(name)}"
        shown.append(f'<p class="pale">{escape(name)}</p>' if len(reports) > 1 else "")
        shown.append(f'<p class="plots"><img alt="{what}" src="{_embedded(drawn, "svg+xml")}"></p>')
    head = ("reader", "calibration error (ECE)", "Brier score", "AURC")
    note = (
        "Left: how many lines are right, over their score; on the grey line the scores say what is true. Right: how "
        "many of the lines kept are wrong when those with the lowest scores are rejected; AURC is the area below."
    )
    return _table(head, rows, (1, 2, 3)) + "".join(shown) + _note(note)


def _slices(report: Report) -> str:
    tables = []
    for field, title in BREAKDOWNS.items():
        parts: Sequence[Bucket | Slice] = getattr(report, field)
        if field not in PLOTTED and parts:
            highest = max(part.cer_ignoring_case.value for part in parts)
            rows = [
                f"<tr><td>{escape(slice_name(part))}</td><td class=number>{part.num_lines:,}</td>"
                f"<td class=number>{percent(part.exact)}</td><td class=number>{percent(part.cer_ignoring_case)}</td>"
                f"<td class=bars>{_bar(part.cer_ignoring_case.value, highest)}</td></tr>"
                for part in parts
            ]
            head = (
                f"<tr><th>{title}</th><th class=number>lines</th><th class=number>{FIGURES['exact'][0]}</th>"
                f"<th class=number>{FIGURES['cer_ignoring_case'][0]}</th><th></th></tr>"
            )
            tables.append(f'<div class="wide"><table>{head}{"".join(rows)}</table></div>')
    return "<br>\n".join(tables)


def _blanks(reports: Sequence[Report], names: Sequence[str]) -> str:
    if not reports[0].blanks.num_lines:
        return ""
    rows = [
        (name, f"{b.num_lines:,}", f"{b.num_read:,}", f"{b.num_characters:,}")
        for name, b in zip(names, (report.blanks for report in reports), strict=False)
    ]
    return _table(("reader", "blank lines", "read as something", "characters invented"), rows, (1, 2, 3))


def _confusions(report: Report) -> str:
    confusions = report.confusions
    parts = []
    tables: tuple[tuple[str, Counter[Any]], ...] = (
        ("mistaken: printed, read", confusions.substitutions),
        ("invented", confusions.insertions),
        ("missed", confusions.deletions),
    )
    for title, counter in tables:
        total = sum(counter.values())
        counted = most_frequent(counter)[:NUM_CONFUSIONS]
        rows = []
        for what, count in counted:
            characters = what if isinstance(what, tuple) else (what,)
            cells = "".join(f'<td><span class="text">{_visible(character)}</span></td>' for character in characters)
            bar = _bar(count, counted[0][1])
            rows.append(f"<tr>{cells}<td class=number>{count:,}</td><td class=bars>{bar}</td></tr>")
        parts.append(f"<div><h3>{title} · {total:,}</h3><table>{''.join(rows)}</table></div>")
    return f'<div class="columns">{"".join(parts)}</div>\n'


def _worst(reports: Sequence[Report], names: Sequence[str], pictures: Mapping[int, Image.Image]) -> str:
    by_index = [{line.index: line for line in report.predictions} for report in reports]
    articles = []
    for line in worst_lines(reports[0]):
        picture = pictures.get(line.index)
        shown = "" if picture is None else f'<img class="crop" alt="line {line.index}" src="{_crop(picture)}">'
        readings = [lines[line.index] for lines in by_index]
        labels = names if len(reports) > 1 else ("read",)
        read = "".join(
            f'<dt>{escape(label)}</dt><dd><span class="text">{_marked(reading)}</span> '
            f"<small>{reading.score:.2f}</small></dd>"
            for label, reading in zip(labels, readings, strict=False)
        )
        where = " · ".join(escape(str(part)) for part in (line.index, line.document, line.source) if part is not None)
        reference = f'<dt>is</dt><dd><span class="text">{escape(normalise(line.reference))}</span></dd>'
        articles.append(
            f"<article><div>{shown}</div><div><dl>{reference}{read}</dl><small>line {where}</small></div></article>"
        )
    if not articles:
        return "<p>Every line was read rightly, but for the case.</p>"
    note = (
        "Most edits a character first, case left aside. On red: not what is printed. Red stroke: something is missing."
    )
    return f'{_note(note)}<div class="lines">{"".join(articles)}</div>\n'


def _marked(line: Prediction) -> str:
    """What was read, with what is wrong in it marked, the case left aside."""
    reference, prediction = normalise(line.reference), normalise(line.prediction)
    operations = edit_operations([c.lower() for c in reference], [c.lower() for c in prediction])
    wrong = {to for tag, _, to in operations if tag != "delete"}
    missing = {to for tag, _, to in operations if tag == "delete"}
    marked = []
    for place in range(len(prediction) + 1):
        if place in missing:
            marked.append("<del></del>")
        if place < len(prediction):
            character = escape(prediction[place])
            marked.append(f"<ins>{character}</ins>" if place in wrong else character)
    return "".join(marked).replace("</ins><ins>", "")


def _visible(character: str) -> str:
    return "space" if character == " " else escape(character if character.isprintable() else repr(character))


def _bar(value: float, highest: float) -> str:
    return f'<span class="bar" style="width:{100 * value / highest if highest else 0:.1f}%"></span>'


def _note(text: str) -> str:
    return f'<p class="pale"><small>{escape(text)}</small></p>\n'


def _table(head: Sequence[str], rows: Sequence[Sequence[str]], numbers: Sequence[int]) -> str:
    def line(cells: Sequence[str], tag: str) -> str:
        kinds = (" class=number" if place in numbers else "" for place in range(len(cells)))
        return "".join(f"<{tag}{kind}>{escape(cell)}</{tag}>" for cell, kind in zip(cells, kinds, strict=True))

    lines = [line(head, "th"), *(line(row, "td") for row in rows)]
    return f'<div class="wide"><table>{"".join(f"<tr>{cells}</tr>" for cells in lines)}</table></div>\n'


def _crop(image: Image.Image) -> str:
    small = load_image(image).convert("RGB")
    small.thumbnail(PICTURE_SIZE)
    written = io.BytesIO()
    small.save(written, "JPEG", quality=80)
    return _embedded(written, "jpeg")


def _embedded(file: io.BytesIO, kind: str) -> str:
    return f"data:image/{kind};base64,{base64.b64encode(file.getvalue()).decode()}"
