"""`hf-ocr export`."""

from pathlib import Path

import pytest
from datasets import Dataset, Features, Image, Value
from tiny_recognizer import lines, tiny_recognizer
from tiny_stock_models import tiny_trocr

from hf_ocr.bundle import save_bundle
from hf_ocr.cli import main
from hf_ocr.export.onnx_reader import OnnxReader

pytest.importorskip("onnx")
pytest.importorskip("onnxruntime")

SAMPLES = Path(__file__).resolve().parent.parent / "samples"


@pytest.fixture
def checkpoint(tmp_path):
    return str(save_bundle(*tiny_recognizer(), tmp_path / "checkpoint"))


@pytest.mark.parametrize("int8", [False, True])
def test_it_writes_what_reads(capsys, tmp_path, checkpoint, int8):
    folder = str(tmp_path / "onnx")
    calibration = ["--int8", "--calibration", str(SAMPLES)] if int8 else []
    assert main(["export", checkpoint, folder, "--to", "onnx", *calibration]) == 0
    output = capsys.readouterr()
    assert output.out.startswith(f"{folder}: {'int8' if int8 else 'float32'} for ONNX Runtime")
    assert OnnxReader(folder).read(lines(1)[0]).text
    measured = [line.split()[0] for line in output.out.splitlines()[2:]]
    assert measured == (["int8", "float32"] if int8 else []) and ("9 other lines" in output.out) == int8


def test_broken_images_and_lines_without_a_text_do_not_calibrate(capsys, tmp_path, checkpoint):
    lines(1)[0].save(tmp_path / "damaged.png", exif=b"Exif\0\0garbage!")  # which costs no pixel
    images = [*lines(6), {"bytes": b"no image"}, {"bytes": b""}, {"bytes": (tmp_path / "damaged.png").read_bytes()}]
    rows = {"image": images, "text": [*"abcde", None, "f", "g", "h"]}
    Dataset.from_dict(rows, Features({"image": Image(), "text": Value("string")})).to_parquet(tmp_path / "a.parquet")
    arguments = ["--int8", "--calibration", str(tmp_path / "a.parquet")]
    assert main(["export", checkpoint, str(tmp_path / "onnx"), *arguments]) == 0
    assert "3 other lines" in capsys.readouterr().out  # of six, three are for the ranges


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--int8"], "--calibration"),
        (["--calibration", "nowhere"], "go together"),
        (["--int8", "--calibration", "nowhere"], "no such file"),
    ],
)
def test_what_is_missing_is_said_in_one_line(capsys, tmp_path, checkpoint, arguments, said):
    assert main(["export", checkpoint, str(tmp_path / "onnx"), *arguments]) == 1
    error = capsys.readouterr().err
    assert said in error and error.startswith("hf-ocr: ") and error.count("\n") == 1


def test_a_model_that_only_generates_is_refused(capsys, tmp_path):
    model = tiny_trocr(tmp_path / "trocr", lines(2), ["ab", "ba"])
    assert main(["export", str(model), str(tmp_path / "onnx"), "--int8", "--calibration", str(SAMPLES)]) == 1
    error = capsys.readouterr().err.splitlines()[-1]
    assert error.startswith("hf-ocr: ")


def test_a_file_in_the_way(capsys, tmp_path, checkpoint):
    (tmp_path / "file").touch()
    assert main(["export", checkpoint, str(tmp_path / "file")]) == 1
    assert "is a file" in capsys.readouterr().err
