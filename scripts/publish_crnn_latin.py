"""Measures the shipped weights on the test files, puts new ones in their place, and writes record and card.

    python scripts/publish_crnn_latin.py --data DATA                                   measures the package's weights
    python scripts/publish_crnn_latin.py --data DATA --run runs/fourth --with_before   puts others in their place first

New runs went on from the weights in the package, whose record is in model_cards: theirs is added to it. The weights of
several runs, and with --with_before those of the package too, are averaged (Wortsman et al., arXiv:2203.05482).

Training and its validation never read the test files. The synthetic sets are rendered by seed: "unseen" from font
families that no training line used, "seen" from the others.
"""

import argparse
import json
import shutil
from datetime import date
from pathlib import Path
from typing import Any

import torch
from PIL import ImageFont
from tqdm.auto import tqdm

try:
    from datasets import Dataset
except ImportError as error:
    raise SystemExit(f'{error.name} is not installed: pip install -e ".[train]"') from error

from hf_ocr.bundle import save_bundle
from hf_ocr.card import try_usage, write_card
from hf_ocr.data.fonts import find_fonts, load_words, split_families
from hf_ocr.data.lines import read_lines
from hf_ocr.data.synthetic_lines import SyntheticLines
from hf_ocr.evaluation import Report, evaluate
from hf_ocr.models.modeling_crnn import CrnnForTextRecognition
from hf_ocr.models.processing_text_recognition import TextRecognitionProcessor
from hf_ocr.record import DataSource, Result, RunRecord, describe_model, fingerprint, hardware, versions
from hf_ocr.registration import default_checkpoint
from hf_ocr.report import contact_sheet, report_to_dict, report_to_table, worst_lines

ROOT = Path(__file__).resolve().parent.parent
TEST_SETS = {
    "sroie_lines": "receipt lines (SROIE, split by shop; annotated in upper case whatever the print)",
    "iiit5k": "scene words (IIIT 5K-Word)",
    "icdar2015_words": "incidental scene words (ICDAR 2015, all 2,077)",
}
TRAINING_SETS = {
    "sroie_lines": (
        "CC-BY-4.0",
        "ICDAR 2019 scanned receipts; in the first run those lines whose case is known, later also the others",
    ),
    "iiit5k": (None, "IIIT 5K-Word, Mishra et al. 2012; a tenth held back"),
    "icdar2015_words": (None, "ICDAR 2015 Robust Reading, task 4.3; a tenth held back"),
    "svt_words": (None, "Street View Text, Wang et al. 2011; not in the first run"),
}
LIMITS = (
    "It reads one line or word; it does not find text on a page.",
    "Handwriting and blackletter were not in its training data.",
    "Words turned by more than about 30 degrees, curved text and letters below about 8 px are read badly.",
    "Scene words are read less well than by networks several times its size (see the results).",
    "Its runs were stopped and resumed, and on the way schedules were shortened and the augmentation was changed: the "
    "commands give a like model, not an equal one.",
)


def install(sources: list[Path], folder: Path) -> None:
    """The mean of the weights as float16, without the code that `save_pretrained` puts beside them."""
    states = [CrnnForTextRecognition.from_pretrained(source, dtype=torch.float32).state_dict() for source in sources]
    model = CrnnForTextRecognition.from_pretrained(sources[-1], dtype=torch.float32)
    for name, tensor in model.state_dict().items():
        if tensor.is_floating_point():
            tensor.copy_(torch.stack([state[name] for state in states]).mean(0))
    model.config.invalid_labels = model.config.empty_labels = "error"
    processor = TextRecognitionProcessor.from_pretrained(sources[-1])
    shutil.rmtree(folder, ignore_errors=True)
    save_bundle(model, processor, folder, weights_dtype=torch.float16)
    for module in folder.glob("*.py"):
        module.unlink()
    for path in folder.glob("*.json"):
        content = json.loads(path.read_text(encoding="utf-8"))
        if "auto_map" in json.dumps(content):
            path.write_text(json.dumps(_without_code(content), indent=2, ensure_ascii=False) + "\n", encoding="utf-8")


