"""The checkpoints inside the package side by side: accuracy, parameters, training, latency, throughput.

    python scripts/compare_checkpoints.py --data DATA

Accuracy is that of their records, measured on the test files by `publish_latin.py`. Speed is measured here, in one run
in which they take turns: the pipeline in the number format that it chooses on this CPU, from encoded images, receipt
lines and words of the test files. Throughput is the best of the rounds, latency the median over single images. Written
to checkpoints.json and checkpoints.md in --cards.
"""

import argparse
import json
import random
import statistics
import time
from pathlib import Path
from typing import Any

import torch
from transformers import pipeline
from transformers.utils import logging

try:
    import pyarrow.parquet
except ImportError as error:
    raise SystemExit(f'{error.name} is not installed: pip install -e ".[train]"') from error

import hf_ocr
from hf_ocr.models.pipeline_text_recognition import cpu_computes_bfloat16
from hf_ocr.record import RunRecord, hardware, versions
from hf_ocr.registration import shipped_checkpoints

SETS = {"receipt lines": "sroie_lines", "words": "iiit5k"}
# Data set and split of a record -> the column's title.
ACCURACIES = {
    ("sroie_lines", "test"): "SROIE lines",
    ("iiit5k", "test"): "IIIT5K",
    ("icdar2015_words", "test"): "ICDAR 2015",
    ("sroie_lines", "test, joined"): "ten lines joined",
    ("synthetic documents", "unseen fonts"): "documents",
}
PREFACE = """# The checkpoints of the package, side by side

All learnt from the same lines (`scripts/train_crnn_latin.py`); attention OCR and vision_text began with layers of the
CRNN, whose training counts for them too. Exact: share of the lines of the test files right on lower-case letters and
digits; "ten lines joined" are longer than any line of training, "documents" synthetic lines in font families that no
training line used. Speed: the pipeline on {threads} threads of {cpu}, in {dtype}, {images} images a set in batches
of {batch_size}; latency: one image at a time. Written by `scripts/compare_checkpoints.py`.

"""


def measure_speed(
    readers: dict[str, Any], images: list[bytes], rounds: int, singles: int, batch_size: int
) -> dict[str, Any]:
    """Images a second, and the milliseconds of a single one, of each reader."""
    rates: dict[str, float] = dict.fromkeys(readers, 0.0)
    seconds: dict[str, list[float]] = {name: [] for name in readers}
    for reader in readers.values():
        reader(images[:batch_size], batch_size=batch_size)
    for _ in range(rounds):
        for name, reader in readers.items():
            start = time.perf_counter()
            reader(images, batch_size=batch_size)
            rates[name] = max(rates[name], len(images) / (time.perf_counter() - start))
    for image in images[:singles]:
        for name, reader in readers.items():
            start = time.perf_counter()
            reader(image)
            seconds[name].append(time.perf_counter() - start)
    return {
        name: {"images_per_second": round(rates[name], 1), "ms": round(1000 * statistics.median(seconds[name]), 2)}
        for name in readers
    }


def accuracies(record: RunRecord) -> dict[str, float]:
    found = {(result.dataset, result.split): result.report["figures"]["exact"]["value"] for result in record.results}
    return {title: found[which] for which, title in ACCURACIES.items()}


def comparison(content: dict[str, Any]) -> str:
    """The table, as Markdown; the first row is what the ratios are to."""
    settings = content["settings"]
    text = PREFACE.format(cpu=content["hardware"]["cpu"], dtype=content["dtype"], **settings)
    titles = ["checkpoint", "parameters", "steps", "hours", *ACCURACIES.values()]
    titles += [f"{name}, {unit}" for name in SETS for unit in ("images/s", "ms")]
    text += f"| {' | '.join(titles)} |\n{'| --- ' * len(titles)}|\n"
    first = content["checkpoints"][0]
    for row in content["checkpoints"]:
        cells = [row["name"], f"{row['parameters'] / 1e6:.1f} M", f"{row['steps']:,}", f"{row['hours']:.1f}"]
        cells += [f"{100 * value:.1f} %" for value in row["exact"].values()]
        for name in SETS:
            own, other = row["speed"][name], first["speed"][name]
            ratio = own["images_per_second"] / other["images_per_second"]
            cells += [f"{own['images_per_second']} ({ratio:.2f} x)", str(own["ms"])]
        text += f"| {' | '.join(cells)} |\n"
    return text


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="folder with sroie_lines and iiit5k")
    parser.add_argument("--cards", type=Path, default=Path("model_cards"))
    parser.add_argument("--images", type=int, default=500)
    parser.add_argument("--singles", type=int, default=100)
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--batch_size", type=int, default=64)
    parser.add_argument("--threads", type=int, default=hardware()["cores"], help="default: all cores")
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    records = {folder.name: RunRecord.load(arguments.cards / f"{folder.name}.json") for folder in shipped_checkpoints()}
    smallest_first = sorted(records, key=lambda name: records[name].model["parameters"])
    readers = {name: pipeline("image-to-text", model=hf_ocr.checkpoint(name)) for name in smallest_first}
    speeds = {}
    for title, name in SETS.items():
        table = pyarrow.parquet.read_table(arguments.data / name / "test.parquet", columns=["image"])
        chosen = random.Random(arguments.seed).sample(range(table.num_rows), arguments.images)
        images = [row["image"]["bytes"] for row in table.take(chosen).to_pylist()]
        speeds[title] = measure_speed(readers, images, arguments.rounds, arguments.singles, arguments.batch_size)
    rows = [
        {
            "name": name,
            **{key: records[name].model[key] for key in ("family", "parameters")},
            **{key: getattr(records[name], key) for key in ("steps", "lines_seen", "hours")},
            "exact": accuracies(records[name]),
            "speed": {title: measured[name] for title, measured in speeds.items()},
        }
        for name in smallest_first
    ]
    settings = {name: getattr(arguments, name) for name in
                ("images", "singles", "rounds", "batch_size", "threads", "seed")}  # fmt: skip
    dtype = "bfloat16" if cpu_computes_bfloat16() else "float32"
    content = {"checkpoints": rows, "settings": settings, "dtype": dtype}
    content |= {"hardware": hardware(), "versions": versions()}
    (arguments.cards / "checkpoints.json").write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")
    (arguments.cards / "checkpoints.md").write_text(comparison(content), encoding="utf-8")
    print(comparison(content))


if __name__ == "__main__":
    main()
