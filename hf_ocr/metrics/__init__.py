"""Character, word and space error rates, intervals, paired tests; `cer` and `wer` are folders for `evaluate.load`."""

from hf_ocr.metrics.calibration import Calibration, measure_calibration
from hf_ocr.metrics.error_rates import (
    Confusions,
    blank_insertions,
    character_edits,
    character_error_rate,
    count_confusions,
    edit_operations,
    exact_match,
    line_matches,
    normalised_edit_distance,
    normalised_edits,
    space_edits,
    space_error_rate,
    word_edits,
    word_error_rate,
)
from hf_ocr.metrics.intervals import (
    NUM_RESAMPLINGS,
    Difference,
    Figure,
    bootstrap_interval,
    line_rates,
    measure,
    paired_difference,
)

__all__ = [
    "NUM_RESAMPLINGS",
    "Calibration",
    "Confusions",
    "Difference",
    "Figure",
    "blank_insertions",
    "bootstrap_interval",
    "character_edits",
    "character_error_rate",
    "count_confusions",
    "edit_operations",
    "exact_match",
    "line_matches",
    "line_rates",
    "measure",
    "measure_calibration",
    "normalised_edit_distance",
    "normalised_edits",
    "paired_difference",
    "space_edits",
    "space_error_rate",
    "word_edits",
    "word_error_rate",
]
