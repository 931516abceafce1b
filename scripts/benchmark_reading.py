"""Speed and accuracy of reading, beside RapidOCR (PP-OCRv6 small) and Tesseract, in one run on one machine.

    python scripts/benchmark_reading.py --data DATA          receipt lines and words: the test files in this folder
    python scripts/benchmark_reading.py --set mine=lines.parquet --images 500 --output speed.json

Each reader goes the whole way: encoded bytes of an image in memory, decoding, preprocessing, model, text. Throughput is
the best of the rounds, in which the readers take turns; latency the median over single images, one at a time. What the
image processor does alone is timed too, on one core.

- hf_ocr: the pipeline, in bfloat16 and in float32; the one it takes by itself on this CPU is marked.
- hf_ocr, ONNX (extra `bench`): the folder that `hf-ocr export` writes, in float32, and in int8 with --calibration.
- RapidOCR (extra `bench`): recognition only, image by image through its own call, and in batches through its
  recogniser, which sorts by width; ONNX Runtime has as many threads as the others.
- Tesseract (the program `tesseract`): --psm 7, a process an image, and a process a core over lists of files, which is
  its fastest way; the files are written before the clock starts.

A parquet file has a column `image` (bytes, path) and a column `text`. Accuracy: exact on lower-case alphanumerics, of
the images that were timed.
"""

import argparse
import hashlib
import json
import math
import os
import random
import shutil
import statistics
import subprocess
import tempfile
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, replace
from datetime import date
from importlib import metadata
from pathlib import Path
from typing import Any

import torch
from tqdm import tqdm
from transformers import AutoModelForTextRecognition, AutoProcessor, pipeline
from transformers.utils import logging

try:
    import pyarrow.parquet
except ImportError as error:
    raise SystemExit(f'{error.name} is not installed: pip install -e ".[bench]"') from error

from hf_ocr.card import write_card
from hf_ocr.export.onnx_export import ExportError, export_onnx
from hf_ocr.export.onnx_reader import OnnxReader
from hf_ocr.metrics import line_matches
from hf_ocr.models.image_loading import load_image
from hf_ocr.models.image_processing_text_line import TextLineImageProcessor
from hf_ocr.models.pipeline_text_recognition import cpu_computes_bfloat16
from hf_ocr.record import RunRecord, Speed, hardware, versions
from hf_ocr.registration import default_checkpoint
from hf_ocr.text import lower_alphanumerics

SETS = {"receipt lines": "sroie_lines/test.parquet", "words": "iiit5k/test.parquet"}
CALIBRATION = "sroie_lines/train.parquet"
CALIBRATION_LINES = 128
OURS, RAPIDOCR, TESSERACT = "hf_ocr", "RapidOCR", "Tesseract"


class OurReader:
    """The pipeline, in one number format."""

    def __init__(self, model: str, dtype: torch.dtype, batch_size: int) -> None:
        self.pipeline = pipeline("text-recognition", model=model, device="cpu", dtype=dtype)
        self.batch_size = batch_size
        chosen = torch.bfloat16 if cpu_computes_bfloat16() else torch.float32
        self.name = f"{OURS}, {str(dtype).removeprefix('torch.')}{' (its choice)' if dtype == chosen else ''}"

    def read_all(self, images: list[bytes]) -> list[str]:
        results = self.pipeline(images, batch_size=self.batch_size)
        return [result[0]["generated_text"] for result in results]

    def read_one(self, image: bytes) -> str:
        return str(self.pipeline(image)[0]["generated_text"])


class OurOnnxReader:
    """The exported network, in float32 or int8; images side by side, each by itself."""

    def __init__(self, model: str, calibration: Path | None, threads: int) -> None:
        recognizer = AutoModelForTextRecognition.from_pretrained(model)
        processor = AutoProcessor.from_pretrained(model)
        images = load_images(calibration, CALIBRATION_LINES, seed=0)[0] if calibration else None
        with tempfile.TemporaryDirectory() as folder:
            self.reader = OnnxReader(export_onnx(recognizer, processor, folder, images), threads)
        self.name = f"{OURS}, ONNX {'int8' if calibration else 'float32'}"

    def read_all(self, images: list[bytes]) -> list[str]:
        return [reading.text for reading in self.reader.read_many(images)]

    def read_one(self, image: bytes) -> str:
        return self.reader.read(image).text


