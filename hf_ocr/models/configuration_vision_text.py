"""Configuration of the vision encoder and text decoder for text lines."""

from itertools import pairwise
from typing import Any, Literal

from .configuration_text_recognition import TextRecognitionConfig
from .setting_checks import (
    MAX_SYMBOLS,
    check_choice,
    check_integer,
    check_list,
    check_number,
    check_pair,
    check_parameters,
)


class VisionTextConfig(TextRecognitionConfig):
    """Configuration of `VisionTextModel` and `VisionTextForTextRecognition`.

    The defaults are the small network: 6 M parameters, made for plain CPUs.

    Id 0 stands for everything that is no character: the blank of CTC, padding, the end of a text, and, as an input of
    the decoder, its start. So the alphabet is that of a CTC model, and no two parts can disagree about a special token.

    Args:
        vocab_size: symbols of the alphabet, id 0 included.
        num_channels: 1 (grey) or 3.
        image_height: height of the input, px.
        stem_channels: of the convolutions, all but the last, which has `hidden_size` of them and reduces the height to
            1. With the defaults these are the layers of `CrnnConfig.small()`, and the weights of a CRNN fit.
        stem_strides: (height, width) of the same convolutions; the last has none.
        hidden_size, num_attention_heads, intermediate_size: of all transformer layers.
        encoder_layers, decoder_layers: how many.
        conv_kernel_size: frames that the depthwise convolution in front of each encoder layer sees.
        attention_window: frames to each side that a frame of the encoder attends to; further from where the text has
            been read to, the decoder's attention to the image fades.
        decoder_window: characters, the newest included, that the decoder remembers.
        dropout: in the transformer layers and before the classifiers, in training.
        ctc_weight: share of the CTC head in the loss, the rest is the decoder's; and its share in what is read. More
            than 0: by that head the decoder knows where in the image it is.
        invalid_labels: what `forward` does with a label that cannot be aligned with its image (fewer frames than
            characters plus equal neighbours) or holds ids outside the alphabet: "error", or "skip" (left out of the
            loss and counted in `skipped`).
        empty_labels: "error", "skip", or "blank": train the line to read as nothing.

    Raises:
        ValueError: unequal lists, a share outside [0, 1], or heads that do not divide the hidden size.
    """

    model_type = "vision_text"

    vocab_size: int = 37
    num_channels: int = 1
    image_height: int = 40
    stem_channels: list[int] | tuple[int, ...] = (32, 64, 96, 96, 160, 192, 256)
    stem_strides: list[Any] | tuple[Any, ...] = ((2, 2), (1, 1), (2, 2), (1, 1), (2, 1), (1, 1), (2, 1))
    hidden_size: int = 256
    num_attention_heads: int = 8
    intermediate_size: int = 768
    encoder_layers: int = 4
    decoder_layers: int = 2
    conv_kernel_size: int = 7
    attention_window: int = 64
    decoder_window: int = 32
    dropout: float = 0.1
    ctc_weight: float = 0.3
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
            hidden_size=(1, 4096),
            num_attention_heads=(1, 64),
            intermediate_size=(1, 16_384),
            encoder_layers=(0, 64),
            decoder_layers=(1, 64),
            conv_kernel_size=(1, 255),
            attention_window=(1, 65_536),
            decoder_window=(1, 65_536),
            pad_token_id=(0, 0),
            eos_token_id=(0, 0),
            decoder_start_token_id=(0, 0),
        )
        name = type(self).__name__
        check_choice(f"{name}: num_channels", self.num_channels, (1, 3))
        check_choice(f"{name}: invalid_labels", self.invalid_labels, ("error", "skip"))
        check_choice(f"{name}: empty_labels", self.empty_labels, ("error", "skip", "blank"))
        check_number(f"{name}: dropout", self.dropout, 0, 1)
        check_number(f"{name}: ctc_weight", self.ctc_weight, 0, 1)
        if self.ctc_weight == 0:
            raise ValueError(
                f"{name}: ctc_weight is 0, expected a number above: by the CTC head the decoder knows where in the "
                "image it is. 0.3 is the default."
            )
        check_list(f"{name}: stem_channels", self.stem_channels, 1, 64)
        check_list(f"{name}: stem_strides", self.stem_strides, len(self.stem_channels), len(self.stem_channels))
        for index, (channels, strides) in enumerate(zip(self.stem_channels, self.stem_strides, strict=True)):
            check_integer(f"{name}: stem_channels[{index}]", channels, 1, 4096)
            check_pair(f"{name}: stem_strides[{index}]", strides, 1, 64)
        if self.conv_kernel_size % 2 == 0:
            raise ValueError(f"{name}: conv_kernel_size is {self.conv_kernel_size}, expected an odd number. Change it.")
        if self.hidden_size % (2 * self.num_attention_heads):
            raise ValueError(
                f"{name}: hidden_size {self.hidden_size} does not give each of {self.num_attention_heads} "
                "heads an even number of units. Change num_attention_heads."
            )
        check_parameters(name, self._parameter_count())

    def _parameter_count(self) -> int:
        """Of the weights; the biases are few."""
        channels = [self.num_channels, *self.stem_channels]
        stem = sum(9 * into * out for into, out in pairwise(channels))
        stem += 3 * self.stem_rows * channels[-1] * self.hidden_size
        units, wide = self.hidden_size, self.intermediate_size
        layers = self.encoder_layers * (4 * units + 2 * wide + self.conv_kernel_size) * units
        layers += self.decoder_layers * (8 * units + 2 * wide) * units
        return stem + layers + 3 * units * self.vocab_size

    @property
    def stem_rows(self) -> int:
        """Rows that the last convolution of the stem reduces to 1."""
        rows = self.image_height
        for stride, _ in self.stem_strides:
            rows = -(-rows // stride)
        return rows

    @property
    def frame_width(self) -> int:
        """Columns of the image behind one frame, px."""
        width = 1
        for _, stride in self.stem_strides:
            width *= stride
        return width

    @classmethod
    def small(cls, **kwargs: Any) -> "VisionTextConfig":
        """The network for plain CPUs, which is the default; as `CrnnConfig.small`."""
        return cls(**kwargs)


__all__ = ["VisionTextConfig"]
