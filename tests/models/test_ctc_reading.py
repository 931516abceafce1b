"""Reading by CTC: in parts where the logits are too many at once, and of what it is certain before any decoder."""

import pytest
import torch
from contracts.tiny_configs import tiny_batch, tiny_model

from hf_ocr import AttentionOcrForTextRecognition, CrnnForTextRecognition, VisionTextForTextRecognition
from hf_ocr.models import ctc_reading
from hf_ocr.models.ctc import greedy_search
from hf_ocr.models.modeling_outputs import Recognition

LEXICON = torch.tensor([[1, 2, 0], [3, 0, 0], [6, 5, 4], [2, 2, 2]])


def without_ctc(model_class):
    model = tiny_model(model_class)
    model.ctc_classifier, model.config.ctc_weight = None, 0.0
    model.decoder.end = model.decoder.precision = None
    return model


@pytest.mark.parametrize(
    "settings", [{}, {"num_beams": 3}, {"with_characters": False}, {"lexicon": LEXICON}], ids=[*"gbnl"]
)
@pytest.mark.parametrize(("rows_at_once", "temperature"), [(1, 1.0), (4, 2.0)])
@pytest.mark.parametrize(
    ("model_class", "make"),
    [
        (CrnnForTextRecognition, tiny_model),
        (VisionTextForTextRecognition, tiny_model),
        (AttentionOcrForTextRecognition, tiny_model),
        (AttentionOcrForTextRecognition, without_ctc),
    ],
)
def test_parts_give_what_the_whole_gives(model_class, make, settings, rows_at_once, temperature, monkeypatch):
    model, inputs = make(model_class), tiny_batch(model_class)
    model.config.temperature = temperature
    whole = model.recognize(**inputs, **settings)
    frames = model.base_model.frame_count(inputs["pixel_values"].shape[-1])
    monkeypatch.setattr(ctc_reading, "MOST_LOGITS", rows_at_once * frames * model.config.vocab_size)
    sizes = []
    handle = model.base_model.register_forward_pre_hook(lambda module, inputs: sizes.append(len(inputs[0])))
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


@pytest.mark.parametrize("temperature", [1.0, 2.0])
@pytest.mark.parametrize("with_characters", [True, False])
def test_a_decoder_reads_the_rows_where_ctc_doubts_and_no_others(with_characters, temperature):
    model = tiny_model(CrnnForTextRecognition)
    model.config.temperature = temperature
    logits = torch.full((4, 6, model.config.vocab_size), -5.0)
    logits[..., 0] = 5.0  # blank
    logits[0, 1, 3] = logits[0, 3, 4] = 20.0
    logits[1, 1:5, 3] = 5.1  # hardly more probable than the blank
    logits[2, 2, 5] = 5.1
    lengths, widths = torch.tensor([6, 6, 6, 5]), torch.tensor([64, 64, 64, 50])
    asked = []

    def by_decoder(rows):
        asked.append(rows.tolist())
        found = {"sequences": torch.tensor([[6, 6, 6], [7, 0, 0]]), "scores": torch.tensor([0.1, 0.2])}
        if with_characters:
            found["character_scores"] = (found["sequences"] != 0) * 0.5
            found["character_spans"] = torch.ones(2, 3, 2)
        if temperature != 1:
            found["raw_scores"] = torch.tensor([0.3, 0.4])
        return Recognition(**found)

    def read(rows):
        return ctc_reading.read_doubtful(
            by_decoder, model, logits[rows], lengths[rows], widths[rows], None, with_characters
        )

    found = read(torch.arange(4))
    assert asked == [[1, 2]]
    assert found.sequences.tolist() == [[3, 4, 0], [6, 6, 6], [7, 0, 0], [0, 0, 0]]
    alone = greedy_search(logits, lengths, temperature=temperature)
    torch.testing.assert_close(found.scores, torch.tensor([alone.scores[0], 0.1, 0.2, alone.scores[3]]))
    if temperature == 1:
        assert found.raw_scores is None
    else:
        torch.testing.assert_close(found.raw_scores, torch.tensor([alone.raw_scores[0], 0.3, 0.4, alone.raw_scores[3]]))
    if with_characters:
        torch.testing.assert_close(found.character_scores[0, :2], alone.character_scores[0, :2])
        assert found.character_spans[1].tolist() == [[1.0, 1.0]] * 3
        assert (found.character_spans[0, :2].diff(dim=-1) > 0).all() and not found.character_spans[[0, 3], -1].any()
    logits[1, 1:5, 3] = 4.9  # that nothing is there is not certain, but more probable than any text
    assert read(torch.tensor([1])).sequences.shape == (1, 0)
    certain = read(torch.tensor([3, 0]))
    assert len(asked) == 1 and certain.sequences.tolist() == [[0, 0], [3, 4]]


@pytest.mark.parametrize("settings", [{}, {"allowed_ids": [1, 2, 3, 4]}, {"with_characters": False}], ids=str)
@pytest.mark.parametrize("temperature", [1.0, 2.0])
@pytest.mark.parametrize("family", [AttentionOcrForTextRecognition, VisionTextForTextRecognition])
def test_each_row_is_read_by_ctc_or_by_the_decoder_as_without_the_others(family, temperature, settings, monkeypatch):
    model, inputs = tiny_model(family), tiny_batch(family)
    model.config.temperature = temperature
    monkeypatch.setattr(ctc_reading, "CERTAIN", 0.0)
    by_ctc = model.recognize(**inputs, **settings)
    monkeypatch.setattr(ctc_reading, "CERTAIN", 2.0)
    by_decoder = model.recognize(**inputs, **settings)
    raw = by_ctc.scores if by_ctc.raw_scores is None else by_ctc.raw_scores
    threshold = float(raw.median())
    certain = raw >= threshold
    assert certain.any() and not certain.all()
    monkeypatch.setattr(ctc_reading, "CERTAIN", threshold)
    found = model.recognize(**inputs, **settings)
    assert list(found) == list(by_decoder)
    for name in found:
        for row, sure in enumerate(certain):
            expected, got = (by_ctc if sure else by_decoder)[name][row], found[name][row]
            if name in ("sequences", "character_scores", "character_spans"):
                length = int(((by_ctc if sure else by_decoder).sequences[row] != 0).sum())
                assert not got[length:].any()
                expected, got = expected[:length], got[:length]
            torch.testing.assert_close(got, expected, atol=1e-4, rtol=1e-3)