class RapidOcrReader:
    """RapidOCR's recogniser: one image a call, or `batch_size` at once."""

    def __init__(self, batch_size: int, threads: int) -> None:
        from rapidocr import RapidOCR

        self.engine = RapidOCR(
            params={
                "Global.log_level": "critical",
                "Global.use_det": False,
                "Global.use_cls": False,
                "EngineConfig.onnxruntime.intra_op_num_threads": threads,
                "Rec.rec_batch_num": batch_size,
            }
        )
        self.batch_size = batch_size
        self.name = f"{RAPIDOCR}, {'one at a time' if batch_size == 1 else f'batches of {batch_size}'}"

    def read_all(self, images: list[bytes]) -> list[str]:
        if self.batch_size == 1:
            return [self.read_one(image) for image in images]
        arrays = [self.engine.preprocess_img(self.engine.load_img(image))[0] for image in images]
        return list(self.engine.recognize_txt(arrays).txts)

    def read_one(self, image: bytes) -> str:
        return str((self.engine(image).txts or ("",))[0])


class TesseractReader:
    """A process of Tesseract an image, `threads` at a time."""

    name = f"{TESSERACT}, a process an image"

    def __init__(self, threads: int) -> None:
        self.threads = threads

    def run(self, *arguments: str, image: bytes | None = None) -> str:
        command = ["tesseract", *arguments, "--psm", "7"]
        environment = os.environ | {"OMP_THREAD_LIMIT": "1"}
        done = subprocess.run(command, input=image, capture_output=True, env=environment, check=True)
        return done.stdout.decode("utf-8", "replace")

    def read_all(self, images: list[bytes]) -> list[str]:
        with ThreadPoolExecutor(self.threads) as executor:
            return list(executor.map(self.read_one, images))

    def read_one(self, image: bytes) -> str:
        return self.run("-", "-", image=image).strip()


class TesseractListReader(TesseractReader):
    """A process of Tesseract a core, each over a list of files."""

    def __init__(self, threads: int) -> None:
        super().__init__(threads)
        self.name = f"{TESSERACT}, {threads} processes over lists"
        self.folder = tempfile.TemporaryDirectory()

    def prepare(self, images: list[bytes]) -> None:
        """Write the files and the lists of them."""
        for index, image in enumerate(images):
            Path(self.folder.name, str(index)).write_bytes(image)
        for part in range(self.threads):
            files = [str(Path(self.folder.name, str(index))) for index in range(part, len(images), self.threads)]
            Path(self.folder.name, f"{part}.list").write_text("\n".join(files) + "\n")

    def read_all(self, images: list[bytes]) -> list[str]:
        texts = [""] * len(images)
        with ThreadPoolExecutor(self.threads) as executor:
            lists = [str(Path(self.folder.name, f"{part}.list")) for part in range(self.threads)]
            for part, output in enumerate(executor.map(lambda path: self.run(path, "-"), lists)):
                places = range(part, len(images), self.threads)
                # Every page ends with a form feed; a file that Tesseract cannot read gives none, and shifts the rest.
                pages = output.split("\f")[: len(places)]
                texts[part :: self.threads] = pages + [""] * (len(places) - len(pages))
        return [text.strip() for text in texts]


@dataclass
class Row:
    """What was measured of one reader on one set. `latency`: s, the median."""

    reader: str
    rate: float = 0.0
    latency: float = 0.0
    exact: float = 0.0


