"""A `Report` in other forms: a table in plain text, a dictionary for JSON, a picture of the worst lines."""

import json
import os
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Protocol

from PIL import Image, ImageDraw, ImageFont

from hf_ocr.evaluation import Bucket, Prediction, Report
from hf_ocr.metrics import NUM_RESAMPLINGS, Figure, character_edits
from hf_ocr.text import ignore_case, normalise

__all__ = ["contact_sheet", "draw_curves", "report_to_dict", "report_to_table", "worst_lines"]

FIGURES = {
    "exact": (
        "exact, letters and digits",
        "lower-cased, all but a-z and 0-9 dropped, accents not folded; nothing dropped where few lines have these",
    ),
    "exact_raw": ("exact, all characters", "NFC, white space collapsed"),
    "cer": ("CER", "NFC, white space collapsed"),
    "cer_ignoring_case": ("CER ignoring case", "NFC, white space collapsed, lower-cased"),
    "wer": ("WER", "NFC, words parted at white space"),
}
"""Field of `Report` -> title and protocol."""

INTERVAL = f"95 % percentile bootstrap over lines, {NUM_RESAMPLINGS} resamplings"


class Rows(Protocol):
    """What gives a row by its number: a list of rows, or a `datasets.Dataset`."""

    def __getitem__(self, index: int, /) -> Any: ...


def report_to_table(report: Report, num_confusions: int = 10) -> str:
    """The figures, the buckets and the most frequent confusions, as lines of plain text. Rates in percent."""
    lines = [f"{report.num_lines} lines", ""]
    width = max(len(title) for title, _ in FIGURES.values())
    for name, (title, protocol) in FIGURES.items():
        lines.append(f"{title:<{width}}  {_percent(getattr(report, name))}  ({protocol})")
    for title, buckets in (
        ("characters", report.by_length),
        ("px a character at height 32", report.by_pixels),
    ):
        lines += ["", f"{title:<28} {'lines':>7}  {'exact, letters and digits':<28}  CER ignoring case"]
        lines += [
            f"{_range(b):<28} {b.num_lines:>7}  {_percent(b.exact):<28}  {_percent(b.cer_ignoring_case)}"
            for b in buckets
        ]
    confusions = report.confusions
    for title, counted in (
        ("mistaken (printed > read)", [(f"{a!r} > {b!r}", n) for (a, b), n in _frequent(confusions.substitutions)]),
        ("invented", [(repr(c), n) for c, n in _frequent(confusions.insertions)]),
        ("missed", [(repr(c), n) for c, n in _frequent(confusions.deletions)]),
    ):
        if counted:
            lines += ["", f"{title}: " + ", ".join(f"{what} {n}" for what, n in counted[:num_confusions])]
    return "\n".join(lines)


def report_to_dict(report: Report, num_confusions: int = 30, with_predictions: bool = False) -> dict[str, Any]:
    """The report as plain values for JSON; each figure carries its title and protocol. Rates are fractions.

    Predictions, of which there may be very many, are left out unless asked for.
    """
    confusions = report.confusions
    result: dict[str, Any] = {
        "num_lines": report.num_lines,
        "interval": f"{INTERVAL}, seed {report.seed}",
        "figures": {
            name: {"title": title, "protocol": protocol, **_figure_to_dict(getattr(report, name))}
            for name, (title, protocol) in FIGURES.items()
        },
        "by_length": [_bucket_to_dict(bucket) for bucket in report.by_length],
        "by_pixels": [_bucket_to_dict(bucket) for bucket in report.by_pixels],
        "confusions": {
            "substitutions": [[a, b, n] for (a, b), n in _frequent(confusions.substitutions)[:num_confusions]],
            "insertions": [[c, n] for c, n in _frequent(confusions.insertions)[:num_confusions]],
            "deletions": [[c, n] for c, n in _frequent(confusions.deletions)[:num_confusions]],
        },
    }
    if with_predictions:
        result["predictions"] = [
            {"index": p.index, "reference": p.reference, "prediction": p.prediction, "score": p.score}
            for p in report.predictions
        ]
    return result


def worst_lines(report: Report, num_lines: int = 40) -> list[Prediction]:
    """The lines read wrongly (ignoring case), most edits a character first; of equals, the more confident first."""
    predictions = report.predictions
    edits, lengths = character_edits(
        [p.prediction for p in predictions], [p.reference for p in predictions], ignore_case
    )
    rates = {p.index: e / max(int(n), 1) for p, e, n in zip(predictions, edits, lengths, strict=True) if e}
    wrong = [p for p in predictions if p.index in rates]
    return sorted(wrong, key=lambda p: (-rates[p.index], -p.score, p.index))[:num_lines]


