"""Which real lines are learnt: in the case of their print, and hard cases again."""

import json
from pathlib import Path

import pytest
import torch
from datasets import Dataset
from PIL import Image
from tiny_recognizer import tiny_recognizer

from hf_ocr.line_choice import hard_cases, in_case_of, load_reader, once, with_case
from hf_ocr.models.reading import read_images
from hf_ocr.registration import default_checkpoint

SAMPLES = Path(__file__).parent / "samples"


@pytest.mark.parametrize(
    ("reading", "label", "cased"),
    [
        ("Total Amount", "TOTAL AMOUNT", "Total Amount"),
        ("Tota1 Amount", "TOTAL AMOUNT", "Total Amount"),
        ("TOTAL", "TOTAL", "TOTAL"),
        ("straße 7", "STRASSE 7", "strasse 7"),
        ("", "AB", "AB"),
        ("İn", "IN", "In"),
    ],
)
def test_the_case_is_that_of_the_reading_and_the_letters_those_of_the_label(reading, label, cased):
    assert in_case_of(reading, label) == cased


def sample_rows() -> Dataset:
    """Lines of print that the shipped checkpoint reads as labelled, and one with a label that is not its text."""
    lines = [json.loads(line) for line in (SAMPLES / "metadata.jsonl").read_text(encoding="utf-8").splitlines()]
    rows = [line for line in lines if line["file_name"] in ("web-menu.png", "web-hours.png", "web-library.png")]
    images = [Image.open(SAMPLES / row["file_name"]).convert("RGB") for row in rows]
    return Dataset.from_dict({"image": images, "text": [*(row["text"] for row in rows[:-1]), "something else"]})


def test_rows_in_capitals_get_the_case_of_the_print_and_wrong_labels_are_left_out(tmp_path):
    rows = sample_rows()
    upper = rows.map(lambda row: {"text": row["text"].upper()})
    cased = with_case(upper, load_reader(default_checkpoint(), torch.float32), tmp_path / "cased.json")
    assert cased["text"][:] == rows["text"][:2]
    chosen = json.loads((tmp_path / "cased.json").read_text(encoding="utf-8"))
    assert chosen == [[place, text] for place, text in enumerate(rows["text"][:2])]


def test_hard_cases_are_misread_by_the_learner_and_read_as_labelled_by_the_judge(tmp_path):
    rows = sample_rows()
    reader = load_reader(default_checkpoint(), torch.float32)
    easy = hard_cases(rows, reader, default_checkpoint(), tmp_path / "easy.json")
    assert len(easy) == 0
    hard = hard_cases(rows, tiny_recognizer(), default_checkpoint(), tmp_path / "hard.json")
    assert hard["text"][:] == rows["text"][:2]


def test_what_is_chosen_once_is_not_chosen_again(tmp_path):
    assert once(tmp_path / "chosen.json", lambda: [1, 2]) == [1, 2]
    assert once(tmp_path / "chosen.json", lambda: [3]) == [1, 2]


def test_a_reader_can_see_images_of_another_height():
    model, processor = load_reader(default_checkpoint(), torch.float32, image_height=36)
    assert processor(images=[Image.new("L", (90, 30), 255)], return_tensors="pt")["pixel_values"].shape[-2] == 36
    assert len(read_images(model, processor, sample_rows()["image"])) == 3
