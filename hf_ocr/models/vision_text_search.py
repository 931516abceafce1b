"""Reading with the decoder: one state that grows by symbols, for greedy and beam search and for a lexicon."""

from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor

from .beam_search import FoundTexts, beam_search, lexicon_search
from .ctc_lattice import NEVER
from .ctc_prefix_scores import CtcPrefixes, CtcPrefixScores, joint_log_probs
from .vision_text_layers import DecoderPast, VisionTextDecoder

# Images that have been read leave the state when they are at least this share of it: leaving costs a copy of the rest.
LEAVING = 0.25
MOST_CELLS = 1 << 25  # of what is looked at ahead, characters times frames and symbols; 4 bytes each, a few times over


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
        self.past: DecoderPast | None = None

    def append(self, symbols: Tensor) -> Tensor:
        """Go on by a symbol a text, int64 (B, K), the first being the start, 0.

        Returns:
            float32 (B, K, V), log P(next symbol | text so far, image). That of CTC and that of the decoder are
            multiplied, each to the power of its share, and normalised.
        """
        if self.past is not None:
            self.prefixes = self.scores.extend(self.prefixes, symbols)
        return self._mixed(self.prefixes, 1)

    def along(self, draft: Tensor) -> tuple[Tensor, CtcPrefixes]:
        """What follows the text so far, and each symbol by which it may go on, int64 (B, L), all at once; K is 1.

        Returns:
            float32 (B, L + 1, V), as of `append`; and what CTC knows at each of these places, for `go_on`.
        """
        known = [self.prefixes]
        for symbols in draft.T:
            known.append(self.scores.extend(known[-1], symbols[:, None]))
        places = CtcPrefixes(*(torch.cat(parts, 1) for parts in zip(*known, strict=True)))
        return self._mixed(places, len(known)), places

    def go_on(self, places: CtcPrefixes, counts: Tensor, symbols: Tensor) -> None:
        """Of the places of `along` the first ones were right, int64 (B,), at least one; there another symbol follows,
        (B,), at which the decoder has not looked yet."""
        assert self.past is not None
        rows = torch.arange(len(counts), device=counts.device)
        right = CtcPrefixes(*(part[rows, counts - 1][:, None] for part in places))
        self.prefixes = self.scores.extend(right, symbols[:, None])
        self.past.counts = self.past.counts - places.last.shape[1] + counts

    def _mixed(self, prefixes: CtcPrefixes, length: int) -> Tensor:
        symbols, frames = (part.unflatten(1, (-1, length)) for part in (prefixes.last, prefixes.frame))
        logits, self.past = self.decoder(symbols, frames, self.image, self.lengths, self.past)
        return joint_log_probs(logits.flatten(1, 2), self.scores.next_log_probs(prefixes), self.ctc_weight)

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
            self.past.keep(places.flatten())


class DecoderSteps:
    """The state as `beam_search` wants it: it names only the images that are still read, the state has more."""

    def __init__(self, state: DecoderState, num_beams: int) -> None:
        """Args: a fresh state of `num_beams` texts an image."""
        self.state, self.num_beams = state, num_beams
        self.rows: Tensor | None = None  # where in the state the images are that were named last

    def __call__(self, parents: Tensor, symbols: Tensor) -> Tensor:
        """See `beam_search`."""
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
        return self.state.append(given)[self.rows].flatten(0, 1)


def search_texts(start: partial[DecoderState], lengths: Tensor, num_beams: int, allowed: Tensor | None) -> FoundTexts:
    """The best text of each image; at most as many characters as there are frames.

    Args:
        start: makes a fresh state of `texts` texts an image.
        lengths: int64 (B,), valid frames.
        num_beams: texts that are followed; 1 reads greedily.
        allowed: bool (V,), the symbols that may be read; None allows all.
    """
    state = start(texts=num_beams)
    if num_beams == 1:
        return _read_greedily(state, allowed)
    return beam_search(DecoderSteps(state, num_beams), lengths, num_beams, allowed)


def _read_greedily(state: DecoderState, allowed: Tensor | None) -> FoundTexts:
    """What `beam_search` finds with one beam, several characters a look.

    CTC says how a text may go on, and the decoder looks at all of that at once: up to where it would have chosen
    another symbol, the steps have been spared (Leviathan et al., Fast Inference from Transformers via Speculative
    Decoding, arXiv:2211.17192). Behind that symbol CTC is asked again, for twice as many characters as the last look
    has brought in the mean: behind the first look, the decoder computes about twice what it would in steps at most.
    """
    scores, device = state.scores, state.lengths.device
    images, frames, vocab_size = scores.log_probs.shape
    refused = torch.zeros(vocab_size, dtype=torch.bool, device=device) if allowed is None else ~allowed
    refused[0] = False
    path = scores.log_probs.masked_fill(refused, NEVER).max(-1).indices
    path = path.masked_fill(scores.beyond[:, 0] < 0, 0)
    texts, steps = path.new_zeros(images, frames + 1), torch.zeros(images, frames + 1, device=device)
    rows = torch.arange(images, device=device)  # the images that the state has
    read, ended = torch.zeros_like(rows), torch.zeros_like(rows, dtype=torch.bool)
    ahead = frames
    while not ended.all():
        most = MOST_CELLS // (len(rows) * (frames + vocab_size))
        draft = state.scores.continuations(state.prefixes, path)[:, : min(ahead, most)]
        log_probs, places = state.along(draft)
        along = read[:, None] + torch.arange(log_probs.shape[1], device=device)
        best = (log_probs if allowed is None else log_probs.masked_fill(refused, NEVER)).max(-1).indices
        best = best.masked_fill(along >= state.lengths[:, None], 0)  # as many characters as frames
        counts = 1 + ((best[:, :-1] == draft) & (draft != 0)).cumprod(1).sum(1)
        new = (along < (read + counts)[:, None]) & ~ended[:, None]
        where = rows[:, None].expand_as(along)[new], along[new]
        texts[where], steps[where] = best[new], log_probs.gather(2, best[..., None])[..., 0][new]
        following = best.gather(1, counts[:, None] - 1)[:, 0]
        ended, read = ended | (following == 0), read + counts
        if ended.all():
            break
        state.go_on(places, counts, following)
        ahead = max(1, int(2 * counts[~ended].float().mean()) - 1)
        if ended.sum() * ahead >= LEAVING * len(rows):  # looking far ahead costs more than a copy
            going = (~ended).nonzero()[:, 0]
            state.keep_images(going)
            rows, read, ended, path = rows[going], read[going], ended[going], path[going]
    return _as_found(texts, steps)


def _as_found(texts: Tensor, steps: Tensor) -> FoundTexts:
    longest = int((texts != 0).sum(-1).max()) if len(texts) else 0
    sequences = texts[:, :longest]
    return FoundTexts(sequences, steps.sum(-1), steps[:, :longest].exp() * (sequences != 0))


def score_lexicon(start: partial[DecoderState], lexicon: Tensor) -> FoundTexts:
    """The most probable of some words, int64 (N, L) padded with 0, for each image; `start` as for `search_texts`.

    Raises:
        ValueError: no words.
    """

    def log_probs_along(texts: Tensor) -> Tensor:
        state = start(texts=texts.shape[1])
        return torch.stack([state.append(symbols) for symbols in F.pad(texts, (1, 0)).unbind(-1)], 2)

    images, _, vocab_size = start.keywords["ctc_logits"].shape
    return lexicon_search(log_probs_along, images, lexicon, vocab_size)
