"""The search of any decoder that gives one symbol a step."""

import pytest
import torch

from hf_ocr.models import beam_search


@pytest.mark.parametrize(("bound", "most"), [("LEXICON_ROWS", 7), ("LEXICON_CELLS", 7 * 3 * 4), ("LEXICON_CELLS", 1)])
def test_a_lexicon_is_scored_in_parts_that_fit(bound, most, monkeypatch):
    """Two images, words of up to two characters and the end, four symbols."""
    lexicon = torch.cartesian_prod(torch.arange(1, 4), torch.arange(4))
    steps = torch.randn(2, 4, 3, 4, generator=torch.Generator().manual_seed(0)).log_softmax(-1)
    counts = []

    def log_probs_along(texts):
        counts.append(texts.shape[1])
        return steps[torch.arange(2)[:, None], texts[..., 0]]

    whole = beam_search.lexicon_search(log_probs_along, 2, lexicon, 4)
    assert counts == [12]
    counts.clear()
    monkeypatch.setattr(beam_search, bound, most)
    parts = beam_search.lexicon_search(log_probs_along, 2, lexicon, 4)
    assert counts == ([3] * 4 if most > 1 else [1] * 12)
    for part, expected in zip(parts, whole, strict=True):
        torch.testing.assert_close(part, expected)
