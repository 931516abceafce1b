"""Does the converted PP-OCRv6 small read what RapidOCR reads? Both get the same pixels.

    hf-ocr convert rapidocr pp-ocrv6-small
    python scripts/compare_rapidocr.py pp-ocrv6-small --parquet sroie_lines/validation.parquet

Every line is scaled and padded by the checkpoint's own rules; RapidOCR's session gets that tensor with its channels in
the order blue, green, red, and its own decoder reads what comes out. A text that differs is printed with its cause:

- behind the line: RapidOCR reads the frames of the padding too;
- left out: it read one of the symbols that the converted alphabet has not;
- other: neither, so the networks differ.

Then the same lines through the pipeline's reader, whole and with the alphabet trimmed by `resize_alphabet` to the
characters that were read: parameters, megabytes of weights in float16, lines a second of the best of three turns.

Needs the extra `bench`. A parquet file has a column `image` (bytes, path); the lines are drawn by seed.
"""

import argparse
import json
import random
import time
from importlib import metadata
from io import BytesIO
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from tqdm import tqdm
from transformers import AutoModelForTextRecognition, AutoProcessor

try:
    import pyarrow.parquet
except ImportError as error:
    raise SystemExit(f'{error.name} is not installed: pip install -e ".[bench]"') from error

import hf_ocr  # noqa: F401  registers the classes
from hf_ocr.alphabet import resize_alphabet
from hf_ocr.models.line_preparation import bucket_width
from hf_ocr.models.reading import read_images
from hf_ocr.record import hardware, versions


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("checkpoint", help="folder that `hf-ocr convert rapidocr` wrote")
    parser.add_argument("--parquet", type=Path, required=True)
    parser.add_argument("--lines", type=int, default=500)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--output", type=Path, help="JSON file for the result")
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    from rapidocr import RapidOCR

    engine = RapidOCR(
        params={
            "Global.log_level": "critical",
            "Global.use_det": False,
            "Global.use_cls": False,
            "EngineConfig.onnxruntime.intra_op_num_threads": arguments.threads,
        }
    )
    engine.recognize_txt([np.zeros((48, 320, 3), np.uint8)])  # the recognizer is built when it is first asked
    theirs = engine.text_rec
    ours = AutoModelForTextRecognition.from_pretrained(arguments.checkpoint)
    processor = AutoProcessor.from_pretrained(arguments.checkpoint)
    alphabet = set(processor.tokenizer.alphabet)

    table = pyarrow.parquet.read_table(arguments.parquet, columns=["image"])
    chosen = random.Random(arguments.seed).sample(range(len(table)), min(arguments.lines, len(table)))
    images = [Image.open(BytesIO(row["bytes"])) for row in table.take(chosen)["image"].to_pylist()]
    read: list[str] = []
    causes: dict[str, int] = {}
    for index, image in tqdm(zip(chosen, images, strict=True), total=len(chosen), unit="line", leave=False):
        pixel_values, widths = processor(images=[image], return_tensors="pt").values()
        text = processor.batch_decode(ours.recognize(pixel_values, widths, with_characters=False).sequences)[0]
        read.append(text)
        padding = bucket_width(int(widths[0])) - pixel_values.shape[-1]
        same_pixels = torch.nn.functional.pad(pixel_values, (0, padding)).flip(1).numpy()
        probabilities = np.asarray(theirs.session(same_pixels))
        their_text = theirs.postprocess_op(probabilities)[0][0][0]
        if text == their_text:
            continue
        own_frames = probabilities[:, : int(ours.base_model.frame_count(widths))]
        if text == theirs.postprocess_op(own_frames)[0][0][0]:
            cause = "behind the line"
        else:
            cause = "other" if set(their_text) <= alphabet else "left out"
        causes[cause] = causes.get(cause, 0) + 1
        tqdm.write(f"{cause}: line {index}: {text!r}, RapidOCR {their_text!r}")
    equal = len(chosen) - sum(causes.values())
    print(f"{equal} of {len(chosen)} texts are equal", *(f"{count} differ: {cause}" for cause, count in causes.items()))
    trimmed = AutoModelForTextRecognition.from_pretrained(arguments.checkpoint)
    tokenizer = resize_alphabet(trimmed, processor.tokenizer, read, "new")
    readers = {"whole": (ours, processor), "trimmed": (trimmed, AutoProcessor.from_pretrained(arguments.checkpoint))}
    readers["trimmed"][1].tokenizer = tokenizer
    sizes: dict[str, dict[str, float]] = {}
    for name, (model, with_processor) in readers.items():
        parameters = sum(parameter.numel() for parameter in model.parameters())
        symbols = len(with_processor.tokenizer)
        sizes[name] = {"symbols": symbols, "parameters": parameters, "megabytes": round(2e-6 * parameters, 2)}
    for _ in range(3):
        for name, (model, with_processor) in readers.items():
            start = time.perf_counter()
            read_images(model, with_processor, images)
            rate = round(len(images) / (time.perf_counter() - start), 1)
            sizes[name]["lines_a_second"] = max(rate, sizes[name].get("lines_a_second", 0))
    print(json.dumps(sizes))
    if arguments.output:
        result = {"lines": len(chosen), "equal": equal, "differ": causes, "threads": arguments.threads, **sizes}
        result |= {"hardware": hardware(), "versions": versions() | {"rapidocr": metadata.version("rapidocr")}}
        arguments.output.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
