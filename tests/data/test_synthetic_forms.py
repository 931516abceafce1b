import random

import numpy as np
import pytest
from PIL import Image, ImageFont

from hf_ocr.data.synthetic_forms import blank_form, draw_form
from hf_ocr.data.synthetic_setting import Ink, Setting, set_line
from hf_ocr.data.synthetic_styles import blank


@pytest.fixture
def ink() -> Ink:
    line = set_line("Name: Ada", Setting(ImageFont.load_default(24)), random.Random(0))
    assert line is not None
    return line


def pixels(ink: Ink, beyond: tuple[float, float, float, float] = (0, 0, 0, 0)) -> np.ndarray:
    left, top, right, bottom = ink.box
    box = (left - beyond[0], top - beyond[1], right + beyond[2], bottom + beyond[3])
    return np.asarray(ink.layers[0][0].crop(tuple(round(edge) for edge in box)))


@pytest.mark.parametrize("seed", range(60))
def test_a_form_is_drawn_round_its_text_which_stays(ink, seed):
    text, box = pixels(ink), ink.box
    shown = draw_form(ink, random.Random(seed), 24)
    assert np.asarray(ink.box)[2:] - ink.box[:2] == pytest.approx(np.asarray(box)[2:] - box[:2])
    assert (pixels(ink) >= text).all()
    assert (pixels(ink)[:-6] == text[:-6]).all()  # a line to write on may cross the letters' feet
    canvas = ink.layers[0][0]
    drawn = np.asarray(canvas) > 0
    assert drawn.sum() > (text > 0).sum() + 10
    # A crop as wide as is said lies on the canvas.
    assert min(shown) >= 0
    assert ink.box[0] - shown[0] >= 0 and ink.box[2] + shown[2] <= canvas.width
    assert ink.box[1] - shown[1] >= 0 and ink.box[3] + shown[3] <= canvas.height


def test_a_crop_shows_most_of_what_is_drawn_and_equal_generators_draw_alike(ink):
    before, place = ink.layers[0][0], ink.box
    shows, sides = 0, np.zeros(4)
    for seed in range(200):
        one, other = Ink([(before, None)], place), Ink([(before, None)], place)
        shown = draw_form(one, random.Random(seed), 24)
        assert draw_form(other, random.Random(seed), 24) == shown
        assert one.layers[0][0].tobytes() == other.layers[0][0].tobytes()
        crop = pixels(one, shown).copy()
        left, top = (round(edge) for edge in shown[:2])
        crop[top : top + round(place[3] - place[1]), left : left + round(place[2] - place[0])] = 0
        shows += bool(crop.any())
        sides += np.asarray(shown) > 0
    assert shows > 120
    assert (sides > 20).all()


def test_an_empty_field_is_blank_but_for_its_form():
    for seed in range(40):
        image = Image.new("L", (90, 30), 240)
        blank_form(image, random.Random(seed))
        values = np.asarray(image)
        assert 4 < (values < 230).sum() < 0.6 * values.size
    forms = [np.asarray(blank(random.Random(seed), "form"), dtype=float) for seed in range(30)]
    assert np.median([form.std() for form in forms]) > 15
