"""Fonts for texts of any script, with those that matplotlib brings."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from matplotlib import font_manager
from PIL import Image

from hf_ocr.evaluation import Prediction
from hf_ocr.picture_fonts import fonts_for
from hf_ocr.report import contact_sheet

BOX = "\ue123"  # of private use: in no font of text
# Not in DejaVu Sans, but in faces that come with matplotlib.
ELSEWHERE = "⎷⌕"


@pytest.mark.parametrize("text", ["", "Meſſer “½” €", "Ελληνικά", "Русский", "\t\n"])
def test_a_text_that_dejavu_sans_has_is_shown_in_it(text):
    (font,) = fonts_for([text], 15)
    assert Path(font.path).name == "DejaVuSans.ttf" and font.size == 15


@pytest.mark.parametrize("character", ELSEWHERE)
def test_a_character_that_it_lacks_is_shown_in_another_font(character):
    plain, other = fonts_for(["a", f"a{character}"], 15)
    assert plain.path != other.path
    assert bytes(other.getmask(character)) != bytes(other.getmask(BOX))


def test_a_character_that_no_font_has_leaves_the_others_readable():
    (font,) = fonts_for(["ſ\U00012ff0"], 15)  # Cypro-Minoan
    assert bytes(font.getmask("ſ")) != bytes(font.getmask(BOX))


@pytest.mark.parametrize("name", ["Last Resort High-Efficiency", ".LastResort"])
def test_a_font_of_boxes_is_no_font(monkeypatch, name):
    entries = font_manager.fontManager.ttflist
    (boxes,) = (font for font in entries if font.name == "Last Resort High-Efficiency")
    plain = [font for font in entries if font.name == "DejaVu Sans"]
    monkeypatch.setattr(font_manager.fontManager, "ttflist", [*plain, replace(boxes, name=name)])
    (font,) = fonts_for(["漢"], 15)
    assert font.path != boxes.fname


def test_the_contact_sheet_shows_each_text_in_a_font_that_has_it():
    def text_of(reference):
        line = Prediction(0, reference, "", 0.5, 20, 20)
        return np.asarray(contact_sheet([line], [{"image": Image.new("L", (20, 20), 255)}]))[72:96].tobytes()

    assert len({text_of(text) for text in (BOX, "ſ", *ELSEWHERE)}) == 4
