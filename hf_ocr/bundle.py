"""A checkpoint folder that stands alone: weights, code, alphabet, processor."""

from pathlib import Path
from typing import Any

import torch


def save_bundle(model: Any, processor: Any, folder: str | Path, weights_dtype: torch.dtype | None = None) -> Path:
    """Write a folder that transformers alone reads, with `trust_remote_code=True`, and hf_ocr without.

    This is what `model.save_pretrained(folder)` and `processor.save_pretrained(folder)` write, checked first, and the
    way to store smaller weights.

    Args:
        model: a recognizer of `MODEL_CLASSES`.
        processor: its processor.
        folder: made if it does not exist; files of the same names are overwritten.
        weights_dtype: stored type of the floating point weights, as torch.float16 for half the size; the model's own
            when None. The folder still loads in the model's own type.

    Returns:
        The folder.

    Raises:
        ValueError: an alphabet that does not fit the model's head, or weights that `weights_dtype` cannot hold.
    """
    symbols, outputs = len(processor.tokenizer), model.config.vocab_size
    if symbols != outputs:
        raise ValueError(
            f"the alphabet does not fit the model: {symbols} symbols in the tokenizer, {outputs} outputs in the head. "
            "Save a model with the processor it was trained with."
        )
    weights = model.state_dict()
    if weights_dtype is not None:
        weights = {name: w.to(weights_dtype) if w.is_floating_point() else w for name, w in weights.items()}
        broken = [name for name, tensor in weights.items() if not tensor.isfinite().all()]
        if broken:
            raise ValueError(
                f"{weights_dtype} cannot hold {', '.join(broken)}: not all values are finite. Store the weights in "
                f"{model.dtype}, or look for what made them so large."
            )
    folder = Path(folder)
    model.save_pretrained(folder, state_dict=weights)
    processor.save_pretrained(folder)
    return folder
