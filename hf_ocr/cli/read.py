"""`hf-ocr read`: the text of image files."""

import argparse
import glob
import json
import os
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import torch
from PIL import Image
from tqdm import tqdm

from hf_ocr.batch_reading import fingerprint_checkpoint
from hf_ocr.cli.loading import CommandError, add_model_argument, at_least, load_reader, one_line
from hf_ocr.data.image_sets import ImageFiles, StreamedImages
from hf_ocr.shards import RECORD, read_to_shards

SUFFIXES = frozenset(".bmp .gif .jp2 .jpeg .jpg .pbm .pgm .png .ppm .tif .tiff .webp".split())
ADDRESSES = ("http://", "https://")
ESCAPES = str.maketrans({"\t": r"\t", "\n": r"\n", "\r": r"\r"})  # of what separates columns and images
# Set for every process by what launches several, and what holds for one alone.
PROCESS = {"RANK": "0", "WORLD_SIZE": "1", "LOCAL_RANK": "0"}

EPILOG = """\
One image: its text. Several: a line each, the name, a tab, the text (then the score). With --boxes a line for each
word follows, a tab before it: left,top,right,bottom in px, a tab, the word (then its score). With --json an object a
line: image, text, score, words (text, score, box), or image, text (null) and error.

An image that cannot be read is named on stderr, the others go on, and the exit status is 1.

With --output, for images in any number: parquet files with name, text, score, words (text, score, box) and error, a row
an image, in the order of the images; --json, --scores and --boxes change nothing there. IMAGE may then be a parquet
file, a folder of them, or what `datasets` loads by name from the Hub, which is streamed. The same command goes on where
a killed one stopped; `accelerate launch` shares the work among processes and machines. An image that cannot be read has
its error in its row, and the exit status is 0.

examples:
  hf-ocr read line.png
  hf-ocr read receipts/ more/*.jpg > texts.tsv
  hf-ocr read line.png --scores --boxes
  hf-ocr read "scans/**/*.tif" --json --batch-size 128 > texts.jsonl
  hf-ocr read line.png --model microsoft/trocr-small-printed
  hf-ocr read scans/ --output texts/
  hf-ocr read owner/data-set --split train --output texts/
  accelerate launch --num_processes 8 -m hf_ocr.cli read lines/*.parquet --output texts/   (on CPUs also --multi_gpu)
"""


class Source(NamedTuple):
    """Something to read: a path or an address; or one that is out of the question, and why."""

    name: str
    error: str | None = None


