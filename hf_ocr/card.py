"""Renders the model card `model_cards/NAME.md` from the run record beside it; every figure comes from the record."""

import json
import os
import re
import subprocess
import sys
from collections.abc import Iterable, Sequence
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from huggingface_hub import EvalResult, ModelCard, ModelCardData

from hf_ocr.record import DataFile, Result, RunRecord, Usage

__all__ = ["card_for_repository", "render_card", "try_usage", "write_card"]

_METRIC_TYPES = {
    "exact": "exact_match",
    "exact_raw": "exact_match",
    "cer": "cer",
    "cer_ignoring_case": "cer",
    "wer": "wer",
}
_SLICES = {"by_length": "characters", "by_pixels": "px a character at height 32"}
FEWEST_LINES = 30
"""A slice of fewer lines is no ground for a limit."""


def write_card(record_path: str | os.PathLike[str]) -> Path:
    """Renders the card of `NAME.json` into `NAME.md` beside it and returns its path. Needs no network."""
    path = Path(record_path).with_suffix(".md")
    path.write_text(str(render_card(RunRecord.load(record_path))), encoding="utf-8")
    return path


def try_usage(record: RunRecord, image: str, folder: str | os.PathLike[str], standalone: bool = False) -> RunRecord:
    """Runs the lines of "Use" in a process of their own, in `folder`, and returns the record with what they printed.

    Args:
        record: of the model; `load_as` is looked up from `folder`.
        image: the image that they read, as seen from `folder`.
        folder: where to run them.
        standalone: also run, and show, those that do without this package: for a bundle, with its code beside it.

    Raises:
        RuntimeError: they failed; with the last line of what they said. Or they printed something else without this
            package.
    """
    printed = []
    with TemporaryDirectory() as modules:  # transformers copies the code beside the weights there
        environment = os.environ | {"HF_MODULES_CACHE": modules}
        for code in _usage_codes(record.load_as, image, standalone):
            done = subprocess.run(
                [sys.executable, "-c", code], cwd=folder, env=environment, capture_output=True, text=True, check=False
            )
            if done.returncode:
                said = (done.stderr.strip().splitlines() or ["nothing"])[-1]
                raise RuntimeError(f"the lines that the card of {record.name} shows do not run in {folder}: {said}")
            printed.append(done.stdout.strip())
    if len(set(printed)) > 1:
        raise RuntimeError(f"{record.name} reads {' with hf_ocr, without it '.join(printed)}; expected the same text.")
    return replace(record, usage=Usage(image, printed[0], standalone))


def card_for_repository(card: str, repo: str, revision: str | None = None) -> str:
    """The card of a bundle as its repository shows it: the lines of "Use" take model and image from there.

    Args:
        card: the text of README.md; all but these lines stays as it is.
        repo: "user/name".
        revision: branch to read from; the main one when None.
    """
    at = f", revision={_quoted(revision)}" if revision else ""

    def of_repository(found: re.Match[str]) -> str:
        return (
            "from huggingface_hub import hf_hub_download\nfrom transformers import pipeline\n\n"
            f'line = hf_hub_download("{repo}", "{found["file"]}"{at})\n'
            f'print(pipeline("image-to-text", model="{repo}"{at}{found["trust"]})(line))'
        )

    return _READS_FROM_FOLDER.sub(of_repository, card)


def render_card(record: RunRecord) -> ModelCard:
    """The card of a record: metadata for the Hub (figures as fractions), then the text (figures in percent).

    What the record does not hold is left out, heading and all.
    """
    sections = (
        ("What it is", _what_it_is(record)),
        ("Use", _use(record)),
        ("Alphabet", _alphabet(record)),
        ("Accepted input", _accepted_input(record)),
        ("Training data", _training_data(record)),
        ("Training", _training(record)),
        ("Results", _results(record)),
        ("Speed", _speed(record)),
        ("Limits", "\n".join(f"- {limit}" for limit in (*record.limits, *_measured_limits(record)))),
        ("How to reproduce", _how_to_reproduce(record)),
    )
    body = "\n\n".join(f"## {title}\n\n{text}" for title, text in sections if text)
    return ModelCard(f"---\n{_metadata(record).to_yaml()}\n---\n\n# {record.name}\n\n{body}\n")


