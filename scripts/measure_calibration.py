"""What a temperature makes of the scores of the shipped checkpoint: fitted on validation lines, measured on test lines.

    python scripts/measure_calibration.py --data DATA

DATA holds sroie_lines and icdar2015_words. The fit sees the validation lines of SROIE that have the case of the print,
and the tenth of ICDAR's training words that the checkpoint was not trained on, as many of the one as of the other.
"""

import argparse
import json
import zlib
from pathlib import Path

import torch

try:
    from datasets import Dataset, concatenate_datasets
except ImportError as error:
    raise SystemExit(f'{error.name} is not installed: pip install -e ".[eval]"') from error

from hf_ocr import CrnnForTextRecognition, TextRecognitionProcessor
from hf_ocr.calibration import fit_temperature
from hf_ocr.evaluation import evaluate
from hf_ocr.registration import default_checkpoint
from hf_ocr.report import report_to_dict


def receipts(data: Path, split: str) -> Dataset:
    rows = Dataset.from_parquet(str(data / "sroie_lines" / f"{split}.parquet"))
    rows = rows.filter(lambda text: text is not None, input_columns="text_cased")
    return rows.select_columns(["image", "text_cased"]).rename_column("text_cased", "text")


def words(data: Path, split: str) -> Dataset:
    rows = Dataset.from_parquet(str(data / "icdar2015_words" / f"{split}.parquet"))
    if split == "train":
        rows = rows.filter(lambda source: zlib.crc32(source.encode()) % 10 == 0, input_columns="source")
    return rows.select_columns(["image", "text"])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="folder with sroie_lines and icdar2015_words")
    parser.add_argument("--model", type=Path, default=default_checkpoint(), help="folder of a CRNN checkpoint")
    parser.add_argument("--output", type=Path, help="JSON to write")
    arguments = parser.parse_args()
    model = CrnnForTextRecognition.from_pretrained(arguments.model).reading_copy(torch.float32)
    processor = TextRecognitionProcessor.from_pretrained(arguments.model)

    scene = words(arguments.data, "train")
    printed = receipts(arguments.data, "validation").shuffle(seed=0).select(range(len(scene)))
    fit = fit_temperature(model, processor, concatenate_datasets([printed, scene]))
    print(f"temperature {fit.temperature}, fitted on {len(printed)} receipt lines and {len(scene)} scene words")
    figures = {"temperature": fit.temperature}
    for name, rows in (("receipts", receipts(arguments.data, "test")), ("words", words(arguments.data, "test"))):
        for temperature in (1.0, fit.temperature):
            model.config.temperature = temperature
            report = evaluate(model, processor, rows)
            found = figures[f"{name}, temperature {temperature}"] = report_to_dict(report)["calibration"]
            print(
                f"{name}, temperature {temperature}: ECE {found['ece']}, Brier {found['brier']}, AURC {found['aurc']}"
            )
            print(f"  wrong among the lines kept, (coverage, risk): {found['risk_coverage']}")
    if arguments.output:
        arguments.output.write_text(json.dumps(figures, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
