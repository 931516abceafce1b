"""The CTC lattice of known texts (Graves et al. 2006): probabilities of texts and characters, best path and spans.

Texts are int64 rows padded with 0, which is also the blank. Log-probabilities are float32, -inf for the impossible.
"""

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from typing import NamedTuple

import torch
from torch import Tensor

BLANK = 0
NEVER = float("-inf")
# exp(LOST) vanishes beside 1 in float32. Below it exp underflows, which is up to fifty times slower on a CPU.
LOST = -80.0


class Lattice(NamedTuple):
    """States blank, c1, blank, c2, ..., blank of one text a row.

    States come before rows so that shifted slices stay contiguous. Frame T and all frames beyond a row's length are
    blank with probability 1: they move the mass of the last character into the last blank, so that P(text | row) is
    read from one state whatever the padding.
    """

    emissions: Tensor  # (T + 1, S, R) log-probability of the symbol of a state at a frame
    jumps: Tensor  # (S, R) 0 where a state may be entered from two states before, else -inf
    last: Tensor  # (R,) the last state of the row's text


def largest(counts: Tensor) -> int:
    """The largest of some counts, 0 where there are none."""
    return int(counts.max()) if counts.numel() else 0


def log_sum(first: Tensor, *others: Tensor) -> Tensor:
    """log(exp(first) + exp(...) + ...), elementwise.

    torch.logaddexp is not used because on a CPU it rounds the last elements of a block otherwise than those before: a
    score, and with it the choice between two texts, would depend on a row's place in the batch.
    """
    top = first
    for other in others:
        top = torch.maximum(top, other)
    shift = top.clamp(min=-1e38)  # so that impossible terms only do not give inf - inf
    total = (first - shift).clamp_(min=LOST).exp_()
    for other in others:
        total += (other - shift).clamp_(min=LOST).exp_()
    return total.log_().add_(top)


def collapse(path: Tensor) -> Tensor:
    """Symbols of frames, (R, T) -> texts (R, L) padded with 0: repeats are one symbol, blanks none."""
    kept = path != BLANK
    kept[:, 1:] &= path[:, 1:] != path[:, :-1]
    position = kept.cumsum(1)
    sequences = path.new_zeros(path.shape[0], largest(kept.sum(1)) + 1)
    sequences.scatter_(1, position * kept, path * kept)  # dropped frames all write 0 into the first column
    return sequences[:, 1:].contiguous()


def interleave(sequences: Tensor) -> Tensor:
    """(R, L) -> (R, 2 L + 1): a blank before, between and after the symbols."""
    states = sequences.new_full((sequences.shape[0], 2 * sequences.shape[1] + 1), BLANK)
    states[:, 1::2] = sequences
    return states


def _jumps(states: Tensor) -> Tensor:
    """(S, ...) states -> float32 (S, ...): 0 where the blank before a symbol may be skipped, else -inf."""
    jumps = torch.full(states.shape, NEVER, device=states.device)
    jumps[3::2] = jumps[3::2].masked_fill(states[3::2] != states[1:-2:2], 0.0)
    return jumps


def build_lattice(log_probs: Tensor, lengths: Tensor, sequences: Tensor) -> Lattice:
    """From log_probs (R, T, V), lengths (R,) and sequences (R, L)."""
    rows, frames, _ = log_probs.shape
    states = interleave(sequences)
    emissions = log_probs.new_full((frames + 1, states.shape[1], rows), NEVER)
    emissions[:frames] = log_probs.gather(2, states[:, None].expand(-1, frames, -1)).permute(1, 2, 0)
    beyond = torch.arange(frames + 1, device=lengths.device)[:, None] >= lengths
    emissions.masked_fill_(beyond[:, None], NEVER)
    emissions[:, 0::2].masked_fill_(beyond[:, None], 0.0)
    return Lattice(emissions, _jumps(states.T), 2 * (sequences != BLANK).sum(1))


def _forward(emissions: Iterable[Tensor], jumps: Tensor) -> Iterator[Tensor]:
    """Yields the log-probabilities (S, ...) of the states after each frame, in a tensor the next one overwrites."""
    padded = jumps.new_full((jumps.shape[0] + 2, *jumps.shape[1:]), NEVER)
    padded[2] = 0.0
    alpha, before, two_before = padded[2:], padded[1:-1], padded[:-2]
    for emission in emissions:
        torch.add(log_sum(alpha, before, two_before + jumps), emission, out=alpha)
        yield alpha


def text_log_probability(lattice: Lattice) -> Tensor:
    """float32 (R,): log P(text | row)."""
    alpha = deque(_forward(lattice.emissions, lattice.jumps), maxlen=1).pop()
    return alpha.gather(0, lattice.last[None])[0]


def frames_first(log_probs: Tensor, lengths: Tensor) -> Tensor:
    """(B, T, V) -> (T + 1, V, B), with blanks of probability 1 from a row's length on, as in a lattice."""
    rows, frames, symbols = log_probs.shape
    by_frame = log_probs.new_full((frames + 1, symbols, rows), NEVER)
    by_frame[:frames] = log_probs.permute(1, 2, 0)
    beyond = torch.arange(frames + 1, device=lengths.device)[:, None] >= lengths
    by_frame.masked_fill_(beyond[:, None], NEVER)
    by_frame[:, BLANK].masked_fill_(beyond, 0.0)
    return by_frame


