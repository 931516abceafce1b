"""CTC as a reader that goes on from a text: what may come next, and up to where the image has been read.

The prefix probability of Watanabe et al., Hybrid CTC/Attention Architecture (IEEE JSTSP 11, 2017), section III-C,
with the recursion over frames written as cumulative sums. K texts are followed in each of B rows.
"""

from typing import NamedTuple

import torch
from torch import Tensor

from .ctc_lattice import BLANK, log_sum

# Log-probabilities below these are taken for them where frames are multiplied up: sums over a thousand frames then keep
# their last digits in float32, and no probability of a text underflows.
LEAST_REPEAT = -12.0  # of a symbol at one more frame
LEAST_BLANK = -30.0
LEAST = 1e-30
IMPOSSIBLE = -1e30


class CtcPrefixes(NamedTuple):
    """The texts so far: float32 (B, K, T) log-probabilities of the paths up to a frame, and the last symbol (B, K)."""

    blank: Tensor  # paths that end in blank
    symbol: Tensor  # paths that end in the last symbol
    last: Tensor


class CtcPrefixScores:
    """The CTC posterior of B rows, asked about texts that grow symbol by symbol.

    Args:
        logits: (B, T, V), before the softmax; symbol 0 is the blank.
        lengths: int64 (B,), valid frames, at least 1.
    """

    def __init__(self, logits: Tensor, lengths: Tensor) -> None:
        self.lengths = lengths
        valid = torch.arange(logits.shape[1], device=logits.device) < lengths[:, None]
        self.log_probs = logits.float().log_softmax(-1)
        self.probs = self.log_probs.exp() * valid[:, :, None]
        self.beyond = torch.zeros_like(self.log_probs[..., 0]).masked_fill(~valid, IMPOSSIBLE)
        self.blanks = self.log_probs[..., BLANK].clamp(min=LEAST_BLANK).cumsum(-1)

    def rows(self, rows: Tensor) -> "CtcPrefixScores":
        """Of some rows alone."""
        chosen = object.__new__(CtcPrefixScores)
        for name, tensor in vars(self).items():
            setattr(chosen, name, tensor[rows])
        return chosen

    def start(self, texts: int = 1) -> CtcPrefixes:
        """The empty text, `texts` times in each row."""
        blank = self.blanks[:, None].expand(-1, texts, -1)
        last = torch.full(blank.shape[:2], BLANK, dtype=torch.int64, device=blank.device)
        return CtcPrefixes(blank, torch.full_like(blank, IMPOSSIBLE), last)

    def next_log_probs(self, prefixes: CtcPrefixes) -> Tensor:
        """log P(next symbol | text so far, row), float32 (B, K, V); that of symbol 0 is that the text ends here."""
        total, blank = self._before(prefixes)
        at_end = (self.lengths - 1)[:, None, None].expand(-1, total.shape[1], 1)
        ends = log_sum(prefixes.blank.gather(2, at_end), prefixes.symbol.gather(2, at_end))
        top = torch.maximum(total.amax(-1, keepdim=True), ends)
        total, blank = (total - top).exp(), (blank - top).exp()
        found = total @ self.probs
        # An equal symbol needs a blank in between.
        repeats = self.probs.gather(2, prefixes.last[:, None].expand(-1, self.probs.shape[1], -1)).transpose(1, 2)
        found.scatter_(2, prefixes.last[..., None], (blank * repeats).sum(-1, keepdim=True))
        found[..., BLANK] = (ends - top)[..., 0].exp()
        return found.clamp(min=LEAST).log().log_softmax(-1)

    def next_log_probs_along(self, texts: Tensor) -> Tensor:
        """What `next_log_probs` gives at each step along known texts, int64 (B, K, L): float32 (B, K, L + 1, V)."""
        prefixes = self.start(texts.shape[1])
        steps = [self.next_log_probs(prefixes)]
        for symbols in texts.unbind(-1):
            prefixes, _ = self.extend(prefixes, symbols)
            steps.append(self.next_log_probs(prefixes))
        return torch.stack(steps, 2)

    def extend(self, prefixes: CtcPrefixes, symbols: Tensor) -> tuple[CtcPrefixes, Tensor]:
        """The texts with one more symbol each, int64 (B, K), and the frame at which that is to be expected, (B, K)."""
        total, blank = self._before(prefixes)
        emitted = self.log_probs.gather(2, symbols[:, None].expand(-1, total.shape[2], -1)).transpose(1, 2)
        onset = torch.where((symbols == prefixes.last)[..., None], blank, total) + emitted + self.beyond[:, None]
        repeats = emitted.clamp(min=LEAST_REPEAT).cumsum(-1)
        symbol = repeats + (onset - repeats).logcumsumexp(-1)
        after = (symbol - self.blanks[:, None]).logcumsumexp(-1)
        blank = torch.full_like(symbol, IMPOSSIBLE)
        blank[..., 1:] = self.blanks[:, None, 1:] + after[..., :-1]
        frames = torch.arange(onset.shape[2], device=onset.device, dtype=onset.dtype)
        return CtcPrefixes(blank, symbol, symbols), (onset.softmax(-1) * frames).sum(-1)

    def _before(self, prefixes: CtcPrefixes) -> tuple[Tensor, Tensor]:
        """What the paths up to the frame before a frame sum to, and those of them that end in blank; (B, K, T)."""
        empty = torch.zeros_like(prefixes.blank[..., :1]).masked_fill((prefixes.last != BLANK)[..., None], IMPOSSIBLE)
        total = torch.cat([empty, log_sum(prefixes.blank, prefixes.symbol)[..., :-1]], -1)
        return total, torch.cat([empty, prefixes.blank[..., :-1]], -1)


def joint_log_probs(decoder: Tensor, ctc: Tensor, ctc_weight: float) -> Tensor:
    """log P(next symbol) of a decoder and of CTC, multiplied, each to the power of its share, and normalised."""
    return ((1 - ctc_weight) * decoder + ctc_weight * ctc).log_softmax(-1)


def expected_frames(scores: CtcPrefixScores, texts: Tensor) -> Tensor:
    """The frame at which each symbol of whole texts is to be expected, given those before it.

    Args:
        scores: of B rows.
        texts: int64 (B, L), padded with 0.

    Returns:
        float32 (B, L); behind the end of a text without meaning.
    """
    prefixes, frames = scores.start(), []
    for symbols in texts.T:
        prefixes, expected = scores.extend(prefixes, symbols[:, None])
        frames.append(expected[:, 0])
    return torch.stack(frames, 1) if frames else scores.blanks[:, :0]