def add_parser(verbs: Any) -> None:
    """Add the verb to the command."""
    parser = verbs.add_parser(
        "read",
        help="print the text of images",
        description="Prints the text of images of lines and words.",
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("images", nargs="+", metavar="IMAGE", help="file, folder (with all below), glob or address")
    parser.add_argument("--json", action="store_true", help="print one JSON object a line")
    parser.add_argument("--scores", action="store_true", help="with the probability of each text, 0 to 1")
    parser.add_argument("--boxes", action="store_true", help="with the place of each word")
    add_model_argument(parser)
    parser.add_argument(
        "--batch-size", type=at_least(1), metavar="N", help="images read at once (default: 64; for a decoder 1)"
    )
    shards = parser.add_argument_group("images in any number")
    shards.add_argument("--output", metavar="FOLDER", help="write parquet files into this folder instead of printing")
    shards.add_argument(
        "--shard-size", type=at_least(1), default=1024, metavar="N", help="rows of a file (default: 1024)"
    )
    shards.add_argument("--config", metavar="NAME", help="configuration of the data set, where it has several")
    shards.add_argument("--split", metavar="NAME", help="split of the data set, where it has several")
    shards.add_argument("--image-column", metavar="NAME", help="column with the images (default: the first such)")
    parser.set_defaults(run=run)


def run(options: argparse.Namespace) -> int:
    """Read, and print or write; 1 when an image to be printed was not read."""
    if options.output is not None:
        write(options)
        return 0
    sources = list(find_sources(options.images))
    readable = [source.name for source in sources if source.error is None]
    readings = read_all(readable, options) if readable else iter(())
    # `disable=None` shows the bar on a terminal only.
    bar = tqdm(total=len(sources), unit="image", file=sys.stderr, disable=None if len(sources) > 1 else True)
    failures = 0
    with bar:
        for source in sources:
            result = next(readings) if source.error is None else {"error": source.error}
            error = result.get("error")
            if error is not None:
                failures += 1
                if source.name not in error:
                    error = f"{source.name}: {error}"
                tqdm.write(f"hf-ocr: {error}", file=sys.stderr)
            lines = as_json(source.name, result, options) if options.json else as_text(source.name, result, sources)
            for line in lines:
                tqdm.write(line, file=sys.stdout)
            sys.stdout.flush()
            bar.update()
    return 1 if failures else 0


def read_all(names: Sequence[str], options: argparse.Namespace) -> Iterator[dict[str, Any]]:
    """The result of the pipeline for each image, in order, with "error" where one cannot be read."""
    reader = load_reader(options.model)
    settings: dict[str, Any] = {"on_error": "skip", "num_workers": os.cpu_count() if len(names) > 1 else 0}
    if options.batch_size is not None:
        settings["batch_size"] = options.batch_size
    if options.scores:
        settings["return_scores"] = True
    if options.boxes:
        settings["return_boxes"] = "word"
    try:
        for result in reader(iter(names), **settings):
            yield result[0]
    except ValueError as error:  # what this model cannot do
        raise CommandError(one_line(error)) from error


def write(options: argparse.Namespace) -> None:
    """Read this process's part of the images into shards."""
    rank, world, device = _process()
    try:
        images = find_images(options)
        reader = load_reader(options.model, device)
        model = reader.model.name_or_path
        here = int(os.environ.get("LOCAL_WORLD_SIZE", world))
        settings: dict[str, Any] = {"num_workers": max(1, (os.cpu_count() or 1) // here)}
        if options.batch_size is not None:
            settings["batch_size"] = options.batch_size
        if _places_words(reader):
            settings["return_boxes"] = "word"
        read, failed = read_to_shards(
            images,
            reader,
            options.output,
            fingerprint_checkpoint(model) if os.path.isdir(model) else f"{model}@{reader.model.config._commit_hash}",
            options.shard_size,
            rank,
            world,
            **settings,
        )
        print(f"{options.output}: {read} images read{f', {failed} not: see the column error' if failed else ''}")
    except ImportError as error:
        raise CommandError(f'{one_line(error)}. Install what is missing with pip install "hf-ocr[train]".') from error
    except (ValueError, OSError) as error:
        raise CommandError(one_line(error)) from error


def find_images(options: argparse.Namespace) -> ImageFiles | StreamedImages:
    """Parquet files, image files, or the one data set, that the arguments name.

    Raises:
        CommandError: there is none, or a mixture: a long run should not find out at its end.
        ValueError: it cannot be loaded as a data set.
    """
    columns = (options.config, options.split, options.image_column)
    first = options.images[0] if len(options.images) == 1 else ""
    if os.path.isdir(first) and (options.split or options.config):
        return StreamedImages(first, *columns)
    parquet = [_parquet_files(argument, options.output) for argument in options.images]
    if all(parquet):
        return StreamedImages([path for paths in parquet for path in paths], *columns)
    if any(parquet):
        raise CommandError(
            f"{', '.join(options.images)}: parquet files and others. Expected one kind: read one after the other."
        )
    sources = list(find_sources(options.images))
    missing = next((source for source in sources if source.error is not None), None)
    if missing is not None and first and not glob.has_magic(first):
        return StreamedImages(first, *columns)  # by a name that is no path, or a folder of another kind
    if missing is not None:
        raise CommandError(f"{missing.name}: {missing.error}")
    return ImageFiles([source.name for source in sources])


def _parquet_files(argument: str, output: str) -> list[str]:
    """The parquet files that an argument names, without what is, or was, written by this command."""
    if os.path.isdir(argument):
        paths = sorted(
            path
            for path in Path(argument).rglob("*.parquet")
            if path.stem != "metadata" and not (path.parent / RECORD).exists()
        )
    elif os.path.isfile(argument):
        paths = [Path(argument)]
    else:
        paths = sorted(map(Path, glob.glob(argument, recursive=True)))
    return [
        str(path)
        for path in paths
        if path.suffix == ".parquet" and path.is_file() and not path.resolve().is_relative_to(Path(output).resolve())
    ]


def _places_words(reader: Any) -> bool:
    """Whether this model can tell where its words stand: asked with a blank image."""
    try:
        reader(Image.new("L", (64, 32), 255), return_boxes="word")
    except ValueError:
        return False
    return True


def _process() -> tuple[int, int, int | None]:
    """Number of this process, of all, and of its accelerator, as `accelerate launch` and `torchrun` say.

    No process group is made: processes that need no word from each other should not wait for, or fail with, another.
    """
    rank, world, local = (int(os.environ.get(name, default)) for name, default in PROCESS.items())
    return rank, world, local if torch.accelerator.is_available() else None


def find_sources(arguments: Sequence[str]) -> Iterator[Source]:
    """Files as they are, the images in and below folders, what globs match, each in the order of its name."""
    for argument in arguments:
        if argument.lower().startswith(ADDRESSES) or os.path.isfile(argument):
            yield Source(argument)
        elif os.path.isdir(argument):
            yield from _in_folder(argument)
        elif os.path.exists(argument):  # a pipe or a device, of which `load_image` says what it is
            yield Source(argument)
        elif matches := sorted(glob.glob(argument, recursive=True)):
            for match in matches:
                if os.path.isfile(match):
                    yield Source(match)
                elif "**" not in argument:  # which matches every folder, and the files in them as well
                    yield from _in_folder(match)
        elif glob.has_magic(argument):
            yield Source(argument, "no file matches. Check the pattern; relative ones start at the working directory.")
        else:
            yield Source(argument, "no such file or folder. Check the spelling.")


def _in_folder(folder: str) -> Iterator[Source]:
    files = sorted(
        path
        for path in Path(folder).rglob("*")
        if path.suffix.lower() in SUFFIXES and not path.name.startswith(".") and path.is_file()
    )
    if not files:
        yield Source(folder, f"no images in this folder. Expected files ending in {', '.join(sorted(SUFFIXES))}.")
    for path in files:
        yield Source(str(path))


def as_json(name: str, result: dict[str, Any], options: argparse.Namespace) -> Iterator[str]:
    """One object, with the keys that were asked for."""
    record: dict[str, Any] = {"image": name, "text": result.get("generated_text")}
    for key in ("error", "score", "words"):
        if key in result:
            record[key] = result[key]
    for word in record.get("words", []):
        word["box"] = [round(side, 2) for side in word["box"]]
        if not options.scores:
            del word["score"]
    line = json.dumps(record, ensure_ascii=False)
    # The name of a file may hold bytes that are no text: JSON has them as escapes only.
    yield line if line.isascii() or _encodes(line) else json.dumps(record)


def as_text(name: str, result: dict[str, Any], sources: Sequence[Source]) -> Iterator[str]:
    """One line for the image, one for each word where boxes were asked for; nothing for an image that was not read."""
    if result.get("error") is not None:
        return
    columns = [name.translate(ESCAPES)] if len(sources) > 1 else []
    yield "\t".join([*columns, _flat(result["generated_text"]), *_score(result)])
    for word in result.get("words", []):
        box = ",".join(f"{side:.0f}" for side in word["box"])
        yield "\t".join(["", box, _flat(word["text"]), *(_score(word) if "score" in result else [])])


def _score(result: dict[str, Any]) -> list[str]:
    return [f"{result['score']:.4f}"] if "score" in result else []


def _flat(text: str) -> str:
    """Without tabs and line breaks, which separate columns and images."""
    return " ".join(text.split())


def _encodes(line: str) -> bool:
    try:
        line.encode()
    except UnicodeEncodeError:
        return False
    return True
