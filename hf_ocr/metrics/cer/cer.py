"""Character error rate as an `evaluate` module: `evaluate.load("hf_ocr/metrics/cer")`."""

import datasets
import evaluate

from hf_ocr.metrics.error_rates import Average, character_error_rate
from hf_ocr.text import PROTOCOLS


class CER(evaluate.Metric):
    """Sum of character edits / sum of reference lengths over all lines, texts as they are given (spaces count)."""

    def _info(self) -> evaluate.MetricInfo:
        return evaluate.MetricInfo(
            description="Character error rate: sum of edits / sum of reference lengths; may exceed 1.",
            citation="",
            inputs_description=(
                "predictions, references: equal numbers of str, compared as given. protocol: compared in the form of "
                f"this name, one of {', '.join(PROTOCOLS)}. average: 'micro', or 'macro' for the mean over lines. "
                "graphemes: count grapheme clusters, not code points. Returns {'cer': float}; ValueError for nothing "
                "to read."
            ),
            features=datasets.Features(
                {"predictions": datasets.Value("string"), "references": datasets.Value("string")}
            ),
        )

    def _compute(
        self,
        predictions: list[str],
        references: list[str],
        protocol: str | None = None,
        average: Average = "micro",
        graphemes: bool = False,
    ) -> dict[str, float]:
        normalise = None if protocol is None else PROTOCOLS[protocol][0]
        return {"cer": character_error_rate(predictions, references, normalise, average, graphemes)}
