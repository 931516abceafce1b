"""Inspection finds what is planted, and nothing in what is sound."""

import io

import numpy as np
import pytest
from PIL import Image, ImageDraw, ImageFont

from hf_ocr.data.inspection import inspect_lines
from hf_ocr.models.image_processing_text_line import TextLineImageProcessor
from hf_ocr.models.processing_text_recognition import TextRecognitionProcessor
from hf_ocr.models.tokenization_characters import CharacterTokenizer

PROCESSOR = TextRecognitionProcessor(
    image_processor=TextLineImageProcessor(height=32), tokenizer=CharacterTokenizer.from_alphabet("abcdelnort é")
)


def row(text, drawn=None):
    image = Image.new("L", (12 * len(drawn or text) + 20, 40), 255)
    ImageDraw.Draw(image).text((6, 6), drawn or text, fill=0, font=ImageFont.load_default(22))
    return {"image": image, "text": text}


SOUND = [row("rode"), row("noted"), row("color")]


def frames(width):
    return width // 4


def found(inspection):
    return {(finding.severity, finding.count, finding.what) for finding in inspection.findings}


def test_sound_lines_have_no_findings():
    inspection = inspect_lines({"train": SOUND, "validation": [row("told")]}, PROCESSOR, frames)
    assert inspection.findings == () == inspection.errors
    assert inspection.num_lines == {"train": 3, "validation": 1}
    assert inspection.characters["o"] == 5
    assert inspection.lengths.tolist() == [4, 5, 5, 4]
    assert inspection.heights.tolist() == [40] * 4
    prepared = PROCESSOR(images=[r["image"] for r in [*SOUND, row("told")]])
    assert inspection.widths.tolist() == prepared["widths"].tolist()


def test_images_of_which_none_has_a_text_are_an_error():
    inspection = inspect_lines({"train": [row | {"text": None} for row in SOUND]}, PROCESSOR, frames)
    assert [finding.what for finding in inspection.errors] == [f"{len(SOUND)} images that have no text"]


@pytest.mark.parametrize(
    ("planted", "severity", "what"),
    [
        (row("x ray", "told"), "error", "outside the alphabet: 'x' (U+0078, 1 times), 'y' (U+0079, 1 times)"),
        (row("lecterned" * 9, "lct"), "warning", "more characters than their image has frames"),
        (row("ee" * 9, "eee"), "warning", "more characters than their image has frames"),
        (row(" ", "told"), "warning", "lines without text"),
        ({"image": SOUND[0]["image"], "text": None}, "warning", "images that have no text"),
        (row("de\u0301co", "déco"), "warning", "not in Unicode normal form C"),
        (row("ﬁ", "fi"), "warning", "presentation forms"),
        (row("ｔｏｌｄ", "told"), "warning", "presentation forms"),
        (row("to\u200eld", "told"), "warning", "control or format characters"),
        (row("to\nld", "told"), "warning", "control or format characters"),
        (row("to\xa0ld", "told"), "warning", "other spaces than the plain one"),
        (row("דגל", "told"), "warning", "from right to left"),
        (row("order", "rode"), "warning", "again with another text"),
        (row("rode"), "warning", "again with the same text"),
        (row("told "), "warning", "white space before or behind"),
        ({"image": row("told")["image"].rotate(90, expand=True), "text": "told"}, "warning", "taller than 1.5 times"),
        ({"image": b"\x89PNG\r\n", "text": "rode"}, "warning", "cannot be read"),
        ({"image": Image.new("L", (2, 2)), "text": "rode"}, "warning", "cannot be read"),
    ],
)
def test_each_fault_is_found_and_shown(planted, severity, what):
    rows = SOUND * 1 + [row(text) for text in ("dot", "lot", "node", "tree", "bread", "alert", "tar")] + [planted]
    inspection = inspect_lines({"train": rows}, PROCESSOR, frames)
    matching = [f for f in inspection.findings if what in f.what]
    assert len(matching) == 1, found(inspection)
    assert matching[0].severity == severity
    assert matching[0].count == 1
    assert matching[0].examples[0].startswith("train, row 10: ")
    assert matching[0].cure


@pytest.mark.parametrize(
    "text",
    ["می\u200cخواهم", "क्\u200dष", "你好，世界！", "\ufd3eقرآن\ufd3f"],
    ids=["Persian", "Hindi", "Chinese", "brackets"],
)
def test_the_spelling_of_a_language_is_no_fault(text):
    inspection = inspect_lines({"train": [row(text, "told")]}, PROCESSOR, alphabet_mode="union")
    assert [finding.what.split(":")[0] for finding in inspection.findings] == [
        "1 texts with characters outside the alphabet"
    ]


def test_an_image_in_two_splits_is_an_error():
    inspection = inspect_lines({"train": SOUND, "test": [row("bread"), SOUND[1]]}, PROCESSOR, frames)
    assert [f.what for f in inspection.errors] == [
        "1 images that stand in two splits, so that the figures would be too good"
    ]
    assert inspection.errors[0].examples == ("test, row 1: 'noted', the image of train, row 1",)


def test_an_image_in_two_splits_that_are_learnt_is_no_leak():
    splits = {"train": SOUND, "replay": SOUND[:1], "test": SOUND[1:2]}
    inspection = inspect_lines(splits, PROCESSOR, frames, train_splits=2)
    assert [(f.severity, f.count) for f in inspection.findings] == [("error", 1), ("warning", 1)]
    assert inspection.errors[0].examples[0].startswith("test, row 0: 'noted'")
    splits = {"train": SOUND, "replay": [row("told")], "test": [row("told")]}
    replayed = inspect_lines(splits, PROCESSOR, train_splits=2)
    assert replayed.errors[0].examples == ("test, row 0: 'told', the image of replay, row 0",)


