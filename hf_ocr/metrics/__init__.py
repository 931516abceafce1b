"""Character and word error rates, exact match, intervals; `cer` and `wer` are folders for `evaluate.load`."""

from hf_ocr.metrics.error_rates import (
    NUM_RESAMPLINGS,
    Confusions,
    Figure,
    bootstrap_interval,
    character_edits,
    character_error_rate,
    count_confusions,
    exact_match,
    line_matches,
    measure,
    word_edits,
    word_error_rate,
)

__all__ = [
    "NUM_RESAMPLINGS",
    "Confusions",
    "Figure",
    "bootstrap_interval",
    "character_edits",
    "character_error_rate",
    "count_confusions",
    "exact_match",
    "line_matches",
    "measure",
    "word_edits",
    "word_error_rate",
]
