import io

import pytest
from PIL import ImageFont

from hf_ocr.data.fonts import FontFace, find_fonts, load_words, split_families

pytest.importorskip("fontTools")
from fontTools.ttLib import TTFont
from fontTools.ttLib.tables import otTables  # noqa: F401  (loaded before warnings count)


@pytest.fixture(scope="module")
def pillow_font() -> bytes:
    return ImageFont.load_default(20).font_bytes


@pytest.fixture
def folder(tmp_path, pillow_font):
    (tmp_path / "sub").mkdir()
    (tmp_path / "sub" / "aileron.ttf").write_bytes(pillow_font)
    return tmp_path


def changed(pillow_font: bytes, change) -> bytes:
    """The font after `change(cmap)` of every character map."""
    font = TTFont(io.BytesIO(pillow_font))
    for table in font["cmap"].tables:
        change(table.cmap)
    stream = io.BytesIO()
    font.save(stream)
    return stream.getvalue()


def test_a_face_is_found_with_what_it_draws(folder):
    (face,) = find_fonts([folder])
    assert face.path == str(folder / "sub" / "aileron.ttf")
    assert face.family == "Aileron"
    assert face.kind == "text"
    assert set(map(ord, "AZaz09.,$& ")) <= face.codepoints


def test_codepoints_are_limited_to_the_alphabet(folder):
    (face,) = find_fonts([folder], alphabet="ABCDEFGHIJKLMNOPQRSTUVWXYZ é$")
    assert face.codepoints == frozenset(map(ord, "ABCDEFGHIJKLMNOPQRSTUVWXYZ $"))


def test_a_character_mapped_to_nothing_is_not_drawn(folder, pillow_font):
    def blank_k(cmap):
        if ord("k") in cmap:
            cmap[ord("k")] = cmap[ord(" ")]

    (folder / "sub" / "aileron.ttf").write_bytes(changed(pillow_font, blank_k))
    (face,) = find_fonts([folder])
    assert ord("k") not in face.codepoints
    assert ord("h") in face.codepoints


def test_capitals_in_the_place_of_lower_case_are_not_lower_case(folder, pillow_font):
    def capitals_only(cmap):
        for letter in "abcdefghijklmnopqrstuvwxyz":
            cmap.update({ord(letter): cmap[ord(letter.upper())]} if ord(letter) in cmap else {})

    (folder / "sub" / "aileron.ttf").write_bytes(changed(pillow_font, capitals_only))
    (face,) = find_fonts([folder])
    assert not {ord(c) for c in "abcdefghijklmnopqrstuvwxyz"} & face.codepoints
    assert ord("A") in face.codepoints


def test_an_accented_letter_without_its_accent_is_left_out(folder, pillow_font):
    def bare(cmap):
        cmap.update({ord("é"): cmap[ord("e")]} if ord("e") in cmap else {})

    (folder / "sub" / "aileron.ttf").write_bytes(changed(pillow_font, bare))
    (face,) = find_fonts([folder])
    assert ord("é") not in face.codepoints
    assert ord("e") in face.codepoints


def test_a_broken_file_and_a_face_without_capitals_are_passed_over(folder, pillow_font):
    (folder / "broken.ttf").write_bytes(pillow_font[:3000])
    (folder / "empty.otf").write_bytes(b"")

    def without_q(cmap):
        cmap.pop(ord("Q"), None)

    (folder / "partial.ttf").write_bytes(changed(pillow_font, without_q))
    assert [face.path for face in find_fonts([folder])] == [str(folder / "sub" / "aileron.ttf")]


def test_what_is_missing_is_named(tmp_path):
    with pytest.raises(ValueError, match="no such folder"):
        find_fonts([tmp_path / "absent"])
    with pytest.raises(ValueError, match="0 font files"):
        find_fonts([tmp_path])


def test_families_are_split_whole_and_independently_of_each_other():
    faces = [
        FontFace(f"{n}-{s}.ttf", 0, f"Family {n}", s, frozenset()) for n in range(400) for s in ("Bold", "Regular")
    ]
    train, held = split_families(faces, 0.15, seed=3)
    assert {f.family for f in train}.isdisjoint(f.family for f in held)
    assert len(train) + len(held) == len(faces)
    assert 30 <= len({f.family for f in held}) <= 90
    fewer, fewer_held = split_families(faces[100:200], 0.15, seed=3)
    assert set(fewer) <= set(train) and set(fewer_held) <= set(held)
    assert split_families(faces, 0.15, seed=4)[1] != held


def test_words_are_thinned_cleaned_and_limited_to_the_alphabet(tmp_path):
    lines = ["cafe\u0301", "dog's", "日本", "two words", ""] + [f"word{'abcdefghij'[i % 10]}" for i in range(100)]
    (tmp_path / "list").write_text("\n".join(lines), encoding="utf-8")
    words = load_words([tmp_path / "list"])["list"]
    assert words[0] == "café"
    assert not {"dog's", "日本", "two words", ""} & set(words)
    assert len(load_words([tmp_path / "list"], at_most=10)["list"]) <= 10
    with pytest.raises(ValueError, match="no words"):
        (tmp_path / "none").write_text("")
        load_words([tmp_path / "none"])
