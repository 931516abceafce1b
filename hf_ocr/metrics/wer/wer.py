"""Word error rate as an `evaluate` module: `evaluate.load("hf_ocr/metrics/wer")`."""

import datasets
import evaluate

from hf_ocr.metrics.error_rates import Average, word_error_rate
from hf_ocr.text import PROTOCOLS


class WER(evaluate.Metric):
    """Sum of word edits / number of reference words over all lines; words are what white space parts."""

    def _info(self) -> evaluate.MetricInfo:
        return evaluate.MetricInfo(
            description="Word error rate: sum of word edits / number of reference words; it may exceed 1.",
            citation="",
            inputs_description=(
                "predictions, references: lists of str of equal length, parted at white space. protocol: compared in "
                f"the form of this name, one of {', '.join(PROTOCOLS)}. average: 'micro', or 'macro' for the mean over "
                "lines. Returns {'wer': float}; ValueError for nothing to read."
            ),
            features=datasets.Features(
                {"predictions": datasets.Value("string"), "references": datasets.Value("string")}
            ),
        )

    def _compute(
        self, predictions: list[str], references: list[str], protocol: str | None = None, average: Average = "micro"
    ) -> dict[str, float]:
        normalise = None if protocol is None else PROTOCOLS[protocol][0]
        return {"wer": word_error_rate(predictions, references, normalise, average)}
