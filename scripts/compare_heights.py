"""Image heights for crnn-small: each trained from fresh weights on the same lines, read on the same validation lines.

    python scripts/compare_heights.py --data DATA --output_dir runs/heights

Lines up to 8 times as wide as high: enough to see what a pixel a character is worth, at a third of what whole receipts
cost. Equal steps, so that neither the machine nor its other work decides; what a height costs is measured apart, in
readings of the same lines that take turns. A stopped comparison goes on when the same command is given again. The
result is written to model_cards/crnn-small-latin-heights.json.
"""

import argparse
import json
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import torch

from hf_ocr.data.lines import read_lines
from hf_ocr.models.modeling_crnn import CrnnForTextRecognition
from hf_ocr.models.processing_text_recognition import TextRecognitionProcessor
from hf_ocr.models.reading import read_images
from hf_ocr.record import hardware, versions

ROOT = Path(__file__).parent.parent
MAX_ASPECT = 8
TURNS = 5


def trained(arguments: argparse.Namespace, height: int) -> dict[str, Any]:
    """The last entry of the log of a run of scripts/train_crnn_latin.py."""
    output = arguments.output_dir / str(height)
    command = [sys.executable, ROOT / "scripts" / "train_crnn_latin.py", "--data", arguments.data]
    command += ["--output_dir", output, "--image_height", height, "--max_steps", arguments.max_steps]
    # Measured at the end alone.
    command += ["--eval_steps", arguments.max_steps, "--max_aspect", MAX_ASPECT, "--seed", arguments.seed]
    subprocess.run([str(part) for part in command], check=True)
    return dict(json.loads((output / "log.jsonl").read_text(encoding="utf-8").splitlines()[-1]))


def lines_a_second(arguments: argparse.Namespace) -> dict[int, float]:
    """Receipt lines read a second on one core in bfloat16, the best of some turns."""
    torch.set_num_threads(1)
    rows = read_lines(arguments.data / "sroie_lines" / "validation.parquet")
    images = rows.shuffle(seed=arguments.seed).select(range(500))["image"][:]
    best = dict.fromkeys(arguments.heights, 0.0)
    readers = {}
    for height in arguments.heights:
        folder = arguments.output_dir / str(height) / "final"
        model = CrnnForTextRecognition.from_pretrained(folder, dtype=torch.float32).reading_copy(torch.bfloat16)
        readers[height] = (model, TextRecognitionProcessor.from_pretrained(folder))
    for _ in range(TURNS):
        for height, (model, processor) in readers.items():
            start = time.perf_counter()
            read_images(model, processor, images)
            best[height] = max(best[height], len(images) / (time.perf_counter() - start))
    return best


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="as for train_crnn_latin.py")
    parser.add_argument("--output_dir", type=Path, required=True)
    parser.add_argument("--heights", type=int, nargs="+", default=[32, 40, 48], help="px")
    parser.add_argument("--max_steps", type=int, default=2500, help="fewer may not leave the plateau of blanks")
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    ends = {height: trained(arguments, height) for height in arguments.heights}
    speeds = lines_a_second(arguments)
    rows = []
    for height, end in ends.items():
        read = {name: value for name, value in end.items() if name.endswith(("_exact", "_cer"))}
        rows.append({"height_px": height, "lines_a_second": round(speeds[height], 1), **read})
        print(rows[-1])
    settings = {"max_steps": arguments.max_steps, "max_aspect": MAX_ASPECT, "seed": arguments.seed}
    result = {**settings, "hardware": hardware(), "versions": versions()}
    text = json.dumps({**result, "heights": rows}, indent=1) + "\n"
    (ROOT / "model_cards" / "crnn-small-latin-heights.json").write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
