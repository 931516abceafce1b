"""Does an exported network read what PyTorch reads, and what does int8 cost? The same lines through both.

    python scripts/compare_onnx.py --model hf_ocr/checkpoints/crnn-small-latin models/pp-ocr \\
        --parquet sroie_lines/test.parquet --calibration sroie_lines/train.parquet --output onnx.json

Of each model:

- reader: the texts of `OnnxReader`, image by image, against those of the pipeline in batches of --batch_size;
- network: the texts of model.onnx in batches of --batch_size, each line stretched to --stretch times its width, against
  those of the model in PyTorch, line by line. The pixels are the same, and no language model is asked.

A text that differs is printed. Then the CER, ignoring case, of the pipeline and of the reader in float32 and in int8,
which is calibrated on 128 lines of --calibration. Nothing here depends on how busy the machine is.

Needs the extra `bench`. A parquet file has a column `image` (bytes, path) and a column `text`; lines are drawn by seed.
"""

import argparse
import json
import random
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import asdict
from importlib import metadata
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import torch
from tqdm import tqdm
from transformers import pipeline
from transformers.utils import logging

try:
    import onnxruntime
    import pyarrow.parquet
except ImportError as error:
    raise SystemExit(f'{error.name} is not installed: pip install -e ".[bench]"') from error

from hf_ocr.export.onnx_export import export_onnx
from hf_ocr.export.onnx_graph import INPUTS, OUTPUTS
from hf_ocr.export.onnx_reader import MODEL, OnnxReader
from hf_ocr.metrics import character_error_rate
from hf_ocr.models.ctc import greedy_search
from hf_ocr.models.image_loading import load_image
from hf_ocr.models.line_preparation import bucket_width, stretch_line
from hf_ocr.record import fingerprint, hardware, versions
from hf_ocr.registration import default_checkpoint
from hf_ocr.text import ignore_case

CALIBRATION_LINES = 128


def load_lines(path: Path, count: int, seed: int) -> tuple[list[bytes], list[str]]:
    """`count` images of the file and their texts, drawn by seed; all of them where there are no more."""
    table = pyarrow.parquet.read_table(path, columns=["image", "text"])
    rows = table.take(random.Random(seed).sample(range(table.num_rows), min(count, table.num_rows))).to_pylist()
    return [row["image"]["bytes"] for row in rows], [row["text"] for row in rows]


def batches(lines: list[np.ndarray], size: int) -> Iterator[tuple[list[int], np.ndarray, np.ndarray]]:
    """Places, pixel values (B, C, H, W) and widths (B,) of lines that share a bucket, padded to its width."""
    buckets: dict[int, list[int]] = defaultdict(list)
    for place, line in enumerate(lines):
        buckets[bucket_width(line.shape[-1])].append(place)
    for width, places in buckets.items():
        for start in range(0, len(places), size):
            chosen = places[start : start + size]
            padded = [np.pad(lines[place], ((0, 0), (0, 0), (0, width - lines[place].shape[-1]))) for place in chosen]
            yield chosen, np.stack(padded), np.array([lines[place].shape[-1] for place in chosen])


