"""A `Report` in other forms: a table in plain text, a dictionary for JSON and back, a picture of the worst lines.

`hf_ocr.report_html` makes a page of it.
"""

import json
import os
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, fields
from pathlib import Path
from typing import IO, Any, Protocol

from PIL import Image, ImageDraw

from hf_ocr.data.lines import undecoded, undecoded_rows
from hf_ocr.evaluation import Bucket, Prediction, Report, Slice, report_on
from hf_ocr.metrics import NUM_RESAMPLINGS, Calibration, Difference, Figure, character_edits
from hf_ocr.models.image_loading import load_image
from hf_ocr.picture_fonts import fonts_for
from hf_ocr.text import PROTOCOLS, ignore_case, normalise

__all__ = [
    "BREAKDOWNS",
    "FIGURES",
    "comparison_to_table",
    "contact_sheet",
    "draw_calibration",
    "draw_curves",
    "figure_protocol",
    "interval_method",
    "most_frequent",
    "percent",
    "report_from_dict",
    "report_to_dict",
    "report_to_table",
    "slice_name",
    "worst_lines",
]

FIGURES = {
    "exact": (
        "exact, letters and digits",
        "lower-cased, all but a-z and 0-9 dropped, accents not folded; nothing dropped where few lines have these",
    ),
    "exact_raw": ("exact, all characters", "{}"),
    "cer": ("CER", "{}"),
    "cer_ignoring_case": ("CER ignoring case", "{}, lower-cased"),
    "wer": ("WER", "{}; words parted at white space"),
    "cer_macro": ("CER, mean over lines", "{}; an empty reference counts 1 where something was read"),
    "wer_macro": ("WER, mean over lines", "{}; an empty reference counts 1 where something was read"),
    "normalised_edit_distance": ("normalised edit distance", "{}; edits over the longer text, mean over lines"),
    "space": ("space error rate", "{}; spaces missed and invented over spaces printed"),
}
"""Field of `Report` -> title and protocol, {} being the form of the texts."""

BREAKDOWNS = {
    "by_length": "characters",
    "by_pixels": "px a character at height 32",
    "by_width": "px wide at height 32",
    "by_rarity": "times its rarest character is printed",
    "by_script": "script",
    "by_source": "source",
}
"""Field of `Report` -> what its buckets or slices are by."""


class Rows(Protocol):
    """What gives a row by its number: a list of rows, or a `datasets.Dataset`."""

    def __getitem__(self, index: int, /) -> Any: ...


def report_to_table(report: Report, num_confusions: int = 10) -> str:
    """The figures, the slices and the most frequent confusions, as lines of plain text. Rates in percent."""
    lines = [f"{report.num_lines} lines; {interval_method(report)}", ""]
    width = max(len(title) for title, _ in FIGURES.values())
    for name, (title, _) in FIGURES.items():
        if figure := getattr(report, name):
            lines.append(f"{title:<{width}}  {percent(figure)}  ({figure_protocol(report, name)})")
    if blanks := report.blanks.num_lines:
        lines.append(
            f"{blanks} blank lines, {report.blanks.num_read} of them read as something, "
            f"{report.blanks.num_characters} characters in all"
        )
    if report.calibration is not None:
        lines += ["", *_calibration_lines(report.calibration)]
    for name, title in BREAKDOWNS.items():
        if slices := getattr(report, name):
            first = max(len(title), *(len(slice_name(s)) for s in slices))
            lines += ["", f"{title:<{first}} {'lines':>7}  {'exact, letters and digits':<28}  CER ignoring case"]
            lines += [
                f"{slice_name(s):<{first}} {s.num_lines:>7}  {percent(s.exact):<28}  {percent(s.cer_ignoring_case)}"
                for s in slices
            ]
    confusions = report.confusions
    for title, counted in (
        (
            "mistaken (printed > read)",
            [(f"{a!r} > {b!r}", n) for (a, b), n in most_frequent(confusions.substitutions)],
        ),
        ("invented", [(repr(c), n) for c, n in most_frequent(confusions.insertions)]),
        ("missed", [(repr(c), n) for c, n in most_frequent(confusions.deletions)]),
    ):
        if counted:
            lines += ["", f"{title}: " + ", ".join(f"{what} {n}" for what, n in counted[:num_confusions])]
    return "\n".join(lines)


def comparison_to_table(differences: Mapping[str, Difference]) -> str:
    """What `hf_ocr.evaluation.compare` found, as lines of plain text. Rates in percent, differences in points."""
    width = max(len(FIGURES[name][0]) for name in differences)
    lines = [f"{'':<{width}}  {'first':>8}  {'second':>8}  {'second - first':<24}  p"]
    for name, d in differences.items():
        rates = f"{100 * d.first:6.2f} %  {100 * d.second:6.2f} %"
        change = f"{100 * d.value:+6.2f} [{100 * d.low:+.2f}, {100 * d.high:+.2f}]"
        lines.append(f"{FIGURES[name][0]:<{width}}  {rates}  {change:<24}  {d.p_value:.4f}")
    return "\n".join(lines)


