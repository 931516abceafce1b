import tracemalloc
from dataclasses import replace

import pytest
import torch
from PIL import Image, ImageDraw, ImageFont

from hf_ocr.data.lines import measurable_lines, read_lines
from hf_ocr.evaluation import NUM_SOURCES, Prediction, compare, evaluate, report_on
from hf_ocr.metrics import bootstrap_interval, character_edits
from hf_ocr.models.configuration_crnn import CrnnConfig
from hf_ocr.models.image_processing_text_line import TextLineImageProcessor
from hf_ocr.models.modeling_crnn import CrnnForTextRecognition
from hf_ocr.models.processing_text_recognition import TextRecognitionProcessor
from hf_ocr.models.reading import read_images
from hf_ocr.models.tokenization_characters import CharacterTokenizer
from hf_ocr.report import contact_sheet
from hf_ocr.training import evaluate_in_all_processes


def line(index, reference, prediction, width=320, height=32, score=0.5):
    return Prediction(index, reference, prediction, score, width, height)


# reference, prediction, crop: edits with case / without, right on 36 characters, px a character at height 32
LINES = [
    line(0, "Total 5", "total 5", 140, 40),  # 1 / 0, right, 16
    line(1, "RM 12.90", "RM 12,9O", 64, 32),  # 2 / 2, wrong, 8
    line(2, "Cafe\u0301", "Caf\u00e9", 40, 20),  # 0 / 0, right, 16
    line(3, "abcdefghij", "abdefghijj", 1000, 100),  # 2 / 2, wrong, 32
    line(4, "", "x", 10, 10),  # 1 / 1, wrong; in no bucket
    line(5, "kk", "kk", 20, 80),  # upright: 0 / 0, right, 64
]


@pytest.fixture(scope="module")
def report():
    return report_on(LINES)


def test_figures_are_those_counted_by_hand(report):
    assert report.num_lines == 6
    assert (report.exact.count, report.exact.total) == (3, 6)
    assert (report.exact_raw.count, report.exact_raw.total) == (2, 6)
    assert (report.cer.count, report.cer.total) == (6, 31)
    assert (report.cer_ignoring_case.count, report.cer_ignoring_case.total) == (5, 31)
    # Words: "Total", "12.90" and "abcdefghij" are wrong, and the empty reference got a word.
    assert (report.wer.count, report.wer.total) == (4, 7)
    assert report.figures == {
        "exact": 0.5,
        "exact_raw": 2 / 6,
        "cer": 6 / 31,
        "cer_ignoring_case": 5 / 31,
        "wer": 4 / 7,
    }


def test_every_figure_has_an_interval_around_it(report):
    for name in report.figures:
        figure = getattr(report, name)
        assert figure.low < figure.value < figure.high


@pytest.mark.parametrize(
    ("references", "exact"),
    [(["कख", "गत्र"], 0.5), (["Ab", "!?"], 1.0), (["!?", "..", "A"], 2 / 3), (["Ab", "A", "गत्र", "कख"], 0.75)],
)
def test_exact_counts_other_scripts_too(references, exact):
    """Of Latin lines letters and digits alone count. Of others the whole text does: no reading is right for free."""
    read = {"कख": "कख", "गत्र": "गत", "Ab": "ab", "!?": "", "..": "..", "A": "a"}
    predictions = [Prediction(i, text, read[text], 0.9, 100, 32) for i, text in enumerate(references)]
    assert report_on(predictions).exact.value == pytest.approx(exact)


def test_images_that_could_not_be_opened_are_of_no_width():
    good = [Prediction(i, "house", "house", 0.9, 200, 32) for i in range(3)]
    report = report_on([*good, Prediction(3, "house", "", 0.0, 0, 0)])
    assert report.exact.total == 4
    for buckets in (report.by_width, report.by_pixels):
        assert [(bucket.num_lines, bucket.exact.count) for bucket in buckets] == [(3, 3)]


def test_predictions_are_kept_as_they_were(report):
    assert report.predictions == tuple(LINES)
    assert report.predictions[2].reference == "Cafe\u0301"


def test_confusions_are_counted_by_character(report):
    assert report.confusions.substitutions == {("T", "t"): 1, (".", ","): 1, ("0", "O"): 1}
    assert report.confusions.insertions == {"j": 1, "x": 1}
    assert report.confusions.deletions == {"c": 1}


def test_buckets_by_length(report):
    found = [(b.low, b.high, b.num_lines, b.exact.count, b.cer_ignoring_case.count) for b in report.by_length]
    assert found == [(1, 5, 2, 2, 0), (5, 9, 2, 1, 2), (9, 17, 1, 0, 2)]


def test_buckets_by_pixels_a_character(report):
    found = [(b.low, b.high, b.num_lines, b.exact.count) for b in report.by_pixels]
    assert found == [(8, 11, 1, 0), (14, 18, 2, 2), (18, None, 2, 1)]


def test_buckets_by_width(report):
    # 112, 64, 64 and 320 px, and 128 px for the one that stands upright.
    found = [(b.low, b.high, b.num_lines) for b in report.by_width]
    assert found == [(64, 128, 3), (128, 256, 1), (256, 512, 1)]


