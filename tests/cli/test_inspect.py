"""`hf-ocr inspect` on folders as people have them."""

import pytest
from PIL import Image, ImageDraw, ImageFont
from tiny_stock_models import tiny_trocr

from hf_ocr.cli import main


def write(folder, **texts):
    folder.mkdir()
    for name, text in texts.items():
        image = Image.new("L", (14 * len(text) + 20, 40), 255)
        ImageDraw.Draw(image).text((6, 6), text, fill=0, font=ImageFont.load_default(22))
        image.save(folder / f"{name}.png")
        (folder / f"{name}.gt.txt").write_text(text + "\n", encoding="utf-8")
    return str(folder)


def test_sound_lines(tmp_path, capsys):
    assert main(["inspect", write(tmp_path / "lines", a="Total 12.50", b="Thank you")]) == 0
    out = capsys.readouterr().out
    assert "train: 2 lines" in out
    assert "nothing to mend" in out


def test_new_characters_stop_unless_the_alphabet_grows(tmp_path, capsys):
    folder = write(tmp_path / "lines", a="\u03b1lpha", b="Thank you")
    assert main(["inspect", folder]) == 1
    out = capsys.readouterr().out
    assert "error: 1 texts with characters outside the alphabet: 'α' (U+03B1, 1 times)" in out
    assert "-> Let the alphabet grow (--alphabet union)" in out
    assert main(["inspect", folder, "--alphabet", "union"]) == 0


def test_a_leak_between_splits_stops(tmp_path, capsys):
    train, validation = write(tmp_path / "a", a="Total", b="Cash"), write(tmp_path / "b", c="Total")
    assert main(["inspect", train, "--validation", validation]) == 1
    assert "stand in two splits" in capsys.readouterr().out


@pytest.mark.parametrize("name", ["missing", "."])
def test_no_lines_no_traceback(tmp_path, capsys, name):
    assert main(["inspect", str(tmp_path / name)]) == 1
    assert capsys.readouterr().err.startswith("hf-ocr: ")


def test_a_text_that_a_decoder_has_no_positions_for(tmp_path, capsys):
    long = "a" * 30
    model = tiny_trocr(tmp_path / "model", [Image.new("RGB", (60, 32), "white")], ["a"], positions=24)
    assert main(["inspect", write(tmp_path / "lines", a=long, b="a" * 8), "--model", str(model)]) == 1
    out = capsys.readouterr().out
    assert "error: 1 texts with more tokens than the decoder has positions for" in out
    assert f"train, row 0: {long!r} is 31 tokens, the decoder has 24" in out
