"""Takes crnn-small-latin, or another model, to 19th-century German type: finetune.py proven on real lines.

    python scripts/finetune_fraktur.py --data DATA --output_dir runs/fraktur
    python scripts/finetune_fraktur.py --data DATA --output_dir runs/fraktur --lines 50 100 200 400 800
    hf-ocr convert rapidocr models/pp-ocr
    python scripts/finetune_fraktur.py --data DATA --output_dir runs/fraktur-pp-ocr \\
        --model_name_or_path models/pp-ocr --alphabet new --learning_rate 3e-4 --max_steps 300

DATA holds archiscribe_lines (split by book) and sroie_lines, whose training lines are replayed against forgetting and
whose validation lines are watched. Validation lines choose the best weights; the test lines are read once, at the end
of each run, and once by the model as it was. Fewer lines get fewer steps, by the cube root of their share.

What was reached is added to fraktur.json in the folder --cards, and fraktur.md and fraktur.png there are drawn from it.
"""

import argparse
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import torch
from transformers import AutoModelForTextRecognition, AutoProcessor

try:
    from datasets import Dataset
    from matplotlib.figure import Figure
except ImportError as error:
    raise SystemExit(f'{error.name} is not installed: pip install -e ".[train]"') from error

import hf_ocr  # noqa: F401  (registers the models)
from hf_ocr.data.lines import read_lines
from hf_ocr.evaluation import evaluate
from hf_ocr.record import fingerprint, hardware, versions
from hf_ocr.registration import default_checkpoint

SCRIPT = Path(__file__).with_name("finetune.py")
# Receipts are a fifth as wide: of the columns this is three eighths, and so of the batches, which hold lines of like
# width. A quarter of the lines would be one batch in sixteen, and the receipts are forgotten.
REPLAY_SHARE = 0.75
PREFACE = """# Fine-tuning on 19th-century German type

Lines of the archiscribe corpus (CC BY 4.0), split by book: {lines:,} to train on, {test} to test on. The labels are
close to the print (long s, umlauts with a small e above, the double hyphen at a line's end), and CER is that of the
text as it is, with nothing folded. "receipts" is the CER of {watched} receipt lines (SROIE) that no run has learnt
from; "replayed" the share of other receipts among the lines of a run, against forgetting; "weights" the start of the
SHA-256 of what a run began with. Written by `scripts/finetune_fraktur.py`; the times are those of {cpu}, the cores
those of the training process (a second process prepares its lines).

![test CER by training lines, of each start](fraktur.png)

| model | weights | training lines | replayed | steps | learning rate | minutes | cores | test CER | receipts | \
best validation CER |
| --- | --- | --- | --- | --- | --- | --- | --- | --- | --- | --- |
"""


def cased_receipts(data: Path, split: str, count: int | None, target: Path) -> Path:
    """Receipt lines in the case of the print, as finetune.py reads them."""
    rows = Dataset.from_parquet(str(data / "sroie_lines" / f"{split}.parquet"))
    rows = rows.filter(lambda text: text is not None, input_columns="text_cased")
    rows = rows.select_columns(["image", "text_cased"]).rename_column("text_cased", "text")
    rows = rows if count is None else rows.shuffle(seed=0).select(range(count))
    rows.to_parquet(str(target))
    return target


def untuned(name_or_path: str, sets: dict[str, Path]) -> dict[str, float]:
    """CER of the model as it is."""
    model = AutoModelForTextRecognition.from_pretrained(name_or_path, dtype=torch.float32)
    processor = AutoProcessor.from_pretrained(name_or_path)
    return {name: evaluate(model, processor, read_lines(file)).cer.value for name, file in sets.items()}


def tuned(options: dict[str, Any]) -> dict[str, Any]:
    """The record of a run of finetune.py."""
    arguments = [str(part) for name, value in options.items() for part in (f"--{name}", value)]
    subprocess.run([sys.executable, str(SCRIPT), *arguments], check=True)
    output = Path(options["output_dir"])
    return dict(json.loads((output / f"{output.name}.json").read_text(encoding="utf-8")))


def write_card(cards: Path, rows: list[dict[str, Any]], sizes: dict[str, int]) -> None:
    """fraktur.json, and from it card and picture; a row takes the place of one of equal weights and lines."""
    path = cards / "fraktur.json"
    known = json.loads(path.read_text(encoding="utf-8"))["rows"] if path.exists() else []
    done = {(row["model"], row["weights"], row["lines"]): row for row in [*known, *rows]}
    rows = [done[which] for which in sorted(done)]
    content = {"sizes": sizes, "cpu": hardware()["cpu"], "versions": versions(), "rows": rows}
    path.write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")
    (cards / "fraktur.md").write_text(render(content), encoding="utf-8")
    draw(rows, cards / "fraktur.png")


