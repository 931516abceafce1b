"""Where a decoder looked, as spans of frames."""

import torch

from hf_ocr.models.attention_spans import frame_spans


def test_spans_far_to_the_right_are_exact_under_autocast_too():
    attentions = torch.zeros(1, 1, 3, 600)
    attentions[0, 0, [0, 1, 2], [301, 309, 599]] = 1
    arguments = attentions, torch.tensor([[1, 2]]), torch.tensor([600])
    with torch.autocast("cpu", torch.bfloat16):
        mixed = frame_spans(*arguments)
    for spans in (mixed, frame_spans(*arguments), frame_spans(attentions.bfloat16(), *arguments[1:])):
        assert spans.dtype == torch.float32
        assert spans.tolist() == [[[297.5, 305.5], [305.5, 313.5]]]