def _metadata(record: RunRecord) -> ModelCardData:
    results = [
        EvalResult(
            task_type="image-to-text",
            dataset_type=result.dataset,
            dataset_name=result.title or result.dataset,
            dataset_split=result.split,
            metric_type=_METRIC_TYPES[name],
            metric_name=figure["title"],
            metric_value=figure["value"],
            metric_args={
                "protocol": figure["protocol"],
                "interval": {"low": figure["low"], "high": figure["high"], "method": result.report.get("interval")},
            },
        )
        for result in record.results
        for name, figure in _headline(result).items()
    ]
    return ModelCardData(
        model_name=record.name,
        license=record.licence,
        language=list(record.languages) or None,
        library_name="transformers",
        pipeline_tag="image-to-text",
        tags=["ocr", "text-recognition", record.model["family"]],
        metrics=list(dict.fromkeys(result.metric_type for result in results)) or None,
        eval_results=results or None,
    )


def _measured_limits(record: RunRecord) -> Iterable[str]:
    """The kind of line that each set was read worst of, by length and by size of print, where it stands out."""
    for result in record.results:
        whole = result.report["figures"]["exact"]
        for key, unit in _SLICES.items():
            sliced = [b for b in result.report.get(key, ()) if b["num_lines"] >= FEWEST_LINES]
            worst = min(sliced, key=lambda bucket: bucket["exact"]["value"], default=None)
            if worst is not None and worst["exact"]["high"] < whole["value"]:
                yield (
                    f"{result.title or result.dataset}, {result.split}: of the {worst['num_lines']:,} lines with "
                    f"{_range(worst)} {unit}, {100 * worst['exact']['value']:.1f} % are right (letters and digits), "
                    f"of all {100 * whole['value']:.1f} %."
                )


def _range(bucket: dict[str, Any]) -> str:
    return f"{bucket['low']} and more" if bucket["high"] is None else f"{bucket['low']} to under {bucket['high']}"


def _what_it_is(record: RunRecord) -> str:
    facts = [f"- family: `{record.model['family']}`"]
    if "parameters" in record.model:
        facts.append(f"- parameters: {record.model['parameters']:,}")
    if "language_model" in record.model:
        tables = record.model["language_model"]
        facts.append(
            f"- language model: {tables['n_grams']:,} n-grams of up to {tables['order']} characters, by which doubtful "
            "texts are chosen too"
        )
    if "dtype" in record.model:
        facts.append(f"- weights: {record.model['dtype']}" + _size(record.weights))
    facts.append(f"- licence: {record.licence}")
    if record.created:
        facts.append(f"- trained: {record.created}")
    pictures = "".join(f"\n\n![{shown}]({file})" for file, shown in record.pictures.items())
    return f"{record.description}{pictures}\n\n" + "\n".join(facts)


def _size(files: Sequence[DataFile]) -> str:
    return f", {sum(file.size_bytes for file in files) / 1e6:.1f} MB" if files else ""


_READS_FROM_FOLDER = re.compile(
    r'from transformers import pipeline\n\nprint\(pipeline\("image-to-text", model="(?P<folder>.+)"'
    r'(?P<trust>(?:, trust_remote_code=True)?)\)\("(?P=folder)/(?P<file>.+)"\)\)'
)
"""What `_usage_codes` gives for an image in the folder of the model."""


def _quoted(text: str) -> str:
    """As in a line of Python."""
    return json.dumps(text, ensure_ascii=False)


def _usage_codes(load_as: str | None, image: str, standalone: bool) -> list[str]:
    """With this package; and, if `standalone`, without it."""
    model = f", model={_quoted(load_as)}" if load_as else ""
    ways = [("import hf_ocr\n", model)] + ([("", f"{model}, trust_remote_code=True")] if standalone else [])
    return [
        f'{first}from transformers import pipeline\n\nprint(pipeline("image-to-text"{arguments})({_quoted(image)}))'
        for first, arguments in ways
    ]


