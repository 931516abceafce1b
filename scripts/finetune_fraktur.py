"""Takes crnn-small-latin, or another model, to 19th-century German type: finetune.py proven on real lines.

    python scripts/finetune_fraktur.py --data DATA --output_dir runs/fraktur
    python scripts/finetune_fraktur.py --data DATA --output_dir runs/curve --lines 50 100 200 400 800

DATA holds archiscribe_lines (split by book) and sroie_lines, whose training lines are replayed against forgetting and
whose validation lines are watched. Validation lines choose the best weights; the test lines are read once, at the end
of each run. Prints, and writes to OUTPUT_DIR/results.json, what each run reached.
"""

import argparse
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

from datasets import Dataset

SCRIPT = Path(__file__).with_name("finetune.py")


def cased_receipts(data: Path, split: str, count: int | None, target: Path) -> Path:
    """Receipt lines in the case of the print, as finetune.py reads them."""
    rows = Dataset.from_parquet(str(data / "sroie_lines" / f"{split}.parquet"))
    rows = rows.filter(lambda text: text is not None, input_columns="text_cased")
    rows = rows.select_columns(["image", "text_cased"]).rename_column("text_cased", "text")
    rows = rows if count is None else rows.shuffle(seed=0).select(range(count))
    rows.to_parquet(str(target))
    return target


def figures(record: dict[str, Any]) -> dict[str, float]:
    return {result["dataset"]: result["report"]["figures"]["cer"]["value"] for result in record["results"]}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="folder with archiscribe_lines and sroie_lines")
    parser.add_argument("--output_dir", type=Path, required=True)
    parser.add_argument("--model_name_or_path", help="by default the checkpoint inside the package")
    parser.add_argument("--lines", type=int, nargs="*", help="sizes of the training sets; all lines without it")
    parser.add_argument("--max_steps", type=int, default=1200)
    parser.add_argument("--learning_rate", type=float, default=8e-4)
    parser.add_argument("--mixed_precision", default="bf16", help="no on a CPU without bfloat16")
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    data, output = arguments.data, arguments.output_dir
    output.mkdir(parents=True, exist_ok=True)
    receipts = cased_receipts(data, "train", None, output / "receipts.parquet")
    watched = cased_receipts(data, "validation", 500, output / "receipts-watched.parquet")
    fraktur = {split: data / "archiscribe_lines" / f"{split}.parquet" for split in ("train", "validation", "test")}
    lines = Dataset.from_parquet(str(fraktur["train"])).shuffle(seed=arguments.seed)
    results = {}
    for count in arguments.lines or [len(lines)]:
        name = f"fraktur-{count}"
        chosen = output / f"train-{count}.parquet"
        lines.select(range(count)).to_parquet(str(chosen))
        options = {
            "train_file": chosen, "validation_file": fraktur["validation"], "test_file": fraktur["test"],
            "replay_file": receipts, "replay_share": 0.25, "old_test_file": watched, "alphabet": "union",
            "output_dir": output / name, "max_steps": arguments.max_steps, "learning_rate": arguments.learning_rate,
            "mixed_precision": arguments.mixed_precision, "average_decay": 0.995, "eval_steps": 200, "save_steps": 200,
            "seed": arguments.seed,
        }  # fmt: skip
        if arguments.model_name_or_path:
            options["model_name_or_path"] = arguments.model_name_or_path
        command = [
            sys.executable,
            str(SCRIPT),
            *(str(part) for key, value in options.items() for part in (f"--{key}", value)),
        ]
        subprocess.run(command, check=True)
        record = json.loads((output / name / f"{name}.json").read_text(encoding="utf-8"))
        results[name] = {"lines": count, "hours": record["hours"], "cer": figures(record)}
        print(results[name], flush=True)
    (output / "results.json").write_text(json.dumps(results, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
