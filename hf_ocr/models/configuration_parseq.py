"""Configuration of PARSeq."""

from typing import Any, Literal, Self

from .configuration_text_recognition import TextRecognitionConfig
from .setting_checks import (
    MAX_SYMBOLS,
    check_choice,
    check_number,
    check_pair,
    check_parameters,
)


class ParseqConfig(TextRecognitionConfig):
    """Configuration of `ParseqModel` and `ParseqForTextRecognition`.

    The defaults are PARSeq as published: 23.8 M parameters, for words of at most 25 of 94 characters. Its images are
    words stretched to 128 x 32 px, RGB: `TextLineImageProcessor(height=32, min_width=128, max_width=128,
    num_channels=3)`. The model stretches those of another width itself.

    Id 0 stands for everything that is no character: padding, the end of a text, and, as an input of the decoder, its
    start.

    Args:
        vocab_size: symbols of the alphabet, id 0 included.
        num_channels: 1 (grey) or 3 (RGB).
        image_height, image_width: of what the encoder sees, px.
        patch_size: (rows, columns) of the image that become one vector, px.
        hidden_size: of the encoder and of the decoder.
        encoder_layers: how many; the decoder has one.
        num_attention_heads, decoder_attention_heads: of the encoder, and of the decoder.
        mlp_ratio: units of the feed-forward layers for each of the hidden size.
        initializer_range: standard deviation of fresh weights.
        dropout: in the decoder, in training; the encoder has none.
        max_label_length: characters of the longest text that can be learnt or read.
        num_permutations: orders in which the characters of a text are learnt: 1 is from left to right alone, an even
            number adds the way back, and pairs of random orders and their reverse.
        num_refinements: how often each character of what was read greedily is read again, with all others known.
        invalid_labels: what `forward` does with a label that is longer than `max_label_length` or holds ids outside the
            alphabet: "error", or "skip" (left out of the loss and counted in `skipped`).
        empty_labels: "error", "skip", or "blank": train the line to read as nothing.

    Raises:
        ValueError: patches or heads that do not divide what they share, an odd number of orders, a setting of the wrong
            type or beyond its bounds, or more than 134 million parameters.
    """

    model_type = "parseq"

    vocab_size: int = 95
    num_channels: int = 3
    image_height: int = 32
    image_width: int = 128
    patch_size: list[int] | tuple[int, ...] = (4, 8)
    hidden_size: int = 384
    encoder_layers: int = 12
    num_attention_heads: int = 6
    decoder_attention_heads: int = 12
    mlp_ratio: int = 4
    initializer_range: float = 0.02
    dropout: float = 0.1
    max_label_length: int = 25
    num_permutations: int = 6
    num_refinements: int = 1
    invalid_labels: Literal["error", "skip"] = "error"
    empty_labels: Literal["error", "skip", "blank"] = "error"
    is_encoder_decoder: bool = True
    pad_token_id: int = 0
    eos_token_id: int = 0
    decoder_start_token_id: int = 0

    def __post_init__(self, **kwargs: Any) -> None:
        super().__post_init__(**kwargs)
        self._check_integers(
            vocab_size=(2, MAX_SYMBOLS),
            image_height=(1, 1024),
            image_width=(1, 4096),
            hidden_size=(1, 4096),
            encoder_layers=(0, 64),
            num_attention_heads=(1, 64),
            decoder_attention_heads=(1, 64),
            mlp_ratio=(1, 16),
            max_label_length=(1, 1024),
            num_permutations=(1, 64),
            num_refinements=(0, 16),
            pad_token_id=(0, 0),
            eos_token_id=(0, 0),
            decoder_start_token_id=(0, 0),
        )
        check_choice("ParseqConfig: num_channels", self.num_channels, (1, 3))
        check_choice("ParseqConfig: invalid_labels", self.invalid_labels, ("error", "skip"))
        check_choice("ParseqConfig: empty_labels", self.empty_labels, ("error", "skip", "blank"))
        check_number("ParseqConfig: initializer_range", self.initializer_range, 1e-6, 10)
        check_number("ParseqConfig: dropout", self.dropout, 0, 1)
        check_pair("ParseqConfig: patch_size", self.patch_size, 1, 1024)
        for whole, part in (
            ("image_height", self.patch_size[0]),
            ("image_width", self.patch_size[1]),
            ("hidden_size", self.num_attention_heads),
            ("hidden_size", self.decoder_attention_heads),
        ):
            if getattr(self, whole) % part:
                raise ValueError(
                    f"ParseqConfig: {whole} is {getattr(self, whole)}, expected a multiple of {part} (patch_size, "
                    "num_attention_heads, decoder_attention_heads). Change either."
                )
        if self.num_permutations > 1 and self.num_permutations % 2:
            raise ValueError(
                f"ParseqConfig: num_permutations is {self.num_permutations}, expected 1 or an even number: each order "
                "is learnt with its reverse. Change it."
            )
        units, rows = self.hidden_size, self.grid[0] * self.grid[1]
        layers = (self.encoder_layers * (4 + 2 * self.mlp_ratio) + 8 + 2 * self.mlp_ratio) * units**2
        vectors = self.num_channels * self.patch_size[0] * self.patch_size[1] + rows + self.max_label_length
        check_parameters("ParseqConfig", layers + (vectors + 2 * self.vocab_size) * units)

    @property
    def grid(self) -> tuple[int, int]:
        """(rows, columns) of the patches of an image."""
        return self.image_height // self.patch_size[0], self.image_width // self.patch_size[1]

    @classmethod
    def small(cls, **kwargs: Any) -> Self:
        """PARSeq-S of the paper, which is the default."""
        return cls(**kwargs)

    @classmethod
    def tiny(cls, **kwargs: Any) -> Self:
        """PARSeq-Ti of the paper: 6 M parameters."""
        return cls(**{"hidden_size": 192, "num_attention_heads": 3, "decoder_attention_heads": 6, **kwargs})


__all__ = ["ParseqConfig"]
