import pytest
import torch

from hf_ocr.models.ctc import align, greedy_search, sequence_log_probability
from hf_ocr.models.ctc_prefix_scores import CtcPrefixScores, expected_frames

TEXTS = torch.tensor([[1, 1, 2, 3, 1], [2, 1, 1, 4, 4]])


def row(frames=(9, 6), symbols=5):
    logits = 2 * torch.randn(len(frames), max(frames), symbols, generator=torch.Generator().manual_seed(0))
    return logits, torch.tensor(frames)


def test_steps_multiply_to_the_probability_of_the_text():
    """At each length: the steps to a text and its end are what the forward recursion says of the whole text."""
    logits, lengths = row()
    scores = CtcPrefixScores(logits, lengths)
    prefixes, total = scores.start(), torch.zeros(2)
    for index in range(TEXTS.shape[1]):
        following = scores.next_log_probs(prefixes)[:, 0].log_softmax(-1)
        exact = sequence_log_probability(logits, lengths, TEXTS[:, :index])
        torch.testing.assert_close(total + following[:, 0], exact, atol=1e-4, rtol=0)
        total = total + following.gather(1, TEXTS[:, index, None])[:, 0]
        prefixes = scores.extend(prefixes, TEXTS[:, index, None])


def test_several_texts_are_followed_side_by_side():
    logits, lengths = row()
    scores = CtcPrefixScores(logits, lengths)
    together, apart = scores.start(2), [scores.start(), scores.start()]
    for symbols in ([1, 2], [1, 3], [4, 3]):
        together = scores.extend(together, torch.tensor([symbols, symbols]))
        for place, symbol in enumerate(symbols):
            apart[place] = scores.extend(apart[place], torch.full((2, 1), symbol))
            torch.testing.assert_close(together.frame[:, place], apart[place].frame[:, 0])
            found = scores.next_log_probs(together)[:, place]
            torch.testing.assert_close(found, scores.next_log_probs(apart[place])[:, 0])


def test_what_lies_behind_a_row_changes_nothing():
    logits, lengths = row()
    longer = torch.cat([logits, 50 * torch.randn(2, 4, 5)], 1)
    longer[1, 6:9] = 30.0
    for found, expected in zip(*(steps(CtcPrefixScores(these, lengths)) for these in (longer, logits)), strict=True):
        torch.testing.assert_close(found, expected, atol=1e-5, rtol=0)


def steps(scores):
    prefixes, found = scores.start(), []
    for symbols in TEXTS[:, :3].T:
        found.append(scores.next_log_probs(prefixes).log_softmax(-1))
        prefixes = scores.extend(prefixes, symbols[:, None])
        found.append(prefixes.frame)
    return found


def test_frames_are_those_of_the_alignment_where_ctc_is_sure():
    logits = torch.zeros(1, 12, 5)
    for frame, symbol in {0: 0, 1: 0, 2: 1, 3: 1, 4: 0, 5: 1, 6: 0, 7: 0, 8: 3, 9: 0, 10: 2, 11: 0}.items():
        logits[0, frame, symbol] = 20.0
    lengths, text = torch.tensor([12]), torch.tensor([[1, 1, 3, 2]])
    frames = expected_frames(CtcPrefixScores(logits, lengths), text)
    assert frames.tolist()[0] == pytest.approx([2, 5, 8, 10], abs=1e-3)
    assert align(logits, lengths, text).peak_frames.tolist() == [[2, 5, 8, 10]]


def test_a_text_that_does_not_fit_gives_numbers_all_the_same():
    logits, lengths = row((3, 1))
    scores = CtcPrefixScores(logits, lengths)
    prefixes = scores.start()
    for symbols in TEXTS.T:
        prefixes = scores.extend(prefixes, symbols[:, None])
        assert prefixes.frame.isfinite().all()
        assert scores.next_log_probs(prefixes).isfinite().all()


def test_a_thousand_frames_lose_no_digits():
    logits, lengths = row((1000,), symbols=40)
    logits[..., 0] += 5.0
    text = greedy_search(logits, lengths).sequences
    scores = CtcPrefixScores(logits, lengths)
    prefixes, total = scores.start(), 0.0
    for symbols in text.T:
        total += float(scores.next_log_probs(prefixes).log_softmax(-1).gather(2, symbols[:, None, None]))
        prefixes = scores.extend(prefixes, symbols[:, None])
    total += float(scores.next_log_probs(prefixes).log_softmax(-1)[..., 0])
    exact = sequence_log_probability(logits.double(), lengths, text)
    assert total == pytest.approx(float(exact), rel=1e-4)
