"""Configuration of the PP-OCRv6 small recognizer."""

from math import prod
from typing import Any, Literal

from transformers import PPLCNetV4Config, PPOCRV6SmallRecConfig

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

STEM_STRIDE = 4  # of PP-LCNetV4's stem, both ways
POOL = (3, 2)  # rows and columns that become one frame, behind the last stage
# Blocks of each stage: (kernel, channels in, channels out, stride, squeeze and excitation).
STAGES = (
    ((3, 96, 96, 1, True),),
    ((3, 96, 96, 1, False),) * 2,
    ((3, 96, 192, (2, 1), False), (3, 192, 192, 1, True), (3, 192, 192, 1, False), (3, 192, 192, 1, True),
     (3, 192, 192, 1, False), (3, 192, 192, 1, True), (3, 192, 192, 1, False)),
    ((3, 192, 384, (2, 1), False), (3, 384, 384, 1, True), (3, 384, 384, 1, False)),
)  # fmt: skip


class PpOcrConfig(TextRecognitionConfig):
    """Configuration of `PpOcrModel` and `PpOcrForTextRecognition`.

    The defaults are PP-OCRv6 small of the PaddleOCR project, whose layers transformers has: PP-LCNetV4, then the
    encoder of SVTR. `hf-ocr convert rapidocr` makes a checkpoint with its weights.

    Args:
        vocab_size: symbols of the alphabet, the blank (id 0) included.
        num_channels: 3 (RGB).
        image_height: height of the input, px. The trunk must reduce it to 3 rows, which are then averaged.
        stem_channels: of the two parts of the stem.
        stages: four lists of blocks (kernel, channels in, channels out, stride, squeeze and excitation), a stride being
            a number or (vertical, horizontal).
        squeeze_reduction: channels a squeezed channel.
        hidden_size, num_hidden_layers, num_attention_heads, mlp_ratio: of the transformer blocks.
        conv_kernel_size: (rows, columns) of the convolution in front of them.
        dropout: before the classifier, in training.
        freeze_batch_norm: while it trains, batch norms use their stored statistics and not those of the batch; their
            scale and bias learn all the same. Needed where the stored ones are not what batches have, as in a
            checkpoint whose norms were folded into the convolutions.
        invalid_labels: what `forward` does with a label that cannot be aligned with its image (fewer frames than
            characters plus equal neighbours) or holds ids outside the alphabet: "error", or "skip" (left out of the
            loss and counted in `skipped`).
        empty_labels: "error", "skip", or "blank": train the line to read as nothing.

    Raises:
        ValueError: a trunk that does not end at 3 rows, frames that do not fill the padded width, blocks that do not
            follow from one another, a setting of the wrong type or beyond its bounds, or more than 134 million
            parameters.
    """

    model_type = "pp_ocr"

    vocab_size: int = 18710
    num_channels: int = 3
    image_height: int = 48
    stem_channels: list[int] | tuple[int, ...] = (48, 96)
    stages: list[Any] | tuple[Any, ...] = STAGES
    squeeze_reduction: int = 4
    hidden_size: int = 120
    num_hidden_layers: int = 2
    num_attention_heads: int = 8
    mlp_ratio: float = 2.0
    conv_kernel_size: list[int] | tuple[int, ...] = (1, 7)
    dropout: float = 0.0
    freeze_batch_norm: bool = False
    invalid_labels: Literal["error", "skip"] = "error"
    empty_labels: Literal["error", "skip", "blank"] = "error"
    pad_token_id: int = 0

    def __post_init__(self, **kwargs: Any) -> None:
        super().__post_init__(**kwargs)
        self._check_integers(
            vocab_size=(2, MAX_SYMBOLS),
            image_height=(1, 1024),
            squeeze_reduction=(1, 64),
            hidden_size=(1, 2048),
            num_hidden_layers=(0, 32),
            num_attention_heads=(1, 64),
        )
        check_choice("PpOcrConfig: num_channels", self.num_channels, (1, 3))
        check_choice("PpOcrConfig: freeze_batch_norm", self.freeze_batch_norm, (True, False))
        check_choice("PpOcrConfig: invalid_labels", self.invalid_labels, ("error", "skip"))
        check_choice("PpOcrConfig: empty_labels", self.empty_labels, ("error", "skip", "blank"))
        check_number("PpOcrConfig: mlp_ratio", self.mlp_ratio, 0.1, 16)
        check_number("PpOcrConfig: dropout", self.dropout, 0, 1)
        check_pair("PpOcrConfig: stem_channels", self.stem_channels, 2, 2048)
        check_pair("PpOcrConfig: conv_kernel_size", self.conv_kernel_size, 1, 31)
        self._check_stages()
        if self.hidden_size % self.num_attention_heads:
            raise ValueError(
                f"PpOcrConfig: hidden_size is {self.hidden_size}, expected a multiple of num_attention_heads, "
                f"{self.num_attention_heads}. Change either."
            )
        rows = -(-self.image_height // (STEM_STRIDE * self._stride(0)))
        if rows != POOL[0]:
            raise ValueError(
                f"PpOcrConfig: the trunk reduces image_height={self.image_height} px to {rows} rows, expected "
                f"{POOL[0]}. Change image_height, or the strides of the stages."
            )
        if 32 % self.frame_width:
            raise ValueError(
                f"PpOcrConfig: a frame is {self.frame_width} px wide, expected a divisor of 32, the step in which "
                "images are padded. Change the strides of the stages."
            )

    def _check_stages(self) -> None:
        check_list("PpOcrConfig: stages", self.stages, 4, 4)
        channels = self.stem_channels[1]
        for number, stage in enumerate(self.stages):
            check_list(f"PpOcrConfig: stages[{number}]", stage, 1, 32)
            for block in stage:
                name = f"PpOcrConfig: a block of stages[{number}]"
                check_list(name, block, 5, 5)
                kernel, before, behind, stride, squeezed = block
                check_choice(f"{name}: kernel", kernel, (1, 3, 5, 7, 9))
                check_choice(f"{name}: channels in", before, (channels,))
                check_integer(f"{name}: channels out", behind, self.squeeze_reduction, 2048)
                check_pair(f"{name}: stride", (stride, stride) if type(stride) is int else stride, 1, 8)
                check_choice(f"{name}: squeeze and excitation", squeezed, (True, False))
                channels = behind
        # A block widens its channels twofold and narrows them again; squeeze and excitation adds less than that.
        parameters = sum(6 * max(block[1:3]) ** 2 for stage in self.stages for block in stage)
        parameters += self.num_hidden_layers * int(4 + 2 * self.mlp_ratio) * self.hidden_size**2
        parameters += self.hidden_size * (self.vocab_size + 2 * channels * prod(self.conv_kernel_size))
        check_parameters("PpOcrConfig", parameters)

    @property
    def frame_width(self) -> int:
        """Columns of the image behind one frame, px."""
        return STEM_STRIDE * self._stride(1) * POOL[1]

    def _stride(self, axis: int) -> int:
        """Of all stages together; axis 0 is vertical."""
        strides = (block[3] for stage in self.stages for block in stage)
        return prod(stride if isinstance(stride, int) else stride[axis] for stride in strides)

    def backbone_config(self) -> PPLCNetV4Config:
        """Of transformers' PP-LCNetV4."""
        return PPLCNetV4Config(
            num_channels=self.num_channels,
            stem_channels=[self.num_channels, *self.stem_channels],
            block_configs=[[list(block) for block in stage] for stage in self.stages],
            reduction=self.squeeze_reduction,
            out_features=["stage4"],
        )

    def encoder_config(self) -> PPOCRV6SmallRecConfig:
        """Of transformers' SVTR encoder."""
        return PPOCRV6SmallRecConfig(
            backbone_config=self.backbone_config(),
            hidden_size=self.hidden_size,
            depth=self.num_hidden_layers,
            num_attention_heads=self.num_attention_heads,
            mlp_ratio=self.mlp_ratio,
            conv_kernel_size=list(self.conv_kernel_size),
        )


__all__ = ["PpOcrConfig"]
