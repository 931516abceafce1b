"""Configuration of attention OCR: the trunk and LSTMs of a CRNN, read by an LSTM that attends to them."""

from typing import Any, Self

from .configuration_crnn import CrnnConfig
from .setting_checks import check_choice, check_number, check_parameters


class AttentionOcrConfig(CrnnConfig):
    """Configuration of `AttentionOcrModel` and `AttentionOcrForTextRecognition`.

    The encoder is described as that of a CRNN is, see `CrnnConfig`; `AttentionOcrConfig.small()` has the trunk and the
    LSTMs of `CrnnConfig.small()`. `AttentionOcrConfig.trba()` is TRBA of Baek et al., *What Is Wrong With Scene Text
    Recognition Model Comparisons?*, arXiv:1904.01906.

    Id 0 of the alphabet, the blank of the CTC head, is what the decoder starts from and what it ends a text with.

    Args:
        rectifier_points: control points of the thin plate spline that straightens an image before it is read, an even
            number; 0 for none.
        feature_projection: a linear layer to `lstm_hidden_size` behind the last recurrent layer.
        decoder_hidden_size: units of the decoder's LSTM.
        attention_size: units of the additive attention, all heads together.
        num_attention_heads: parts of the attention, each with its own weights over the frames.
        location_kernel: frames, an odd number, of the convolution by which the attention sees where it has been
            (Chorowski et al., arXiv:1506.07503, section 2.1); 0 for none.
        location_channels: its output channels.
        ctc_weight: share of the encoder's own CTC head in the loss, the rest is the decoder's; and its share in what is
            read. With the head the attention also knows how many characters lie to the left of each frame, which keeps
            it in its place on long lines; 0 for none of these.

    Raises:
        ValueError: as `CrnnConfig`, and for what does not fit together.
    """

    model_type = "attention_ocr"

    rectifier_points: int = 0
    feature_projection: bool = False
    decoder_hidden_size: int = 256
    attention_size: int = 256
    num_attention_heads: int = 1
    location_kernel: int = 15
    location_channels: int = 8
    ctc_weight: float = 0.3
    is_encoder_decoder: bool = True
    eos_token_id: int = 0
    decoder_start_token_id: int = 0

    def __post_init__(self, **kwargs: Any) -> None:
        super().__post_init__(**kwargs)
        self._check_integers(
            rectifier_points=(0, 100),
            decoder_hidden_size=(1, 4096),
            attention_size=(1, 4096),
            num_attention_heads=(1, 64),
            location_kernel=(0, 255),
            location_channels=(1, 512),
            eos_token_id=(0, 0),
            decoder_start_token_id=(0, 0),
        )
        check_choice("AttentionOcrConfig: feature_projection", self.feature_projection, (True, False))
        check_number("AttentionOcrConfig: ctc_weight", self.ctc_weight, 0, 1)
        heads = self.num_attention_heads
        for fits, problem in (
            (self.rectifier_points % 2 == 0, f"rectifier_points is {self.rectifier_points}, expected an even number"),
            (self.rectifier_points != 2, "rectifier_points is 2, expected at least 4, or 0"),
            (
                self.location_kernel == 0 or self.location_kernel % 2 == 1,
                f"location_kernel is {self.location_kernel}, expected an odd number, or 0",
            ),
            (self.ctc_weight < 1, f"ctc_weight is {self.ctc_weight}, expected 0 to below 1"),
            (
                self.attention_size % heads == 0 and self.feature_size % heads == 0,
                f"num_attention_heads is {heads}, expected a divisor of attention_size ({self.attention_size}) and of "
                f"the features ({self.feature_size})",
            ),
        ):
            if not fits:
                raise ValueError(f"AttentionOcrConfig: {problem}. Change it.")
        units, attention, features = self.decoder_hidden_size, self.attention_size, self.feature_size
        decoder = 4 * units * (units + features + self.vocab_size) + units * self.vocab_size
        check_parameters("AttentionOcrConfig", self._parameter_count() + decoder + attention * (units + features))

    @property
    def feature_size(self) -> int:
        """Of the vector of a frame."""
        return self.lstm_hidden_size * (1 if self.feature_projection else 2)

    @classmethod
    def small(cls, **kwargs: Any) -> Self:
        """The encoder of `CrnnConfig.small()`, whose weights it can begin with, and an attention of half the size."""
        return super().small(**{"attention_size": 128, **kwargs})

    @classmethod
    def trba(cls, **kwargs: Any) -> Self:
        """TRBA: thin plate spline, a residual trunk of 29 layers, two LSTMs, plain additive attention; images of 32 px
        height. 38 symbols are its 36 characters, start and end: here start and end are one."""
        defaults: dict[str, Any] = {
            "vocab_size": 38,
            "conv_channels": [32, 64, 128, 256, 512, 512, 512],
            "conv_kernels": [[3, 3]] * 5 + [[2, 2]] * 2,
            "conv_strides": [[1, 1]] * 5 + [[2, 1], [1, 1]],
            "conv_paddings": [[1, 1]] * 5 + [[0, 1], [0, 0]],
            "conv_batch_norm": [True] * 7,
            "conv_bias": False,
            "residual_blocks": [0, 0, 1, 2, 5, 3, 0],
            "pool_kernels": [None, [2, 2], [2, 2], [2, 2], None, None, None],
            "pool_strides": [None, [2, 2], [2, 2], [2, 1], None, None, None],
            "pool_paddings": [None, [0, 0], [0, 0], [0, 1], None, None, None],
            "rectifier_points": 20,
            "feature_projection": True,
            "location_kernel": 0,
            "ctc_weight": 0.0,
        }
        return cls(**{**defaults, **kwargs})
