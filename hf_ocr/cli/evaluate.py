"""`hf-ocr evaluate`: how well a model reads labelled lines, and whether another reads them better."""

import argparse
import json
import math
import sys
import time
from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

from PIL.Image import Image as Picture
from tqdm import tqdm

from hf_ocr.cli.kept_lines import keep, open_kept
from hf_ocr.cli.loading import CommandError, add_model_argument, at_least, load_reader, one_line
from hf_ocr.data.lines import read_lines
from hf_ocr.evaluation import Prediction, compare, report_on
from hf_ocr.models.image_loading import load_image
from hf_ocr.models.reading import IMAGE_ERRORS
from hf_ocr.record import fingerprint, hardware, versions
from hf_ocr.registration import default_checkpoint, find_checkpoint
from hf_ocr.report import comparison_to_table, report_to_dict, report_to_table, worst_lines
from hf_ocr.report_html import report_to_html
from hf_ocr.text import PROTOCOLS

READ_WITH = ("hf-ocr", "torch", "transformers")  # whose versions decide what is read

EPILOG = """\
DATA is a parquet file, a folder of parquet files, a folder with metadata.csv or metadata.jsonl beside its images, or a
folder of pairs like line.png and line.gt.txt. Where the rows have a column "document", whole documents are drawn for
the intervals; those of a column "source" are measured one by one. A line that the model cannot read counts as read
empty, is named on stderr, and makes the exit status 1.

With --output, the folder gets report.json, report.html and the readings, written as they come: the same command again
goes on where it stopped, and measures without reading where all is read.

protocols (how texts are compared):
{protocols}

examples:
  hf-ocr evaluate test.parquet
  hf-ocr evaluate lines/ --model runs/mine/best --against microsoft/trocr-small-printed --output evaluation
  hf-ocr evaluate words.parquet --protocol 36
"""


@dataclass(frozen=True)
class Readings:
    """The lines as a model read them: `seconds` of reading over all runs, `errors` of the lines it could not read.

    `origin`: the model by content, where readings are kept.
    """

    name: str
    origin: Mapping[str, Any] | None
    predictions: Sequence[Prediction]
    seconds: float
    errors: Sequence[str]

    @property
    def lines_per_second(self) -> float:
        """Over all runs, loading of images included, of the model not."""
        return len(self.predictions) / max(self.seconds, 1e-9)


