import io
import json
import warnings
from dataclasses import replace

import numpy as np
import pytest
from PIL import Image

from hf_ocr.evaluation import Prediction, compare, report_on
from hf_ocr.report import (
    comparison_to_table,
    contact_sheet,
    draw_calibration,
    draw_curves,
    report_from_dict,
    report_to_dict,
    report_to_table,
    worst_lines,
)

LINES = [
    Prediction(0, "Total", "total", 0.9, 100, 20),
    Prediction(1, "RM 12.90", "RM 12,90", 0.4, 160, 20),
    Prediction(2, "ab", "xy", 0.3, 40, 20),
    Prediction(3, "cd", "zw", 0.8, 40, 20),
    Prediction(4, "", "", 1.0, 40, 20),
]
COLOURS = [(255, 0, 0), (0, 255, 0), (0, 0, 255), (255, 255, 0), (0, 255, 255)]


@pytest.fixture(scope="module")
def report():
    return report_on(LINES)


@pytest.fixture(scope="module")
def rows():
    return [{"image": Image.new("RGB", (p.width, p.height), colour)} for p, colour in zip(LINES, COLOURS, strict=True)]


def test_the_table_gives_figures_in_percent_with_interval_and_protocol(report):
    table = report_to_table(report)
    # 36 characters: "total" and "rm1290" are right, and so is the empty line: 3 of 5. CER: 6 edits of 17 characters.
    assert "5 lines" in table
    (exact,) = [row for row in table.splitlines() if row.startswith("exact, letters and digits")]
    assert " 60.00 % [" in exact
    assert "all but a-z and 0-9 dropped" in exact
    (cer,) = [row for row in table.splitlines() if row.startswith("CER   ")]
    assert f"{100 * 6 / 17:.2f} % [" in cer
    assert "'T' > 't' 1" in table
    assert "1 blank lines, 0 of them read as something, 0 characters in all" in table
    assert "over lines, 1000 resamplings" in table
    assert any(row.startswith("space error rate") and "  0.00 % [" in row for row in table.splitlines())
    (latin,) = [row for row in table.splitlines() if row.startswith("Latin")]
    assert latin.split()[1] == "4"


def test_the_dictionary_survives_json_and_holds_the_counts(report):
    content = report_to_dict(report)
    assert json.loads(json.dumps(content)) == content
    assert content["num_lines"] == 5
    figure = content["figures"]["cer_ignoring_case"]
    assert (figure["count"], figure["total"], figure["value"]) == (5, 17, round(5 / 17, 6))
    assert figure["low"] < figure["value"] < figure["high"]
    assert "seed 0" in content["interval"]
    assert ["T", "t", 1] in content["confusions"]["substitutions"]
    assert "predictions" not in content
    kept = report_to_dict(report, with_predictions=True)["predictions"]
    assert kept[1] == {
        "index": 1,
        "reference": "RM 12.90",
        "prediction": "RM 12,90",
        "score": 0.4,
        "width": 160,
        "height": 20,
    }


@pytest.mark.parametrize("protocol", ["normal", "36"])
def test_a_report_is_read_back_from_its_json(protocol):
    lines = [replace(p, document=str(p.index % 2), source="a" if p.index else None) for p in LINES]
    report = report_on(lines, seed=3, protocol=protocol)
    text = json.dumps(report_to_dict(report, with_predictions=True))
    assert report_from_dict(json.loads(text)) == report


def test_a_report_without_its_predictions_is_not_read_back(report):
    with pytest.raises(ValueError, match="holds no predictions"):
        report_from_dict(report_to_dict(report))
    content = report_to_dict(report, with_predictions=True)
    content["predictions"][0]["colour"] = "red"
    with pytest.raises(ValueError, match=r"entries \['colour'\]"):
        report_from_dict(content)


def test_every_slice_is_in_the_dictionary():
    lines = [replace(p, source="receipts", document="7") for p in LINES]
    content = report_to_dict(report_on(lines))
    assert [entry["name"] for entry in content["by_script"]] == ["Latin"]
    assert [(entry["name"], entry["num_lines"]) for entry in content["by_source"]] == [("receipts", 4)]
    assert all(content[name] for name in ("by_length", "by_pixels", "by_width", "by_rarity"))
    assert content["blanks"] == {"num_lines": 1, "num_read": 0, "num_characters": 0}
    assert content["interval"].startswith("95 % percentile bootstrap over documents")


def test_a_rate_that_is_not_there_is_left_out():
    report = report_on([Prediction(0, "ab", "a b", 1.0, 40, 20)])
    assert "space" not in report_to_dict(report)["figures"]
    assert "space error rate" not in report_to_table(report)


def test_the_comparison_gives_rates_difference_and_p(report):
    better = report_on([replace(line, prediction=line.reference) for line in LINES])
    table = comparison_to_table(compare(report, better))
    (cer,) = [row for row in table.splitlines() if row.startswith("CER   ")]
    assert f"{100 * 6 / 17:.2f} %" in cer
    assert f"-{100 * 6 / 17:.2f} [-" in cer


