"""A batch whose logits are too many at once is read in parts, with the same result."""

import pytest
import torch
from contracts.tiny_configs import tiny_batch, tiny_model

from hf_ocr import CrnnForTextRecognition
from hf_ocr.models import ctc_reading


@pytest.mark.parametrize("settings", [{}, {"num_beams": 3}, {"with_characters": False}], ids=str)
@pytest.mark.parametrize("rows_at_once", [1, 4])
def test_parts_give_what_the_whole_gives(settings, rows_at_once, monkeypatch):
    model, inputs = tiny_model(CrnnForTextRecognition), tiny_batch(CrnnForTextRecognition)
    whole = model.recognize(**inputs, **settings)
    frames = model.base_model.frame_count(inputs["pixel_values"].shape[-1])
    monkeypatch.setattr(ctc_reading, "MOST_LOGITS", rows_at_once * frames * model.config.vocab_size)
    sizes = []
    handle = model.register_forward_pre_hook(lambda module, inputs: sizes.append(len(inputs[0])))
    parts = model.recognize(**inputs, **settings)
    handle.remove()
    assert max(sizes) == rows_at_once and sum(sizes) == len(inputs["widths"])
    assert list(parts) == list(whole)
    for name in whole:
        torch.testing.assert_close(parts[name], whole[name], atol=1e-4, rtol=1e-3)


def test_a_line_is_read_however_many_its_logits_are(monkeypatch):
    model, inputs = tiny_model(CrnnForTextRecognition), tiny_batch(CrnnForTextRecognition, count=2)
    monkeypatch.setattr(ctc_reading, "MOST_LOGITS", 1)
    assert len(model.recognize(inputs["pixel_values"]).sequences) == 2
