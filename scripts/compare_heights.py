"""Image heights for crnn-small: fresh weights trained for the same time each, read on the same validation lines.

    python scripts/compare_heights.py --data DATA --output_dir runs/heights

A taller image costs more a step, so a lower one gets more steps: the seconds a step are measured first, on the same
lines, with the heights taking turns. The result is written to model_cards/crnn-small-latin-heights.json.
"""

import argparse
import json
import time
from pathlib import Path

import torch
from tqdm import tqdm
from train_crnn_latin import new_model, training_chunks, validation_sets

from hf_ocr.evaluation import evaluate
from hf_ocr.record import hardware, versions
from hf_ocr.training import TrainingConfig, train

RESULT = Path(__file__).parent.parent / "model_cards" / "crnn-small-latin-heights.json"


def seconds_a_step(data: Path, heights: list[int], seed: int) -> dict[int, float]:
    """Processor seconds of forward and backward on the batches of one chunk of lines, the least of three turns."""
    least = dict.fromkeys(heights, float("inf"))
    trained = {}
    for height in heights:
        model, processor = new_model(height, None)
        chunks = training_chunks(data, processor, None, max_steps=1000, seed=seed)
        trained[height] = model.train(), chunks[40]  # behind the short lines of the beginning
    for _ in tqdm(range(3), desc="seconds a step", disable=None):
        for height, (model, batches) in trained.items():
            start = time.process_time()
            for batch in batches:
                with torch.autocast("cpu", torch.bfloat16):
                    loss = model(**batch).loss
                loss.backward()
            least[height] = min(least[height], (time.process_time() - start) / len(batches))
    return least


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="as for train_crnn_latin.py")
    parser.add_argument("--output_dir", type=Path, required=True)
    parser.add_argument("--heights", type=int, nargs="+", default=[32, 40, 48], help="px")
    parser.add_argument("--minutes", type=float, default=15, help="of processor time, for each height")
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    costs = seconds_a_step(arguments.data, arguments.heights, arguments.seed)
    validation = validation_sets(arguments.data)
    rows = []
    for height, cost in costs.items():
        torch.manual_seed(arguments.seed)
        model, processor = new_model(height, None)
        steps = round(60 * arguments.minutes / cost)
        chunks = training_chunks(arguments.data, processor, None, steps, arguments.seed)
        settings = TrainingConfig(
            output_dir=str(arguments.output_dir / str(height)),
            max_steps=steps,
            mixed_precision="bf16",
            save_steps=500,
            dataloader_num_workers=1,
            seed=arguments.seed,
        )
        average = train(model, processor, chunks, settings)
        row = {"height_px": height, "seconds_a_step": round(cost, 3), "steps": steps}
        for name, lines in validation.items():
            report = evaluate(average.reading_copy(torch.bfloat16), processor, lines)
            row[f"{name}_exact"] = round(report.exact.value, 4)
            row[f"{name}_cer"] = round(report.cer_ignoring_case.value, 4)
        rows.append(row)
        print(row, flush=True)
    result = {
        "minutes": arguments.minutes,
        "seed": arguments.seed,
        "hardware": hardware(),
        "versions": versions(),
        "heights": rows,
    }
    RESULT.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
