"""Reading with the decoder: one state that grows by symbols, for greedy and beam search and for a lexicon."""

from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor

from .beam_search import FoundTexts, beam_search
from .ctc_prefix_scores import CtcPrefixes, CtcPrefixScores, joint_log_probs
from .vision_text_layers import KeyValue, VisionTextDecoder

# Images that have been read leave the state when they are at least this share of it: leaving costs a copy of the rest.
LEAVING = 0.25
LEXICON_ROWS = 2048  # words times images that are read at once
DRAFTS = 3  # times that a draft is looked at before the search goes step by step
MOST_CELLS = 1 << 25  # characters times frames of a draft, 4 bytes each, a few times over
NEVER = float("-inf")


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
        return self._mixed(logits[:, :, 0], self.prefixes)

    def along(self, texts: Tensor) -> Tensor:
        """What `append` would give at each step along known texts, int64 (B, L), all at once: float32 (B, L + 1, V).

        Of a state in which nothing has been read; it stays so.
        """
        prefixes, frames = [self.scores.start()], [torch.full((len(texts), 1), -1.0, device=texts.device)]
        for symbols in texts.T:
            after, expected = self.scores.extend(prefixes[-1], symbols[:, None])
            prefixes.append(after)
            frames.append(expected)
        given = F.pad(texts, (1, 0))[:, None]
        logits, _ = self.decoder(given, torch.cat(frames, 1)[:, None], self.image, self.lengths)
        return self._mixed(logits[:, 0], CtcPrefixes(*(torch.cat(parts, 1) for parts in zip(*prefixes, strict=True))))

    def _mixed(self, logits: Tensor, prefixes: CtcPrefixes) -> Tensor:
        log_probs = logits.log_softmax(-1)
        if self.ctc_weight == 0:
            return log_probs
        return joint_log_probs(log_probs, self.scores.next_log_probs(prefixes), self.ctc_weight)

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


def search_texts(
    start: partial[DecoderState], lengths: Tensor, num_beams: int, allowed: Tensor | None, draft: Tensor
) -> FoundTexts:
    """The best text of each image; at most as many characters as there are frames.

    With one beam, what the decoder would say along a draft is computed at once, for all its characters: where they are
    those that the greedy search would choose, it has been spared (Leviathan et al., Fast Inference from Transformers
    via Speculative Decoding, arXiv:2211.17192, with a draft of CTC). Where they are not, the draft is mended there,
    twice; then the search goes step by step.

    Args:
        start: makes a fresh state of `texts` texts an image.
        lengths: int64 (B,), valid frames.
        num_beams: texts that are followed; 1 reads greedily.
        allowed: bool (V,), the symbols that may be read; None allows all.
        draft: int64 (B, L) padded with 0, what the text may be.
    """
    state = start(texts=num_beams)
    rows = torch.arange(len(lengths), device=lengths.device)
    found: list[tuple[Tensor, FoundTexts]] = []
    if num_beams == 1:
        for _ in range(DRAFTS):
            if not len(rows) or draft.numel() * state.scores.log_probs.shape[1] > MOST_CELLS:
                break
            read, steps, agreed = _checked(state, draft, allowed)
            found.append((rows[agreed], _as_found(read[agreed], steps[agreed])))
            rows, draft = rows[~agreed], read[~agreed]
            state.keep_images((~agreed).nonzero()[:, 0])
    if len(rows) or not found:
        found.append((rows, beam_search(DecoderSteps(state, num_beams), lengths[rows], num_beams, allowed)))
    longest = max(texts.sequences.shape[1] for _, texts in found)
    order = torch.cat([places for places, _ in found]).argsort()
    return FoundTexts(
        *(
            torch.cat([F.pad(part, (0, longest - part.shape[1])) if part.ndim > 1 else part for part in parts])[order]
            for parts in zip(*(texts for _, texts in found), strict=True)
        )
    )


def _checked(state: DecoderState, draft: Tensor, allowed: Tensor | None) -> tuple[Tensor, Tensor, Tensor]:
    """Along a draft, (B, L): the texts (B, L + 1) that agree with the greedy search at least one character further, the
    log-probabilities of the steps of those that agree to the end, (B, L + 2), and which these are, bool (B,)."""
    draft = F.pad(draft, (0, 1))  # there is an end behind each
    log_probs = state.along(draft)
    choices = log_probs if allowed is None else log_probs.masked_fill(~allowed & (_ids(log_probs) != 0), NEVER)
    steps = torch.arange(choices.shape[1], device=draft.device)
    full = steps >= state.lengths[:, None]  # as many characters as frames
    best = choices.max(-1).indices.masked_fill(full, 0)
    wanted = F.pad(draft, (0, 1))
    wrong = (best != wanted) & (steps <= (draft != 0).sum(-1, keepdim=True))
    place = torch.where(wrong.any(-1), wrong.int().argmax(-1), len(steps) - 1)[:, None]
    chosen = best.gather(1, place)
    agreed = ~wrong.any(-1) | (chosen[:, 0] == 0)  # where the search ends, the rest of the draft is left out
    text = draft.masked_fill((steps[:-1] >= place) & (chosen == 0), 0)
    # Elsewhere one symbol of the draft is wrong, or is one too many.
    surplus = chosen == wanted.gather(1, (place + 1).clamp(max=len(steps) - 1))
    mended = torch.where((steps[:-1] >= place) & surplus, wanted[:, 1:], draft)
    mended = torch.where(steps[:-1] == place, chosen, mended)
    text = torch.where(agreed[:, None], text, mended)
    ends = F.pad(text, (0, 1))
    score = log_probs.gather(2, ends[..., None])[..., 0]
    return text, score.masked_fill(steps > (text != 0).sum(-1, keepdim=True), 0.0), agreed


def _ids(log_probs: Tensor) -> Tensor:
    return torch.arange(log_probs.shape[-1], device=log_probs.device)


def _as_found(texts: Tensor, steps: Tensor) -> FoundTexts:
    longest = int((texts != 0).sum(-1).max()) if len(texts) else 0
    sequences = texts[:, :longest]
    return FoundTexts(sequences, steps.sum(-1), steps[:, :longest].exp() * (sequences != 0))


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
    along = torch.cat(parts, 1)
    best = along.sum(-1).max(1).indices
    along = along.gather(1, best[:, None, None].expand(-1, -1, along.shape[2]))[:, 0]
    return _as_found(lexicon[best], along)
