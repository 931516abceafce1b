"""Image processor and tokenizer of a recognizer in one object."""

import os
from collections.abc import Sequence
from typing import Any

import numpy as np
from transformers import ProcessorMixin
from transformers.feature_extraction_utils import BatchFeature

IGNORED = -100  # label value that no loss counts


class TextRecognitionProcessor(ProcessorMixin):
    """Images to `pixel_values` and `widths`, texts to `labels`, and ids back to text.

    Args:
        image_processor: a `TextLineImageProcessor`.
        tokenizer: a `CharacterTokenizer`.
    """

    def __init__(self, image_processor: Any = None, tokenizer: Any = None, **kwargs: Any) -> None:
        super().__init__(image_processor, tokenizer, **kwargs)

    def __call__(
        self,
        images: Any = None,
        text: str | Sequence[str] | None = None,
        return_tensors: str | None = None,
    ) -> BatchFeature:
        """Prepare lines for a recognizer.

        Args:
            images: one image or a list of them, as the image processor takes.
            text: one text or a list of them, as many as images.
            return_tensors: "pt", "np", or None, which gives NumPy arrays as "np" does.

        Returns:
            With images: pixel_values float32 (B, C, H, W) and widths int64 (B,), px.
            With text: labels int64 (B, L), padded with -100.

        Raises:
            ValueError: neither images nor text; unequal numbers of them; a character outside the alphabet.
            ImageError: (a ValueError) an image that cannot be read or is no text line.
        """
        if images is None and text is None:
            raise ValueError("TextRecognitionProcessor: neither images nor text. Expected at least one of them.")
        features: dict[str, np.ndarray] = {}
        if images is not None:
            features.update(self.image_processor(images, return_tensors="np"))
        if text is not None:
            texts = [text] if isinstance(text, str) else text
            rows = [self.tokenizer.label_ids(line) for line in texts]
            if images is not None and len(rows) != len(features["widths"]):
                raise ValueError(
                    f"TextRecognitionProcessor: {len(features['widths'])} images and {len(rows)} texts. "
                    "Expected one text for each image."
                )
            labels = np.full((len(rows), max(map(len, rows), default=0)), IGNORED, dtype=np.int64)
            for label, ids in zip(labels, rows, strict=True):
                label[: len(ids)] = ids
            features["labels"] = labels
        return BatchFeature(features, tensor_type=return_tensors)

    @property
    def model_input_names(self) -> list[str]:
        """What `__call__` gives a model."""
        return ["pixel_values", "widths", "labels"]

    def decode(self, token_ids: Any, skip_special_tokens: bool = True, **kwargs: Any) -> str:
        """Text of one sequence of ids: list, array or tensor (L,), padded with 0 or -100.

        Repeated ids are repeated characters: a recognizer's `recognize` has collapsed what CTC repeats.
        """
        return self.tokenizer.decode(token_ids, skip_special_tokens=skip_special_tokens, **kwargs)

    def batch_decode(self, sequences: Any, skip_special_tokens: bool = True, **kwargs: Any) -> list[str]:
        """Texts of a batch: list of sequences, array or tensor (B, L), as `decode`; (0, L) gives []."""
        return self.tokenizer.batch_decode(sequences, skip_special_tokens=skip_special_tokens, **kwargs)

    def save_pretrained(
        self, save_directory: str | os.PathLike[str], push_to_hub: bool = False, **kwargs: Any
    ) -> list[str]:
        """Write `processor_config.json` and the tokenizer's files, and `preprocessor_config.json`, from which
        transformers 4 and whoever wants the image processor alone read; returns the paths of the two.

        With `push_to_hub` it is then published; `kwargs` are those of the method of that name, with the name of the
        folder as `repo_id` where there is none.
        """
        files = [*super().save_pretrained(save_directory), *self.image_processor.save_pretrained(save_directory)]
        if push_to_hub:  # not by the base class, which would upload before the last file is there
            self.push_to_hub(kwargs.pop("repo_id", os.path.basename(os.path.abspath(save_directory))), **kwargs)
        return files
