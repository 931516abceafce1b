"""The picture shows where the decoder looked."""

import numpy as np
import torch
from contracts.tiny_configs import tiny_lines, tiny_model, tiny_processor
from PIL import ImageDraw

from hf_ocr import AttentionOcrForTextRecognition
from hf_ocr.attention_maps import draw_attention


def test_strips_bear_what_is_read(monkeypatch):
    """By the decoder and the CTC head together, where the decoder alone would say otherwise."""
    model, processor = tiny_model(AttentionOcrForTextRecognition), tiny_processor(AttentionOcrForTextRecognition)
    image = tiny_lines(3)[2]
    inputs = processor(images=[image], return_tensors="pt")
    text = processor.batch_decode(model.recognize(**inputs).sequences)[0]
    with torch.no_grad():
        alone = model(**inputs, output_attentions=True).decoder_logits[0, :-1].argmax(-1)
    assert processor.batch_decode(alone[None])[0] != text, "the decoder alone says the same: nothing is tested"
    named = []
    monkeypatch.setattr(ImageDraw.ImageDraw, "text", lambda draw, place, name, *rest, **more: named.append(name))
    draw_attention(model, processor, image)
    assert named == [*text, "end"]


def test_strips_bear_what_ctc_is_certain_of(monkeypatch):
    model, processor = tiny_model(AttentionOcrForTextRecognition), tiny_processor(AttentionOcrForTextRecognition)
    with torch.no_grad():
        model.ctc_classifier.weight.zero_()
        model.ctc_classifier.bias.copy_(50.0 * torch.eye(len(processor.tokenizer))[3])
    named = []
    monkeypatch.setattr(ImageDraw.ImageDraw, "text", lambda draw, place, name, *rest, **more: named.append(name))
    draw_attention(model, processor, tiny_lines(3)[2])
    assert named == [*processor.batch_decode(torch.tensor([[3]])), "end"]


def test_a_strip_for_each_character_red_where_its_attention_is():
    model, processor = (
        tiny_model(AttentionOcrForTextRecognition).train(),
        tiny_processor(AttentionOcrForTextRecognition),
    )
    image = tiny_lines(3)[2]
    inputs = processor(images=[image], return_tensors="pt")
    text = processor.batch_decode(model.recognize(**inputs).sequences)[0]
    picture = draw_attention(model, processor, image)
    assert model.training
    strips = len(text) + 1
    width, height = int(inputs["widths"][0]), model.config.image_height
    assert picture.size == (36 + width, strips * (height + 4) - 4)

    with torch.no_grad():
        weights = model.eval()(**inputs, output_attentions=True).cross_attentions[0][0].mean(0)
    scale, offset = model.base_model.frame_to_pixel()
    pixels = np.asarray(picture, dtype=int)
    redness = (pixels[..., 0] - pixels[..., 2])[:, 36:]
    frames = model.base_model.frame_count(width)
    for row in range(strips):
        strip = redness[row * (height + 4) :][:height].mean(0)
        looked_at = scale * (int(weights[row, :frames].argmax()) + 0.5) + offset
        # The grey of the image is part of what is measured: among the reddest columns, not the very reddest.
        assert strip[int(looked_at)] > np.quantile(strip, 0.75)
