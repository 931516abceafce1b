"""Files from elsewhere hold anything: what comes out is what was asked for, or the documented error."""

import io
import json

import numpy as np
import pytest
import torch
from contracts.tiny_configs import tiny_config
from hypothesis import given, settings
from mutations import JSON, fuzzed, mutated_bytes, mutated_json
from PIL import Image
from tiny_recognizer import lines

from hf_ocr import (
    MODEL_CLASSES,
    AttentionOcrForTextRecognition,
    CharacterTokenizer,
    CrnnForTextRecognition,
    ImageError,
    ParseqForTextRecognition,
    PpOcrForTextRecognition,
    TextLineImageProcessor,
    VisionTextForTextRecognition,
    load_image,
)
from hf_ocr.models.setting_checks import MAX_PARAMETERS

NAMES = [
    "vocab_size", "num_labels", "id2label", "torch_dtype", "rope_scaling", "rope_theta", "auto_map", "per_layer_config",
    "custom_pipelines", "attn_implementation", "self", "from_dict", "layer_types",
]  # fmt: skip


def configs(model_class):
    return mutated_json(json.loads(tiny_config(model_class).to_json_string()), NAMES + dir(model_class.config_class))


def builds_or_is_refused(model_class, content):
    try:
        config = model_class.config_class.from_dict(content)
    except ValueError as error:
        assert len(str(error)) < 5000
        return
    with torch.device("meta"):  # shapes only
        model = model_class(config)
    assert sum(parameter.numel() for parameter in model.parameters()) < 1.5 * MAX_PARAMETERS


@fuzzed
@given(content=configs(CrnnForTextRecognition))
def test_configurations_of_crnn(content):
    builds_or_is_refused(CrnnForTextRecognition, content)


@fuzzed
@given(content=configs(PpOcrForTextRecognition))
def test_configurations_of_pp_ocr(content):
    builds_or_is_refused(PpOcrForTextRecognition, content)


@fuzzed
@given(content=configs(VisionTextForTextRecognition))
def test_configurations_of_vision_text(content):
    builds_or_is_refused(VisionTextForTextRecognition, content)


@fuzzed
@given(content=configs(ParseqForTextRecognition))
def test_configurations_of_parseq(content):
    builds_or_is_refused(ParseqForTextRecognition, content)


@fuzzed
@given(content=configs(AttentionOcrForTextRecognition))
def test_configurations_of_attention_ocr(content):
    builds_or_is_refused(AttentionOcrForTextRecognition, content)


@fuzzed
@given(content=JSON)
@pytest.mark.parametrize("model_class", MODEL_CLASSES)
def test_configurations_that_are_anything(model_class, content):
    if isinstance(content, dict):
        builds_or_is_refused(model_class, content)
    else:
        with pytest.raises(ValueError):
            model_class.config_class.from_dict(content)


SETTINGS = {"height": 32, "min_width": 64, "max_width": 128, "num_channels": 3, "mean": [0.5, 0.5, 0.5], "std": 0.5}


@fuzzed
@given(content=mutated_json({**SETTINGS, "narrow": "pad", "resample": 3}, dir(TextLineImageProcessor)))
def test_settings_of_the_image_processor(content):
    try:
        processor = TextLineImageProcessor.from_dict(content)
    except ValueError as error:
        assert len(str(error)) < 5000
        return
    try:
        values = processor(lines(1), return_tensors="np")["pixel_values"]
    except ImageError:
        return
    assert values.shape[1:3] == (processor.num_channels, processor.height) and np.isfinite(values).all()


TOKENIZER = CharacterTokenizer.from_alphabet("ab é", unk_token="<unk>", eos_token="</s>")


@pytest.fixture(scope="module")
def tokenizer_folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("tokenizer")
    TOKENIZER.save_pretrained(folder)
    return folder


def reads_or_is_refused(folder):
    try:
        tokenizer = CharacterTokenizer.from_pretrained(folder)
    except (ValueError, OSError) as error:
        assert len(str(error)) < 5000
        return
    ids = list(range(len(tokenizer)))
    tokenizer.decode(ids).encode()
    for character in tokenizer.alphabet:
        assert tokenizer.decode(tokenizer.label_ids(character)) == character


@fuzzed
@given(vocabulary=mutated_json(TOKENIZER.get_vocab(), ["<pad>", "ab", "\ud800", "e\N{COMBINING ACUTE ACCENT}"]) | JSON)
def test_vocabularies(tokenizer_folder, tmp_path, vocabulary):
    (tmp_path / "tokenizer_config.json").write_bytes((tokenizer_folder / "tokenizer_config.json").read_bytes())
    (tmp_path / "vocab.json").write_text(json.dumps(vocabulary))
    reads_or_is_refused(tmp_path)


TOKENIZER_SETTINGS = {
    "added_tokens_decoder": {"0": {"content": "<pad>", "special": True}, "1": {"content": "<unk>", "special": True}},
    "pad_token": "<pad>",
    "unk_token": "<unk>",
    "eos_token": "</s>",
    "bos_token": None,
    "model_max_length": 10**30,
    "extra_special_tokens": [],
    "tokenizer_class": "CharacterTokenizer",
}


@fuzzed
@given(
    content=mutated_json(TOKENIZER_SETTINGS, ["vocab", "vocab_file", "init_inputs", *dir(CharacterTokenizer)]) | JSON
)
def test_settings_of_the_tokenizer(tokenizer_folder, tmp_path, content):
    (tmp_path / "vocab.json").write_bytes((tokenizer_folder / "vocab.json").read_bytes())
    (tmp_path / "tokenizer_config.json").write_text(json.dumps(content))
    reads_or_is_refused(tmp_path)


@fuzzed
@given(content=mutated_bytes([json.dumps(TOKENIZER.get_vocab()).encode()]))
def test_bytes_of_a_vocabulary(tokenizer_folder, tmp_path, content):
    (tmp_path / "tokenizer_config.json").write_bytes((tokenizer_folder / "tokenizer_config.json").read_bytes())
    (tmp_path / "vocab.json").write_bytes(content)
    reads_or_is_refused(tmp_path)


def encoded_images() -> dict[str, bytes]:
    """A small image in every format that this Pillow writes and reads."""
    Image.init()
    files = {}
    for name in sorted(set(Image.SAVE) & set(Image.OPEN)):
        for mode in ("RGB", "L", "1"):
            stream = io.BytesIO()
            try:
                lines(1)[0].resize((40, 32)).convert(mode).save(stream, name)
                load_image(stream.getvalue())
            except Exception:  # formats that need a program, a library or another mode
                continue
            files[name] = stream.getvalue()
            break
    return files


IMAGES = encoded_images()


def test_the_usual_formats_are_among_those_that_are_fuzzed():
    assert {"BMP", "GIF", "JPEG", "PNG", "PPM", "TGA", "TIFF", "WEBP"} <= set(IMAGES)


@settings(fuzzed, max_examples=600)
@given(content=mutated_bytes(list(IMAGES.values())))
def test_bytes_of_images(content):
    try:
        image = load_image(content)
    except ImageError as error:
        assert len(str(error)) < 5000
    else:
        assert image.mode in ("L", "RGB") and np.asarray(image).dtype == np.uint8
