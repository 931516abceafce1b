"""How every family with a CTC head reads: `forward`, a search, scores at its temperature, the px of each character."""

import operator
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F

from .ctc import (
    CtcDecoding,
    chosen_text,
    greedy_search,
    lexicon_search,
    likely_texts,
    prefix_beam_search,
    sequence_log_probability,
)
from .ctc_inputs import checked_sequences
from .modeling_outputs import Recognition

# Logits held at once by a reader, 4 bytes each, and a few times that while they are searched. With an alphabet of
# thousands, a batch of long lines is read in parts; with one of a hundred, never.
MOST_LOGITS = 1 << 24
# P(text | image) from which on no second reader and no language model is asked, chosen on validation lines.
# scripts/benchmark_decoding.py counts these texts, and those of them that a decoder asked all the same would change.
CERTAIN = 0.9
# Texts among which a language model chooses: half as many again change one validation line in a thousand.
CHOSEN_FROM = 16
SURE = 1e-6  # nats: of a text that is nearly certain no power is taken


def recognize_with_ctc(
    model: Any,
    pixel_values: torch.Tensor,
    widths: torch.Tensor | None = None,
    num_beams: int = 1,
    allowed_ids: list[int] | None = None,
    lexicon: torch.Tensor | None = None,
    with_characters: bool = True,
) -> Recognition:
    """Read images with a model of CTC logits; in eval mode whatever the model's own mode, which is left as it was.

    Args:
        model: `forward` gives `logits` and `logit_lengths`; `base_model` has `frame_count` and `frame_to_pixel`;
            `config` has `temperature`. With a `language_model`, `config` has its weight and bonus, and doubtful texts
            are chosen by both (the log-linear combination of Graves and Jaitly 2014, section 4).
        pixel_values: float (B, num_channels, image_height, W) in [-1, 1].
        widths: int64 (B,), valid columns, px; all of W when None.
        num_beams: 1 reads greedily; more runs a prefix beam search.
        allowed_ids: alphabet ids that may appear; all when None.
        lexicon: int64 (N, L) padded with 0: the answer is one of these N texts.
        with_characters: also give the score and the px span of every character.

    Raises:
        ValueError: `num_beams` below 1, ids outside the alphabet, both `allowed_ids` and `lexicon`, or what
            `forward` does not take.
    """
    check_num_beams(num_beams)
    vocab_size = model.config.vocab_size
    allowed = allowed_symbols(allowed_ids, vocab_size, pixel_values.device)
    lexicon = checked_lexicon(lexicon, allowed_ids, vocab_size, pixel_values.device)

    def read(rows: slice) -> Recognition:
        images, valid = pixel_values[rows], None if widths is None else widths[rows]
        output = model(images, valid)
        if valid is None:
            valid = torch.full((len(images),), images.shape[-1], device=images.device)
        options = {"with_characters": with_characters, "temperature": model.config.temperature}
        if lexicon is not None:
            decoding = lexicon_search(output.logits, output.logit_lengths, lexicon, **options)
        elif getattr(model, "language_model", None) is not None:
            fluency = torch.zeros(len(images), device=images.device)

            def choose(doubtful: torch.Tensor) -> Recognition:
                logits, lengths = output.logits[doubtful], output.logit_lengths[doubtful]
                choice = _by_language_model(model, logits, lengths, num_beams, allowed)
                fluency[doubtful] = choice.fluency
                chosen = chosen_text(logits, lengths, choice.texts, **options)
                return choice.scored(_recognition(model, chosen, valid[doubtful]))

            found = read_doubtful(choose, model, output.logits, output.logit_lengths, valid, allowed, with_characters)
            found["fluency"] = fluency
            return found
        elif num_beams > 1:
            decoding = prefix_beam_search(output.logits, output.logit_lengths, num_beams, allowed, **options)
        else:
            decoding = greedy_search(output.logits, output.logit_lengths, allowed, **options)
        return _recognition(model, decoding, valid)

    return in_parts(read, model, pixel_values)


