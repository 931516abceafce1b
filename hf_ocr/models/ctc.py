"""CTC decoding (Graves et al. 2006): greedy, prefix beam and lexicon search, exact scores, alignment.

Pure functions of tensors, batched over rows; Python loops run over frames only. Conventions shared by all of them:

- `logits` is a float tensor (B, T, V) of any precision, not normalised; arithmetic is float32. Symbol 0 is the blank.
- `lengths` (B,), integers in [0, T], counts the valid frames of a row. Later frames never influence anything.
- Texts are int64, padded on the right with 0 (B, L). A text is a row of symbols in [1, V) and may be empty.
- A score is P(text | row), the sum over all frame paths that collapse to the text, under the full softmax: restricting
  the symbols changes which texts are looked at, not their probabilities.
- `temperature` divides the logits where scores are taken (Guo et al. 2017), never where texts are looked for.
- Frame f covers [f, f + 1) of the continuous frame axis on which spans are given.
- Nothing here is differentiable; train with `torch.nn.functional.ctc_loss`.
"""

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from .ctc_inputs import checked_allowed, checked_log_probs, checked_sequences
from .ctc_lattice import (
    BLANK,
    NEVER,
    best_states,
    build_lattice,
    character_probabilities,
    character_spans,
    collapse,
    frames_first,
    interleave,
    largest,
    peak_frames,
    score_texts,
    text_log_probability,
)
from .ctc_paths import search_paths
from .ctc_prefixes import search_prefixes

# Lattice cells that a lexicon search holds at once, 4 bytes each: its few tensors stay in the cache of a core.
LEXICON_CELLS = 1 << 16


class CtcDecoding(NamedTuple):
    """What a search returns. R is B, or B * num_return_sequences with the texts of a row side by side, the best first.

    Attributes:
        sequences: int64 (R, L), symbols padded with 0. L may be 0.
        scores: float32 (R,), P(text | row) in [0, 1], at the temperature.
        character_scores: float32 (R, L) padded with 0, or None without characters. P(character | row, the characters
            before it), of the last one also that nothing follows: their product is the score of the text.
        frame_spans: float32 (R, L, 2) padded with 0, or None without characters. [start, end) in frames.
        raw_scores: float32 (R,), the scores at temperature 1, by which the texts were chosen.
    """

    sequences: Tensor
    scores: Tensor
    character_scores: Tensor | None
    frame_spans: Tensor | None
    raw_scores: Tensor


class CtcAlignment(NamedTuple):
    """The most probable frame path of a given text.

    Attributes:
        path: int64 (B, T), the symbol of every frame, 0 for blank and beyond the row's length.
        peak_frames: int64 (B, L) padded with 0: of the frames of a character, the one where its probability is highest.
        frame_spans: float32 (B, L, 2) padded with 0, [start, end) in frames.
    """

    path: Tensor
    peak_frames: Tensor
    frame_spans: Tensor


def minimum_frames(labels: Tensor) -> Tensor:
    """Frames that CTC needs for a text: one a symbol and one blank between equal neighbours.

    Args:
        labels: integers (..., L) padded with 0.

    Returns:
        int64 (...).
    """
    symbols = labels != BLANK
    repeats = (labels[..., 1:] == labels[..., :-1]) & symbols[..., 1:]
    return symbols.sum(-1) + repeats.sum(-1)


@torch.no_grad()
def greedy_search(
    logits: Tensor,
    lengths: Tensor,
    allowed: Tensor | None = None,
    *,
    with_characters: bool = True,
    temperature: float = 1.0,
) -> CtcDecoding:
    """Reads the text of the most probable path: the best symbol of every frame, repeats collapsed, blanks dropped.

    Args:
        logits: (B, T, V).
        lengths: (B,) valid frames.
        allowed: bool (V,), the symbols that may be read; the blank always may. None allows all.
        with_characters: whether to compute character scores and spans, which take longer than the reading itself.
        temperature: of the scores, above 0.

    Returns:
        A row for each row. The score is that of the text, all its paths together, not of the one path.

    Raises:
        ValueError: an argument has the wrong shape, dtype or range.
    """
    log_probs, lengths = checked_log_probs(logits, lengths)
    allowed = checked_allowed(allowed, log_probs)
    searched = log_probs if allowed is None else log_probs.masked_fill(~allowed, NEVER)
    symbols = searched.max(-1).indices  # measured: more than twice as fast as argmax on a CPU
    frames = torch.arange(symbols.shape[1], device=symbols.device)
    sequences = collapse(symbols.masked_fill(frames >= lengths[:, None], BLANK))
    return _decoding(log_probs, lengths, sequences, None, with_characters, temperature)


