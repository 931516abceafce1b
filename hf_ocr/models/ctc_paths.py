"""Texts that a row of CTC logits may stand for, beside the greedy one: what to choose from with a language model.

Paths, not prefixes, are searched: away from a few frames each row is certain, and whatever else is chosen at these few
costs what it costs there, independently of the others. Their best combinations are therefore found exactly, in as many
steps as there are doubtful frames, where a beam over prefixes takes one for each frame.
"""

import torch
import torch.nn.functional as F
from torch import Tensor

from .ctc_lattice import BLANK, NEVER, collapse

# Measured on validation lines and words: twice as many paths change one text of a thousand for the better.
FRAMES = 8
CHOICES = 3
PATHS = 64
LEAST = -1e38  # nothing is taken from the impossible
HASH = 0x9E3779B97F4A7C15 - (1 << 64)  # odd, and any power of it differs: 2 ** 64 over the golden ratio


def search_paths(log_probs: Tensor, lengths: Tensor) -> tuple[Tensor, Tensor]:
    """Texts by their paths that leave the best one at no more than the `FRAMES` most doubtful frames.

    Args:
        log_probs: float32 (B, T, V), normalised; impossible symbols have `NEVER`.
        lengths: int64 (B,), valid frames.

    Returns:
        int64 (B, PATHS, L) padded with 0, different texts; and float32 (B, PATHS), the log-probability of what was
        found of each, descending; `NEVER`, of an empty text, where a row has fewer.
    """
    rows, frames, symbols = log_probs.shape
    log_probs = F.pad(log_probs, (0, max(CHOICES - symbols, 0), 0, max(FRAMES - frames, 0)), value=NEVER)
    best, choices = log_probs.topk(CHOICES)
    behind = torch.arange(best.shape[1], device=lengths.device) >= lengths[:, None]
    choices = choices.masked_fill(behind[:, :, None], BLANK)
    costs = (best - best[:, :, :1].clamp(min=LEAST)).masked_fill(behind[:, :, None], NEVER)
    costs[:, :, 0] = 0.0
    # Of equal ones the first, and a sum from the left: neither sees how long the rows beside this one are.
    doubtful = costs[:, :, 1].sort(dim=1, descending=True, stable=True).indices[:, :FRAMES, None]
    doubtful = doubtful.expand(-1, -1, CHOICES)
    costs, their_choices = costs.gather(1, doubtful), choices.gather(1, doubtful)

    paths = best[:, :, 0].masked_fill(behind, 0.0).cumsum(1)[:, -1:]
    picked = choices.new_zeros(rows, 1, 0)  # which choice at each doubtful frame
    for step in range(FRAMES):
        grown = (paths[:, :, None] + costs[:, step, None, :]).flatten(1)
        paths, index = grown.topk(min(PATHS, grown.shape[1]))
        before = picked.gather(1, (index // CHOICES)[:, :, None].expand(-1, -1, step))
        picked = torch.cat([before, (index % CHOICES)[:, :, None]], 2)
    frame = doubtful[:, None, :, 0].expand_as(picked)
    symbol = their_choices[:, None].expand(-1, PATHS, -1, -1).gather(3, picked[..., None])[..., 0]
    chosen = choices[:, None, :, 0].expand(-1, PATHS, -1).scatter(2, frame, symbol)

    texts = collapse(chosen.flatten(0, 1)).unflatten(0, (rows, PATHS))
    hashes = (texts * torch.full((texts.shape[2],), HASH, device=texts.device).cumprod(0)).sum(2)
    same = hashes[:, :, None] == hashes[:, None, :]
    top = paths[:, :1].clamp(min=LEAST)
    totals = (paths - top).exp()[:, None, :].mul(same).sum(2).log() + top
    totals = totals.masked_fill(same.tril(-1).any(2), NEVER)
    totals, index = totals.sort(dim=1, descending=True, stable=True)
    texts = texts.gather(1, index[:, :, None].expand(-1, -1, texts.shape[2]))
    return texts.masked_fill((totals == NEVER)[:, :, None], BLANK), totals