def contact_sheet(
    lines: Sequence[Prediction],
    rows: Rows,
    columns: int = 2,
    font: ImageFont.FreeTypeFont | ImageFont.ImageFont | None = None,
) -> Image.Image:
    """A picture of lines: each crop, under it the reference, then what was read, with the score, red where it differs.

    Args:
        lines: `worst_lines(report)`, or `report.predictions`.
        rows: the rows that were evaluated, by index.
        columns: side by side.
        font: about 15 px; Pillow's own when None, which has little more than ASCII.

    Returns:
        An RGB image, white, `columns` * 480 px wide; with one sentence on it where there are no lines.
    """
    cell_width, crop_height, text_height, margin = 480, 64, 20, 8
    font = font or ImageFont.load_default(15)
    cell_height = crop_height + 2 * text_height + 3 * margin
    num_rows = max(-(-len(lines) // columns), 1)
    sheet = Image.new("RGB", (columns * cell_width, num_rows * cell_height), "white")
    draw = ImageDraw.Draw(sheet)
    if not lines:
        draw.text((margin, margin), "There are no lines to show.", "black", font)
    for position, line in enumerate(lines):
        left = position % columns * cell_width + margin
        top = position // columns * cell_height + margin
        crop = rows[line.index]["image"].convert("RGB")
        scale = min((cell_width - 2 * margin) / crop.width, crop_height / crop.height)
        crop = crop.resize((max(round(crop.width * scale), 1), max(round(crop.height * scale), 1)))
        sheet.paste(crop, (left, top))
        right = normalise(line.prediction) == normalise(line.reference)
        texts = (
            (f"is    {normalise(line.reference)}", "black"),
            (f"read  {normalise(line.prediction)}  ({line.score:.2f})", "darkgreen" if right else "firebrick"),
        )
        for number, (text, colour) in enumerate(texts):
            place = (left, top + crop_height + margin // 2 + number * text_height)
            draw.text(place, _shortened(text, font, cell_width - 2 * margin), colour, font)
    return sheet


def draw_curves(log: str | os.PathLike[str], target: str | os.PathLike[str]) -> None:
    """The curves of a run as a picture: the loss, and the character error rates, over the steps.

    Args:
        log: `log.jsonl` as `hf_ocr.training.train` writes it.
        target: the picture to write; its suffix says the format (.png, .svg, .pdf).
    """
    from matplotlib.figure import Figure as Picture

    entries = [json.loads(line) for line in Path(log).read_text(encoding="utf-8").splitlines()]
    steps = [entry["step"] for entry in entries]
    picture = Picture(figsize=(10, 4), layout="constrained")
    losses, rates = picture.subplots(1, 2)
    losses.plot(steps, [entry["loss"] for entry in entries], marker=".")
    losses.set(xlabel="step", ylabel="loss, mean since the last evaluation", yscale="log")
    for name in (name for name in entries[-1] if name.endswith("_cer")):
        rates.plot(steps, [100 * entry[name] for entry in entries], marker=".", label=name.removesuffix("_cer"))
    rates.set(xlabel="step", ylabel="CER ignoring case, %", yscale="log")
    rates.legend()
    picture.savefig(target)


def _shortened(text: str, font: Any, width: int) -> str:
    if font.getlength(text) <= width:
        return text
    while text and font.getlength(text + "…") > width:
        text = text[:-1]
    return text + "…"


def _frequent(counter: Counter[Any]) -> list[tuple[Any, int]]:
    # Ties by the character itself: the same report gives the same record.
    return sorted(counter.items(), key=lambda item: (-item[1], item[0]))


def _percent(figure: Figure) -> str:
    return f"{100 * figure.value:6.2f} % [{100 * figure.low:.2f}, {100 * figure.high:.2f}]"


def _range(bucket: Bucket) -> str:
    return f"{bucket.low} and more" if bucket.high is None else f"{bucket.low} to under {bucket.high}"


def _figure_to_dict(figure: Figure) -> dict[str, Any]:
    rates = {name: round(getattr(figure, name), 6) for name in ("value", "low", "high")}
    return {**rates, "count": figure.count, "total": figure.total}


def _bucket_to_dict(bucket: Bucket) -> dict[str, Any]:
    return {
        "low": bucket.low,
        "high": bucket.high,
        "num_lines": bucket.num_lines,
        "exact": _figure_to_dict(bucket.exact),
        "cer_ignoring_case": _figure_to_dict(bucket.cer_ignoring_case),
    }