def report_to_dict(report: Report, num_confusions: int = 30, with_predictions: bool = False) -> dict[str, Any]:
    """The report as plain values for JSON; each figure carries its title and protocol. Rates are fractions.

    Predictions, of which there may be very many, are left out unless asked for; only with them can
    `report_from_dict` read the report back.
    """
    confusions = report.confusions
    result: dict[str, Any] = {
        "num_lines": report.num_lines,
        "interval": f"{interval_method(report)}, seed {report.seed}",
        "protocol": report.protocol,
        "seed": report.seed,
        "figures": {
            name: {"title": title, "protocol": figure_protocol(report, name), **_figure_to_dict(figure)}
            for name, (title, _) in FIGURES.items()
            if (figure := getattr(report, name))
        },
        "blanks": asdict(report.blanks),
        **{name: [_slice_to_dict(entry) for entry in getattr(report, name)] for name in BREAKDOWNS},
        "confusions": {
            "substitutions": [[a, b, n] for (a, b), n in most_frequent(confusions.substitutions)[:num_confusions]],
            "insertions": [[c, n] for c, n in most_frequent(confusions.insertions)[:num_confusions]],
            "deletions": [[c, n] for c, n in most_frequent(confusions.deletions)[:num_confusions]],
        },
        "calibration": None if report.calibration is None else _calibration_to_dict(report.calibration),
    }
    if with_predictions:
        result["predictions"] = [
            {name: value for name, value in asdict(line).items() if value is not None} for line in report.predictions
        ]
    return result


def report_from_dict(content: Mapping[str, Any]) -> Report:
    """The report that `report_to_dict(..., with_predictions=True)` wrote, measured anew from its predictions.

    Raises ValueError for a dictionary without predictions, or with entries that are none of a prediction.
    """
    if not content.get("predictions"):
        raise ValueError(
            f"The report holds no predictions, only {sorted(content)}; expected those it was measured on. "
            "Write it with report_to_dict(report, with_predictions=True)."
        )
    known = {field.name for field in fields(Prediction)}
    for entry in content["predictions"]:
        if unknown := sorted(set(entry) - known):
            raise ValueError(f"A prediction of the report has the entries {unknown}; expected only {sorted(known)}.")
    predictions = [Prediction(**entry) for entry in content["predictions"]]
    return report_on(predictions, content["seed"], content["protocol"])


def figure_protocol(report: Report, name: str) -> str:
    """How the texts were compared for this figure."""
    return FIGURES[name][1].format(PROTOCOLS[report.protocol][1])


def interval_method(report: Report) -> str:
    """How the intervals came about."""
    units = "documents" if any(line.document is not None for line in report.predictions) else "lines"
    return f"95 % percentile bootstrap over {units}, {NUM_RESAMPLINGS} resamplings"


def worst_lines(report: Report, num_lines: int = 40) -> list[Prediction]:
    """The lines read wrongly (ignoring case), most edits a character first; of equals, the more confident first."""
    predictions = report.predictions
    edits, lengths = character_edits(
        [p.prediction for p in predictions], [p.reference for p in predictions], ignore_case
    )
    rates = {p.index: e / max(int(n), 1) for p, e, n in zip(predictions, edits, lengths, strict=True) if e}
    wrong = [p for p in predictions if p.index in rates]
    return sorted(wrong, key=lambda p: (-rates[p.index], -p.score, p.index))[:num_lines]