def test_buckets_by_the_rarest_character():
    lines = [line(0, "a" * 9, "a" * 9), line(1, "aa", "ab"), line(2, "ab", "ab"), line(3, "", "")]
    found = [(b.low, b.high, b.num_lines, b.exact.count) for b in report_on(lines).by_rarity]
    assert found == [(1, 10, 1, 1), (10, 100, 2, 1)]


def test_slices_by_script_and_source_most_lines_first():
    texts = ["Total 5", "кот 12345", "12.90", "cat", "λόγος", ""]
    lines = [replace(line(i, text, text), source="b" if i % 2 else "a") for i, text in enumerate(texts)]
    lines[4] = replace(lines[4], source=None)
    report = report_on(lines)
    # The empty one has no script and is in no slice.
    assert [(s.name, s.num_lines) for s in report.by_script] == [
        ("Latin", 2), ("no letters", 1), ("Cyrillic", 1), ("Greek", 1)
    ]  # fmt: skip
    assert [(s.name, s.num_lines) for s in report.by_source] == [("b", 2), ("a", 2)]
    assert report_on(LINES).by_source == ()


def test_rare_sources_share_a_slice():
    lines = [replace(line(i, "a", "a"), source=f"book {i // 2}") for i in range(2 * NUM_SOURCES)]
    lines += [replace(line(100 + i, "a", "b"), source=f"leaf {i}") for i in range(7)]
    slices = report_on(lines).by_source
    assert len(slices) == NUM_SOURCES + 1
    assert (slices[0].name, slices[0].num_lines, slices[0].exact.count) == ("others", 7, 0)
    assert report_on(lines[-7:]).by_source == (), "names of single lines divide nothing"


