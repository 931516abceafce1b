"""PP-OCRv6 small out of the wheel: order and folding of the layers, the alphabet, and what ONNX Runtime computes."""

import json
import sys

import numpy as np
import pytest
import torch
from contracts.tiny_configs import tiny_model
from PIL import Image, ImageDraw, ImageFont
from torch import nn
from transformers import AutoModelForTextRecognition, AutoProcessor

from hf_ocr import PpOcrForTextRecognition
from hf_ocr.alphabet import resize_alphabet
from hf_ocr.convert import rapidocr
from hf_ocr.convert.rapidocr import ConversionError, Layer, convert_rapidocr, load_layers
from hf_ocr.models.reading import read_images

TEXT = "TOTAL RM 12.50 Größe 第三"


def line(width: int, text: str = "Total RM 12.50") -> Image.Image:
    """Text in colours that tell the channels apart, 48 px high."""
    image = Image.new("RGB", (width, 48), (255, 250, 200))
    ImageDraw.Draw(image).text((6, 2), text, fill=(150, 20, 40), font=ImageFont.load_default(36))
    return image


def shuffled(model):
    """Statistics and affine parts of the norms that a wrong order would show."""
    generator = torch.Generator().manual_seed(0)
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d | nn.LayerNorm):
            nn.init.uniform_(module.weight, 0.5, 1.5, generator=generator)
            nn.init.normal_(module.bias, generator=generator)
        if isinstance(module, nn.BatchNorm2d):
            nn.init.normal_(module.running_mean, generator=generator)
            nn.init.uniform_(module.running_var, 0.5, 2.0, generator=generator)
    return model


def graph_of(model, keep_norms=0):
    """The layers as an exported graph has them: batch norms folded, all but the last `keep_norms`."""
    modules = [module for _, module in rapidocr._in_order_of_execution(model)]
    norms = [module for module in modules if isinstance(module, nn.BatchNorm2d)]
    kept = norms[len(norms) - keep_norms :]
    layers = []
    for module in modules:
        if not isinstance(module, nn.BatchNorm2d):
            layers.append(Layer(type(module).__name__, module.weight, module.bias))
        elif module in kept:
            layers.append(Layer("BatchNorm2d", module.weight, module.bias, module.running_mean, module.running_var))
        else:
            scale = module.weight / (module.running_var + module.eps).sqrt()
            folded = layers[-1].weight * scale[:, None, None, None]
            layers[-1] = Layer("Conv2d", folded, module.bias - module.running_mean * scale)
    return layers


@pytest.mark.parametrize("keep_norms", [0, 3])
def test_a_folded_graph_gives_the_same_logits(keep_norms):
    model = shuffled(tiny_model(PpOcrForTextRecognition))
    again = PpOcrForTextRecognition(model.config).eval()
    load_layers(again, graph_of(model, keep_norms))
    pixel_values = torch.rand(2, 3, 48, 96) * 2 - 1
    with torch.no_grad():
        torch.testing.assert_close(again(pixel_values).logits, model(pixel_values).logits, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda layers: layers[:-1], "nothing more"),
        (lambda layers: [*layers, layers[-1]], "1 layers more"),
        (lambda layers: [layers[0]._replace(weight=layers[0].weight[:, :, :1]), *layers[1:]], r"Conv2d of \(8, 3, 1"),
        (lambda layers: [*layers[:-1], layers[-1]._replace(bias=None)], "classifier of the model has a bias"),
        (lambda layers: [layers[-1], *layers[1:]], "Linear"),
    ],
    ids=["fewer", "more", "shape", "bias", "kind"],
)
def test_another_network_is_named(change, message):
    model = tiny_model(PpOcrForTextRecognition)
    with pytest.raises(ConversionError, match=message):
        load_layers(model, change(graph_of(model)))


def test_without_the_wheel_the_cure_is_named(monkeypatch, tmp_path):
    monkeypatch.setattr(rapidocr.util, "find_spec", lambda name: None)
    with pytest.raises(ConversionError, match=r"rapidocr is not installed.*pip install 'hf_ocr\[convert\]'"):
        convert_rapidocr(tmp_path)


def test_without_onnx_the_cure_is_named(monkeypatch, tmp_path):
    monkeypatch.setitem(sys.modules, "onnx", None)
    with pytest.raises(ConversionError, match=r"onnx is not installed.*pip install 'hf_ocr\[convert\]'"):
        rapidocr.read_recognizer(tmp_path / "weights.onnx")


def test_a_damaged_file_is_named(tmp_path):
    pytest.importorskip("onnx")
    (tmp_path / "weights.onnx").write_bytes(b"no model")
    with pytest.raises(ConversionError, match=r"weights\.onnx: (is no ONNX model|has no alphabet)"):
        rapidocr.read_recognizer(tmp_path / "weights.onnx")


# --- with the wheel


