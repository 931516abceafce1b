"""The temperature at which the scores of a recognizer say how often it is right (Guo et al. 2017, section 4.2)."""

import json
import math
import os
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from tqdm import tqdm

from hf_ocr.data.lines import undecoded_rows
from hf_ocr.evaluation import Prediction, predict
from hf_ocr.metrics import Calibration, line_matches, measure_calibration
from hf_ocr.text import normalise

__all__ = ["CalibrationError", "TemperatureFit", "fit_temperature", "save_temperature"]

BOUNDS = (0.25, 4.0)
PRECISION = 0.02
"""Of the temperature, relative."""


class CalibrationError(ValueError):
    """Lines or a folder to which no temperature can be fitted: says which, and the cure."""


@dataclass(frozen=True)
class TemperatureFit:
    """The best temperature, and what the scores on the lines of the fit are worth at 1 and at it."""

    temperature: float
    before: Calibration
    after: Calibration


def fit_temperature(
    model: Any, processor: Any, rows: Collection[Mapping[str, Any]], batch_size: int = 64
) -> TemperatureFit:
    """Find the temperature at which the score of a line best predicts that the line is read right.

    The likelihood of right and wrong under the scores is what is made largest, and not that of the references: a score
    is to be the probability of what was read. Line by line the scores are those that a user gets, turned and stretched
    readings included, so all lines are read once for each of about a dozen temperatures (golden section).

    Args:
        model: a recognizer (`recognize`, `config.temperature`); it is left as it was.
        processor: its processor.
        rows: {"image": PIL.Image.Image, "text": str} that the model has not been trained on, as a list or a Dataset. A
            line is right if it is read to the letter (NFC, white space collapsed).
        batch_size: lines read together.

    Raises:
        CalibrationError: all lines are read right, or all wrong.
        ValueError: as `hf_ocr.evaluation.predict`.
    """
    before, stored = model.config.temperature, undecoded_rows(rows)

    def read(temperature: float) -> list[Prediction]:
        model.config.temperature = temperature
        shown = tqdm(stored, desc=f"temperature {temperature:.3f}", unit="line", disable=None)
        return predict(model, processor, shown, batch_size)

    try:
        lines = read(1.0)
        texts = ([normalise(line.prediction) for line in lines], [normalise(line.reference) for line in lines])
        right = line_matches(*texts)[0].astype(bool)
        if right.all() or not right.any():
            raise CalibrationError(
                f"Of {len(lines)} lines {int(right.sum())} are read right; expected some right and some wrong. "
                "Give more lines, or harder ones."
            )
        scores_at = {1.0: [line.score for line in lines]}

        def loss(logarithm: float) -> float:
            temperature = round(math.exp(logarithm), 3)
            if temperature not in scores_at:
                scores_at[temperature] = [line.score for line in read(temperature)]
            scores = np.clip(scores_at[temperature], 1e-6, 1 - 1e-6)
            return -float(np.log(np.where(right, scores, 1 - scores)).mean())

        best = _golden_section(loss, math.log(BOUNDS[0]), math.log(BOUNDS[1]), PRECISION)
    finally:
        model.config.temperature = before
    temperature = round(math.exp(best), 3)
    return TemperatureFit(
        temperature, measure_calibration(scores_at[1.0], right), measure_calibration(scores_at[temperature], right)
    )


def save_temperature(folder: str | os.PathLike[str], temperature: float) -> None:
    """Write a temperature into the configuration of a checkpoint and leave the rest as it is.

    Raises:
        CalibrationError: the folder has no configuration, or it is not JSON.
    """
    path = Path(folder, "config.json")
    try:
        config = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise CalibrationError(f"{path}: cannot be read ({error}). Expected the folder of a checkpoint.") from error
    config["temperature"] = temperature
    part = path.with_name("config.json.part")
    part.write_text(json.dumps(dict(sorted(config.items())), indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
    os.replace(part, path)


def _golden_section(function: Callable[[float], float], low: float, high: float, width: float) -> float:
    """The place of the minimum of a function with one valley, to within `width`."""
    ratio = (math.sqrt(5) - 1) / 2
    left, right = high - ratio * (high - low), low + ratio * (high - low)
    at_left, at_right = function(left), function(right)
    while high - low > width:
        if at_left <= at_right:
            high, right, at_right = right, left, at_left
            left = high - ratio * (high - low)
            at_left = function(left)
        else:
            low, left, at_left = left, right, at_right
            right = low + ratio * (high - low)
            at_right = function(right)
    return left if at_left <= at_right else right
