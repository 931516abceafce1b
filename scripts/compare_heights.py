"""Trains the small CRNN on at several heights of the input and compares accuracy and speed.

    python scripts/compare_heights.py --data DATA --output_dir runs/heights --record model_cards/heights.json

A short run from fresh weights would compare how soon CTC leaves its plateau of blanks. So each begins with the weights
of crnn-small-latin, which were trained at 40 px, and learns at its own height: the same lines in the same order, the
same steps. That favours 40 px, the less the more steps there are. 36 to 48 px leave the last convolution the same rows.

What is compared is held back from training (SROIE's validation lines, a tenth of the scene words), never a test file.
The images per second are those of 1,000 of the receipt lines, from PIL images to texts, in seconds of the processor. A
stopped run goes on when the same command is given again.
"""

import argparse
import json
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import torch
from transformers import AutoModelForTextRecognition, AutoProcessor

try:
    from datasets import Dataset
except ImportError as error:
    raise SystemExit(f'{error.name} is not installed: pip install -e ".[train]"') from error

from hf_ocr.models.configuration_crnn import CrnnConfig
from hf_ocr.models.modeling_crnn import CrnnForTextRecognition
from hf_ocr.models.pipeline_text_recognition import cpu_computes_bfloat16
from hf_ocr.models.reading import read_images
from hf_ocr.record import hardware, versions
from hf_ocr.registration import default_checkpoint

FIGURES = ("sroie_exact", "sroie_cer_ignoring_case", "iiit5k_exact", "icdar2015_exact")
ROUNDS = 3


def start(height: int, folder: Path) -> Path:
    """The weights of crnn-small-latin in a network of this height."""
    trained = AutoModelForTextRecognition.from_pretrained(default_checkpoint(), dtype=torch.float32)
    model = CrnnForTextRecognition(CrnnConfig(**{**trained.config.to_dict(), "image_height": height}))
    model.load_state_dict(trained.state_dict())
    model.save_pretrained(folder)
    return folder


def train(arguments: argparse.Namespace, height: int) -> Path:
    folder = arguments.output_dir / str(height)
    settings = {
        "--data": arguments.data,
        "--output_dir": folder,
        "--init_from": start(height, folder / "start"),
        "--teacher": default_checkpoint(),  # tells the case of lines annotated in capitals, the same at every height
        "--distillation_weight": 0,
        "--learning_rate": arguments.learning_rate,
        "--max_steps": arguments.max_steps,
        "--eval_steps": arguments.max_steps,
        "--seed": arguments.seed,
    }
    script = Path(__file__).with_name("train_crnn_latin.py")
    subprocess.run([sys.executable, script, *(str(part) for pair in settings.items() for part in pair)], check=True)
    return folder


def images_per_second(folder: Path, images: list[Any]) -> float:
    processor = AutoProcessor.from_pretrained(folder)
    dtype = torch.bfloat16 if cpu_computes_bfloat16() else torch.float32
    model = AutoModelForTextRecognition.from_pretrained(folder).reading_copy(dtype)
    seconds = []
    for _ in range(ROUNDS):
        start = time.process_time()
        read_images(model, processor, images)
        seconds.append(time.process_time() - start)
    return len(images) / min(seconds)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--data", type=Path, required=True, help="folder of sroie_lines, iiit5k, icdar2015_words, svt_words"
    )
    parser.add_argument("--output_dir", type=Path, required=True)
    parser.add_argument("--heights", type=int, nargs="+", default=[40, 36, 48], help="px")
    parser.add_argument("--max_steps", type=int, default=500)
    parser.add_argument("--learning_rate", type=float, default=1e-3)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--record", type=Path, help="JSON file of what was measured")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    folders = {height: train(arguments, height) for height in arguments.heights}
    rows = Dataset.from_parquet(str(arguments.data / "sroie_lines" / "validation.parquet"))
    images = rows.shuffle(seed=0).select(range(1000))["image"][:]
    found = []
    for height, folder in folders.items():
        last = json.loads((folder / "log.jsonl").read_text(encoding="utf-8").splitlines()[-1])
        measured = {"height_px": height, "steps": last["step"], "lines_seen": last["lines"]}
        measured |= {name: last[name] for name in FIGURES}
        measured["images_per_second"] = round(images_per_second(folder / "final", images), 1)
        found.append(measured)
    print(" | ".join(found[0]))
    for measured in found:
        print(" | ".join(str(value) for value in measured.values()))
    if arguments.record is not None:
        written = {"heights": found, "seed": arguments.seed, "hardware": hardware(), "versions": versions()}
        arguments.record.write_text(json.dumps(written, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
