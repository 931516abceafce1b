"""Speed of training: lines a second of the loop, against its ceiling on ready-made tensors, and where time goes.

    python scripts/benchmark_training.py --data sroie_lines/train.parquet --output speed.json

For crnn-small and for the paper's VGG trunk: the loop of hf_ocr.training as it is (data, augmentation, average, log),
the same steps on batches that lie ready in memory, and of these forward, backward and update apart; and how fast one
process prepares lines. Best of the rounds, in which the loop and its ceiling take turns.

With --ketos PATH, the program of kraken's trainer (another environment will do: its torch is not ours), both train the
same layers on the same lines, in batches of the same size, with as many threads, and one process each that loads.
kraken gets the lines compiled, which is its fastest way. The time is what two more epochs cost, the best of the rounds
of each. kraken has no batch norm, so crnn-small goes without.
"""

import argparse
import json
import os
import subprocess
import tempfile
import time
from datetime import date
from functools import partial
from pathlib import Path
from typing import Any

import torch
from tqdm import tqdm

try:
    import accelerate  # noqa: F401
except ImportError as error:
    raise SystemExit(f'{error.name} is not installed: pip install -e ".[train]"') from error

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
KRAKEN_BATCH = 32
# crnn-small in kraken's language: convolutions (height, width, channels, strides), then two BiLSTM layers.
VGSL = (
    "[1,40,0,1 Cr3,3,32,2,2 Cr3,3,64 Cr3,3,96,2,2 Cr3,3,96 Cr3,3,160,2,1 Cr3,3,192 Cr3,3,256,2,1 Cr3,3,256,3,1 "
    "S1(1x0)1,3 Lbx192 Lbx192 Do0.1]"
)


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
        loop = max(loop, lines / seconds_of_loop(model(), processor, chunks, arguments.steps, arguments))
    return {
        "model": name, "loop_lines_a_second": round(loop, 1), "ceiling_lines_a_second": round(ceiling, 1),
        "overhead": round(1 - loop / ceiling, 3), "shares_of_the_ceiling": parts,
        "lines_a_second_prepared_by_one_process": round(preparing, 1),
    }  # fmt: skip


def seconds_of_loop(model: Any, processor: Any, chunks: LineChunks, steps: int, arguments: argparse.Namespace) -> float:
    """From the call of `train` to its return: starting the workers and saving the model count too."""
    with tempfile.TemporaryDirectory() as folder:
        settings = TrainingConfig(
            output_dir=folder, max_steps=steps, save_steps=10**9, learning_rate=1e-4,
            mixed_precision=arguments.mixed_precision, dataloader_num_workers=arguments.workers, seed=arguments.seed,
        )  # fmt: skip
        start = time.perf_counter()
        train(model, processor, chunks, settings)
        return time.perf_counter() - start


def beside_kraken(rows: Any, arguments: argparse.Namespace) -> dict[str, Any]:
    tokenizer = CharacterTokenizer.from_alphabet(sorted(set("".join(rows["text"]))))
    processor = TextRecognitionProcessor(TextLineImageProcessor(height=40), tokenizer)
    chunks = LineChunks([Source(rows)], processor, len(rows), len(rows) // KRAKEN_BATCH, 10**6, seed=arguments.seed)
    config = CrnnConfig.small(vocab_size=len(tokenizer), conv_batch_norm=[False] * 8, invalid_labels="skip")

    def our_seconds(epochs: int) -> float:
        torch.manual_seed(arguments.seed)
        model = CrnnForTextRecognition(config)
        return seconds_of_loop(model, processor, chunks, epochs * chunks.batches_per_chunk, arguments)

    ours: list[float] = []
    theirs: list[float] = []
    with tempfile.TemporaryDirectory() as folder:
        for index, row in enumerate(rows):
            row["image"].convert("L").save(Path(folder) / f"{index:05}.png")
            (Path(folder) / f"{index:05}.gt.txt").write_text(row["text"], encoding="utf-8")
        images = sorted(path.name for path in Path(folder).glob("*.png"))
        environment = os.environ | {"OMP_NUM_THREADS": str(arguments.threads)}
        precision = {"no": "32-true", "bf16": "bf16-mixed"}[arguments.mixed_precision]
        common = [str(arguments.ketos.absolute()), "-d", "cpu", "--workers", "1", "--threads", str(arguments.threads)]

        def ketos(*options: str) -> float:
            start = time.perf_counter()
            subprocess.run([*common, *options], cwd=folder, env=environment, check=True, capture_output=True)
            return time.perf_counter() - start

        ketos("compile", "-f", "path", "-o", "lines.arrow", *images)
        ketos("compile", "-f", "path", "-o", "few.arrow", *images[:2])  # validated after every epoch
        (Path(folder) / "few.txt").write_text("few.arrow\n", encoding="utf-8")
        options = ["--precision", precision, "train", "-f", "binary", "-B", str(KRAKEN_BATCH), "-q", "fixed"]
        options += ["-s", VGSL, "-e", "few.txt", "-o", "model", "lines.arrow"]
        for _ in tqdm(range(arguments.rounds), desc="kraken", disable=None):
            ours.append(our_seconds(3) - our_seconds(1))
            theirs.append(ketos(*options, "-N", "3") - ketos(*options, "-N", "1"))
        said = subprocess.run([common[0], "--version"], capture_output=True, text=True, check=True).stdout
    speeds = [[round(2 * len(rows) / seconds, 1) for seconds in rounds] for rounds in (ours, theirs)]
    return {
        "lines": len(rows), "batch": KRAKEN_BATCH, "kraken": said.split()[-1], "loop_lines_a_second": max(speeds[0]),
        "kraken_lines_a_second": max(speeds[1]), "ratio": round(min(theirs) / min(ours), 2),
        "of_each_round": speeds,
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
    parser.add_argument("--ketos", type=Path, help="kraken's trainer, to be timed beside ours")
    parser.add_argument("--kraken_lines", type=int, default=1024)
    parser.add_argument("--output", type=Path, help="JSON file for the result")
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    rows = read_lines(arguments.data)
    results = [speed_of(name, rows, arguments) for name in MODELS]
    if arguments.ketos:
        results.append(
            beside_kraken(rows.shuffle(seed=arguments.seed).select(range(arguments.kraken_lines)), arguments)
        )
    for result in results:
        print(json.dumps(result))
    if arguments.output:
        settings = {name: value for name, value in vars(arguments).items() if name not in ("data", "ketos", "output")}
        record = {
            "date": date.today().isoformat(),
            "hardware": hardware(),
            "versions": versions(),
            "settings": settings,
        }
        arguments.output.write_text(json.dumps(record | {"results": results}, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
