"""The check that a folder reads without the package finds a folder that does not."""

import json

import pytest
from tiny_recognizer import lines, tiny_recognizer
from transformers import pipeline

from hf_ocr.bundle import save_bundle
from hf_ocr.standalone import StandaloneError, check_standalone, example_lines

pytestmark = pytest.mark.slow


@pytest.fixture
def folder(tmp_path):
    return save_bundle(*tiny_recognizer(), tmp_path / "folder")


def edit(path, old, new):
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new))


def test_a_whole_folder_gives_its_texts(folder, tmp_path):
    images = lines(3)
    images[0].save(tmp_path / "0.png")
    texts = check_standalone(folder, [tmp_path / "0.png", *images[1:]])
    read = pipeline("image-to-text", model=str(folder), dtype="float32", device="cpu")
    assert texts == [result["generated_text"] for (result,) in read(images)]
    assert all(texts)


def test_code_that_needs_the_package_is_found(folder):
    edit(folder / "ctc.py", "import torch\n", "import torch\nimport hf_ocr.text\n")
    with pytest.raises(StandaloneError, match=r"does not load without hf_ocr\..*hf_ocr"):
        check_standalone(folder)


def test_code_that_needs_a_package_of_the_extras_is_found(folder):
    edit(folder / "ctc.py", "import torch\n", "import torch\nimport rapidfuzz\n")
    with pytest.raises(StandaloneError, match=r"does not load without hf_ocr\..*rapidfuzz"):
        check_standalone(folder)


def test_what_is_said_in_another_encoding_hinders_nothing(folder):
    edit(folder / "ctc.py", "import torch\n", "import os\nimport torch\nos.write(2, bytes([0xFC, 10]))\n")
    assert check_standalone(folder, lines(1))


def test_code_that_reads_something_else_is_found(folder):
    edit(folder / "pipeline_text_recognition.py", "reading.text[:longest].rstrip()", "reading.text[:1]")
    with pytest.raises(StandaloneError, match=r"without hf_ocr \(pipeline\) 0\.png reads '.?'; expected"):
        check_standalone(folder, lines(1))


def test_an_auto_class_that_is_not_the_folders_is_found(folder):
    """Any tokenizer of transformers would be taken, and pass, where the alphabet happens to suit it."""
    config = json.loads((folder / "tokenizer_config.json").read_text())
    del config["auto_map"]
    (folder / "tokenizer_config.json").write_text(json.dumps(config))
    with pytest.raises(StandaloneError):
        check_standalone(folder, lines(1))


def test_example_lines_are_lines_of_several_widths():
    images = example_lines()
    assert len({image.width for image in images}) == len(images) == 3
    assert all(image.width > 2 * image.height and image.getextrema() == (0, 255) for image in images)