def render(content: dict[str, Any]) -> str:
    """The card, as Markdown."""
    text = PREFACE.format(cpu=content["cpu"], **content["sizes"])
    for row in content["rows"]:
        figures = [f"{100 * row[name]:.2f} %" if name in row else "" for name in ("test", "old", "validation")]
        work = ["none", *[""] * 5]
        if row["lines"]:
            work = [f"{row['lines']:,}", f"{row['replayed']:.0%}", f"{row['steps']:,}", f"{row['learning_rate']:g}"]
            work += [f"{row['minutes']:.0f}", str(row["cores"])]
        text += f"| {' | '.join([row['model'], row['weights'][:8], *work, *figures])} |\n"
    return text


def draw(rows: list[dict[str, Any]], target: Path) -> None:
    """The learning curves."""
    if not (sizes_drawn := sorted({row["lines"] for row in rows if row["lines"]})):
        return
    picture = Figure(figsize=(6, 4), layout="constrained")
    axes = picture.subplots()
    for start in sorted({(row["model"], row["weights"]) for row in rows if row["lines"]}):
        points = [(row["lines"], 100 * row["test"]) for row in rows if (row["model"], row["weights"]) == start]
        points = [point for point in points if point[0]]
        axes.plot(*zip(*points, strict=True), marker="o", label=f"{start[0]}, {start[1][:8]}")
    axes.set(xscale="log", yscale="log", xlabel="training lines", ylabel="test CER, %")
    axes.set_xticks(sizes_drawn, sizes_drawn)
    axes.set_xticks([], minor=True)
    axes.yaxis.set_major_formatter("{x:g}")
    axes.yaxis.set_minor_formatter("{x:g}")
    axes.grid(alpha=0.3, which="both")
    axes.legend()
    picture.savefig(target, dpi=100)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="folder with archiscribe_lines and sroie_lines")
    parser.add_argument("--output_dir", type=Path, required=True)
    parser.add_argument("--cards", type=Path, default=Path("model_cards"))
    parser.add_argument("--model_name_or_path", default=str(default_checkpoint()), help="folder of a checkpoint")
    parser.add_argument("--alphabet", default="union", choices=["union", "new"])
    parser.add_argument("--lines", type=int, nargs="*", help="sizes of the training sets; all lines without it")
    parser.add_argument("--max_steps", type=int, default=600, help="for all lines")
    parser.add_argument("--learning_rate", type=float, default=4e-4)
    parser.add_argument("--mixed_precision", default="bf16", help="no on a CPU without bfloat16")
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    data, output = arguments.data, arguments.output_dir
    output.mkdir(parents=True, exist_ok=True)
    arguments.cards.mkdir(parents=True, exist_ok=True)
    receipts = cased_receipts(data, "train", None, output / "receipts.parquet")
    watched = cased_receipts(data, "validation", 500, output / "receipts-watched.parquet")
    fraktur = {split: data / "archiscribe_lines" / f"{split}.parquet" for split in ("train", "validation", "test")}
    lines = Dataset.from_parquet(str(fraktur["train"])).shuffle(seed=arguments.seed)
    sizes = {"lines": len(lines), "test": len(read_lines(fraktur["test"])), "watched": len(read_lines(watched))}
    model = Path(arguments.model_name_or_path).name
    start = {"model": model, "weights": fingerprint(Path(arguments.model_name_or_path) / "model.safetensors").sha256}
    before = untuned(arguments.model_name_or_path, {"test": fraktur["test"], "old": watched})
    write_card(arguments.cards, [{**start, "lines": 0, **before}], sizes)
    for count in arguments.lines or [len(lines)]:
        name = f"{model}-{count}"
        chosen = output / f"train-{count}.parquet"
        lines.select(range(count)).to_parquet(str(chosen))
        record = tuned(
            {
                "model_name_or_path": arguments.model_name_or_path, "alphabet": arguments.alphabet,
                "train_file": chosen, "validation_file": fraktur["validation"], "test_file": fraktur["test"],
                "replay_file": receipts, "replay_share": REPLAY_SHARE, "old_test_file": watched,
                "output_dir": output / name, "max_steps": round(arguments.max_steps * (count / len(lines)) ** (1 / 3)),
                "learning_rate": arguments.learning_rate, "mixed_precision": arguments.mixed_precision,
                "average_decay": 0.995, "eval_steps": 200, "save_steps": 200, "seed": arguments.seed,
            }
        )  # fmt: skip
        reached = {result["dataset"]: result["report"]["figures"]["cer"]["value"] for result in record["results"]}
        work = {
            "steps": record["steps"],
            "learning_rate": arguments.learning_rate,
            "minutes": round(60 * record["hours"], 1),
        }
        work |= {"replayed": record["settings"]["replay_share"], "cores": record["hardware"]["cores"]}
        row = {**start, "lines": count, **work, **reached}
        print(row, flush=True)
        write_card(arguments.cards, [row], sizes)


if __name__ == "__main__":
    main()