def add_parser(verbs: Any) -> None:
    """Add the verb to the command."""
    protocols = "\n".join(f"  {name:<15} {what}" for name, (_, what) in PROTOCOLS.items())
    parser = verbs.add_parser(
        "evaluate",
        help="measure how well a model reads labelled lines",
        description="Measures how well a model reads labelled lines, and whether another one reads them better.",
        epilog=EPILOG.format(protocols=protocols),
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("data", nargs="+", metavar="DATA", help="labelled lines")
    add_model_argument(parser)
    parser.add_argument("--against", metavar="M", help="another model, to be compared on the same lines")
    parser.add_argument("--protocol", choices=PROTOCOLS, default="normal", help="how texts are compared (see below)")
    parser.add_argument("--output", type=Path, metavar="FOLDER", help="for the report and the readings")
    parser.add_argument("--image-column", default="image", metavar="NAME")
    parser.add_argument("--text-column", default="text", metavar="NAME")
    parser.add_argument(
        "--batch-size", type=at_least(1), metavar="N", help="images read at once (default: 64; for a decoder 1)"
    )
    parser.add_argument("--seed", type=at_least(0), default=0, help="of the intervals and tests")
    parser.set_defaults(run=run)


def run(options: argparse.Namespace) -> int:
    """Read, measure, print; 1 when a line was not read."""
    try:
        import matplotlib  # noqa: F401  # what is missing is said before hours of reading, not after
        import rapidfuzz  # noqa: F401
        from datasets import Image, disable_progress_bars
    except ImportError as error:
        raise CommandError(f'{error.name} is not installed. Install it with pip install "hf-ocr[eval]".') from error
    disable_progress_bars()  # those of datasets show in pipes and files too
    try:
        rows = read_lines(options.data, options.image_column, options.text_column, ("document", "source"))
    except ValueError as error:
        raise CommandError(str(error)) from error
    rows = rows.cast_column("image", Image(decode=False))  # one that is broken is an error of its own line
    check(rows["text"][:], options)
    models = [options.model] if options.against is None else [options.model, options.against]
    readers = [load_reader(model) for model in models]
    # What is not kept needs no origin, and is not read twice.
    data = [asdict(fingerprint(source)) for source in options.data if options.output]
    readings = []
    for model, reader, file in zip(models, readers, ("readings.jsonl", "readings-against.jsonl"), strict=False):
        folder = default_checkpoint() if model is None else Path(find_checkpoint(model))
        origin: dict[str, Any] = {}
        if options.output:
            origin["model"] = (
                asdict(fingerprint(folder))
                if folder.is_dir()
                else {"name": model, "revision": getattr(reader.model.config, "_commit_hash", None)}
            )
            origin |= {"data": data, "columns": [options.image_column, options.text_column]}
            origin["versions"] = {name: version for name, version in versions().items() if name in READ_WITH}
        name = "/".join(folder.parts[-2:]) if model else folder.name
        readings.append(read_all(name, reader, rows, origin, options.output and options.output / file, options))
    return report(readings, rows, options)


def check(texts: Sequence[str | None], options: argparse.Namespace) -> None:
    """What would make hours of reading worthless.

    Raises:
        CommandError: rows without text, texts of which the protocol leaves nothing, an output among the input.
    """
    unlabelled = [index for index, text in enumerate(texts) if text is None]
    if unlabelled:
        raise CommandError(
            f"{len(unlabelled)} rows have no text, the first is row {unlabelled[0]}. Leave them out; the text of a "
            "blank image is the empty string."
        )
    if not any(PROTOCOLS[options.protocol][0](text) for text in texts if text):
        raise CommandError(
            f"the protocol {options.protocol} leaves nothing of the {len(texts)} texts, so there is nothing to read. "
            "Expected a character in at least one: choose another --protocol."
        )
    if options.output and options.output.is_file():
        raise CommandError(f"--output {options.output}: is a file. Expected a folder, which is made if it is missing.")
    for source in [*options.data, options.model, options.against]:
        if options.output and source and options.output.resolve().is_relative_to(Path(source).resolve()):
            raise CommandError(
                f"--output {options.output} lies in {source}, which it would change. Name another folder."
            )


def read_all(
    name: str, reader: Any, rows: Any, origin: dict[str, Any], file: Path | None, options: argparse.Namespace
) -> Readings:
    """What the reader makes of the rows; of those in the file what it made of them, and the others are put there."""
    kept, stream = ([], None) if file is None else open_kept(file, origin)
    done = kept[-1]["seconds"] if kept else 0.0
    start = time.perf_counter() - done
    waiting: deque[dict[str, Any]] = deque()  # what is known of the images that were taken and not read yet

    def images() -> Iterator[Any]:
        for index in range(len(kept), len(rows)):
            row = rows[index]
            picture = load(row["image"])
            width, height = (0, 0) if picture is None else picture.size
            of_row = {key: str(row[key]) for key in ("document", "source") if row.get(key) is not None}
            waiting.append({"reference": row["text"], "width": width, "height": height, **of_row})
            yield row["image"] if picture is None else picture  # the pipeline says what is wrong with it

    bar = tqdm(total=len(rows), initial=len(kept), desc=name, unit="line", file=sys.stderr, disable=None)
    results = reader(images(), on_error="skip", return_scores=True, batch_size=options.batch_size)
    with bar, stream or nullcontext():
        try:
            for (result,) in results:
                entry = {
                    "index": len(kept),
                    **waiting.popleft(),
                    "prediction": result["generated_text"] or "",
                    "score": score if math.isfinite(score := result.get("score", 0.0)) else 0.0,
                    "seconds": round(time.perf_counter() - start, 3),
                }
                if "error" in result:
                    entry["error"] = result["error"]
                kept.append(entry)
                if stream is not None:
                    keep(stream, entry)
                bar.update()
        except ValueError as error:  # what this model cannot do
            raise CommandError(one_line(error)) from error
    known = {field.name for field in fields(Prediction)}
    predictions = [Prediction(**{key: value for key, value in entry.items() if key in known}) for entry in kept]
    errors = [f"row {entry['index']}: {entry['error']}" for entry in kept if "error" in entry]
    return Readings(name, origin.get("model"), predictions, kept[-1]["seconds"], errors)


def report(readings: Sequence[Readings], rows: Any, options: argparse.Namespace) -> int:
    """The tables on stdout, and the files of the folder."""
    reports = [report_on(read.predictions, options.seed, options.protocol) for read in readings]
    for read, measured in zip(readings, reports, strict=True):
        for error in read.errors:
            print(f"hf-ocr: {read.name}: {error}", file=sys.stderr)
        print(f"{read.name}: {read.lines_per_second:,.1f} lines/s\n{report_to_table(measured)}\n")
    differences = compare(*reports) if len(reports) > 1 else {}
    if differences:
        print(f"first: {readings[0].name}, second: {readings[1].name}\n{comparison_to_table(differences)}\n")
    if options.output is not None:
        content = {
            "models": [
                {
                    "name": read.name,
                    "fingerprint": read.origin,
                    "lines_per_second": round(read.lines_per_second, 2),
                    "unread": len(read.errors),
                    "report": report_to_dict(measured, with_predictions=True),
                }
                for read, measured in zip(readings, reports, strict=True)
            ],
            "differences": {name: asdict(difference) for name, difference in differences.items()},
            "hardware": hardware(),
            "versions": versions(),
        }
        text = json.dumps(content, ensure_ascii=False, indent=1, allow_nan=False)
        (options.output / "report.json").write_text(text + "\n", encoding="utf-8")
        pictures = {line.index: load(rows[line.index]["image"]) for line in worst_lines(reports[0])}
        names = [read.name for read in readings]
        page = report_to_html(
            reports[0],
            f"{' and '.join(names)} on {', '.join(Path(source).name for source in options.data)}",
            {index: picture for index, picture in pictures.items() if picture is not None},
            second=reports[1] if differences else None,
            names=names,
            facts={read.name: f"{read.lines_per_second:,.1f} lines/s" for read in readings},
        )
        (options.output / "report.html").write_text(page, encoding="utf-8")
    return 1 if any(read.errors for read in readings) else 0


def load(source: dict[str, Any] | None) -> Picture | None:
    """The image of a row of `datasets` that was not decoded; None where it cannot be opened."""
    if source is None:
        return None
    try:
        return load_image(source["path"] if source["bytes"] is None else source["bytes"])
    except IMAGE_ERRORS:
        return None