def test_intervals_draw_documents_where_lines_have_them():
    # Ten pages of twenty lines, every second one wrong throughout.
    lines = [line(i, "abc", "abc" if i // 20 % 2 else "xyz") for i in range(200)]
    pages = [replace(one, document=f"page {one.index // 20}") for one in lines]
    assert report_on(pages).cer.high > report_on(lines).cer.high + 0.1
    # A line of no document is one by itself.
    mixed = report_on([replace(one, document="page 1" if one.index < 2 else None) for one in lines])
    assert mixed.cer.high < report_on(pages).cer.high - 0.1


def test_names_of_documents_cost_no_memory_by_line():
    lines = [line(i, "abc", "abc" if i % 3 else "xyz") for i in range(1000)]
    tracemalloc.start()
    short = report_on([replace(one, document=str(one.index // 20)) for one in lines])
    tracemalloc.reset_peak()
    long = report_on([replace(one, document="x" * 20_000 * (one.index < 20) + str(one.index // 20)) for one in lines])
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 40e6  # bytes; each line with the longest name would be 80e6
    assert (long.cer, long.by_length) == (short.cer, short.by_length)
    edits = character_edits([one.prediction for one in lines], [one.reference for one in lines])
    by_name = bootstrap_interval(*edits, documents=[str(one.index // 20) for one in lines])
    assert (short.cer.low, short.cer.high) == by_name


def test_means_over_lines_and_other_rates(report):
    # 1/7, 2/8, 0, 2/10, 1 (something read where nothing is), 0
    assert report.cer_macro.value == pytest.approx((1 / 7 + 2 / 8 + 2 / 10 + 1) / 6)
    assert report.wer_macro.value == pytest.approx((1 / 2 + 1 / 2 + 1 + 1) / 6)
    assert report.normalised_edit_distance.value == pytest.approx((1 / 7 + 2 / 8 + 2 / 10 + 1) / 6)
    assert (report.space.count, report.space.total) == (0, 2)
    assert report_on([line(0, "ab", "a b")]).space is None


def test_what_is_read_on_blank_images_is_counted(report):
    assert (report.blanks.num_lines, report.blanks.num_read, report.blanks.num_characters) == (1, 1, 1)
    blanks = report_on([*LINES, line(6, " ", ""), line(7, "", "ab c")]).blanks
    assert (blanks.num_lines, blanks.num_read, blanks.num_characters) == (3, 2, 5)


def test_a_protocol_is_the_form_in_which_texts_are_compared():
    lines = [line(0, "Caf\u00e9, No. 5", "cafe no5"), line(1, "ab", "ax")]
    report = report_on(lines, protocol="36")
    assert (report.cer.count, report.cer.total, report.exact_raw.count, report.space) == (1, 9, 1, None)
    assert report.confusions.substitutions == {("b", "x"): 1}
    assert report.protocol == "36"
    as_they_are = report_on([line(0, "A  b", "a b")], protocol="nfc")
    assert (as_they_are.cer.count, as_they_are.cer_ignoring_case.count) == (2, 1)
    with pytest.raises(ValueError, match="protocol is 'lower', expected one of normal, nfc"):
        report_on(lines, protocol="lower")


def test_two_readers_are_compared_line_by_line(report):
    better = report_on([replace(one, prediction=one.reference) if one.index < 3 else one for one in LINES])
    found = compare(report, better)
    assert list(found) == list(report.figures)
    assert (found["cer"].first, found["cer"].second) == (6 / 31, 3 / 31)
    assert found["cer"].value == pytest.approx(-3 / 31)
    assert found["exact_raw"].value == pytest.approx(2 / 6)
    # Of the six lines two differ; of their four sign changes two are as extreme.
    assert found["cer"].p_value == pytest.approx(0.5, abs=0.03)
    paired = [replace(one, document="a" if one.index < 2 else "b") for one in LINES]
    together = compare(report_on(paired), better)
    assert together["cer"].p_value == 1.0, "the two lines are of one document"
    with pytest.raises(ValueError, match="not on the same lines"):
        compare(report, report_on(LINES[:5]))


def test_a_single_upright_character_is_not_turned():
    (bucket,) = report_on([line(0, "I", "I", 10, 40)]).by_pixels
    assert (bucket.low, bucket.high) == (8, 11)


@pytest.fixture(scope="module")
def recognizer():
    torch.manual_seed(0)
    tokenizer = CharacterTokenizer.from_alphabet("abcdefgh")
    config = CrnnConfig.small(image_height=32, vocab_size=len(tokenizer), lstm_hidden_size=8)
    processor = TextRecognitionProcessor(TextLineImageProcessor(height=32), tokenizer)
    model = CrnnForTextRecognition(config)
    # As they are, untrained weights read nothing; larger ones give most images a text of its own.
    for parameter in model.crnn.lstms.parameters():
        torch.nn.init.normal_(parameter, std=0.5)
    torch.nn.init.normal_(model.classifier.weight, std=2)
    return model, processor


@pytest.fixture(scope="module")
def images():
    font = ImageFont.load_default(24)
    drawn = []
    for number in range(12):
        image = Image.new("L", (60 + 15 * (number * 7 % 12), 32), 255)
        ImageDraw.Draw(image).text((4, 2), f"{number * 7919} ab"[: 3 + number % 5] * 3, 0, font)
        drawn.append(image)
    return drawn


def test_evaluate_keeps_rows_and_readings_together(recognizer, images):
    readings = read_images(*recognizer, images, 4)
    assert len({reading.text for reading in readings}) > 6
    rows = [{"image": image, "text": reading.text} for image, reading in zip(images, readings, strict=True)]
    rows[5]["text"] += "zz"
    rows[3] |= {"document": 1, "source": "book"}
    report = evaluate(*recognizer, iter(rows), batch_size=4)
    assert [p.prediction for p in report.predictions] == [reading.text for reading in readings]
    assert [p.score for p in report.predictions] == pytest.approx([reading.score for reading in readings])
    assert [p.index for p in report.predictions] == list(range(12))
    assert (report.exact.count, report.cer.count) == (11, 2)
    assert [(p.document, p.source) for p in report.predictions[2:4]] == [(None, None), ("1", "book")]


def test_rows_are_taken_in_pieces(recognizer, images):
    # 1 x 32 lines a piece: 80 rows are three pieces, of which the last is broken.
    rows = [{"image": images[i % 12], "text": "a"} for i in range(80)]
    taken = []

    def stream():
        for number, row in enumerate(rows):
            taken.append(number)
            yield row if number < 40 else {"image": row["image"], "text": None}

    with pytest.raises(ValueError, match="Row 40: 'text' is None"):
        evaluate(*recognizer, stream(), batch_size=1)
    assert len(taken) == 64
    one_by_one, together = (evaluate(*recognizer, rows[:40], batch_size=size) for size in (1, 64))
    assert one_by_one.figures == together.figures
    assert [p.index for p in one_by_one.predictions] == list(range(40))
    texts = [p.prediction for p in one_by_one.predictions]
    assert texts == [p.prediction for p in together.predictions]
    assert texts[:12] * 3 == texts[:36]


@pytest.mark.parametrize("exif", [b"Exif\0\0garbage!", b"II*\0"])
def test_damaged_exif_hinders_no_measurement(recognizer, images, tmp_path, exif):
    """The pixels are good; the decoding of datasets fails at it."""
    images[0].save(tmp_path / "a.png", exif=exif)
    (tmp_path / "a.gt.txt").write_text("a")
    rows = measurable_lines(read_lines(tmp_path), recognizer[1].image_processor)
    (read,) = read_images(*recognizer, images[:1])
    for report in (evaluate(*recognizer, rows), evaluate_in_all_processes(*recognizer, rows)):
        assert report.predictions == (Prediction(0, "a", read.text, read.score, *images[0].size),)
        assert contact_sheet(report.predictions, rows).size[0] == 960


def test_rows_that_cannot_be_measured_are_refused(recognizer, images):
    with pytest.raises(ValueError, match="no rows"):
        evaluate(*recognizer, [])
    with pytest.raises(ValueError, match=r"Row 1: 'image' is 'line\.png'"):
        evaluate(*recognizer, [{"image": images[0], "text": "a"}, {"image": "line.png", "text": "a"}])
    with pytest.raises(ValueError, match="length 0 in all"):
        evaluate(*recognizer, [{"image": images[0], "text": " "}])
