import random
from dataclasses import replace

import numpy as np
import pytest
from PIL import Image, ImageDraw, ImageFont

from hf_ocr.data import synthetic_grounds as grounds
from hf_ocr.data.fonts import FontFace
from hf_ocr.data.synthetic_lines import SyntheticLines
from hf_ocr.data.synthetic_setting import Setting, bend, crop_margins, font_of, place, set_line
from hf_ocr.data.synthetic_styles import STYLES, blank
from hf_ocr.text import LATIN_ALPHABET

WORDS = {"english": ["house", "Garden", "lamp", "window", "blue", "coffee"], "french": ["été", "garçon"]}


@pytest.fixture(scope="module")
def face(tmp_path_factory) -> FontFace:
    """The font that Pillow ships, as a file."""
    path = tmp_path_factory.mktemp("fonts") / "aileron.ttf"
    path.write_bytes(ImageFont.load_default(20).font_bytes)
    codepoints = frozenset(ord(c) for c in LATIN_ALPHABET if ord(c) < 0x7F)
    return FontFace(str(path), 0, "Aileron", "Regular", codepoints, "text")


@pytest.fixture(scope="module")
def lines(face) -> SyntheticLines:
    return SyntheticLines([face], WORDS, seed=1)


def equal(one: dict, other: dict) -> bool:
    same_size = one["image"].size == other["image"].size
    return one["text"] == other["text"] and same_size and one["image"].tobytes() == other["image"].tobytes()


def test_a_row_depends_on_seed_and_index_alone(face, lines):
    forward = [lines[i] for i in range(25)]
    again = SyntheticLines([face], WORDS, seed=1)
    backward = [again[i] for i in reversed(range(25))][::-1]
    assert all(map(equal, forward, backward))
    other = SyntheticLines([face], WORDS, seed=2)
    assert sum(equal(forward[i], other[i]) for i in range(25)) == 0
    assert sum(equal(forward[0], row) for row in forward) == 1


@pytest.mark.parametrize("style", STYLES)
def test_rows_of_each_style_are_grey_crops_with_clean_labels(face, style):
    rows = SyntheticLines([face], WORDS, seed=3, styles={style: 1})
    for i in range(150):
        image, text = rows[i]["image"], rows[i]["text"]
        assert image.mode == "L" and min(image.size) >= 6 and max(image.size) < 3000
        assert text == " ".join(text.split())
        assert {ord(c) for c in text} <= face.codepoints
        if text:
            assert np.asarray(image).std() > 2.5


def test_about_three_rows_in_a_hundred_are_blank(lines):
    empty = sum(lines[i]["text"] == "" for i in range(1500))
    assert 25 <= empty <= 70


def test_only_what_the_face_has_is_drawn(face):
    capitals = replace(face, codepoints=frozenset(map(ord, "ABCDEFGHIJKLMNOPQRSTUVWXYZ ")))
    rows = SyntheticLines([capitals], WORDS, seed=0, styles={"scene": 1})
    texts = [rows[i]["text"] for i in range(80)]
    assert set("".join(texts)) <= set("ABCDEFGHIJKLMNOPQRSTUVWXYZ ")
    assert "HOUSE" in texts  # a lower-case word became upper case, rather than all being drawn anew


def test_wrong_use_is_named(face):
    with pytest.raises(ValueError, match="find_fonts"):
        SyntheticLines([], WORDS)
    with pytest.raises(ValueError, match="poster"):
        SyntheticLines([face], WORDS, styles={"poster": 1})
    with pytest.raises(ValueError, match="positive"):
        SyntheticLines([face], WORDS, styles={"scene": 0.0})
    with pytest.raises(IndexError, match="-1"):
        SyntheticLines([face], WORDS)[-1]


def ink_columns(ink) -> np.ndarray:
    return (np.asarray(ink.layers[0][0]) > 100).any(axis=0).nonzero()[0]


def test_the_box_is_round_the_text_and_not_its_neighbours(face):
    draw = random.Random(0)
    font = font_of(face, 30)
    alone = set_line("Hxp", Setting(font), draw)
    columns = ink_columns(alone)
    assert abs(alone.box[0] - columns[0]) <= 2 and abs(alone.box[2] - columns[-1]) <= 2
    among = set_line("Hxp", Setting(font, before="left", after="right", above="over", below="under"), draw)
    for side in (0, 1):
        assert abs((among.box[2 + side] - among.box[side]) - (alone.box[2 + side] - alone.box[side])) < 0.01
    assert ink_columns(among)[0] < among.box[0] - 5 and ink_columns(among)[-1] > among.box[2] + 5


