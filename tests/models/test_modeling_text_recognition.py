"""Loading a damaged checkpoint says what is wrong with it, through the model class and through the pipeline."""

import shutil

import pytest
from safetensors.torch import load_file, save_file
from tiny_recognizer import lines, tiny_recognizer
from transformers import AutoModelForTextRecognition, pipeline

from hf_ocr.models.modeling_text_recognition import CheckpointError


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


def remove(weights):
    weights.unlink()


def cut(weights):
    weights.write_bytes(weights.read_bytes()[:5000])


def empty(weights):
    weights.write_bytes(b"")


def shrink(weights):
    tensors = load_file(weights)
    tensors["classifier.weight"] = tensors["classifier.weight"][:5].clone()
    save_file(tensors, weights, {"format": "pt"})


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (remove, "has no weights, expected model.safetensors"),
        (cut, "the weights are damaged"),
        (empty, "the weights are damaged"),
        (shrink, r"the weights do not fit config\.json"),
    ],
)
def test_damaged_weights_are_named_with_the_cure(damage, message, checkpoint):
    damage(checkpoint / "model.safetensors")
    for load in (
        lambda: AutoModelForTextRecognition.from_pretrained(checkpoint),
        lambda: pipeline("image-to-text", model=str(checkpoint)),
    ):
        with pytest.raises(CheckpointError, match=message) as raised:
            load()
        assert str(checkpoint) in str(raised.value)


def test_a_new_head_may_be_asked_for(checkpoint):
    shrink(checkpoint / "model.safetensors")
    model = AutoModelForTextRecognition.from_pretrained(checkpoint, ignore_mismatched_sizes=True)
    assert model.classifier.weight.shape[0] == model.config.vocab_size


def test_a_checkpoint_without_configuration(checkpoint):
    (checkpoint / "config.json").unlink()
    for load in (
        lambda: AutoModelForTextRecognition.from_pretrained(checkpoint),
        lambda: pipeline("image-to-text", model=str(checkpoint)),
    ):
        with pytest.raises(ValueError, match=r"checkpoint.*config\.json"):
            load()


def test_whole_checkpoints_and_state_dicts_load(checkpoint):
    model = AutoModelForTextRecognition.from_pretrained(checkpoint)
    again = type(model).from_pretrained(None, config=model.config, state_dict=model.state_dict())
    inputs = tiny_recognizer()[1](images=lines(2), return_tensors="pt")
    assert (again(**inputs).logits == model(**inputs).logits).all()
