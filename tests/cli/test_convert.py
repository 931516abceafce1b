"""`hf-ocr convert`."""

import pytest
from PIL import Image, ImageDraw, ImageFont

from hf_ocr.cli import main
from hf_ocr.convert import rapidocr


def test_the_checkpoint_is_written_and_reads(capsys, tmp_path):
    pytest.importorskip("onnx")
    pytest.importorskip("rapidocr")
    folder, image = tmp_path / "checkpoint", Image.new("L", (300, 48), 255)
    ImageDraw.Draw(image).text((6, 6), "Total 12.50", fill=0, font=ImageFont.load_default(30))
    image.save(tmp_path / "line.png")
    assert main(["convert", "rapidocr", str(folder), "--float16"]) == 0
    output = capsys.readouterr()
    assert "Apache-2.0" in output.out and "U+212B" in output.out and output.err == ""
    assert main(["read", str(tmp_path / "line.png"), "--model", str(folder)]) == 0
    assert capsys.readouterr().out == "Total 12.50\n"


def test_what_is_missing_is_said_in_one_line(capsys, tmp_path, monkeypatch):
    monkeypatch.setattr(rapidocr.util, "find_spec", lambda name: None)
    assert main(["convert", "rapidocr", str(tmp_path / "checkpoint")]) == 1
    error = capsys.readouterr().err
    assert error.startswith("hf-ocr: rapidocr is not installed") and error.count("\n") == 1
    assert not (tmp_path / "checkpoint").exists()


def test_a_file_in_the_way(capsys, tmp_path):
    (tmp_path / "file").touch()
    assert main(["convert", "rapidocr", str(tmp_path / "file")]) == 1
    assert "is a file" in capsys.readouterr().err


def test_an_unknown_source_is_refused():
    with pytest.raises(SystemExit, match="2"):
        main(["convert", "elsewhere", "folder"])
