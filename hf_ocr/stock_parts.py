"""Image processors and tokenizers of transformers as training and inspection want them."""

import os
from abc import ABC, abstractmethod
from collections.abc import Sequence
from functools import cached_property
from typing import Any

import torch
from PIL import Image
from torch import nn

from hf_ocr.models.processing_text_recognition import IGNORED

__all__ = ["SizedImageProcessor", "StockProcessor", "WritableTokenizer", "padded"]


class _Around:
    """Answers as the part inside does, and knows a little more."""

    def __init__(self, part: Any) -> None:
        self.part = part

    def __getattr__(self, name: str) -> Any:
        if name == "part":  # before it is there, while it is copied or unpickled
            raise AttributeError(name)
        return getattr(self.part, name)

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        return self.part(*args, **kwargs)

    def __len__(self) -> int:
        return len(self.part)


class SizedImageProcessor(_Around):
    """An image processor that gives every image one size."""

    def cut_to_text(self, image: Image.Image) -> Image.Image:
        """All of it: what surrounds the text may mean something, as on a page."""
        return image

    def resized_width(self, width: int, height: int) -> int:
        """All lines are alike to it: those of a batch are chosen without regard to their widths."""
        return 1


class WritableTokenizer(_Around):
    """A tokenizer that gives labels, and says what can be written with it."""

    def label_ids(self, text: str) -> list[int]:
        """The ids of a text, and the end."""
        return [*self.part(text, add_special_tokens=False)["input_ids"], self.part.eos_token_id]

    @cached_property
    def alphabet(self) -> list[str]:
        """The characters that come back as they were when they are decoded."""
        known = [chr(code) for code in range(32, 0x10000) if chr(code).isprintable()]
        decoded = self.part.batch_decode(
            self.part([f"a{character}a" for character in known], add_special_tokens=False)["input_ids"],
            skip_special_tokens=True, clean_up_tokenization_spaces=False,
        )  # fmt: skip
        return [c for c, text in zip(known, decoded, strict=True) if text.strip() == f"a{c}a"]


class StockProcessor(ABC):
    """Stock image processor and tokenizer as training wants a processor.

    Args:
        image_processor: it gets RGB images; all come out in one size.
        tokenizer: of the same checkpoint.
    """

    def __init__(self, image_processor: Any, tokenizer: Any) -> None:
        self.image_processor = SizedImageProcessor(image_processor)
        self.tokenizer = tokenizer

    @abstractmethod
    def labels(self, texts: Sequence[str]) -> torch.Tensor:
        """Ids of texts with their ends, int64, padded with -100."""

    def __call__(self, images: Any = None, text: Any = None, return_tensors: str | None = None) -> dict[str, Any]:
        """pixel_values of images, and `labels` of texts."""
        features: dict[str, Any] = {}
        if images is not None:
            images = [image.convert("RGB") for image in images]
            features["pixel_values"] = self.image_processor(images, return_tensors="pt")["pixel_values"]
        if text is not None:
            features["labels"] = self.labels([text] if isinstance(text, str) else text)
        return features

    def save_pretrained(self, save_directory: str | os.PathLike[str]) -> None:
        """The files of both."""
        self.image_processor.save_pretrained(save_directory)
        self.tokenizer.save_pretrained(save_directory)


def padded(rows: Sequence[Sequence[int]]) -> torch.Tensor:
    """Ids as labels: int64 (B, L), padded with -100."""
    return nn.utils.rnn.pad_sequence([torch.tensor(row) for row in rows], batch_first=True, padding_value=IGNORED)