def contact_sheet(lines: Sequence[Prediction], rows: Rows, columns: int = 2) -> Image.Image:
    """A picture of lines: each crop, under it the reference, then what was read, with the score, red where it differs.

    Args:
        lines: `worst_lines(report)`, or `report.predictions`.
        rows: the rows that were evaluated, by index.
        columns: side by side.

    Returns:
        An RGB image, white, `columns` * 480 px wide; with one sentence on it where there are no lines.
    """
    cell_width, crop_height, text_height, label_width, margin = 480, 64, 20, 80, 8
    cell_height = crop_height + 2 * text_height + 3 * margin
    num_rows = max(-(-len(lines) // columns), 1)
    sheet = Image.new("RGB", (columns * cell_width, num_rows * cell_height), "white")
    draw = ImageDraw.Draw(sheet)
    texts = [normalise(text) for line in lines for text in (line.reference, line.prediction)]
    plain, *fonts = fonts_for(["", *texts], 15)
    if not lines:
        draw.text((margin, margin), "There are no lines to show.", "black", plain)
    rows = undecoded_rows(rows)
    for position, line in enumerate(lines):
        left = position % columns * cell_width + margin
        top = position // columns * cell_height + margin
        crop = load_image(undecoded(rows[line.index]["image"])).convert("RGB")
        scale = min((cell_width - 2 * margin) / crop.width, crop_height / crop.height)
        crop = crop.resize((max(round(crop.width * scale), 1), max(round(crop.height * scale), 1)))
        sheet.paste(crop, (left, top))
        reference, prediction = texts[2 * position : 2 * position + 2]
        below = (("is", "black"), (f"read {line.score:.2f}", "darkgreen" if prediction == reference else "firebrick"))
        for number, (label, colour) in enumerate(below, 2 * position):
            baseline = top + crop_height + margin // 2 + (number % 2 + 1) * text_height - 6
            draw.text((left, baseline), label, colour, plain, anchor="ls")
            text = _shortened(texts[number], fonts[number], cell_width - 2 * margin - label_width)
            draw.text((left + label_width, baseline), text, colour, fonts[number], anchor="ls")
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
    rates.set(xlabel="step", ylabel="CER, %")
    rates.set_yscale("symlog", linthresh=0.1)  # a rate may be 0
    rates.legend()
    picture.savefig(target)


def draw_calibration(report: Report, target: str | os.PathLike[str] | IO[bytes], format: str | None = None) -> None:
    """What the scores of a report are worth: share right over score, and errors over the share of lines kept.

    Args:
        report: with `calibration`.
        target: the picture to write, a file or its name.
        format: "svg", "png" or "pdf"; by the suffix of the name when None.

    Raises:
        ValueError: a report without calibration.
    """
    from matplotlib.figure import Figure as Picture

    if report.calibration is None:
        raise ValueError("The report has no calibration: its reader gave no scores. Read with one that does.")
    picture = Picture(figsize=(10, 4), layout="constrained")
    reliability, curve = picture.subplots(1, 2)
    scores, shares, _ = zip(*report.calibration.bins, strict=True)
    reliability.plot([0, 100], [0, 100], color="lightgrey")
    reliability.plot([100 * score for score in scores], [100 * share for share in shares], marker=".")
    reliability.set(xlabel="score, mean of a bin, %", ylabel="lines right, %", xlim=(0, 100), ylim=(0, 100))
    coverage, risk = zip(*report.calibration.risk_coverage, strict=True)
    curve.plot([100 * share for share in coverage], [100 * share for share in risk], marker=".")
    curve.set(xlabel="lines kept, best scores first, %", ylabel="of these wrong, %", xlim=(0, 100), ylim=(0, None))
    picture.savefig(target, format=format, metadata={"Date": None} if format == "svg" else None)


def _calibration_lines(calibration: Calibration) -> list[str]:
    shown = [calibration.risk_coverage[place] for place in (9, 15, 17, 19)]  # 50, 80, 90 and 100 %
    # Of few lines, several of these are one.
    wrong = ", ".join(f"{100 * risk:.2f} % at {100 * coverage:.0f} %" for coverage, risk in dict.fromkeys(shown))
    return [
        f"scores: calibration error (ECE) {100 * calibration.ece:.2f} %, Brier {calibration.brier:.4f}, "
        f"AURC {calibration.aurc:.4f}",
        f"wrong among the lines kept, best scores first: {wrong}",
    ]


def _shortened(text: str, font: Any, width: int) -> str:
    if font.getlength(text) <= width:
        return text
    while text and font.getlength(text + "…") > width:
        text = text[:-1]
    return text + "…"


def most_frequent(counter: Counter[Any]) -> list[tuple[Any, int]]:
    """As `Counter.most_common`, ties by the character itself: the same report gives the same record."""
    return sorted(counter.items(), key=lambda item: (-item[1], item[0]))


def percent(figure: Figure) -> str:
    """The rate and its interval, in percent."""
    return f"{100 * figure.value:6.2f} % [{100 * figure.low:.2f}, {100 * figure.high:.2f}]"


def slice_name(part: Bucket | Slice) -> str:
    """What the lines of a bucket or slice have in common."""
    if isinstance(part, Slice):
        return part.name
    return f"{part.low} and more" if part.high is None else f"{part.low} to under {part.high}"


def _figure_to_dict(figure: Figure) -> dict[str, Any]:
    rates = {name: round(getattr(figure, name), 6) for name in ("value", "low", "high")}
    return {**rates, "count": round(figure.count, 6), "total": figure.total}


def _calibration_to_dict(calibration: Calibration) -> dict[str, Any]:
    figures = {name: round(getattr(calibration, name), 6) for name in ("ece", "brier", "aurc")}
    bins = [[round(score, 6), round(share, 6), count] for score, share, count in calibration.bins]
    curve = [[round(coverage, 6), round(risk, 6)] for coverage, risk in calibration.risk_coverage]
    return {**figures, "bins": bins, "risk_coverage": curve}


def _slice_to_dict(part: Bucket | Slice) -> dict[str, Any]:
    named = {"low": part.low, "high": part.high} if isinstance(part, Bucket) else {"name": part.name}
    return {
        **named,
        "num_lines": part.num_lines,
        "exact": _figure_to_dict(part.exact),
        "cer_ignoring_case": _figure_to_dict(part.cer_ignoring_case),
    }