def score_texts(by_frame: Tensor, texts: Tensor) -> Tensor:
    """log P of N texts a row: by_frame (T + 1, V, B), texts (L, N, B), or (L, N, 1) if rows share them -> (N, B)."""
    rows = by_frame.shape[2]
    states = texts.new_full((2 * texts.shape[0] + 1, *texts.shape[1:]), BLANK)
    states[1::2] = texts
    shared = texts.shape[2] == 1
    flat = states.flatten() if shared else states.flatten(0, 1)
    shape = (*states.shape[:2], rows)
    emissions = ((frame.index_select(0, flat) if shared else frame.gather(0, flat)).view(shape) for frame in by_frame)
    alpha = deque(_forward(emissions, _jumps(states).expand(shape)), maxlen=1).pop()
    last = 2 * (texts != BLANK).sum(0)
    return alpha.gather(0, last.expand(shape[1:])[None])[0]


def _sweep(lattice: Lattice, merge: Callable[[Tensor, Tensor, Tensor], Tensor]) -> Tensor:
    """(T + 2, S + 2, R): log-probabilities by frame, from before the first one on, of the states and two before them.

    `merge` joins the ways into a state: `log_sum` for all paths, the maximum for the best path.
    """
    frames, states, rows = lattice.emissions.shape
    trace = lattice.emissions.new_full((frames + 1, states + 2, rows), NEVER)
    trace[0, 2] = 0.0
    for frame, emission in enumerate(lattice.emissions):
        now = trace[frame]
        torch.add(merge(now[2:], now[1:-1], now[:-2] + lattice.jumps), emission, out=trace[frame + 1, 2:])
    return trace


def character_probabilities(lattice: Lattice, sequences: Tensor) -> Tensor:
    """(R, L): P(character | row, the characters before it); of the last one, that nothing follows it either.

    The probability of all texts that begin with a prefix is that of its last character being reached, at any frame,
    by the forward variables of the characters before (the prefix probability of Graves 2012, section 3): whatever the
    later frames emit, they add up to 1. A character's probability is the ratio of two such. The product over a text
    is P(text | row).
    """
    trace = _sweep(lattice, log_sum)
    reached = torch.full_like(sequences.T, NEVER, dtype=trace.dtype)
    for before, emission in zip(trace, lattice.emissions, strict=False):
        ways = log_sum(before[2:-2:2], before[1:-3:2] + lattice.jumps[1::2])
        reached = log_sum(reached, ways + emission[1::2])
    last = (sequences != BLANK).sum(1)[None] - 1
    log_probability = trace[-1].gather(0, lattice.last[None] + 2)
    ends = torch.arange(len(reached), device=last.device)[:, None] == last
    reached = torch.where(ends, log_probability, reached)
    before_it = torch.cat([torch.zeros_like(log_probability), reached])[:-1]
    scores = (reached - before_it).exp().clamp(max=1.0)
    return scores.masked_fill((reached == NEVER) | (sequences == BLANK).T, 0.0).T.contiguous()


def best_states(lattice: Lattice) -> Tensor:
    """int64 (T + 1, R): the state at each frame of the most probable path."""
    trace = _sweep(lattice, lambda stay, step, jump: torch.maximum(torch.maximum(stay, step), jump))
    steps = torch.arange(3, device=trace.device)[:, None]
    state = lattice.last[None]
    states = []
    for before in trace[:-1].flip(0):
        states.append(state)
        ways = before.gather(0, state + 2 - steps)  # staying, from the state before, from two before
        ways[2:] += lattice.jumps.gather(0, state)
        state = state - ways.max(0, keepdim=True).indices
    return torch.cat(states[::-1])


def peak_frames(lattice: Lattice, states: Tensor, sequences: Tensor) -> Tensor:
    """int64 (R, L): of a character's frames on the path, the one where its log-probability is highest."""
    own = 2 * torch.arange(sequences.shape[1], device=states.device)[:, None] + 1
    emissions = lattice.emissions[:, 1::2].masked_fill(states[:, None] != own, NEVER)
    return emissions.max(0).indices.T.masked_fill(sequences == BLANK, 0)


def character_spans(peaks: Tensor, lengths: Tensor, sequences: Tensor) -> Tensor:
    """float32 (R, L, 2), see `align`."""
    rows, width = sequences.shape
    spans = torch.zeros(rows, width, 2, device=peaks.device)
    if width == 0:
        return spans
    valid = sequences != BLANK
    counts = valid.sum(1, keepdim=True)
    centres = peaks + 0.5
    ends = lengths[:, None].float()
    last = (counts - 1).clamp(min=0)
    last_centre = centres.gather(1, last)

    distances = (centres[:, 1:] - centres[:, :-1]).masked_fill(~valid[:, 1:], float("inf")).sort(1).values
    lone = torch.minimum(centres[:, :1], ends - centres[:, :1])
    half = lone
    if width > 1:
        pairs = (counts - 1).clamp(min=1)
        median = (distances.gather(1, (pairs - 1) // 2) + distances.gather(1, pairs // 2)) / 2
        half = torch.where(counts > 1, median / 2, lone)

    middles = (centres[:, 1:] + centres[:, :-1]) / 2
    spans[:, :, 0] = torch.cat([centres[:, :1] - half, middles], 1)
    spans[:, :, 1] = torch.cat([middles, centres[:, -1:]], 1).scatter(1, last, last_centre + half)
    spans = torch.minimum(spans.clamp(min=0.0), ends[:, :, None])
    return spans.masked_fill(~valid[:, :, None], 0.0)