def load_readers(model: str, calibration: Path | None, batch_size: int, threads: int) -> tuple[list[Any], list[str]]:
    """The readers that are installed, and the names of those that are not."""
    readers: list[Any] = [OurReader(model, dtype, batch_size) for dtype in (torch.bfloat16, torch.float32)]
    absent = []
    try:
        readers += [OurOnnxReader(model, lines, threads) for lines in dict.fromkeys((None, calibration))]
    except ExportError as error:
        absent.append(f"{OURS}, ONNX: {error}")
    try:
        readers += [RapidOcrReader(size, threads) for size in sorted({1, 6, batch_size})]  # 6: its own default
    except ImportError:
        absent.append(f"{RAPIDOCR}: not installed")
    if shutil.which("tesseract"):
        readers += [TesseractReader(threads), TesseractListReader(threads)]
    else:
        absent.append(f"{TESSERACT}: not installed")
    return readers, absent


def load_images(path: Path, count: int, seed: int) -> tuple[list[bytes], list[str]]:
    """`count` images of the file and their texts, drawn by seed; all of them where there are no more."""
    table = pyarrow.parquet.read_table(path, columns=["image", "text"])
    chosen = random.Random(seed).sample(range(table.num_rows), min(count, table.num_rows))
    rows = table.take(chosen).to_pylist()
    return [row["image"]["bytes"] for row in rows], [row["text"] for row in rows]


def measure(readers: Sequence[Any], images: list[bytes], texts: list[str], rounds: int, singles: int) -> list[Row]:
    rows = [Row(reader.name) for reader in readers]
    bar = tqdm(total=len(readers) * rounds + len(images[:singles]), unit="turn", leave=False)
    for reader in readers:
        if hasattr(reader, "prepare"):
            reader.prepare(images)
    for number in range(rounds):
        for reader, row in zip(readers, rows, strict=True):
            bar.set_description(f"{row.reader}, {len(images)} images")
            if number == 0 and not isinstance(reader, TesseractReader):
                reader.read_all(images[:64])
            start = time.perf_counter()
            read = reader.read_all(images)
            row.rate = max(row.rate, len(images) / (time.perf_counter() - start))
            row.exact = float(line_matches(read, texts, lower_alphanumerics)[0].mean())
            bar.update()
    seconds: dict[str, list[float]] = {row.reader: [] for row in rows}
    for image in images[:singles]:
        for reader in readers:
            start = time.perf_counter()
            reader.read_one(image)
            seconds[reader.name].append(time.perf_counter() - start)
        bar.set_description("one at a time")
        bar.update()
    bar.close()
    for row in rows:
        row.latency = statistics.median(seconds[row.reader])
    return rows


def preparation_rate(images: list[bytes], rounds: int, height: int = 32, batch_size: int = 64) -> float:
    """Lines a second, grey and `height` px high, that the image processor alone makes batches of on one core."""
    prepare = TextLineImageProcessor(height=height)
    lines = []
    for encoded in images:
        line = load_image(encoded).convert("L")
        lines.append(line.resize((prepare.text_width(*line.size), height)))
    fastest = math.inf
    for _ in range(5 * rounds):
        start = time.perf_counter()
        for first in range(0, len(lines), batch_size):
            prepare(lines[first : first + batch_size])
        fastest = min(fastest, time.perf_counter() - start)
    return len(lines) / fastest


def table(rows: Sequence[Row], absent: Sequence[str]) -> str:
    """The ratios say how many times the first reader of ours, in the number format it chooses, is faster."""
    ours = next(row for row in rows if row.reader.startswith(OURS) and "its choice" in row.reader)
    lines = [f"{'reader':34} {'images/s':>9} {'ours is':>9} {'one image':>11} {'ours is':>9} {'exact':>8}"]
    for row in rows:
        lines.append(
            f"{row.reader:34} {row.rate:9.1f} {ours.rate / row.rate:8.2f}x {1000 * row.latency:8.1f} ms "
            f"{row.latency / ours.latency:8.2f}x {100 * row.exact:7.1f}%"
        )
    return "\n".join([*lines, *absent])


