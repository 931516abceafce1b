"""Image processors and tokenizers of transformers as training and inspection want them."""

from functools import cached_property
from typing import Any

__all__ = ["SizedImageProcessor", "WritableTokenizer"]


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