def test_gap_and_spacing_widen_the_line(face):
    draw = random.Random(0)
    font = font_of(face, 30)
    plain, gap, loose = (
        set_line("total 5.00", setting, draw)
        for setting in (Setting(font), Setting(font, gap=(5, 90.0)), Setting(font, spacing=10.0))
    )
    widths = [ink.box[2] - ink.box[0] for ink in (plain, gap, loose)]
    assert abs(widths[1] - widths[0] - 90) < 3
    assert abs(widths[2] - widths[0] - 9 * 10) < 8


@pytest.mark.parametrize("size", [15, 18, 23, 31])
def test_bilevel_lines_are_whole(face, size):
    """Hinting without anti-aliasing makes a line wider or narrower: the canvas must be measured in the same way."""
    text = "available until 12.50"
    font = font_of(face, size)
    ink = set_line(text, Setting(font, bilevel=True), random.Random(0))
    whole = Image.new("1", (1000, 100))
    pen = ImageDraw.Draw(whole)
    pen.fontmode = "1"
    pen.text((100, 60), text, fill=1, font=font, anchor="ls")
    left, top, right, bottom = whole.getbbox()
    assert set(np.unique(np.asarray(ink.layers[0][0]))) == {0, 255}
    assert (ink.box[2] - ink.box[0], ink.box[3] - ink.box[1]) == (right - left, bottom - top)


def test_nothing_to_show_is_none(face):
    assert set_line(" ", Setting(font_of(face, 20)), random.Random(0)) is None


def test_place_cuts_to_the_turned_text(face):
    ink = set_line("window", Setting(font_of(face, 30)), random.Random(0))
    turn = np.array([[0.9, -0.4, 5.0], [0.4, 0.9, -3.0], [0, 0, 1.0]])
    ((layer, _),), size = place(ink, turn, (0, 0, 0, 0))
    assert layer.size == size
    rows = (np.asarray(layer) > 100).any(axis=1).nonzero()[0]
    straight = place(ink, np.eye(3), (0, 0, 0, 0))[1]
    assert size[1] > straight[1] + 15
    assert np.asarray(layer).sum() > 0.85 * (0.97 * np.asarray(ink.layers[0][0]).sum())
    wide = place(ink, turn, (10, 0, 0, 0))[1]
    assert wide[0] == size[0] + 10 and rows[-1] < size[1]


def test_some_crops_are_loose_but_never_beside_a_neighbour(face):
    draw = random.Random(0)
    setting = Setting(font_of(face, 20), before="the", below="line")
    left, top, right, bottom = np.transpose([crop_margins(draw, 20.0, -0.1, 0.3, setting) for _ in range(2000)])
    for pads in (left, bottom):
        assert -2 <= pads.min() < 0 and 5 < pads.max() <= 6
    assert -2 <= right.min() < 0 and 75 < right.max() <= 86
    assert -2 <= top.min() < 0 and 14 < top.max() <= 16
    assert 0.08 < (right > 6).mean() < 0.16


def test_bend_moves_the_middle_against_the_ends(face):
    ink = set_line("HHHHHHHHHH", Setting(font_of(face, 30)), random.Random(0))
    flat_height = ink.box[3] - ink.box[1]
    bend(ink, random.Random(1), 30)
    values = np.asarray(ink.layers[0][0]) > 100
    tops = [values[:, part].any(axis=1).argmax() for part in np.array_split(np.arange(values.shape[1]), 5)]
    assert abs(tops[2] - tops[0]) >= 2 and abs(tops[2] - tops[4]) >= 2
    assert (tops[2] - tops[0]) * (tops[2] - tops[4]) > 0
    assert ink.box[3] - ink.box[1] > flat_height


def test_grounds_have_the_level_and_swing_asked_for():
    for seed in range(40):
        draw = random.Random(seed)
        ground = np.asarray(grounds.scene_ground((90, 40), draw, 120, 60), dtype=float)
        assert ground.shape == (40, 90)
        assert abs(ground.mean() - 120) < 50 and ground.std() < 45
    for texture in (grounds.rough, grounds.leaves, grounds.gradient):
        values = np.asarray(texture((400, 300), random.Random(1)), dtype=float)
        assert values.shape == (300, 400) and values.std() > 15


def test_blank_images_vary():
    images = [blank(random.Random(seed), "scene") for seed in range(60)]
    assert all(isinstance(image, Image.Image) and image.mode == "L" for image in images)
    assert len({image.tobytes() for image in images}) > 50
