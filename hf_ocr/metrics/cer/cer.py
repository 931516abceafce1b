"""Character error rate as an `evaluate` module: `evaluate.load("hf_ocr/metrics/cer")`."""

import datasets
import evaluate

from hf_ocr.metrics.error_rates import character_error_rate
from hf_ocr.text import ignore_case as lower


class CER(evaluate.Metric):
    """Sum of character edits / sum of reference lengths over all lines, texts as they are given (spaces count)."""

    def _info(self) -> evaluate.MetricInfo:
        return evaluate.MetricInfo(
            description="Character error rate: sum of edits / sum of reference lengths, in code points; may exceed 1.",
            citation="",
            inputs_description=(
                "predictions, references: equal numbers of str, compared as given. ignore_case: compare "
                "NFC, white space collapsed, in lower case. Returns {'cer': float}; ValueError for nothing to read."
            ),
            features=datasets.Features(
                {"predictions": datasets.Value("string"), "references": datasets.Value("string")}
            ),
        )

    def _compute(self, predictions: list[str], references: list[str], ignore_case: bool = False) -> dict[str, float]:
        return {"cer": character_error_rate(predictions, references, lower if ignore_case else None)}