def test_lines_to_train_on_that_are_too_wide_are_counted():
    wide = row("coloreddoor")
    splits = {"train": [*SOUND * 4, wide], "validation": [row("torn" * 5)]}
    assert not [f for f in inspect_lines(splits, PROCESSOR).findings if "wider" in f.what]
    (finding,) = [f for f in inspect_lines(splits, PROCESSOR, max_width=100).findings if "wider than 100 px" in f.what]
    assert (finding.severity, finding.count) == ("warning", 1)
    assert finding.examples[0].startswith("train, row 12: 'coloreddoor'")
    splits["train"] = [*SOUND, wide]
    assert inspect_lines(splits, PROCESSOR, max_width=100).errors == ()  # however many


def test_the_form_of_a_text_contradicts_nothing():
    rows = [row("déco"), row("de\u0301co", "déco")]
    assert {f.what.split(" that ")[1] for f in inspect_lines({"train": rows}, PROCESSOR).findings} == {
        "are not in Unicode normal form C",
        "occur again with the same text",
    }


def test_an_alphabet_that_grows_makes_new_characters_a_warning():
    inspection = inspect_lines({"train": [*SOUND, row("ox")]}, PROCESSOR, frames, alphabet_mode="union")
    assert inspection.errors == ()
    assert "'x' (U+0078, 1 times)" in inspection.findings[0].what


def test_new_characters_where_they_make_no_alphabet_are_warnings():
    splits = {
        name: [row(text, drawn)]
        for name, text, drawn in (
            ("train", "ox", "on"), ("replay", "oy", "to"), ("validation", "oz", "do"), ("old_test", "ow x", "lo"),
        )
    }  # fmt: skip
    kept = inspect_lines(splits, PROCESSOR, train_splits=2, alphabet_splits={"train", "validation"})
    (error,), (replayed, measured) = kept.errors, kept.findings[1:]
    assert "'x' (U+0078, 1 times), 'z'" in error.what and "'y'" not in error.what and error.count == 2
    assert "'y'" in replayed.what and replayed.examples == ("replay, row 0: 'oy'",)
    assert replayed.cure.startswith("They are left out")
    assert "'w' (U+0077, 1 times), 'x'" in measured.what and measured.examples == ("old_test, row 0: 'ow x'",)
    assert measured.cure.startswith("These characters cannot be read")

    fed = {"train", "validation", "replay"}
    grown = inspect_lines(splits, PROCESSOR, alphabet_mode="union", train_splits=2, alphabet_splits=fed)
    added, measured = grown.findings
    assert (added.severity, added.count, added.cure) == ("warning", 3, "They are added to the alphabet.")
    assert measured.severity == "warning" and measured.what.endswith(": 'w' (U+0077, 1 times)")  # x is added


def test_new_characters_count_as_tokens_of_a_decoder():
    rows = [row("told"), row("told!!", "told"), row("?????", "told")]
    inspection = inspect_lines({"train": rows}, PROCESSOR, positions=5, alphabet_mode="union")
    (long,) = (finding for finding in inspection.findings if "more tokens than the decoder" in finding.what)
    assert long.count == 1 and "6 tokens" in long.examples[0]


def test_what_runs_from_right_to_left_is_no_matter_for_a_decoder():
    inspection = inspect_lines({"train": [row("דגל", "told")]}, PROCESSOR, alphabet_mode="union")
    assert not any("right to left" in finding.what for finding in inspection.findings)


def test_an_alphabet_made_anew_cannot_read_its_old_characters():
    splits = {"train": [row("color")], "test": [row("told")]}
    fed = {"train", "validation"}
    kept = inspect_lines(splits, PROCESSOR, alphabet_mode="union", alphabet_splits=fed)
    (lost,) = inspect_lines(splits, PROCESSOR, alphabet_mode="new", alphabet_splits=fed).findings
    assert kept.findings == ()
    assert lost.severity == "warning" and "'t' (U+0074, 1 times), 'd' (U+0064, 1 times)" in lost.what


def test_no_other_lines_make_up_for_unusable_lines_to_train_on():
    broken = [{"image": b"", "text": "rode"}] * 2
    splits = {"train": [*SOUND, *broken], "replay": [row("told")] * 40, "test": [row("tar")] * 40}
    assert [finding.count for finding in inspect_lines(splits, PROCESSOR, train_splits=2).errors] == [2]
    measured = {"train": SOUND * 10, "test": [*broken, row("tar")]}
    assert inspect_lines(measured, PROCESSOR).errors == ()  # what cannot be measured spoils no training


def test_many_unusable_lines_are_an_error():
    broken = [{"image": b"", "text": "rode"}] * 2
    assert inspect_lines({"train": [*SOUND, *broken]}, PROCESSOR).errors[0].count == 2


def test_encoded_images_as_datasets_gives_them():
    stream = io.BytesIO()
    SOUND[0]["image"].save(stream, "PNG")
    inspection = inspect_lines(
        {"train": [{"image": {"bytes": stream.getvalue(), "path": None}, "text": "rode"}]}, PROCESSOR
    )
    assert inspection.findings == ()
    assert np.array_equal(inspection.heights, [40])