def _use(record: RunRecord) -> str:
    usage = record.usage or Usage("line.png", "")
    codes = _usage_codes(record.load_as, usage.image, usage.standalone)
    with_package, *without = (f"```python\n{code}\n```" for code in codes)
    parts = [with_package]
    if without:
        parts += ["Without the package hf_ocr, by the Python files beside the weights:", *without]
    if record.usage:
        how = "Run on these files, both printed" if without else "This was run, and printed"
        parts.append(f"{how}\n\n~~~~text\n{usage.printed}\n~~~~")
    parts.append(
        "The answer is `[{'generated_text': ...}]`. `return_scores=True` adds the confidence and\n"
        '`return_boxes="char"` or `"word"` the boxes in px of the given image.'
    )
    return "\n\n".join(parts)


def _alphabet(record: RunRecord) -> str:
    alphabet = record.model.get("alphabet")
    if not alphabet:
        return ""
    visible = alphabet.replace(" ", "")
    rows = [visible[start : start + 64] for start in range(0, len(visible), 64)]
    shown = "\n".join(("~~~~text", *rows, "~~~~"))
    space = " The space is one of them." if " " in alphabet else ""
    return f"{len(alphabet)} characters, each one code point in NFC.{space} It writes nothing else.\n\n{shown}"


def _accepted_input(record: RunRecord) -> str:
    limits = record.model.get("input") or {}
    sentences = ["One line or word an image, as a path, URL, bytes, PIL image or array."]
    height, narrowest, widest = (limits.get(name) for name in ("height", "min_width", "max_width"))
    if height:
        sentences.append("Of a loose crop on even ground the part with the text is taken.")
    if height and narrowest and narrowest == widest:
        sentences.append(f"It is stretched to {widest} x {height} px.")
    else:
        if height:
            sentences.append(f"It is scaled to a height of {height} px, the aspect kept.")
            sentences.append("Tilted and hard to read, it is made level.")
        if narrowest:
            sentences.append(f"Narrower than {narrowest} px after that, it is widened to it.")
        if widest:
            sentences.append(f"Wider than {widest} px after that, it is refused: cut it.")
    if "num_channels" in limits:
        sentences.append("Colour is turned to grey." if limits["num_channels"] == 1 else "It is read in colour.")
    return " ".join(sentences)


def _training_data(record: RunRecord) -> str:
    if not record.training_data:
        return ""
    rows = [
        (s.name, s.split or "", "" if s.num_lines is None else f"{s.num_lines:,}", s.origin or "", s.licence or "")
        for s in record.training_data
    ]
    return _table(("set", "split", "lines", "origin", "licence"), rows)


def _training(record: RunRecord) -> str:
    facts = []
    if record.hours is not None:
        facts.append(f"- hours: {record.hours:g}")
    if record.steps is not None:
        facts.append(f"- steps: {record.steps:,}")
    if record.lines_seen is not None:
        facts.append(f"- lines read, repetitions counted: {record.lines_seen:,}")
    if record.hardware:
        facts.append("- hardware: " + "; ".join(f"{name} {_listed(value)}" for name, value in record.hardware.items()))
    if record.settings:
        rows = [(f"`{name}`", f"`{json.dumps(value, ensure_ascii=False)}`") for name, value in record.settings.items()]
        facts += ["", _table(("setting", "value"), rows)]
    return "\n".join(facts).strip()


def _results(record: RunRecord) -> str:
    if not record.results:
        return ""
    titles: dict[str, str] = {}
    protocols: dict[str, None] = {}
    for result in record.results:
        for name, figure in _headline(result).items():
            titles.setdefault(name, figure["title"])
            protocols[f"- {figure['title']}: {figure['protocol']}."] = None
    rows = [
        (
            f"{result.title or result.dataset}, {result.split}",
            f"{result.report['num_lines']:,}",
            *(_percent(result.report["figures"].get(name)) for name in titles),
        )
        for result in record.results
    ]
    intervals = dict.fromkeys(result.report["interval"] for result in record.results if "interval" in result.report)
    parts = [_table(("set", "lines", *titles.values()), rows)]
    note = "Error rates are summed edits over summed reference lengths."
    if intervals:
        note += f" In brackets the interval: {'; '.join(intervals)}."
    parts += [note, "\n".join(protocols), *_beside_before(record)]
    parts += [text for result in record.results if (text := _details(result))]
    return "\n\n".join(parts)


