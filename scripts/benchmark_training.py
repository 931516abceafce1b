"""Speed of training: lines a second of the loop, against its ceiling on ready-made tensors, and where time goes.

    python scripts/benchmark_training.py --data sroie_lines/train.parquet --output speed.json

For crnn-small and for the paper's VGG trunk: the loop of hf_ocr.training as it is (data, augmentation, average, log),
the same steps on batches that lie ready in memory, and of these forward, backward and update apart; and how fast one
process prepares lines. Best of the rounds, in which the loop and its ceiling take turns.
"""

import argparse
import json
import tempfile
import time
from datetime import date
from functools import partial
from pathlib import Path
from typing import Any

import torch
from tqdm import tqdm

from hf_ocr.data.augmentation import augment
from hf_ocr.data.batches import LineChunks, Source
from hf_ocr.data.lines import read_lines
from hf_ocr.models.configuration_crnn import CrnnConfig
from hf_ocr.models.image_processing_text_line import TextLineImageProcessor
from hf_ocr.models.modeling_crnn import CrnnForTextRecognition
from hf_ocr.models.processing_text_recognition import TextRecognitionProcessor
from hf_ocr.models.tokenization_characters import CharacterTokenizer
from hf_ocr.record import hardware, versions
from hf_ocr.text import LATIN_ALPHABET
from hf_ocr.training import TrainingConfig, train

MODELS = {"crnn-small": (CrnnConfig.small, 40), "crnn, VGG": (CrnnConfig, 32)}


def on_tensors(model: Any, batches: list[dict[str, torch.Tensor]], precision: str) -> dict[str, float]:
    """Seconds of forward, backward and update over the batches."""
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-4, fused=True)
    seconds = dict.fromkeys(("forward", "backward", "update"), 0.0)
    model.train()
    for batch in batches:
        moments = [time.perf_counter()]
        with torch.autocast("cpu", torch.bfloat16, enabled=precision == "bf16"):
            loss = model(**batch).loss
        moments.append(time.perf_counter())
        loss.backward()
        moments.append(time.perf_counter())
        torch.nn.utils.clip_grad_norm_(model.parameters(), 5.0)
        optimizer.step()
        optimizer.zero_grad()
        moments.append(time.perf_counter())
        for name, start, end in zip(seconds, moments, moments[1:], strict=False):
            seconds[name] += end - start
    return seconds


def speed_of(name: str, rows: Any, arguments: argparse.Namespace) -> dict[str, Any]:
    configuration, height = MODELS[name]
    tokenizer = CharacterTokenizer.from_alphabet(LATIN_ALPHABET)
    processor = TextRecognitionProcessor(TextLineImageProcessor(height=height), tokenizer)
    chunks = LineChunks([Source(rows, augment=partial(augment, kind="line"))], processor, seed=arguments.seed)
    start = time.perf_counter()
    count = -(-arguments.steps // chunks.batches_per_chunk)
    batches = [batch for index in range(count) for batch in chunks[index]][: arguments.steps]
    preparing = count * chunks.lines_per_chunk / (time.perf_counter() - start)
    lines = sum(len(batch["labels"]) for batch in batches)

    def model() -> CrnnForTextRecognition:
        torch.manual_seed(arguments.seed)
        return CrnnForTextRecognition(
            configuration(vocab_size=len(tokenizer), image_height=height, invalid_labels="skip", empty_labels="blank")
        )

    loop, ceiling, parts = 0.0, 0.0, {}
    for _ in tqdm(range(arguments.rounds), desc=name, disable=None):
        seconds = on_tensors(model(), batches, arguments.mixed_precision)
        if lines / sum(seconds.values()) > ceiling:
            ceiling = lines / sum(seconds.values())
            parts = {part: round(share / sum(seconds.values()), 3) for part, share in seconds.items()}
        with tempfile.TemporaryDirectory() as folder:
            settings = TrainingConfig(
                output_dir=folder, max_steps=arguments.steps, save_steps=10**9, learning_rate=1e-4,
                mixed_precision=arguments.mixed_precision, dataloader_num_workers=arguments.workers,
                seed=arguments.seed,
            )  # fmt: skip
            start = time.perf_counter()
            train(model(), processor, chunks, settings)
            loop = max(loop, lines / (time.perf_counter() - start))
    return {
        "model": name, "loop_lines_a_second": round(loop, 1), "ceiling_lines_a_second": round(ceiling, 1),
        "overhead": round(1 - loop / ceiling, 3), "shares_of_the_ceiling": parts,
        "lines_a_second_prepared_by_one_process": round(preparing, 1),
    }  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", required=True, help="labelled lines: parquet or folder")
    parser.add_argument("--steps", type=int, default=96)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--workers", type=int, default=1, help="processes that prepare lines")
    parser.add_argument("--mixed_precision", default="bf16", choices=["no", "bf16"])
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--output", type=Path, help="JSON file for the result")
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    rows = read_lines(arguments.data)
    results = [speed_of(name, rows, arguments) for name in MODELS]
    for result in results:
        print(json.dumps(result))
    if arguments.output:
        settings = {name: value for name, value in vars(arguments).items() if name not in ("data", "output")}
        record = {
            "date": date.today().isoformat(),
            "hardware": hardware(),
            "versions": versions(),
            "settings": settings,
        }
        arguments.output.write_text(json.dumps(record | {"results": results}, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
