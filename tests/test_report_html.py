"""The page as a browser takes it: parsed, never searched for strings alone."""

import base64
import io
import xml.etree.ElementTree as ET
from dataclasses import replace
from html.parser import HTMLParser

import pytest
from PIL import Image

from hf_ocr.evaluation import Prediction, report_on
from hf_ocr.report_html import report_to_html

LINES = [
    Prediction(0, "Total", "total", 0.9, 100, 20, "page 1", "receipts"),
    Prediction(1, "RM 12.90", "RM12,90x", 0.4, 160, 20, "page 1", "receipts"),
    Prediction(2, "ab", "xy", 0.3, 40, 20, "page 2", "signs"),
    Prediction(3, "", "z", 1.0, 40, 20, "page 2", "signs"),
]
VOID = {"meta", "img", "br"}


class Page(HTMLParser):
    """Elements in order: (tag, attributes, text inside). Fails on what is not closed, and on elements out of place."""

    def __init__(self, page):
        super().__init__()
        self.elements, self.open = [], []
        self.feed(page)
        self.close()
        assert not self.open

    def handle_starttag(self, tag, attributes):
        self.elements.append([tag, dict(attributes), ""])
        if tag not in VOID:
            self.open.append(self.elements[-1])

    def handle_endtag(self, tag):
        assert self.open.pop()[0] == tag

    def handle_data(self, data):
        for element in self.open:
            element[2] += data

    def all(self, tag):
        return [(attributes, text) for name, attributes, text in self.elements if name == tag]


def embedded(attributes):
    kind, content = attributes["src"].removeprefix("data:image/").split(";base64,")
    return kind, base64.b64decode(content)


@pytest.fixture(scope="module")
def report():
    return report_on(LINES)


def test_figures_slices_confusions_and_blanks_are_on_the_page(report):
    page = Page(report_to_html(report, "Receipts", facts={"model": "tiny"}))
    assert page.all("h1") == [({}, "Receipts")]
    rows = [text for _, text in page.all("tr")]
    cer = report.cer
    assert any(f"{100 * cer.value:.2f} % [{100 * cer.low:.2f}, {100 * cer.high:.2f}]" in row for row in rows)
    assert any(row.startswith("receipts2") for row in rows)
    assert any(row.startswith("Latin3") for row in rows)
    assert "Tt1" in rows and "space1" in rows
    assert any(row.endswith("111") and "first" in row for row in rows), "one blank line, read as one character"
    assert "model tiny" in page.all("p")[0][1]
    assert "over documents" in "".join(text for _, text in page.all("small"))


def test_plots_and_crops_are_inside_and_nothing_is_fetched(report):
    pictures = {1: Image.new("L", (3000, 20), 90), 2: Image.new("RGBA", (40, 20), "red")}
    pictures[2].paste((0, 0, 0, 0), (0, 0, 16, 20))
    page = Page(report_to_html(report, "Receipts", pictures))
    contents = [embedded(attributes) for attributes, _ in page.all("img")]
    plots = [ET.fromstring(content) for kind, content in contents if kind == "svg+xml"]
    assert len(plots) == 4, "by length, size and width, and the scores"
    assert all(plot.tag.endswith("svg") for plot in plots)
    crops = [Image.open(io.BytesIO(content)) for kind, content in contents if kind == "jpeg"]
    assert [crop.size for crop in crops] == [(40, 20), (1000, 7)], "the worst line first, none wider than 1000 px"
    red, green, _ = crops[0].convert("RGB").getpixel((30, 10))
    assert red > 200 and green < 50
    assert min(crops[0].convert("RGB").getpixel((4, 10))) > 240, "what is clear is white, as it is read"
    assert not {"script", "link", "iframe", "object", "base"} & {tag for tag, *_ in page.elements}
    for _, attributes, _ in page.elements:
        assert not {"href", "srcset", "data", "action"} & attributes.keys()
        assert not any(name.startswith("on") for name in attributes)
        assert attributes.get("src", "data:image/").startswith("data:image/")
    (style,) = (text for _, text in page.all("style"))
    assert "url(" not in style and "@import" not in style


HOSTILE = "<script>alert(1)</script>\"'><img src=x onerror=alert(1)>&amp;"


def test_no_text_of_the_data_becomes_markup():
    lines = [
        Prediction(0, HOSTILE, HOSTILE[:20] + "?<b>", 0.1, 90, 20, HOSTILE, HOSTILE),
        Prediction(1, "", HOSTILE, 0.1, 90, 20, HOSTILE, HOSTILE),
    ]
    report = report_on(lines)
    page = Page(report_to_html(report, HOSTILE, None, report, (HOSTILE, HOSTILE), {HOSTILE: HOSTILE}))
    assert "script" not in {tag for tag, *_ in page.elements}
    assert len(page.all("img")) == 3, "the plots alone"
    assert page.all("h1")[0][1] == HOSTILE
    assert any(text == HOSTILE for _, text in page.all("dd")[:1] + page.all("span"))


def test_edits_are_marked_where_they_are(report):
    page = Page(report_to_html(report, "Receipts"))
    line = next(text for _, text in page.all("article") if text.startswith("isRM"))
    # "RM 12.90" read as "RM12,90x": the space is missing, the point is a comma, an x too many.
    assert line.startswith("isRM 12.90readRM12,90x")
    marks = [(tag, text) for tag, _, text in page.elements if tag in ("del", "ins")]
    assert [mark for mark in marks if mark[1] in ("", ",", "x")][-3:] == [("del", ""), ("ins", ","), ("ins", "x")]
    assert ("ins", "t") not in marks, "Total and total differ in case alone"


def test_two_readers_stand_side_by_side(report):
    better = report_on([replace(line, prediction=line.reference) for line in LINES])
    page = Page(report_to_html(report, "Receipts", None, better, ("old", "new")))
    heads = [text for _, text in page.all("tr") if text.startswith("new less old")]
    assert len(heads) == 1
    row = next(text for _, text in page.all("tr") if text.startswith("CER-"))
    assert row.startswith(f"CER-{100 * report.cer.value:.2f}")
    first = page.all("article")[0][1]
    assert "old" in first and "new" in first
    with pytest.raises(ValueError, match="not on the same lines"):
        report_to_html(report, "Receipts", None, report_on(LINES[:2]))


def test_what_the_scores_are_worth_is_said_of_readers_that_have_them(report):
    mute = report_on([replace(line, score=0.0) for line in LINES])
    page = Page(report_to_html(report, "Receipts", None, mute, ("old", "new")))
    rows = [text for _, text in page.all("tr")]
    brier = (0.9**2 + 0.4**2 + 0.3**2 + 1) / 4
    place = rows.index("readercalibration error (ECE)Brier scoreAURC")
    assert rows[place + 1] == f"old{100 * report.calibration.ece:.2f} %{brier:.4f}{report.calibration.aurc:.4f}"
    assert not any(row.startswith("new") and "%" in row and "." in row for row in rows[place + 1 :])
    assert "Scores" not in [text for _, text in Page(report_to_html(mute, "Receipts")).all("h2")]


def test_the_same_report_is_the_same_page(report):
    assert report_to_html(report, "Receipts") == report_to_html(report, "Receipts")


def test_a_perfect_reader_has_a_page_too():
    page = report_to_html(report_on([Prediction(0, "a", "a", 1.0, 20, 20)]), "Receipts")
    assert "Every line was read rightly" in page
    assert "nan" not in page
