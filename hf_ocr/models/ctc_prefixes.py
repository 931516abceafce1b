"""The prefix beam of CTC (Graves 2012; Hannun et al. 2014) over a batch, with exact merging of equal prefixes."""

from typing import NamedTuple

import torch
from torch import Tensor

from .ctc_lattice import BLANK, NEVER, largest, log_sum

# Symbols by which a prefix may grow at one frame. 2 * num_beams lose nothing at all, 20 lose nothing on peaked outputs.
SYMBOLS_PER_FRAME = 20


class _Beams(NamedTuple):
    """The K prefixes of n rows, best first. A dead one has probability 0, stays dead and has no relatives."""

    blank: Tensor  # (n, K) log-probability of the paths of a prefix that end in blank
    symbol: Tensor  # (n, K) ... that end in its last symbol
    prefixes: Tensor  # int64 (n, K, frames seen) padded with 0
    lengths: Tensor  # int64 (n, K)
    ancestor: Tensor  # bool (n, K, K): the first is a true prefix of the second


def search_prefixes(log_probs: Tensor, lengths: Tensor, num_beams: int) -> tuple[Tensor, Tensor]:
    """The prefixes after each row's last frame: int64 (B, K, L) padded with 0, and bool (B, K), which are alive."""
    rows, frames, symbols = log_probs.shape
    device = log_probs.device
    best, best_symbols = log_probs[:, :, 1:].topk(min(SYMBOLS_PER_FRAME, symbols - 1))
    order = lengths.argsort(descending=True, stable=True)  # the rows still running are then always the first ones
    log_probs, best, best_symbols = log_probs[order], best[order], best_symbols[order] + 1
    running = (lengths[:, None] > torch.arange(frames, device=device)).sum(0).tolist()

    blank = torch.full((rows, num_beams), NEVER, device=device)
    symbol = blank.clone()
    blank[:, 0] = 0.0
    counts = torch.zeros(rows, num_beams, dtype=torch.int64, device=device)
    none = torch.zeros(rows, num_beams, num_beams, dtype=torch.bool, device=device)
    beams = _Beams(blank, symbol, counts.new_zeros(rows, num_beams, 0), counts, none)

    prefixes = counts.new_zeros(rows, num_beams, frames)
    alive = torch.zeros(rows, num_beams, dtype=torch.bool, device=device)
    for frame, count in enumerate([*running, 0]):
        done = slice(count, beams.blank.shape[0])
        prefixes[done, :, :frame] = beams.prefixes[done]
        alive[done] = torch.maximum(beams.blank[done], beams.symbol[done]) > NEVER
        if count:
            beams = _Beams(*(part[:count] for part in beams))
            beams = _grow(beams, log_probs[:count, frame], best[:count, frame], best_symbols[:count, frame])

    back = order.argsort()
    longest = largest((prefixes != BLANK).sum(2))
    return prefixes[back, :, :longest], alive[back]


def _grow(beams: _Beams, log_probs: Tensor, best: Tensor, best_symbols: Tensor) -> _Beams:
    """One frame, log_probs (n, V): a prefix may stay or grow by one of the best symbols (n, N); the K best remain."""
    rows, num_beams = beams.blank.shape
    choices = best.shape[1]
    blank, symbol, prefixes, lengths, ancestor = beams
    total = log_sum(blank, symbol)
    prefixes = torch.nn.functional.pad(prefixes, (1, 1))  # a leading blank: the last symbol of the empty prefix
    last = prefixes.gather(2, lengths[:, :, None])[:, :, 0]

    # A prefix that stays also takes in what its parent, where that is in the beam, would grow into.
    # After an equal symbol only the paths that end in blank can grow: the others would collapse.
    parent = ancestor & (lengths[:, :, None] + 1 == lengths[:, None, :])
    source = torch.where(last[:, :, None] == last[:, None, :], blank[:, :, None], total[:, :, None])
    inherited = source.masked_fill(~parent, NEVER).amax(1)
    stay_symbol = log_sum(symbol, inherited) + log_probs.gather(1, last)
    stay_blank = total + log_probs[:, :1]

    repeats = last[:, :, None] == best_symbols[:, None, :]
    grown = torch.where(repeats, blank[:, :, None], total[:, :, None]) + best[:, None, :]
    taken = parent.float() @ repeats.float() > 0  # (n, K, N): this child is in the beam already
    grown = grown.masked_fill(taken, NEVER)

    top, index = torch.cat([log_sum(stay_blank, stay_symbol), grown.flatten(1)], 1).topk(num_beams)
    stays = index < num_beams
    index_grown = (index - num_beams).clamp(min=0)
    origin = torch.where(stays, index, index_grown // max(choices, 1))
    added = (
        best_symbols.gather(1, index_grown % choices).masked_fill(stays, BLANK) if choices else torch.zeros_like(index)
    )
    old_lengths = lengths.gather(1, origin)
    prefixes = prefixes[:, :, 1:].gather(1, origin[:, :, None].expand(-1, -1, prefixes.shape[2] - 1))
    prefixes.scatter_(2, old_lengths[:, :, None], added[:, :, None])

    # New k is an ancestor of new l if k's origin was one of l's, and k did not grow, or grew by the symbol that l has
    # there; or if both come from the same prefix and only l grew. Relations thus stay exact without comparing or
    # hashing whole prefixes, also when a prefix comes back that had left the beam.
    square = (rows, num_beams, num_beams)
    related = ancestor.gather(1, origin[:, :, None].expand(square)).gather(2, origin[:, None, :].expand(square))
    there = prefixes.gather(2, old_lengths[:, None, :].expand(square)).transpose(1, 2)
    related &= stays[:, :, None] | (there == added[:, :, None])
    related |= (origin[:, :, None] == origin[:, None, :]) & stays[:, :, None] & ~stays[:, None, :]
    alive = top > NEVER
    return _Beams(
        blank=stay_blank.gather(1, origin).masked_fill(~stays, NEVER),
        symbol=torch.where(stays, stay_symbol.gather(1, origin), top),
        prefixes=prefixes,
        lengths=old_lengths + ~stays,
        ancestor=related & alive[:, :, None] & alive[:, None, :],
    )
