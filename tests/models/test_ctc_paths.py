"""Texts to choose from, against the enumeration of all paths and the exact probability of each text."""

import itertools

import pytest
import torch

from hf_ocr.models import ctc_paths
from hf_ocr.models.ctc import greedy_search, likely_texts, prefix_beam_search, sequence_log_probability


def peaked(rows, frames, symbols, seed=0):
    """Logits of a trained network: most frames certain."""
    torch.manual_seed(seed)
    return torch.randn(rows, frames, symbols) * torch.tensor([8.0, 2.0])[torch.randint(2, (rows, frames, 1))]


def texts_of(sequences):
    return [tuple(row[row != 0].tolist()) for row in sequences]


@pytest.mark.parametrize("frames", [1, 2, 3])
def test_few_paths_are_all_found_and_summed(frames):
    logits = torch.randn(5, frames, 3, generator=torch.Generator().manual_seed(frames))
    sequences, scores = likely_texts(logits, torch.full((5,), frames), 64)
    found, scores = sequences.unflatten(0, (5, 64)), scores.view(5, 64)
    every = {tuple(s for s, _ in itertools.groupby(path) if s) for path in itertools.product(range(3), repeat=frames)}
    for row in range(5):
        alive = scores[row] > -torch.inf
        texts = texts_of(found[row][alive])
        assert len(texts) == len(set(texts)) and set(texts) == every
        exact = sequence_log_probability(
            logits[row : row + 1].expand(len(texts), -1, -1), torch.full((len(texts),), frames), found[row][alive]
        )
        torch.testing.assert_close(scores[row][alive], exact, atol=1e-5, rtol=0)
        assert (found[row][~alive] == 0).all()


def test_the_most_probable_texts_are_among_them():
    """Of networks as they are; a beam that is wide enough finds what is most probable."""
    logits = peaked(40, 30, 12)
    lengths = torch.randint(18, 31, (40,), generator=torch.Generator().manual_seed(1))
    sequences, scores = likely_texts(logits, lengths, 24)
    assert (scores.view(40, 24)[:, :-1] >= scores.view(40, 24)[:, 1:]).all()
    exact = sequence_log_probability(logits.repeat_interleave(24, 0), lengths.repeat_interleave(24), sequences)
    alive = scores > -torch.inf
    assert (scores[alive] <= exact[alive] + 1e-3).all()
    found = [set(texts_of(part)) for part in sequences.unflatten(0, (40, 24))]
    assert all(
        text in some for text, some in zip(texts_of(greedy_search(logits, lengths).sequences), found, strict=True)
    )
    best = texts_of(prefix_beam_search(logits, lengths, 50).sequences)
    assert sum(text in some for text, some in zip(best, found, strict=True)) >= 32


def test_a_row_does_not_depend_on_those_beside_it_nor_on_what_lies_behind_it():
    logits, lengths = peaked(6, 20, 9), torch.tensor([20, 3, 11, 0, 20, 16])
    sequences, scores = likely_texts(logits, lengths, 24)
    for row, length in enumerate(lengths.tolist()):
        own = slice(24 * row, 24 * row + 24)
        for behind in (length, length + 2):
            padded = torch.cat([logits[row : row + 1, :length], torch.full((1, behind - length, 9), 3.0)], 1)
            alone, own_scores = likely_texts(padded, lengths[row : row + 1], 24)
            assert texts_of(alone) == texts_of(sequences[own])
            assert torch.equal(own_scores, scores[own])


def test_only_what_is_allowed_is_found():
    logits, allowed = peaked(8, 20, 9), torch.tensor([False, True, False, True] + [False] * 5)
    sequences, scores = likely_texts(logits, torch.full((8,), 20), 24, allowed)
    assert set(sequences.unique().tolist()) == {0, 1, 3} and (scores.view(8, 24)[:, 0] > -torch.inf).all()


def test_an_alphabet_of_one_character_and_no_rows():
    sequences, scores = likely_texts(torch.zeros(2, 4, 2), torch.tensor([4, 4]), 24)
    assert set(texts_of(sequences)) == {(), (1,), (1, 1)} and scores.shape == (48,)
    sequences, scores = likely_texts(torch.zeros(0, 4, 3), torch.zeros(0, dtype=torch.int64), 24)
    assert len(sequences) == len(scores) == 0
    assert ctc_paths.PATHS >= 24


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_not_a_bit_of_a_row_depends_on_how_long_the_rows_beside_it_are(dtype):
    """In bfloat16 frames are often equally doubtful."""
    logits = peaked(60, 37, 9).to(dtype)
    alone = likely_texts(logits, torch.full((60,), 37), 24)
    for padding in (1, 27, 91):
        beside = torch.nn.functional.pad(logits, (0, 0, 0, padding))
        beside = torch.cat([beside, peaked(1, 37 + padding, 9, seed=1).to(dtype)])
        texts, scores = likely_texts(beside, torch.tensor([37] * 60 + [37 + padding]), 24)
        assert torch.equal(scores[: 60 * 24], alone[1])
        assert texts_of(texts[: 60 * 24]) == texts_of(alone[0])
