"""CTC as a reader that goes on from a text: what may come next, and up to where the image has been read.

The prefix probability of Watanabe et al., Hybrid CTC/Attention Architecture (IEEE JSTSP 11, 2017), section III-C,
with the recursion over frames written as cumulative sums. K texts are followed in each of B rows.
"""

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from .ctc_lattice import BLANK, collapse, log_sum

# Log-probabilities below these are taken for them where frames are multiplied up: sums over a thousand frames then keep
# their last digits in float32, and no probability of a text underflows.
LEAST_REPEAT = -12.0  # of a symbol at one more frame
LEAST_BLANK = -30.0
LEAST = 1e-30
IMPOSSIBLE = -1e30


class CtcPrefixes(NamedTuple):
    """The texts so far, K of each row."""

    total: Tensor  # float32 (B, K, T + 1), log-probabilities of the paths through the first 0, 1, ... T frames
    blank: Tensor  # of those that end in blank
    last: Tensor  # int64 (B, K), the last symbol; the blank where there is none
    frame: Tensor  # float32 (B, K), at which it was to be expected, given those before it; -1 where there is none


class CtcPrefixScores:
    """The CTC posterior of B rows, asked about texts that grow symbol by symbol.

    Args:
        logits: (B, T, V), before the softmax; symbol 0 is the blank.
        lengths: int64 (B,), valid frames, at least 1.
    """

    def __init__(self, logits: Tensor, lengths: Tensor) -> None:
        self.lengths = lengths
        self.log_probs = logits.float().log_softmax(-1)
        self.probs = self.log_probs.exp()
        beyond = torch.arange(logits.shape[1], device=logits.device) >= lengths[:, None]
        self.beyond = torch.zeros_like(self.log_probs[..., 0]).masked_fill(beyond, IMPOSSIBLE)[:, None]
        self.blanks = self.log_probs[..., BLANK].clamp(min=LEAST_BLANK).cumsum(-1)[:, None]

    def rows(self, rows: Tensor) -> "CtcPrefixScores":
        """Of some rows alone."""
        chosen = object.__new__(CtcPrefixScores)
        for name, tensor in vars(self).items():
            setattr(chosen, name, tensor[rows])
        return chosen

    def start(self, texts: int = 1) -> CtcPrefixes:
        """The empty text, `texts` times in each row."""
        blank = F.pad(self.blanks, (1, 0)).expand(-1, texts, -1)
        last = torch.full(blank.shape[:2], BLANK, dtype=torch.int64, device=blank.device)
        return CtcPrefixes(blank, blank, last, torch.full_like(blank[..., 0], -1.0))

    def next_log_probs(self, prefixes: CtcPrefixes) -> Tensor:
        """log P(next symbol | text so far, row), float32 (B, K, V), not normalised; symbol 0 is the end of the text."""
        before = prefixes.total[..., :-1] + self.beyond
        ends = prefixes.total.gather(2, self.lengths[:, None, None].expand(-1, before.shape[1], 1))
        top = torch.maximum(before.amax(-1, keepdim=True), ends)
        with torch.autocast(before.device.type, enabled=False):  # float32, as all of this
            found = (before - top).exp() @ self.probs
        # An equal symbol needs a blank in between.
        blank = (prefixes.blank[..., :-1] + self.beyond - top).exp()
        repeats = self.probs.gather(2, prefixes.last[:, None].expand(-1, self.probs.shape[1], -1)).transpose(1, 2)
        found.scatter_(2, prefixes.last[..., None], (blank * repeats).sum(-1, keepdim=True))
        found[..., BLANK] = (ends - top)[..., 0].exp()
        return found.clamp_(min=LEAST).log_()

    def next_log_probs_along(self, texts: Tensor) -> Tensor:
        """What `next_log_probs` gives at each step along known texts, int64 (B, K, L): float32 (B, K, L + 1, V)."""
        prefixes = self.start(texts.shape[1])
        steps = [self.next_log_probs(prefixes)]
        for symbols in texts.unbind(-1):
            prefixes = self.extend(prefixes, symbols)
            steps.append(self.next_log_probs(prefixes))
        return torch.stack(steps, 2)

    def extend(self, prefixes: CtcPrefixes, symbols: Tensor) -> CtcPrefixes:
        """The texts with one more symbol each, int64 (B, K)."""
        emitted = self.log_probs.gather(2, symbols[:, None].expand(-1, self.log_probs.shape[1], -1)).transpose(1, 2)
        before = torch.where((symbols == prefixes.last)[..., None], prefixes.blank, prefixes.total)[..., :-1]
        onset = before + emitted + self.beyond
        repeats = emitted.clamp(min=LEAST_REPEAT).cumsum(-1)
        symbol = repeats + (onset - repeats).logcumsumexp(-1)
        blank = F.pad(
            self.blanks[..., 1:] + (symbol - self.blanks).logcumsumexp(-1)[..., :-1], (2, 0), value=IMPOSSIBLE
        )
        total = log_sum(blank, F.pad(symbol, (1, 0), value=IMPOSSIBLE))
        frames = torch.arange(onset.shape[2], device=onset.device, dtype=onset.dtype)
        return CtcPrefixes(total, blank, symbols, (onset.softmax(-1) * frames).sum(-1))

    def continuations(self, prefixes: CtcPrefixes, best: Tensor) -> Tensor:
        """How one text a row is likely to go on, int64 (B, L) padded with 0.

        The text so far is given its most probable frames, the rest is read from the best symbols of those behind.

        Args:
            prefixes: of K = 1.
            best: int64 (B, T), the most probable symbol of each frame, 0 beyond the row's length.
        """
        sure = self.log_probs.gather(2, best[..., None])[..., 0].masked_fill(self.beyond[:, 0] < 0, 0.0)
        rest = F.pad(sure.flip(-1).cumsum(-1).flip(-1), (0, 1))
        read = (prefixes.total[:, 0] + rest).max(-1, keepdim=True).indices
        frames = torch.arange(best.shape[1], device=best.device)
        return collapse(best.masked_fill(frames < read, BLANK))


def joint_log_probs(decoder: Tensor, ctc: Tensor, ctc_weight: float) -> Tensor:
    """log P(next symbol) of a decoder and of CTC, each to the power of its share, multiplied and then normalised."""
    return torch.lerp(decoder, ctc, ctc_weight).log_softmax(-1)


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
        prefixes = scores.extend(prefixes, symbols[:, None])
        frames.append(prefixes.frame[:, 0])
    return torch.stack(frames, 1) if frames else scores.blanks[:, 0, :0]