@torch.no_grad()
def in_parts(read: Callable[[slice], Recognition], model: Any, pixel_values: torch.Tensor) -> Recognition:
    """Readings of all images, as many of them at once as `MOST_LOGITS` allows; in eval mode, see `eval_mode`.

    Args:
        read: reads the images of these rows.
        model: as for `recognize_with_ctc`.
        pixel_values: (B, num_channels, image_height, W).
    """
    frames = max(model.base_model.frame_count(pixel_values.shape[-1]), 1)
    at_once = max(MOST_LOGITS // (frames * model.config.vocab_size), 1)
    with eval_mode(model):
        parts = [read(slice(start, start + at_once)) for start in range(0, max(len(pixel_values), 1), at_once)]
    return parts[0] if len(parts) == 1 else _joined(parts)


def read_doubtful(
    by_decoder: Callable[[torch.Tensor], Recognition],
    model: Any,
    logits: torch.Tensor,
    lengths: torch.Tensor,
    widths: torch.Tensor,
    allowed: torch.Tensor | None,
    with_characters: bool,
) -> Recognition:
    """A decoder's readings where CTC doubts; where it is certain, or reads nothing, CTC's own.

    Args:
        by_decoder: reads the images of these rows, int64 (R,), R at least 1.
        model: as for `recognize_with_ctc`.
        logits: (B, T, V), of its CTC head.
        lengths: int64 (B,), valid frames.
        widths: int64 (B,), valid columns of the images, px.
        allowed: bool (V,), symbols that may be read; None allows all.
        with_characters: as for `recognize_with_ctc`.
    """
    decoding = greedy_search(
        logits, lengths, allowed, with_characters=with_characters, temperature=model.config.temperature
    )
    # A decoder and a language model would rather have some text than none, and read stains.
    certain = (decoding.raw_scores >= CERTAIN) | (decoding.sequences == 0).all(1)
    rows, doubtful = certain.nonzero()[:, 0], (~certain).nonzero()[:, 0]
    read = _recognition(model, decoding, widths)
    if not len(doubtful):
        return read
    joined = _joined([_rows(read, rows), by_decoder(doubtful)])
    longest = int((joined["sequences"] != 0).sum(1).max())
    return _rows(joined, torch.cat([rows, doubtful]).argsort(), longest)


class _Choice(NamedTuple):
    """Of R rows.

    Attributes:
        texts: int64 (R, L) padded with 0.
        fluency: float32 (R,), what the language model adds to the log-probability of each.
        powers: float32 (R,), to which the probability given the image is raised: that is the one given both.
    """

    texts: torch.Tensor
    fluency: torch.Tensor
    powers: torch.Tensor

    def scored(self, read: Recognition) -> Recognition:
        """Readings of these texts, given the image, with the scores that both give them."""
        read["scores"] = read["scores"].pow(self.powers)
        if read.character_scores is not None:
            read["character_scores"] = read.character_scores.pow(self.powers[:, None]) * (read.sequences != 0)
        return read


def _by_language_model(
    model: Any, logits: torch.Tensor, lengths: torch.Tensor, num_beams: int, allowed: torch.Tensor | None
) -> _Choice:
    """Of the texts that each row may stand for, the one that image and language model together find most probable.

    Which signs and spaces there are the image alone says: only texts with those of its most probable one are compared.
    """
    if num_beams > 1:
        found = prefix_beam_search(logits, lengths, num_beams, allowed, num_beams, with_characters=False)
        texts = found.sequences
        # Not the logarithm of the scores, which are 0 for long texts; none is that of a place without a text.
        rows = torch.arange(len(logits), device=texts.device).repeat_interleave(num_beams)
        log_probs = sequence_log_probability(logits[rows], lengths[rows], texts)
        is_first = torch.arange(len(texts), device=texts.device) % num_beams == 0
        log_probs = log_probs.masked_fill((found.scores == 0) & (texts == 0).all(1) & ~is_first, -torch.inf)
    else:
        texts, log_probs = likely_texts(logits, lengths, CHOSEN_FROM, allowed)
    signs = model.language_model.signs_of(texts).unflatten(0, (len(logits), -1))
    log_probs = log_probs.view(len(logits), -1).masked_fill((signs != signs[:, :1]).any(2), -torch.inf)
    characters = 1 + (texts != 0).sum(1)  # the end is one
    bonus = model.config.language_model_bonus * characters
    fluency = model.config.language_model_weight * (model.language_model(texts) + bonus)
    joint = log_probs + fluency.view_as(log_probs)
    best = joint.argmax(1, keepdim=True)
    # What the image gives to all of these texts together, shared out as both see them.
    by_both = (joint.log_softmax(1).gather(1, best) + log_probs.logsumexp(1, keepdim=True)).clamp(max=0.0)
    by_image = log_probs.gather(1, best)
    powers = torch.where(by_image.isfinite(), by_both / by_image.clamp(max=-SURE), 1.0)[:, 0]
    chosen = best[:, 0] + torch.arange(0, len(texts), joint.shape[1], device=texts.device)
    return _Choice(texts[chosen], fluency[chosen], powers)


def _rows(read: Recognition, rows: torch.Tensor, longest: int | None = None) -> Recognition:
    return Recognition(**{name: part[rows] if part.ndim == 1 else part[rows, :longest] for name, part in read.items()})


def _recognition(model: Any, decoding: CtcDecoding, widths: torch.Tensor) -> Recognition:
    spans = None
    if decoding.frame_spans is not None:
        spans = spans_in_px(model, decoding.frame_spans, decoding.sequences, widths)
    has_other_scores = model.config.temperature != 1 or getattr(model, "language_model", None) is not None
    return Recognition(
        sequences=decoding.sequences,
        scores=decoding.scores,
        character_scores=decoding.character_scores,
        character_spans=spans,
        raw_scores=decoding.raw_scores if has_other_scores else None,
    )


@contextmanager
def eval_mode(model: Any) -> Iterator[None]:
    """The model in eval mode, and afterwards, whatever happens, each of its layers in the mode that it had."""
    training = [module for module in model.modules() if module.training]
    if training:  # else a walk through all layers, for each batch
        model.eval()
    try:
        yield
    finally:
        for module in training:  # each on its own: layers may be frozen in eval mode while others train
            module.training = True


def check_num_beams(num_beams: int) -> None:
    """Of `recognize`.

    Raises:
        ValueError: no whole number of at least 1.
    """
    if not isinstance(num_beams, int) or num_beams < 1:
        raise ValueError(f"num_beams is {num_beams!r}, expected a whole number: 1 (greedy) or more (beam search).")


def allowed_symbols(allowed_ids: list[int] | None, vocab_size: int, device: torch.device) -> torch.Tensor | None:
    """The `allowed_ids` of `recognize` as bool (V,), True where a symbol may appear; None where all may.

    Raises:
        ValueError: no ids, or ids outside the alphabet.
    """
    if allowed_ids is None:
        return None
    given = allowed_ids
    try:
        allowed_ids = [operator.index(symbol) for symbol in given]
    except TypeError:
        raise ValueError(
            f"allowed_ids is {given!r}, expected a list of whole numbers, ids of the alphabet. Take them from the "
            "tokenizer."
        ) from None
    if not allowed_ids or min(allowed_ids) < 1 or max(allowed_ids) >= vocab_size:
        raise ValueError(
            f"allowed_ids is {allowed_ids}, expected ids of the alphabet, 1 to {vocab_size - 1}. "
            "Take them from the tokenizer."
        )
    allowed = torch.zeros(vocab_size, dtype=torch.bool, device=device)
    allowed[torch.as_tensor(allowed_ids, device=device)] = True
    return allowed


def checked_lexicon(
    lexicon: torch.Tensor | None, allowed_ids: list[int] | None, vocab_size: int, device: torch.device
) -> torch.Tensor | None:
    """The `lexicon` of `recognize` on `device`, int64 (N, L) padded with 0; None where there is none.

    Raises:
        ValueError: no such tensor, ids outside the alphabet, a 0 inside a text, or `allowed_ids` beside it.
    """
    if lexicon is None:
        return None
    if allowed_ids is not None:
        raise ValueError(
            f"allowed_ids is {allowed_ids} beside a lexicon, expected one of the two. Leave allowed_ids out, and from "
            "the lexicon the texts with other ids."
        )
    return checked_sequences("lexicon", lexicon, vocab_size, device)


def spans_in_px(model: Any, frame_spans: torch.Tensor, sequences: torch.Tensor, widths: torch.Tensor) -> torch.Tensor:
    """float32 (B, L, 2) of frames as px of the model's input, cut to each image; 0 behind the texts."""
    scale, offset = model.base_model.frame_to_pixel()
    spans = torch.minimum((frame_spans * scale + offset).clamp(min=0), widths[:, None, None].to(frame_spans))
    return spans * (sequences != 0)[:, :, None]


def _joined(parts: list[Recognition]) -> Recognition:
    """The rows of all parts below each other, padded to the longest text."""
    longest = max(part["sequences"].shape[1] for part in parts)
    joined = {}
    for name in parts[0]:
        tensors = [part[name] for part in parts]
        if tensors[0].ndim > 1:
            behind = [0, 0] * (tensors[0].ndim - 2)
            tensors = [F.pad(tensor, [*behind, 0, longest - tensor.shape[1]]) for tensor in tensors]
        joined[name] = torch.cat(tensors)
    return Recognition(**joined)
