"""Reading with the decoder: one state that grows by symbols, for greedy and beam search and for a lexicon."""

from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor

from .beam_search import FoundTexts, beam_search
from .ctc_prefix_scores import CtcPrefixes, CtcPrefixScores
from .vision_text_layers import KeyValue, VisionTextDecoder

# Images that have been read leave the state when they are at least this share of it: leaving costs a copy of the rest.
LEAVING = 0.25
LEXICON_ROWS = 2048  # words times images that are read at once


class DecoderState:
    """What has been read of B images, K texts of each: the cache of the decoder, and where CTC is in the image.

    Args:
        decoder: of the model.
        features: (B, T, D), of the encoder.
        ctc_logits: float32 (B, T, V), of the CTC head.
        lengths: int64 (B,), valid frames.
        ctc_weight: the share of CTC in what is read.
        texts: K, all of them empty.
    """

    def __init__(
        self,
        decoder: VisionTextDecoder,
        features: Tensor,
        ctc_logits: Tensor,
        lengths: Tensor,
        ctc_weight: float,
        texts: int = 1,
    ) -> None:
        self.decoder = decoder
        self.ctc_weight = ctc_weight
        self.image = decoder.look_at(features)
        self.lengths = lengths
        self.scores = CtcPrefixScores(ctc_logits, lengths)
        self.prefixes = self.scores.start(texts)
        self.past: list[KeyValue] | None = None

    def append(self, symbols: Tensor) -> Tensor:
        """Go on by a symbol a text, int64 (B, K), the first being the start, 0.

        Returns:
            float32 (B, K, V), log P(next symbol | text so far, image). That of CTC and that of the decoder are
            multiplied, each to the power of its share, and normalised.
        """
        if self.past is None:
            frames = torch.full(symbols.shape, -1.0, device=symbols.device)
        else:
            self.prefixes, frames = self.scores.extend(self.prefixes, symbols)
        logits, self.past = self.decoder(symbols[..., None], frames[..., None], self.image, self.lengths, self.past)
        log_probs = logits[:, :, 0].log_softmax(-1)
        if self.ctc_weight == 0:
            return log_probs
        mixed = (1 - self.ctc_weight) * log_probs + self.ctc_weight * self.scores.next_log_probs(self.prefixes)
        return mixed.log_softmax(-1)

    def keep_images(self, rows: Tensor) -> None:
        """Go on with these images alone, int64 (B',)."""
        self.scores, self.lengths = self.scores.rows(rows), self.lengths[rows]
        self.image = [(key[rows], value[rows]) for key, value in self.image]
        texts = torch.arange(self.prefixes.last.shape[1], device=rows.device)
        self.keep_texts(rows[:, None] * len(texts) + texts)

    def keep_texts(self, places: Tensor) -> None:
        """Go on with these texts, int64 (B, K'), places among all B * K."""
        self.prefixes = CtcPrefixes(
            *(part.flatten(0, 1)[places.flatten()].unflatten(0, places.shape) for part in self.prefixes)
        )
        if self.past is not None:
            self.past = [(key[places.flatten()], value[places.flatten()]) for key, value in self.past]


class DecoderSteps:
    """The state as `beam_search` wants it: it names only the images that are still read, the state has more."""

    def __init__(self, state: DecoderState, num_beams: int) -> None:
        """Args: a fresh state of `num_beams` texts an image."""
        self.state, self.num_beams = state, num_beams
        self.rows: Tensor | None = None  # where in the state the images are that were named last

    def __call__(self, parents: Tensor, symbols: Tensor) -> tuple[Tensor, Tensor]:
        """See `beam_search`; nobody asks for the positions."""
        parents, symbols = parents.view(-1, self.num_beams), symbols.view(-1, self.num_beams)
        if self.rows is None:
            self.rows = parents[:, 0]
        else:
            self.rows = self.rows[parents[:, 0] // self.num_beams]
            if len(self.rows) <= (1 - LEAVING) * len(self.state.lengths):
                self.state.keep_images(self.rows)
                self.rows = torch.arange(len(self.rows), device=parents.device)
            if self.num_beams > 1:
                places = torch.arange(len(self.state.lengths) * self.num_beams, device=parents.device)
                places = places.view(-1, self.num_beams)
                places[self.rows] = self.rows[:, None] * self.num_beams + parents % self.num_beams
                self.state.keep_texts(places)
        given = symbols.new_zeros(len(self.state.lengths), self.num_beams)
        given[self.rows] = symbols
        log_probs = self.state.append(given)[self.rows].flatten(0, 1)
        return log_probs, torch.zeros_like(log_probs[:, 0])


def search_texts(
    start: partial[DecoderState], lengths: Tensor, num_beams: int = 1, allowed: Tensor | None = None
) -> FoundTexts:
    """The best text of each image; at most as many characters as there are frames.

    Args:
        start: makes a fresh state of `texts` texts an image.
        lengths: int64 (B,), valid frames.
        num_beams: texts that are followed; 1 reads greedily.
        allowed: bool (V,), the symbols that may be read; None allows all.
    """
    return beam_search(DecoderSteps(start(texts=num_beams), num_beams), lengths, num_beams, allowed)


def score_lexicon(start: partial[DecoderState], lexicon: Tensor) -> FoundTexts:
    """The most probable of some words, int64 (N, L) padded with 0, for each image; `start` as for `search_texts`.

    Raises:
        ValueError: no words.
    """
    if not len(lexicon):
        raise ValueError("lexicon has no words, expected at least one. Leave it out to read without a lexicon.")
    images = len(start.keywords["lengths"])
    parts = []
    for words in lexicon.split(max(1, LEXICON_ROWS // max(images, 1))):
        state = start(texts=len(words))
        symbols = F.pad(words, (1, 1))  # the start in front, the end behind
        steps = []
        for given, following in zip(symbols.T[:-1], symbols.T[1:], strict=True):
            log_probs = state.append(given.expand(images, -1))
            steps.append(log_probs.gather(2, following.expand(images, -1)[..., None])[..., 0])
        behind = torch.arange(len(steps), device=words.device) > (words != 0).sum(-1)[:, None]
        parts.append(torch.stack(steps, -1).masked_fill(behind, 0.0))
    step = torch.cat(parts, 1)
    log_scores, best = step.sum(-1).max(1)
    step = step.gather(1, best[:, None, None].expand(-1, -1, step.shape[2]))[:, 0, :-1]
    sequences = lexicon[best]
    longest = int((sequences != 0).sum(-1).max()) if images else 0
    step_scores = step.exp() * (sequences != 0)
    return FoundTexts(sequences[:, :longest], log_scores, step_scores[:, :longest], torch.zeros_like(step_scores))