def _without_code(content: Any) -> Any:
    if not isinstance(content, dict):
        return content
    return {k: _without_code(v) for k, v in content.items() if k not in ("auto_map", "custom_pipelines")}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--run", type=Path, nargs="+", default=[], help="output_dir of scripts/train_crnn_latin.py")
    parser.add_argument("--data", type=Path, required=True, help="folder with sroie_lines, iiit5k, icdar2015_words")
    parser.add_argument("--with_before", action="store_true", help="average with the weights that the package has now")
    parser.add_argument("--sheets", type=Path, help="folder for pictures of the worst lines of each set")
    arguments = parser.parse_args()
    folder = default_checkpoint()
    earlier = RunRecord.load(ROOT / "model_cards" / f"{folder.name}.json")
    if arguments.run:
        install([run / "final" for run in arguments.run] + [folder] * arguments.with_before, folder)
    model = CrnnForTextRecognition.from_pretrained(folder)
    processor = TextRecognitionProcessor.from_pretrained(folder)
    reader = model.reading_copy(torch.float32)

    font = ImageFont.truetype("DejaVuSans.ttf", 15)
    results = []

    def measure(dataset: str, split: str, title: str, rows: Any, files: tuple[Any, ...] = ()) -> None:
        report: Report = evaluate(reader, processor, tqdm(rows, desc=title, disable=None))
        print(f"\n{title}\n{report_to_table(report)}")
        results.append(Result(dataset, split, report_to_dict(report), title, files))
        if arguments.sheets:
            arguments.sheets.mkdir(parents=True, exist_ok=True)
            contact_sheet(worst_lines(report), rows, font=font).save(arguments.sheets / f"{dataset}-{split}.png")

    for name, title in TEST_SETS.items():
        file = arguments.data / name / "test.parquet"
        measure(name, "test", title, read_lines(file), (fingerprint(file),))
    seen, unseen = split_families(find_fonts(), held_out=0.15, seed=0)
    for split, faces in (("unseen fonts", unseen), ("seen fonts", seen)):
        lines = SyntheticLines(faces, load_words(), seed=20_000, styles={"document": 1.0})
        rows = [row for row in (lines[index] for index in range(1010)) if row["text"]][:1000]
        measure("synthetic documents", split, "synthetic lines in document style", rows)

    cards = ROOT / "model_cards"
    cards.mkdir(exist_ok=True)
    samples = read_lines(ROOT / "tests" / "samples")
    picture = cards / f"{folder.name}.png"
    sheet = contact_sheet(evaluate(reader, processor, samples).predictions, samples, font=font)
    sheet.save(picture, optimize=True)

    logs = [(run / "log.jsonl").read_text(encoding="utf-8").splitlines() for run in arguments.run]
    ends = [json.loads(lines[-1]) for lines in logs]
    settings = dict(earlier.settings)
    done = max(int(name.split(":")[0].removeprefix("run ")) for name in settings)
    machine = hardware()
    if not arguments.run:
        machine = earlier.hardware
    elif machine["cpu"] not in earlier.hardware["cpu"]:
        machine["cpu"] = f"{earlier.hardware['cpu']} (runs 1 to {done}), {machine['cpu']}"
    for number, run in enumerate(arguments.run, done + 1):
        own = json.loads((run / "settings.json").read_text(encoding="utf-8"))
        settings |= {f"run {number}: {name}": value for name, value in own.items()}
    record = RunRecord(
        name=folder.name,
        description=(
            "A convolutional recurrent network with a CTC head that reads lines and words of printed Latin text: "
            "receipts, documents, screens, signs. Small enough for any CPU."
        ),
        model=describe_model(model, processor),
        settings=settings,
        created=date.today().isoformat(),
        hours=round(earlier.hours + sum(end["seconds"] for end in ends) / 3600, 2),
        steps=earlier.steps + sum(end["step"] for end in ends),
        lines_seen=earlier.lines_seen + sum(end["lines"] for end in ends),
        hardware=machine,
        versions=versions(),
        training_data=(
            DataSource("synthetic lines", origin=f"hf_ocr.data.synthetic_lines, {len(seen)} font faces, seed 0"),
            *(
                DataSource(
                    name,
                    "train",
                    len(Dataset.from_parquet(str(arguments.data / name / "train.parquet"))),
                    origin,
                    licence,
                    (fingerprint(arguments.data / name / "train.parquet"),),
                )
                for name, (licence, origin) in TRAINING_SETS.items()
            ),
        ),
        results=tuple(results),
        speed=() if arguments.run else earlier.speed,
        weights=(fingerprint(folder / "model.safetensors"),),
        languages=("en", "de", "fr", "es", "it", "pt", "nl", "pl", "sv"),
        limits=LIMITS,
        command="python scripts/train_crnn_latin.py --data DATA --output_dir runs/first\n"
        "python scripts/train_crnn_latin.py --data DATA --output_dir runs/second --init_from runs/first/final "
        "--max_steps 13000 --learning_rate 1e-3\n"
        "python scripts/train_crnn_latin.py --data DATA --output_dir runs/third --init_from runs/second/final "
        "--max_steps 5500 --learning_rate 1e-3\n"
        "python scripts/publish_crnn_latin.py --data DATA --run runs/second runs/third\n"
        "python scripts/train_crnn_latin.py --data DATA --output_dir runs/fourth "
        "--init_from hf_ocr/checkpoints/crnn-small-latin --max_steps 3000 --late_from 0.8 --learning_rate 1e-3 "
        "--seed 4\n"
        "python scripts/publish_crnn_latin.py --data DATA --run runs/fourth --with_before",
        evaluation_command="python scripts/publish_crnn_latin.py --data DATA",
        pictures={picture.name: "sample lines and what was read"},
    )
    write_card(try_usage(record, "tests/samples/receipt-2.png", ROOT).save(cards))


if __name__ == "__main__":
    main()