@pytest.fixture(scope="module")
def converted(tmp_path_factory):
    pytest.importorskip("onnx")
    pytest.importorskip("rapidocr")
    return convert_rapidocr(tmp_path_factory.mktemp("converted"))


@pytest.fixture(scope="module")
def recognizer(converted):
    model = AutoModelForTextRecognition.from_pretrained(converted.folder)
    return model, AutoProcessor.from_pretrained(converted.folder)


@pytest.fixture(scope="module")
def session(converted):
    onnxruntime = pytest.importorskip("onnxruntime")
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    return onnxruntime.InferenceSession(str(converted.source), options)


def original_alphabet(session):
    return ["", *session.get_modelmeta().custom_metadata_map["character"].split("\n"), " "]


@pytest.mark.parametrize("width", [96, 320])
def test_probabilities_are_those_of_onnx_runtime(width, recognizer, session):
    model, processor = recognizer
    pixel_values = processor(images=[line(width)], return_tensors="pt")["pixel_values"]
    assert pixel_values.shape == (1, 3, 48, width)
    expected = session.run(None, {"x": pixel_values.flip(1).numpy()})[0][0]  # RapidOCR: blue, green, red
    alphabet = original_alphabet(session)
    places = {symbol: index for index, symbol in enumerate(alphabet)}
    kept = [0, *(places[symbol] for symbol in processor.tokenizer.alphabet)]
    with torch.no_grad():
        found = model(pixel_values).logits[0].softmax(-1).numpy()
    expected = expected[:, kept]  # what is left out has next to no probability
    assert found.shape == expected.shape
    assert np.abs(found - expected).max() < 5e-5
    assert (found.argmax(-1) == expected.argmax(-1)).all() and found.argmax(-1).any()


def test_the_alphabet_is_that_of_the_file(converted, recognizer, session):
    model, processor = recognizer
    alphabet = original_alphabet(session)
    assert converted.left_out == tuple("\u212b\u232a\uf92c\uf979")  # each is another symbol once normalised
    assert processor.tokenizer.alphabet == [symbol for symbol in alphabet[1:] if symbol not in converted.left_out]
    assert processor.tokenizer.alphabet[-1] == " "
    assert len(processor.tokenizer) == model.config.vocab_size == len(alphabet) - 4
    assert processor.decode(processor(text=[TEXT], return_tensors="pt")["labels"][0]) == TEXT


def test_it_reads_in_every_width_and_colour(recognizer):
    model, processor = recognizer
    images = [line(260), line(400), line(900), line(260).convert("L"), line(260).resize((520, 96))]
    readings = read_images(model, processor, images, with_characters=True)
    assert [reading.text for reading in readings] == ["Total RM 12.50"] * len(images)
    for reading in readings:
        lefts = [character.box[0] for character in reading.characters]
        assert lefts == sorted(lefts)


def test_it_can_be_trained_on_one_line_at_a_time(recognizer):
    """The norms of the file are folded: with the statistics of batches the network would be another."""
    model, processor = recognizer
    inputs = processor(images=[line(260)], text=["Total RM 12.50"], return_tensors="pt")
    with torch.no_grad():
        loss, again = (model.train(mode)(**inputs).loss for mode in (False, True))
    assert loss < 0.5
    torch.testing.assert_close(again, loss)
    model.eval()


def test_its_alphabet_can_be_trimmed(converted):
    """To the characters in use: a tenth of the parameters, the same text."""
    model = AutoModelForTextRecognition.from_pretrained(converted.folder)
    processor = AutoProcessor.from_pretrained(converted.folder)
    probability = read_images(model, processor, [line(260)])[0].score
    processor.tokenizer = resize_alphabet(model, processor.tokenizer, "Total RM 12.50", mode="new")
    assert len(processor.tokenizer) == model.config.vocab_size == len(set("Total RM 12.50")) + 1
    reading = read_images(model, processor, [line(260)])[0]
    assert reading.text == "Total RM 12.50" and reading.score >= probability - 1e-6


def test_half_the_size_reads_the_same_and_loads_in_full(converted, recognizer, tmp_path):
    convert_rapidocr(tmp_path, torch.float16)
    full, half = ((folder / "model.safetensors").stat().st_size for folder in (converted.folder, tmp_path))
    assert half < 0.51 * full
    model = AutoModelForTextRecognition.from_pretrained(tmp_path)
    assert model.dtype == torch.float32
    assert read_images(model, recognizer[1], [line(260)])[0].text == "Total RM 12.50"


def test_the_folder_names_licence_origin_and_changes(converted):
    card = (converted.folder / "README.md").read_text(encoding="utf-8")
    for expected in ("license: apache-2.0", "PaddleOCR", "RGB instead of BGR", "U+212B", "4 symbols", "SHA-256"):
        assert expected in card
    assert "Apache License" in (converted.folder / "LICENSE").read_text(encoding="utf-8")
    assert json.loads((converted.folder / "config.json").read_text())["freeze_batch_norm"] is True
