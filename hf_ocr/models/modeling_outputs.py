"""What every recognizer returns: shapes and dtypes, stated once."""

from dataclasses import dataclass

import torch
from transformers.utils import ModelOutput


@dataclass
class TextRecognitionOutput(ModelOutput):
    """Output of `forward`.

    Attributes:
        loss: float32 scalar, the mean over the lines that were counted; only with `labels`.
        logits: float32 (B, T, V), unnormalised.
        logit_lengths: int64 (B,), valid frames or steps of each row; what stands behind them has no meaning.
        skipped: int64 scalar, lines left out of the loss because their label cannot be aligned; only with `labels`.
    """

    loss: torch.Tensor | None = None
    logits: torch.Tensor | None = None
    logit_lengths: torch.Tensor | None = None
    skipped: torch.Tensor | None = None


@dataclass
class Recognition(ModelOutput):
    """Output of `recognize`.

    Attributes:
        sequences: int64 (B, L), alphabet ids padded with 0; a text of n characters has n leading ids. L may be 0.
        scores: float32 (B,) in [0, 1], the probability of the whole text given the image, at the temperature of the
            model's configuration; where a language model was asked, as image and language model together see it.
        character_scores: float32 (B, L) in [0, 1], padded with 0; the probability of a character given the image and
            the characters before it, of the last one also that the text ends there: their product is the score. None
            unless characters were asked for.
        character_spans: float32 (B, L, 2), px columns [start, end) of the model's input image, padded with 0; None
            unless characters were asked for, or where the family cannot tell.
        raw_scores: float32 (B,), the probability given the image alone, at temperature 1, for choosing between
            readings, so that no temperature changes a text; None where `scores` are these.
        fluency: float32 (B,), nats that a language model adds to the log of these for that choice, 0 where it was not
            asked; None without one.
    """

    sequences: torch.Tensor | None = None
    scores: torch.Tensor | None = None
    character_scores: torch.Tensor | None = None
    character_spans: torch.Tensor | None = None
    raw_scores: torch.Tensor | None = None
    fluency: torch.Tensor | None = None