def network_texts(read: Any, path: Path, lines: list[np.ndarray], batch_size: int, threads: int) -> list[list[str]]:
    """The texts of PyTorch, line by line, and of the ONNX file at `path`, in batches."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    model = read.model.reading_copy(torch.float32)
    texts = [[""] * len(lines), [""] * len(lines)]
    for place, line in enumerate(tqdm(lines, unit="line", leave=False, disable=None)):
        with torch.inference_mode():
            output = model(torch.from_numpy(line[None]))
        found = greedy_search(output.logits, output.logit_lengths, with_characters=False)
        texts[0][place] = read.processor.batch_decode(found.sequences)[0]
    for places, pixel_values, widths in batches(lines, batch_size):
        logits, lengths = session.run(list(OUTPUTS), dict(zip(INPUTS, (pixel_values, widths), strict=True)))
        found = greedy_search(torch.from_numpy(logits), torch.from_numpy(lengths), with_characters=False)
        for place, text in zip(places, read.processor.batch_decode(found.sequences), strict=True):
            texts[1][place] = text
    return texts


def equal(what: str, expected: list[str], found: list[str]) -> int:
    """How many texts are equal; the others are printed."""
    for place, (text, other) in enumerate(zip(expected, found, strict=True)):
        if text != other:
            print(f"{what}: line {place}: {text!r}, ONNX {other!r}")
    count = sum(text == other for text, other in zip(expected, found, strict=True))
    print(f"{what}: {count} of {len(expected)} texts are equal", flush=True)
    return count


def compare_readers(arguments: argparse.Namespace, model: str, images: list[bytes], texts: list[str]) -> dict[str, Any]:
    read = pipeline("text-recognition", model=model, device="cpu", dtype=torch.float32)
    calibration = load_lines(arguments.calibration, CALIBRATION_LINES, arguments.seed)[0]
    bar = tqdm(images, desc="pipeline", unit="line", leave=False, disable=None)
    by_torch = [result[0]["generated_text"] for result in read(iter(bar), batch_size=arguments.batch_size)]
    prepared = (read.processor(images=[load_image(image)], return_tensors="np") for image in images)
    lines = [stretch_line(inputs["pixel_values"][0], arguments.stretch) for inputs in prepared]
    result: dict[str, Any] = {"weights": fingerprint(Path(model) / "model.safetensors").sha256}
    rates = {"PyTorch float32": character_error_rate(by_torch, texts, ignore_case)}
    for name, ranges in (("float32", None), ("int8", calibration)):
        with TemporaryDirectory() as folder:
            export_onnx(read.model, read.processor, folder, ranges)
            bar = tqdm(images, desc=name, unit="line", leave=False, disable=None)
            by_onnx = [reading.text for reading in OnnxReader(folder, arguments.threads).read_many(bar)]
            rates[f"ONNX {name}"] = character_error_rate(by_onnx, texts, ignore_case)
            if ranges is None:
                result["reader_equal"] = equal("reader", by_torch, by_onnx)
                of_network = network_texts(read, Path(folder, MODEL), lines, arguments.batch_size, arguments.threads)
                result["network_equal"] = equal("network", *of_network)
    for name, rate in rates.items():
        print(f"{name}: CER ignoring case {100 * rate:.2f} %", flush=True)
    return result | {"cer_ignoring_case": {name: round(rate, 5) for name, rate in rates.items()}}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", nargs="+", default=[str(default_checkpoint())], help="folders of CTC recognizers")
    parser.add_argument("--parquet", type=Path, required=True, help="lines to read")
    parser.add_argument("--calibration", type=Path, required=True, metavar="PARQUET", help="lines for int8")
    parser.add_argument("--lines", type=int, default=1000)
    parser.add_argument("--batch_size", type=int, default=16)
    parser.add_argument("--stretch", type=float, default=1.35, help="of the lines that the network gets")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--output", type=Path, help="JSON file for the result")
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    images, texts = load_lines(arguments.parquet, arguments.lines, arguments.seed)
    files = {name: asdict(fingerprint(getattr(arguments, name))) for name in ("parquet", "calibration")}
    record: dict[str, Any] = files | {name: getattr(arguments, name) for name in ("batch_size", "stretch", "seed")}
    onnx = {name: metadata.version(name) for name in ("onnx", "onnxruntime")}
    record |= {"lines": len(images), "hardware": hardware(), "versions": versions() | onnx, "models": {}}
    for model in arguments.model:
        print(f"{Path(model).name}: {len(images)} lines", flush=True)
        record["models"][Path(model).name] = compare_readers(arguments, model, images, texts)
        if arguments.output:
            arguments.output.write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
