"""Configuration of the vision encoder and text decoder for text lines."""

from typing import Any, Literal

from .configuration_text_recognition import TextRecognitionConfig


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
        ctc_weight: share of the CTC head in the loss, the rest is the decoder's; and its share in what is read. 0 is
            the decoder alone.
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
        for name, allowed in (("invalid_labels", ("error", "skip")), ("empty_labels", ("error", "skip", "blank"))):
            if getattr(self, name) not in allowed:
                raise ValueError(f"VisionTextConfig: {name} is {getattr(self, name)!r}, expected one of {allowed}.")
        if len(self.stem_channels) != len(self.stem_strides):
            raise ValueError(
                f"VisionTextConfig: {len(self.stem_channels)} stem_channels and {len(self.stem_strides)} stem_strides. "
                "Give one of each for every convolution but the last."
            )
        if not 0.0 <= self.ctc_weight <= 1.0:
            raise ValueError(f"VisionTextConfig: ctc_weight is {self.ctc_weight}, expected a share, 0 to 1.")
        if self.hidden_size % (2 * self.num_attention_heads):
            raise ValueError(
                f"VisionTextConfig: hidden_size {self.hidden_size} does not give each of {self.num_attention_heads} "
                "heads an even number of units. Change num_attention_heads."
            )
        special = {name: getattr(self, name) for name in ("pad_token_id", "eos_token_id", "decoder_start_token_id")}
        if any(special.values()):
            raise ValueError(f"VisionTextConfig: {special}, expected 0 for each. Leave them out.")

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
