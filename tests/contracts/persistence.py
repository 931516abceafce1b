"""Contract: what is saved is what is loaded, in files that run no code when they are opened."""

import json
import math
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch
from contracts.tiny_configs import tiny_batch, tiny_lines, tiny_model, tiny_processor
from safetensors.torch import load_file
from transformers import (
    AutoConfig,
    AutoImageProcessor,
    AutoModel,
    AutoModelForTextRecognition,
    AutoProcessor,
    AutoTokenizer,
)

from hf_ocr.models.reading import read_images

STATE_DICT_KEYS = Path(__file__).with_name("state_dict_keys")
PICKLES = {".bin", ".pt", ".pth", ".pkl", ".pickle", ".ckpt", ".npy", ".joblib"}


@contextmanager
def saved(model: Any, processor: Any) -> Iterator[Path]:
    with TemporaryDirectory() as name:
        model.save_pretrained(name)
        processor.save_pretrained(name)
        yield Path(name)


def saved_and_loaded_is_the_same(model_class: Any) -> None:
    model, processor = tiny_model(model_class), tiny_processor(model_class)
    images = tiny_lines()
    with saved(model, processor) as folder:
        again = model_class.from_pretrained(folder)
        processor_again = type(processor).from_pretrained(folder)
    tensors = again.state_dict()
    assert tensors.keys() == model.state_dict().keys(), "other tensors are loaded than were saved"
    for name, tensor in model.state_dict().items():
        assert tensors[name].dtype == tensor.dtype, f"{name} is loaded as {tensors[name].dtype}"
        assert torch.equal(tensors[name], tensor), f"{name} is not loaded as it was saved"
    assert not again.training, "a loaded model is in train mode"
    for found, expected in zip(
        read_images(again, processor_again, images), read_images(model, processor, images), strict=True
    ):
        assert found.text == expected.text, "the loaded model reads something else"
        # Where a tensor happens to lie decides which kernel some processors take, and so the last bits.
        assert math.isclose(found.score, expected.score, rel_tol=1e-4), "the loaded model is of another opinion"


def weights_are_safetensors_alone(model_class: Any) -> None:
    model = tiny_model(model_class)
    with saved(model, tiny_processor(model_class)) as folder:
        pickles = [path.name for path in folder.rglob("*") if path.suffix in PICKLES]
        stored = load_file(folder / "model.safetensors")
    assert not pickles, f"files that may hold pickles: {pickles}"
    assert stored.keys() == model.state_dict().keys(), "model.safetensors does not hold every tensor"


def auto_classes_resolve(model_class: Any) -> None:
    model, processor = tiny_model(model_class), tiny_processor(model_class)
    with saved(model, processor) as folder:
        for auto_class, expected in (
            (AutoConfig, model.config),
            (AutoModel, model.base_model),
            (AutoModelForTextRecognition, model),
            (AutoTokenizer, processor.tokenizer),
            (AutoImageProcessor, processor.image_processor),
            (AutoProcessor, processor),
        ):
            found = type(auto_class.from_pretrained(folder))
            assert found is type(expected), f"{auto_class.__name__} gives {found}"


def unknown_config_keys_survive(model_class: Any) -> None:
    """A newer version's setting, or a note of the user's, is not lost by loading and saving with this one."""
    note = {"taught_on": ["receipts"], "lines": 3}
    with saved(tiny_model(model_class), tiny_processor(model_class)) as folder:
        path = folder / "config.json"
        path.write_text(json.dumps({**json.loads(path.read_text()), "a_note": note}))
        again = model_class.from_pretrained(folder)
        assert getattr(again.config, "a_note", None) == note, "an unknown key of config.json is lost by loading"
        again.save_pretrained(folder)
        assert json.loads(path.read_text()).get("a_note") == note, "an unknown key of config.json is lost by saving"


def bfloat16_loads_and_reads(model_class: Any) -> None:
    inputs = tiny_batch(model_class)
    with saved(tiny_model(model_class), tiny_processor(model_class)) as folder:
        model = model_class.from_pretrained(folder, dtype=torch.bfloat16)
    dtypes = {parameter.dtype for parameter in model.parameters()}
    assert dtypes == {torch.bfloat16}, f"loaded as bfloat16 the weights are {dtypes}"
    with torch.no_grad():
        logits = model(**inputs).logits
    assert logits.dtype == torch.float32, f"a bfloat16 model gives {logits.dtype} logits"
    assert logits.isfinite().all(), "a bfloat16 model gives logits that are not finite"
    result = model.recognize(**inputs)
    assert result.scores.dtype == torch.float32, f"a bfloat16 model gives {result.scores.dtype} scores"
    assert ((result.scores >= 0) & (result.scores <= 1)).all(), "scores of a bfloat16 model are no probabilities"


def state_dict_keys_are_the_stored_ones(model_class: Any) -> None:
    """A renamed layer makes every published checkpoint unreadable: it is a decision, taken in the stored list."""
    path = STATE_DICT_KEYS / f"{model_class.__name__}.txt"
    assert path.exists(), f"{path}: no list of the keys of {model_class.__name__}"
    stored = path.read_text(encoding="utf-8").split()
    keys = list(tiny_model(model_class).state_dict())
    assert keys == stored, f"{set(keys) ^ set(stored)} (or their order) is not as in {path}"


CONTRACTS = (
    saved_and_loaded_is_the_same,
    weights_are_safetensors_alone,
    auto_classes_resolve,
    unknown_config_keys_survive,
    bfloat16_loads_and_reads,
    state_dict_keys_are_the_stored_ones,
)