def _beside_before(record: RunRecord) -> Iterable[str]:
    now = {(result.dataset, result.split): result.report["figures"] for result in record.results}
    names = ("exact", "cer_ignoring_case")
    rows, titles = [], {}
    for result in record.results_before:
        before, after = result.report["figures"], now[result.dataset, result.split]
        titles = {name: before[name]["title"] for name in names}
        percents = (_percent(figures[name]) for name in names for figures in (before, after))
        rows.append((f"{result.title or result.dataset}, {result.split}", *percents))
    if rows:
        header = [f"{title}, {when}" for title in titles.values() for when in ("before", "now")]
        yield "The weights that were here before these, on the same lines:"
        yield _table(("set", *header), rows)


def _headline(result: Result) -> dict[str, Any]:
    """The figures that a card shows; the report may hold more."""
    return {name: figure for name, figure in result.report["figures"].items() if name in _METRIC_TYPES}


def _details(result: Result) -> str:
    parts = []
    for key, title in _SLICES.items():
        buckets = result.report.get(key)
        if buckets:
            rows = [
                (
                    _range(b),
                    f"{b['num_lines']:,}",
                    _percent(b["exact"]),
                    _percent(b["cer_ignoring_case"]),
                )
                for b in buckets
            ]
            parts.append(_table((title, "lines", "exact, letters and digits", "CER ignoring case"), rows))
    confusions = result.report.get("confusions", {})
    said = []
    if confusions.get("substitutions"):
        pairs = (f"{_character(a)} as {_character(b)} {n}" for a, b, n in confusions["substitutions"][:10])
        said.append("Read wrongly most often: " + ", ".join(pairs) + ".")
    for key, title in (("insertions", "Invented"), ("deletions", "Missed")):
        if confusions.get(key):
            said.append(f"{title}: " + ", ".join(f"{_character(c)} {n}" for c, n in confusions[key][:6]) + ".")
    if said:
        parts.append(" ".join(said))
    return f"### {result.title or result.dataset}, {result.split}\n\n" + "\n\n".join(parts) if parts else ""


def _speed(record: RunRecord) -> str:
    if not record.speed:
        return ""
    rows = [
        (s.what, s.reader, f"{s.value:,.4g}" if s.value < 1000 else f"{s.value:,.0f}", s.unit) for s in record.speed
    ]
    conditions = dict.fromkeys(s.conditions for s in record.speed if s.conditions)
    return "\n\n".join((_table(("what", "reader", "value", "unit"), rows), *(f"{c}." for c in conditions)))


def _how_to_reproduce(record: RunRecord) -> str:
    parts = []
    for title, command in (("Train", record.command), ("Measure", record.evaluation_command)):
        if command:
            parts.append(f"{title}:\n\n```bash\n{command}\n```")
    if record.versions:
        parts.append("Versions: " + ", ".join(f"{name} {version}" for name, version in record.versions.items()) + ".")
    files = list(_files(record))
    if files:
        rows = [(use, file.name, f"{file.size_bytes:,}", f"`{file.sha256}`") for use, file in files]
        parts.append(_table(("use", "file", "bytes", "SHA-256"), rows))
    return "\n\n".join(parts)


def _files(record: RunRecord) -> Iterable[tuple[str, DataFile]]:
    yield from (("weights", file) for file in record.weights)
    yield from (("training", file) for source in record.training_data for file in source.files)
    yield from (("measuring", file) for result in record.results for file in result.files)


def _table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A Markdown table without the columns that are empty throughout."""
    kept = [column for column in range(len(header)) if any(row[column] for row in rows)]
    lines = [[header[column] for column in kept], ["---"] * len(kept)]
    lines += [[row[column].replace("|", "\\|").replace("\n", " ") for column in kept] for row in rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def _percent(figure: dict[str, Any] | None) -> str:
    if figure is None:
        return ""
    return f"{100 * figure['value']:.2f} % [{100 * figure['low']:.2f}, {100 * figure['high']:.2f}]"


def _character(character: str) -> str:
    if character == " ":
        return "space"
    return f"`` {character} ``" if character == "`" else f"`{character}`"


def _listed(value: Any) -> str:
    return ", ".join(map(str, value)) if isinstance(value, list) else str(value)