def test_what_the_scores_are_worth_is_in_table_and_dictionary(report):
    content = report_to_dict(report)["calibration"]
    # Of the whole text "" alone is right; it has the best score.
    assert content["brier"] == round((0.9**2 + 0.4**2 + 0.3**2 + 0.8**2) / 5, 6)
    assert content["bins"][-1] == [1.0, 1.0, 1] and content["bins"][0] == [0.3, 0.0, 1]
    assert content["ece"] == round((0.9 + 0.4 + 0.3 + 0.8) / 5, 6)
    assert content["risk_coverage"][3] == [0.2, 0.0] and content["risk_coverage"][-1] == [1.0, 0.8]
    table = report_to_table(report)
    assert "calibration error (ECE) 48.00 %, Brier 0.3400" in table
    assert "66.67 % at 60 %, 75.00 % at 80 %, 80.00 % at 100 %\n" in table


def test_the_scores_are_drawn(report, tmp_path):
    draw_calibration(report, tmp_path / "scores.png")
    with Image.open(tmp_path / "scores.png") as picture:
        assert len(np.unique(np.asarray(picture.convert("RGB")).reshape(-1, 3), axis=0)) > 3
    drawn = io.BytesIO()
    draw_calibration(report, drawn, "svg")
    assert b"<svg" in drawn.getvalue()


def test_a_reader_without_scores_has_no_calibration(tmp_path):
    for scores in ((0.0, 0.0), (0.5, float("nan")), (97.0, 98.0)):
        lines = [Prediction(i, "ab", "ab", score, 64, 32) for i, score in enumerate(scores)]
        report = report_on(lines)
        assert report.calibration is None and report_to_dict(report)["calibration"] is None
        assert "ECE" not in report_to_table(report)
        with pytest.raises(ValueError, match="no calibration"):
            draw_calibration(report, tmp_path / "none.png")


def test_confusions_are_cut_at_the_most_frequent():
    lines = [Prediction(i, "mmmi", "nnnl", 1.0, 64, 32) for i in range(3)]
    content = report_to_dict(report_on(lines), num_confusions=1)
    assert content["confusions"]["substitutions"] == [["m", "n", 9]]


def test_worst_lines_by_edits_a_character_then_by_confidence(report):
    assert [p.index for p in worst_lines(report)] == [3, 2, 1]
    assert [p.index for p in worst_lines(report, 1)] == [3]


def test_the_contact_sheet_shows_the_worst_crops_in_order_with_text_below(report, rows):
    sheet = np.asarray(contact_sheet(worst_lines(report), rows))

    def top_left(colour):
        found = np.argwhere((sheet == colour).all(-1))
        return tuple(found.min(0)) if len(found) else None

    assert sheet.shape[1] == 960
    yellow, blue, green = (top_left(COLOURS[i]) for i in (3, 2, 1))
    assert yellow[0] == blue[0] < green[0]
    assert yellow[1] == green[1] < blue[1]
    # Lines that were read rightly but for the case have no place on it.
    assert top_left(COLOURS[0]) is None
    assert top_left(COLOURS[4]) is None
    below = sheet[yellow[0] + 64 : yellow[0] + 64 + 48, :480]
    assert (below.sum(-1) < 150).sum() > 20, "the reference in black"
    red = (below[..., 0] > 150) & (below[..., 1] < 80)
    assert red.sum() > 20, "what was read in red"


def test_the_contact_sheet_keeps_long_texts_in_their_cell():
    lines = [Prediction(0, "m" * 200, "w" * 200, 0.1, 3000, 20), Prediction(1, "a", "b", 0.1, 20, 20)]
    rows = [{"image": Image.new("L", (p.width, p.height), 200)} for p in lines]
    sheet = np.asarray(contact_sheet(lines[:1], rows, columns=2))
    assert (sheet[:, :480] < 100).any()
    assert (sheet[:, 480:] == 255).all()


def test_the_contact_sheet_shows_a_clear_ground_as_it_is_read():
    rows = [{"image": Image.new("RGBA", (40, 20), (0, 0, 0, 0))}]
    assert (np.asarray(contact_sheet([Prediction(0, "a", "b", 0.1, 40, 20)], rows))[8:72] == 255).all()


def test_the_contact_sheet_of_no_lines_says_so():
    sheet = np.asarray(contact_sheet(worst_lines(report_on([Prediction(0, "a", "a", 1.0, 20, 20)])), []))
    assert (sheet < 100).any()


def test_the_contact_sheet_marks_right_readings_green():
    def has(colour, prediction):
        sheet = contact_sheet(
            [Prediction(0, "abc", prediction, 1.0, 20, 20)], [{"image": Image.new("L", (20, 20), 255)}]
        )
        return (np.asarray(sheet) == colour).all(-1).any()

    assert has((0, 100, 0), "abc") and not has((178, 34, 34), "abc")
    assert has((178, 34, 34), "abd") and not has((0, 100, 0), "abd")


def test_curves_may_reach_zero(tmp_path):
    log = tmp_path / "log.jsonl"
    entries = [{"step": 5, "loss": 2.0, "validation_cer": 0.0}, {"step": 10, "loss": 1.0, "validation_cer": 0.0}]
    log.write_text("\n".join(map(json.dumps, entries)), encoding="utf-8")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        draw_curves(log, tmp_path / "curves.png")
    assert Image.open(tmp_path / "curves.png").width > 500
