"""Search for the most probable text of a decoder that gives one symbol a step. Batched; greedy is one beam."""

from collections.abc import Callable
from typing import NamedTuple

import torch
import torch.nn.functional as F

END = 0
# What of a lexicon is scored at once: texts, times images; and these times the symbols at each of their steps, 4 bytes
# each, a few times over.
LEXICON_ROWS = 1024
LEXICON_CELLS = 1 << 25


class FoundTexts(NamedTuple):
    """The best text found for each row.

    Attributes:
        sequences: int64 (B, L) padded with 0. L may be 0.
        log_scores: float32 (B,), log P(text, end | row).
        step_scores: float32 (B, L), the probability of each symbol given those before it; padded with 0.
    """

    sequences: torch.Tensor
    log_scores: torch.Tensor
    step_scores: torch.Tensor


def steps_along(log_probs: torch.Tensor, sequences: torch.Tensor) -> torch.Tensor:
    """log P(symbol | those before it) of texts (..., L) and their end, of all symbols (..., L + 1, V): (..., L + 1)."""
    steps = log_probs.gather(-1, F.pad(sequences, (0, 1))[..., None])[..., 0]
    counted = torch.arange(steps.shape[-1], device=steps.device) <= (sequences != END).sum(-1, keepdim=True)
    return steps.masked_fill(~counted, 0.0)


def with_the_end(sequences: torch.Tensor, step_scores: torch.Tensor, log_scores: torch.Tensor) -> torch.Tensor:
    """Probabilities of characters (B, L) of which the last also says that the text ends: their product is its score."""
    read = sequences != END
    ends = (log_scores - (step_scores.log() * read).nan_to_num().sum(-1)).exp().clamp(max=1.0)
    last = read & (read.cumsum(-1) == read.sum(-1, keepdim=True))
    return torch.where(last, step_scores * ends[:, None], step_scores)


Advance = Callable[[torch.Tensor, torch.Tensor], torch.Tensor]


@torch.no_grad()
def beam_search(
    advance: Advance, max_lengths: torch.Tensor, num_beams: int, allowed: torch.Tensor | None = None
) -> FoundTexts:
    """Grows the `num_beams` most probable beginnings of each row, until the best of them has ended.

    Probabilities only fall, so what is still growing then cannot become better; there is no bonus for length. A row
    that is read is dropped from the batch, and rows never depend on each other.

    Args:
        advance: (parents int64 (R,), symbols int64 (R,)) -> log_probs float32 (R, V). One step of the decoder for R
            beginnings, `num_beams` beside each other for each row that is still read. `parents` says which beginnings
            of the last call they go on from, `symbols` is their last symbol. In the first call parents are rows of the
            batch and symbols are 0.
        max_lengths: int64 (B,), the longest text of each row, in symbols.
        num_beams: 1 reads greedily.
        allowed: bool (V,), symbols that may be read; the end, 0, always may. None allows all.

    Returns:
        Scores are those of the full softmax: restricting symbols or lengths does not change them.
    """
    device = max_lengths.device
    rows = torch.arange(len(max_lengths), device=device)
    most = int(max_lengths.max()) if len(rows) else 0
    found = FoundTexts(
        torch.zeros(len(rows), most + 1, dtype=torch.int64, device=device),
        torch.zeros(len(rows), device=device),
        torch.zeros(len(rows), most + 1, device=device),
    )
    history = [tensor[:, None, :0].expand(-1, num_beams, -1) for tensor in (found[0], found[2])]
    # All beams begin alike: the first of each row alone goes on from there.
    scores = torch.full((len(rows), num_beams), -torch.inf, device=device)
    scores[:, 0] = 0.0
    ended = torch.zeros_like(scores, dtype=torch.bool)
    parents, symbols = rows.repeat_interleave(num_beams), torch.zeros_like(rows).repeat_interleave(num_beams)
    while len(rows):
        log_probs = advance(parents, symbols).unflatten(0, (-1, num_beams))
        count, vocab_size = len(rows), log_probs.shape[-1]
        forbidden = (max_lengths[rows] <= history[0].shape[-1])[:, None].expand(-1, vocab_size).clone()
        if allowed is not None:
            forbidden |= ~allowed
        forbidden[:, END] = False
        candidates = log_probs.masked_fill(forbidden[:, None], -torch.inf)
        candidates[..., END].masked_fill_(ended, 0.0)
        candidates[..., END + 1 :].masked_fill_(ended[..., None], -torch.inf)
        scores, best = (scores[:, :, None] + candidates).flatten(1).topk(num_beams)
        parent, symbol = best // vocab_size, best % vocab_size
        step = candidates.flatten(1).gather(1, best).exp()
        history = [
            torch.cat([past.gather(1, parent[:, :, None].expand_as(past)), now[:, :, None]], dim=-1)
            for past, now in zip(history, (symbol, step), strict=True)
        ]
        ended = ended.gather(1, parent) | (symbol == END)
        done = ended[:, 0]
        text = history[0][done, 0]
        for place, past in zip((0, 2), history, strict=True):
            found[place][rows[done], : past.shape[-1]] = past[done, 0] * (text != END)
        found.log_scores[rows[done]] = scores[done, 0]
        kept = (~done).nonzero()[:, 0]
        parents = (parent + torch.arange(count, device=device)[:, None] * num_beams)[kept].flatten()
        symbols = symbol[kept].flatten()
        rows, scores, ended = rows[kept], scores[kept], ended[kept]
        history = [past[kept] for past in history]
    longest = int((found.sequences != END).sum(-1).max()) if len(max_lengths) else 0
    return FoundTexts(found.sequences[:, :longest], found.log_scores, found.step_scores[:, :longest])


def lexicon_search(
    log_probs_along: Callable[[torch.Tensor], torch.Tensor], images: int, lexicon: torch.Tensor, vocab_size: int
) -> FoundTexts:
    """The most probable text of a lexicon for each image.

    Args:
        log_probs_along: texts int64 (B, K, L), K of each image -> log-probabilities float32 (B, K, L + 1, V).
        images: B.
        lexicon: int64 (N, L) padded with 0.
        vocab_size: V.

    Raises:
        ValueError: no words.
    """
    if not len(lexicon):
        raise ValueError("lexicon has no words, expected at least one. Leave it out to read without a lexicon.")
    parts = []
    rows = min(LEXICON_ROWS, LEXICON_CELLS // ((lexicon.shape[1] + 1) * vocab_size))
    for words in lexicon.split(max(rows // max(images, 1), 1)):
        texts = words.expand(images, -1, -1)
        parts.append(steps_along(log_probs_along(texts), texts))
    along = torch.cat(parts, 1)
    best = along.sum(-1).argmax(1)
    steps, sequences = along[torch.arange(images, device=best.device), best], lexicon[best]
    longest = int((sequences != END).sum(-1).max()) if images else 0
    sequences = sequences[:, :longest]
    return FoundTexts(sequences, steps.sum(-1), steps[:, :longest].exp() * (sequences != END))