@torch.no_grad()
def prefix_beam_search(
    logits: Tensor,
    lengths: Tensor,
    num_beams: int,
    allowed: Tensor | None = None,
    num_return_sequences: int = 1,
    *,
    with_characters: bool = True,
    temperature: float = 1.0,
) -> CtcDecoding:
    """Looks for the most probable texts by growing prefixes frame by frame (Graves 2012; Hannun et al. 2014).

    The paths of a prefix are summed, those that end in blank apart from the others, and prefixes that become equal are
    merged, exactly. The prefixes alive at the end are then ranked by their full probability, so that scores do not
    suffer from pruning. There is no language model.

    Args:
        logits: (B, T, V).
        lengths: (B,) valid frames.
        num_beams: prefixes kept after each frame.
        allowed: bool (V,), the symbols that may be read; the blank always may. None allows all.
        num_return_sequences: texts to return for a row, at most num_beams.
        with_characters: whether to compute character scores and spans.
        temperature: of the scores, above 0.

    Returns:
        num_return_sequences rows for each row: different texts, scores descending. Where fewer texts are possible, the
        remaining rows hold the empty text with score 0.

    Raises:
        ValueError: an argument has the wrong shape, dtype or range.
    """
    if num_beams < 1:
        raise ValueError(f"num_beams is {num_beams}, expected at least 1.")
    if not 1 <= num_return_sequences <= num_beams:
        raise ValueError(
            f"num_return_sequences is {num_return_sequences}, expected 1 to num_beams, which is {num_beams}. "
            "Raise num_beams."
        )
    log_probs, lengths = checked_log_probs(logits, lengths)
    allowed = checked_allowed(allowed, log_probs)
    searched = log_probs if allowed is None else log_probs.masked_fill(~allowed, NEVER)

    prefixes, alive = search_prefixes(searched, lengths, num_beams)
    scores = score_texts(frames_first(log_probs, lengths), prefixes.permute(2, 1, 0))  # (K, B)
    scores = scores.T.masked_fill(~alive, NEVER)
    best = scores.argsort(dim=1, descending=True, stable=True)[:, :num_return_sequences]
    scores = scores.gather(1, best).flatten()
    sequences = prefixes.gather(1, best[:, :, None].expand(-1, -1, prefixes.shape[2])).flatten(0, 1)
    sequences = sequences.masked_fill((scores == NEVER)[:, None], BLANK)
    sequences = sequences[:, : largest((sequences != BLANK).sum(1))].contiguous()
    repeated = (
        log_probs.repeat_interleave(num_return_sequences, 0) if with_characters or temperature != 1 else log_probs
    )
    lengths = lengths.repeat_interleave(num_return_sequences)
    return _decoding(repeated, lengths, sequences, scores, with_characters, temperature)


@torch.no_grad()
def likely_texts(
    logits: Tensor, lengths: Tensor, num_texts: int, allowed: Tensor | None = None
) -> tuple[Tensor, Tensor]:
    """Finds texts to choose from, much faster than a beam: see `search_paths`.

    Args:
        logits: (B, T, V).
        lengths: (B,) valid frames.
        num_texts: texts of a row.
        allowed: bool (V,), the symbols that may be read; the blank always may. None allows all.

    Returns:
        int64 (B * num_texts, L) padded with 0, different texts of each row, and float32 (B * num_texts,), the
        log-probability of each by the paths searched, descending in a row; -inf, of an empty text, where there are
        fewer.

    Raises:
        ValueError: an argument has the wrong shape, dtype or range.
    """
    log_probs, lengths = checked_log_probs(logits, lengths)
    allowed = checked_allowed(allowed, log_probs)
    texts, scores = search_paths(log_probs if allowed is None else log_probs.masked_fill(~allowed, NEVER), lengths)
    return texts[:, :num_texts].flatten(0, 1), scores[:, :num_texts].flatten()


