"""Which real lines a recognizer learns from: in the case of their print, and more often where it misreads them."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from accelerate import PartialState
from datasets import Dataset
from rapidfuzz.distance import Levenshtein

from hf_ocr.encoder_decoder import load_recognizer
from hf_ocr.metrics import line_matches
from hf_ocr.models.processing_text_recognition import TextRecognitionProcessor
from hf_ocr.models.reading import read_images
from hf_ocr.text import lower_alphanumerics

__all__ = ["Reader", "hard_cases", "in_case_of", "load_reader", "once", "with_case"]

Reader = tuple[Any, TextRecognitionProcessor]


def load_reader(folder: Path, dtype: torch.dtype, image_height: int | None = None) -> Reader:
    """As it is, or one that sees images of this height, px."""
    model, processor = load_recognizer(folder)
    if image_height is not None:
        model.config.image_height = processor.image_processor.height = image_height
    return model.reading_copy(dtype), processor


def in_case_of(reading: str, label: str) -> str:
    """`label`, an annotation in capitals, in the case in which it was read.

    A letter that was read as something else takes the case of the one before it.
    """
    cased, upper = [], True
    small = ["".join(c.lower() if len(c.lower()) == 1 else c for c in text) for text in (reading, label)]  # İ has two
    for step in Levenshtein.opcodes(*small):
        for offset, character in enumerate(label[step.dest_start : step.dest_end]):
            if step.tag == "equal" and character.isalpha():
                upper = reading[step.src_start + offset].isupper()
            cased.append(character if upper else character.lower())
    return "".join(cased)


def with_case(rows: Dataset, reader: Reader, chosen: Path) -> Dataset:
    """Rows annotated in capitals, in the case in which `reader` reads them; those it reads otherwise are left out.

    As they are they would teach capitals for small print. Where less than 60 % of a line agrees, either the label is
    wrong or the reading says nothing about the case.
    """

    def places_and_texts() -> list[tuple[int, str]]:
        read = [reading.text for reading in read_images(*reader, rows["image"][:], 64)]
        return [
            (place, in_case_of(reading, label))
            for place, (reading, label) in enumerate(zip(read, rows["text"][:], strict=True))
            if Levenshtein.normalized_similarity(reading.lower(), label.lower()) >= 0.6
        ]

    places, texts = zip(*once(chosen, places_and_texts), strict=True)
    return rows.select(places).remove_columns("text").add_column("text", list(texts))


def misread(rows: Dataset, reader: Reader) -> list[int]:
    """Places of the rows whose letters and digits are read otherwise, or not at all."""
    read = [reading.text for reading in read_images(*reader, rows["image"], on_error="skip")]
    right, _ = line_matches(read, rows["text"][:], lower_alphanumerics)
    return [index for index, same in enumerate(right) if not same]


def hard_cases(rows: Dataset, learner: Reader, judge: Path, chosen: Path) -> Dataset:
    """What the learner misreads and the judge reads as labelled: such labels are right, and the lines can be read."""

    def places() -> list[int]:
        misread_places = misread(rows, learner)
        wrong = set(misread(rows.select(misread_places), load_reader(judge, learner[0].dtype)))
        return [place for index, place in enumerate(misread_places) if index not in wrong]

    return rows.select(once(chosen, places))


def once(file: Path, choose: Callable[[], Any]) -> Any:
    """What is chosen is kept in `file`, as JSON: a run that goes on finds the same, wherever it does."""
    with PartialState().main_process_first():
        if not file.exists():
            partial_file = file.with_suffix(".partial")
            partial_file.write_text(json.dumps(choose()), encoding="utf-8")
            partial_file.replace(file)
        return json.loads(file.read_text(encoding="utf-8"))