def peer_versions() -> dict[str, str]:
    found = versions()
    for package in ("rapidocr", "onnxruntime"):
        try:
            found[package] = metadata.version(package)
        except metadata.PackageNotFoundError:
            continue
    if shutil.which("tesseract"):
        done = subprocess.run(["tesseract", "--version"], capture_output=True, text=True, check=True)
        found["tesseract"] = (done.stdout or done.stderr).split()[1]
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    source = parser.add_mutually_exclusive_group(required=True)
    source.add_argument("--data", type=Path, help="folder with sroie_lines and iiit5k")
    source.add_argument("--set", action="append", metavar="NAME=PARQUET", help="lines of yours")
    parser.add_argument("--model", default=str(default_checkpoint()), help="folder; the shipped checkpoint by default")
    parser.add_argument(
        "--calibration", type=Path, metavar="PARQUET", help="lines for int8; with --data, of its receipts"
    )
    parser.add_argument("--images", type=int, default=1000, help="at most, of each set, drawn by --seed")
    parser.add_argument("--singles", type=int, default=100, help="images that are read one at a time for the latency")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--batch_size", type=int, default=64)
    parser.add_argument("--threads", type=int, default=hardware()["cores"], help="default: all cores")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--output", type=Path, help="JSON file for the result")
    parser.add_argument("--record", type=Path, help="model_cards/NAME.json whose speeds, and card, to bring up to date")
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    logging.set_verbosity_error()
    logging.disable_progress_bar()

    sets = (
        {name: arguments.data / file for name, file in SETS.items()}
        if arguments.data
        else {name: Path(file) for name, file in (entry.split("=", 1) for entry in arguments.set)}
    )
    calibration = arguments.calibration or (arguments.data and arguments.data / CALIBRATION)
    readers, absent = load_readers(arguments.model, calibration, arguments.batch_size, arguments.threads)
    machine, found = hardware(), peer_versions()
    conditions = (
        f"{machine['cpu']}, {arguments.threads} threads, batches of {arguments.batch_size}, from encoded bytes, "
        + ", ".join(f"{name} {version}" for name, version in found.items())
    )
    print(conditions)
    record: dict[str, Any] = {"date": date.today().isoformat(), "machine": machine, "versions": found}
    record["settings"] = {
        name: value
        for name, value in vars(arguments).items()
        if name not in ("data", "set", "model", "calibration", "output", "record")
    }
    record |= {"model": Path(arguments.model).name, "not_installed": absent, "sets": {}, "speed": []}
    for name, path in sets.items():
        images, texts = load_images(path, arguments.images, arguments.seed)
        rows = measure(readers, images, texts, arguments.rounds, arguments.singles)
        prepared = preparation_rate(images, arguments.rounds)
        print(f"\n{name}: {len(images)} images of {'/'.join(path.parts[-2:])}\n{table(rows, absent)}")
        print(f"the image processor alone, lines of 32 px: {prepared:,.0f} a second on one core", flush=True)
        record["sets"][name] = {
            "file": "/".join(path.parts[-2:]),
            "sha256": hashlib.sha256(path.read_bytes()).hexdigest(),
            "images": len(images),
            "readers": [asdict(row) for row in rows],
            "prepared_a_second": prepared,
        }
        for row in rows:
            record["speed"] += [
                asdict(Speed(row.reader, name, round(row.rate, 1), "images/s", conditions)),
                asdict(Speed(row.reader, f"{name}, one image", round(1000 * row.latency, 2), "ms", conditions)),
            ]
        alone = Speed("hf_ocr, image processor", f"{name} of 32 px, one core", round(prepared), "lines/s", conditions)
        record["speed"].append(asdict(alone))
    if arguments.output:
        arguments.output.write_text(json.dumps(record, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
    if arguments.record:
        speeds = tuple(Speed(**entry) for entry in record["speed"])
        write_card(replace(RunRecord.load(arguments.record), speed=speeds).save(arguments.record.parent))


if __name__ == "__main__":
    main()
