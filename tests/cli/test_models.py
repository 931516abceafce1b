"""What is wrong with a checkpoint is said in one line, by `hf-ocr read` and `hf-ocr info` alike."""

import json
import shutil

import pytest
from safetensors.torch import load_file, save_file
from tiny_recognizer import lines, tiny_recognizer
from tiny_stock_models import tiny_trocr

import hf_ocr  # noqa: F401  registers the pipeline
from hf_ocr.cli import main
from hf_ocr.models.tokenization_characters import CharacterTokenizer


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    folder = tmp_path_factory.mktemp("whole")
    model, processor = tiny_recognizer()
    model.save_pretrained(folder)
    processor.save_pretrained(folder)
    return folder


@pytest.fixture
def checkpoint(whole, tmp_path):
    return shutil.copytree(whole, tmp_path / "checkpoint")


def errors(capsys, folder, tmp_path):
    """What both verbs say of it: the same line, with status 1."""
    lines(1)[0].save(tmp_path / "line.png")
    messages = []
    for arguments in (["read", str(tmp_path / "line.png")], ["info"]):
        assert main([*arguments, "--model", str(folder)]) == 1
        messages.append(capsys.readouterr().err)
    assert messages[0] == messages[1]
    assert messages[0].startswith("hf-ocr: ") and messages[0].count("\n") == 1
    return messages[0]


def test_the_whole_checkpoint_has_no_error(capsys, checkpoint, tmp_path):
    lines(1)[0].save(tmp_path / "line.png")
    assert main(["read", str(tmp_path / "line.png"), "--model", str(checkpoint)]) == 0
    assert capsys.readouterr().err == ""


def test_without_configuration(capsys, checkpoint, tmp_path):
    (checkpoint / "config.json").unlink()
    assert "has no config.json" in errors(capsys, checkpoint, tmp_path)


def test_with_a_damaged_configuration(capsys, checkpoint, tmp_path):
    config = checkpoint / "config.json"
    config.write_text(config.read_text()[:-20])
    assert "is not JSON" in errors(capsys, checkpoint, tmp_path)


def test_with_an_unknown_kind_of_model(capsys, checkpoint, tmp_path):
    (checkpoint / "config.json").write_text('{"model_type": "unheard-of"}')
    assert "unheard-of" in errors(capsys, checkpoint, tmp_path)


def test_without_the_folder(capsys, tmp_path):
    assert "nowhere: no such folder here, and as a name on the Hub" in errors(capsys, tmp_path / "nowhere", tmp_path)


def test_without_weights(capsys, checkpoint, tmp_path):
    (checkpoint / "model.safetensors").unlink()
    assert "has no weights" in errors(capsys, checkpoint, tmp_path)


@pytest.mark.parametrize("size", [0, 5, 3000])
def test_with_damaged_weights(capsys, checkpoint, tmp_path, size):
    weights = checkpoint / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:size])
    assert "the weights are damaged" in errors(capsys, checkpoint, tmp_path)


def test_with_weights_that_lack_a_tensor(capsys, checkpoint, tmp_path):
    weights = checkpoint / "model.safetensors"
    tensors = load_file(weights)
    del tensors["classifier.bias"]
    save_file(tensors, weights, metadata={"format": "pt"})
    message = errors(capsys, checkpoint, tmp_path)
    assert "lacks 1 tensors" in message and "classifier.bias" in message


def test_with_weights_of_another_size(capsys, checkpoint, tmp_path):
    config = json.loads((checkpoint / "config.json").read_text())
    config["lstm_hidden_size"] += 1
    (checkpoint / "config.json").write_text(json.dumps(config))
    assert "cannot be loaded" in errors(capsys, checkpoint, tmp_path)


def test_with_the_alphabet_of_another(capsys, checkpoint, tmp_path):
    CharacterTokenizer.from_alphabet("abc").save_pretrained(checkpoint)
    message = errors(capsys, checkpoint, tmp_path)
    assert "the alphabet does not fit the model: 4 symbols" in message and "22 outputs" in message


def test_without_alphabet(capsys, checkpoint, tmp_path):
    (checkpoint / "vocab.json").unlink()
    assert "cannot be loaded" in errors(capsys, checkpoint, tmp_path)


def test_a_folder_that_is_not_there(capsys, tmp_path):
    assert "missing" in errors(capsys, tmp_path / "missing", tmp_path)


def test_a_file_instead_of_its_folder(capsys, checkpoint, tmp_path):
    assert "is a file" in errors(capsys, checkpoint / "model.safetensors", tmp_path)


def test_boxes_that_the_model_cannot_give(capsys, tmp_path):
    image = lines(1)[0].convert("RGB")
    image.save(tmp_path / "line.png")
    folder = tiny_trocr(tmp_path / "trocr", [image], ["total 12"])
    arguments = ["read", str(tmp_path / "line.png"), "--model", str(folder)]
    assert main(arguments) == 0
    assert capsys.readouterr().out == "total 12\n"
    assert main([*arguments, "--boxes"]) == 1
    message = capsys.readouterr().err
    assert "cannot tell where its characters stand" in message and message.count("\n") == 1


def test_info_names_versions_machine_and_model(capsys, checkpoint):
    assert main(["info", "--model", str(checkpoint)]) == 0
    out = capsys.readouterr().out
    for expected in ("python 3.", "transformers 5.", "torch 2.", " core", "CrnnForTextRecognition", "22 symbols"):
        assert expected in out
    assert "device       cpu, in bfloat16" in out or "device       cpu, in float32" in out or "cuda" in out


def test_info_lists_shipped_checkpoints(capsys, whole, tmp_path, monkeypatch):
    shutil.copytree(whole, tmp_path / "shipped")
    for module in ("registration", "cli.info", "cli.loading"):
        monkeypatch.setattr(f"hf_ocr.{module}.default_checkpoint", lambda: tmp_path / "shipped")
    assert main(["info"]) == 0
    out = capsys.readouterr().out
    assert "checkpoint   shipped: 0." in out and "an alphabet of 21 characters" in out
    assert "reads with   shipped" in out


def test_the_name_of_a_shipped_checkpoint_is_enough(capsys):
    assert main(["info", "--model", "crnn-small-latin"]) == 0
    assert "reads with   crnn-small-latin" in capsys.readouterr().out