@torch.no_grad()
def chosen_text(
    logits: Tensor, lengths: Tensor, sequences: Tensor, *, with_characters: bool = True, temperature: float = 1.0
) -> CtcDecoding:
    """Scores and spans of texts that were chosen elsewhere, one a row.

    Args:
        logits: (B, T, V).
        lengths: (B,) valid frames.
        sequences: int64 (B, L) padded with 0.
        with_characters: whether to compute character scores and spans.
        temperature: of the scores, above 0.

    Raises:
        ValueError: an argument has the wrong shape, dtype or range.
    """
    log_probs, lengths = checked_log_probs(logits, lengths)
    sequences = checked_sequences("sequences", sequences, log_probs.shape[2], log_probs.device, len(log_probs))
    return _decoding(log_probs, lengths, sequences, None, with_characters, temperature)


@torch.no_grad()
def lexicon_search(
    logits: Tensor, lengths: Tensor, lexicon: Tensor, *, with_characters: bool = True, temperature: float = 1.0
) -> CtcDecoding:
    """Finds the word of a lexicon with the highest P(word | row), by the exact score of every word.

    Args:
        logits: (B, T, V).
        lengths: (B,) valid frames.
        lexicon: int64 (N, L) padded with 0; the empty word may be one of them.
        with_characters: whether to compute character scores and spans.
        temperature: of the scores, above 0.

    Returns:
        A row for each row. Where no word fits into the frames of a row: the empty text with score 0.

    Raises:
        ValueError: an argument has the wrong shape, dtype or range.
    """
    log_probs, lengths = checked_log_probs(logits, lengths)
    lexicon = checked_sequences("lexicon", lexicon, log_probs.shape[2], log_probs.device)
    if lexicon.shape[0] == 0:
        raise ValueError("lexicon has no words, expected at least one. Use greedy_search to read without a lexicon.")
    rows, frames, _ = log_probs.shape
    sizes = (lexicon != BLANK).sum(1)
    fitting = (minimum_frames(lexicon) <= frames).nonzero()[:, 0]
    fitting = fitting[sizes[fitting].argsort(stable=True)]  # words of like length together: little padding

    by_frame = frames_first(log_probs, lengths)
    scores = log_probs.new_full((lexicon.shape[0], rows), NEVER)
    start = 0
    while start < fitting.numel():
        size = max(1, LEXICON_CELLS // max(1, rows * (2 * int(sizes[fitting[start]]) + 1)))
        chunk = fitting[start : start + size]
        scores[chunk] = score_texts(by_frame, lexicon[chunk, : int(sizes[chunk[-1]])].T[:, :, None])
        start += size

    best_scores, best = scores.max(0)
    sequences = lexicon[best].masked_fill((best_scores == NEVER)[:, None], BLANK)
    sequences = sequences[:, : largest((sequences != BLANK).sum(1))].contiguous()
    return _decoding(log_probs, lengths, sequences, best_scores, with_characters, temperature)


@torch.no_grad()
def sequence_log_probability(logits: Tensor, lengths: Tensor, sequences: Tensor) -> Tensor:
    """log P(text | row) of given texts: minus the CTC loss of a row, -inf for a text that does not fit into its frames.

    Args:
        logits: (B, T, V).
        lengths: (B,) valid frames.
        sequences: int64 (B, L) padded with 0.

    Returns:
        float32 (B,).

    Raises:
        ValueError: an argument has the wrong shape, dtype or range.
    """
    log_probs, lengths = checked_log_probs(logits, lengths)
    rows, _, symbols = log_probs.shape
    sequences = checked_sequences("sequences", sequences, symbols, log_probs.device, rows)
    return _log_probability(log_probs, lengths, sequences)


@torch.no_grad()
def align(logits: Tensor, lengths: Tensor, sequences: Tensor) -> CtcAlignment:
    """Finds the most probable path of given texts (Viterbi), and from it where each character stands.

    CTC outputs are peaked, so a character's own frames are narrower than its ink. A span therefore reaches to the
    midpoints between the peaks (frame centres) of neighbouring characters; the first and the last reach half the median
    distance of peaks outwards. A lone character takes the widest span centred on its peak. All are cut to [0, length].

    Args:
        logits: (B, T, V).
        lengths: (B,) valid frames.
        sequences: int64 (B, L) padded with 0.

    Raises:
        ValueError: an argument has the wrong shape, dtype or range, or a text is impossible in its row.
    """
    total = logits.shape[1] if logits.dim() == 3 else 0
    log_probs, lengths = checked_log_probs(logits, lengths)
    rows, _, symbols = log_probs.shape
    sequences = checked_sequences("sequences", sequences, symbols, log_probs.device, rows)
    needed = minimum_frames(sequences)
    for row in (needed > lengths).nonzero()[:1, 0].tolist():
        raise ValueError(
            f"The text of row {row} needs {int(needed[row])} frames (its symbols, a blank between equal neighbours) "
            f"but the row has {int(lengths[row])}. Leave it out, or align it to a wider image."
        )
    lattice = build_lattice(log_probs, lengths, sequences)
    for row in (text_log_probability(lattice) == NEVER).nonzero()[:1, 0].tolist():
        raise ValueError(f"The text of row {row} has probability 0 under the logits, so no path can be aligned.")
    states = best_states(lattice)
    peaks = peak_frames(lattice, states, sequences)
    path = interleave(sequences).gather(1, states.T)[:, :-1]  # the last frame is the lattice's own
    path = torch.nn.functional.pad(path, (0, total - path.shape[1]))
    return CtcAlignment(path, peaks, character_spans(peaks, lengths, sequences))


def _decoding(
    log_probs: Tensor,
    lengths: Tensor,
    sequences: Tensor,
    log_scores: Tensor | None,
    with_characters: bool,
    temperature: float,
) -> CtcDecoding:
    """Adds to texts what was asked for. log_scores (R,) where the search knows them already."""
    if log_scores is None:
        log_scores = _log_probability(log_probs, lengths, sequences)
    scores = raw_scores = log_scores.exp().clamp(max=1.0)
    warm = log_probs
    if temperature != 1:
        if not 0 < temperature < float("inf"):
            raise ValueError(f"temperature is {temperature}, expected a number above 0; 1 leaves scores as they are.")
        warm = (log_probs / temperature).log_softmax(-1)
        scores = _log_probability(warm, lengths, sequences).exp().clamp(max=1.0)
        scores = scores.masked_fill(log_scores == NEVER, 0.0)  # of texts that stand for none
    if not with_characters:
        return CtcDecoding(sequences, scores, None, None, raw_scores)
    lattice = build_lattice(log_probs, lengths, sequences)
    spans = character_spans(peak_frames(lattice, best_states(lattice), sequences), lengths, sequences)
    if temperature != 1:
        lattice = build_lattice(warm, lengths, sequences)
    return CtcDecoding(sequences, scores, character_probabilities(lattice, sequences), spans, raw_scores)


def _log_probability(log_probs: Tensor, lengths: Tensor, sequences: Tensor) -> Tensor:
    """log P(text | row), float32 (R,), by torch's own recursion: one call, in which no row depends on another."""
    if log_probs.numel() == 0:  # which torch refuses
        return text_log_probability(build_lattice(log_probs, lengths, sequences))
    text_lengths = (sequences != BLANK).sum(1)
    sequences = F.pad(sequences, (0, 1))  # texts of no width are refused too
    return -F.ctc_loss(log_probs.transpose(0, 1), sequences, lengths, text_lengths, blank=BLANK, reduction="none")
