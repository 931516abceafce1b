"""Configuration of the convolutional recurrent neural network (CRNN) for text lines."""

from math import prod
from typing import Any, Literal, Self

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


class CrnnConfig(TextRecognitionConfig):
    """Configuration of `CrnnModel` and `CrnnForTextRecognition`.

    The defaults are the network of Shi, Bai, Yao: *An End-to-End Trainable Neural Network for Image-based Sequence
    Recognition*, arXiv:1507.05717, table 1, with the linear layer between the two LSTMs that gives the paper's 8.3 M
    parameters. `CrnnConfig.small()` is a trunk for plain CPUs.

    The trunk is a list of convolution layers, described by lists with one entry a layer; (height, width) pairs.

    Args:
        vocab_size: symbols of the alphabet, the blank (id 0) included.
        num_channels: 1 (grey) or 3.
        image_height: height of the input, px. The trunk must reduce it to 1.
        conv_channels: output channels.
        conv_kernels, conv_strides, conv_paddings: px of the layer's input.
        conv_batch_norm: whether batch norm follows (the convolution keeps its bias, as in the paper's count).
        conv_bias: whether the convolutions have a bias.
        conv_ranks: channels between the two kernels of a layer, (height, 1) and (1, width), which take the place of its
            one (Jaderberg, Vedaldi, Zisserman, arXiv:1405.3866, scheme 2); None for one kernel, or for
            none in two anywhere.
        residual_blocks: residual blocks (two 3 x 3 convolutions around which the input is led) before the layer, with
            its channels; None for none anywhere.
        pool_kernels, pool_strides, pool_paddings: max pooling behind the layer; None for none.
        lstm_hidden_size: units a direction.
        num_lstm_layers: bidirectional layers.
        lstm_projection: a linear layer to `lstm_hidden_size` between the recurrent layers, as in the paper.
        lstm_input_size: with `lstm_projection`, a linear layer to so many features before every recurrent layer
            instead; None for none before the first.
        dropout: before the classifier, in training.
        language_model_size: entries of the `CharacterLanguageModel` by which doubtful texts are chosen; None for none.
        language_model_order: characters that it looks at, the one in question included.
        language_model_weight: of its log-probability beside that of the image.
        language_model_bonus: nats added to it for each character and the end, or short texts would be preferred.
        invalid_labels: what `forward` does with a label that cannot be aligned with its image (fewer frames than
            characters plus equal neighbours) or holds ids outside the alphabet: "error", or "skip" (left out of the
            loss and counted in `skipped`).
        empty_labels: "error", "skip", or "blank": train the line to read as nothing.

    Raises:
        ValueError: lists of unequal length, a trunk that does not end at height 1, a setting of the wrong type or
            beyond its bounds, or more than 134 million parameters.
    """

    model_type = "crnn"

    vocab_size: int = 37
    num_channels: int = 1
    image_height: int = 32
    conv_channels: list[int] | tuple[int, ...] = (64, 128, 256, 256, 512, 512, 512)
    conv_kernels: list[Any] | tuple[Any, ...] = ((3, 3), (3, 3), (3, 3), (3, 3), (3, 3), (3, 3), (2, 2))
    conv_strides: list[Any] | tuple[Any, ...] = ((1, 1),) * 7
    conv_paddings: list[Any] | tuple[Any, ...] = ((1, 1), (1, 1), (1, 1), (1, 1), (1, 1), (1, 1), (0, 0))
    conv_batch_norm: list[bool] | tuple[bool, ...] = (False, False, False, False, True, True, False)
    conv_bias: bool = True
    conv_ranks: list[int | None] | tuple[int | None, ...] | None = None
    residual_blocks: list[int] | tuple[int, ...] | None = None
    pool_kernels: list[Any] | tuple[Any, ...] = ((2, 2), (2, 2), None, (2, 2), None, (2, 2), None)
    pool_strides: list[Any] | tuple[Any, ...] = ((2, 2), (2, 2), None, (2, 1), None, (2, 1), None)
    pool_paddings: list[Any] | tuple[Any, ...] = ((0, 0), (0, 0), None, (0, 1), None, (0, 1), None)
    lstm_hidden_size: int = 256
    num_lstm_layers: int = 2
    lstm_projection: bool = True
    lstm_input_size: int | None = None
    dropout: float = 0.0
    language_model_size: int | None = None
    language_model_order: int = 6
    language_model_weight: float = 0.2
    language_model_bonus: float = 2.0
    invalid_labels: Literal["error", "skip"] = "error"
    empty_labels: Literal["error", "skip", "blank"] = "error"
    pad_token_id: int = 0

    def __post_init__(self, **kwargs: Any) -> None:
        super().__post_init__(**kwargs)
        name = type(self).__name__
        self._check_integers(
            vocab_size=(2, MAX_SYMBOLS), image_height=(1, 1024), lstm_hidden_size=(1, 4096), num_lstm_layers=(1, 16)
        )
        check_choice(f"{name}: num_channels", self.num_channels, (1, 3))
        check_choice(f"{name}: conv_bias", self.conv_bias, (True, False))
        check_choice(f"{name}: lstm_projection", self.lstm_projection, (True, False))
        if self.lstm_input_size is not None:
            check_integer(f"{name}: lstm_input_size", self.lstm_input_size, 1, 4096)
            if not self.lstm_projection:
                raise ValueError(
                    f"{name}: lstm_input_size={self.lstm_input_size} without lstm_projection. Set lstm_projection to "
                    "True, or leave lstm_input_size out."
                )
        check_choice(f"{name}: invalid_labels", self.invalid_labels, ("error", "skip"))
        check_choice(f"{name}: empty_labels", self.empty_labels, ("error", "skip", "blank"))
        check_number(f"{name}: dropout", self.dropout, 0, 1)
        if self.language_model_size is not None:
            check_integer(f"{name}: language_model_size", self.language_model_size, 1, 10_000_000)
        check_integer(f"{name}: language_model_order", self.language_model_order, 2, 7)
        check_number(f"{name}: language_model_weight", self.language_model_weight, 0, 10)
        check_number(f"{name}: language_model_bonus", self.language_model_bonus, 0, 100)
        self._check_trunk(name)
        height = self.image_height
        for kernel, stride, padding in self.downsampling():
            height = (height + 2 * padding[0] - kernel[0]) // stride[0] + 1
        if height != 1:
            raise ValueError(
                f"{name}: the trunk reduces image_height={self.image_height} px to {height} rows, expected 1. "
                "Change image_height, or the kernels and strides of the last layers."
            )

        check_parameters(name, self._parameter_count())

    def _check_trunk(self, name: str) -> None:
        names = ("conv_channels", "conv_kernels", "conv_strides", "conv_paddings", "conv_batch_norm",
                 "pool_kernels", "pool_strides", "pool_paddings")  # fmt: skip
        lists = {list_name: getattr(self, list_name) for list_name in names}
        for optional in ("conv_ranks", "residual_blocks"):
            if getattr(self, optional) is not None:
                lists[optional] = getattr(self, optional)
        for list_name, entries in lists.items():
            check_list(f"{name}: {list_name}", entries, 1, 64)
        counts = {list_name: len(entries) for list_name, entries in lists.items()}
        if len(set(counts.values())) != 1:
            raise ValueError(f"{name}: every layer list needs one entry a layer, got {counts}. Give equal lengths.")
        for i in range(len(self.conv_channels)):
            check_integer(f"{name}: conv_channels[{i}]", self.conv_channels[i], 1, 4096)
            check_choice(f"{name}: conv_batch_norm[{i}]", self.conv_batch_norm[i], (True, False))
            check_pair(f"{name}: conv_kernels[{i}]", self.conv_kernels[i], 1, 64)
            check_pair(f"{name}: conv_strides[{i}]", self.conv_strides[i], 1, 64)
            check_pair(f"{name}: conv_paddings[{i}]", self.conv_paddings[i], 0, 64)
            if self.conv_ranks is not None and self.conv_ranks[i] is not None:
                check_integer(f"{name}: conv_ranks[{i}]", self.conv_ranks[i], 1, 4096)
            if self.residual_blocks is not None:
                check_integer(f"{name}: residual_blocks[{i}]", self.residual_blocks[i], 0, 64)
            if self.pool_kernels[i] is not None:
                check_pair(f"{name}: pool_kernels[{i}]", self.pool_kernels[i], 1, 64)
                check_pair(f"{name}: pool_strides[{i}]", self.pool_strides[i], 1, 64)
                # PyTorch: a window of padding alone has no maximum.
                check_pair(f"{name}: pool_paddings[{i}]", self.pool_paddings[i], 0, min(self.pool_kernels[i]) // 2)

    def _parameter_count(self) -> int:
        """Of the weights; the biases are few."""
        channels = [self.num_channels, *self.conv_channels]
        trunk = 0
        for i, kernel in enumerate(self.conv_kernels):
            rank = self.conv_ranks[i] if self.conv_ranks is not None else None
            inputs = channels[i + 1] if self.residual_blocks is not None and self.residual_blocks[i] else channels[i]
            if rank is None:
                trunk += inputs * channels[i + 1] * prod(kernel)
            else:
                trunk += rank * (inputs * kernel[0] + channels[i + 1] * kernel[1])
        trunk += sum(18 * count * channels[i + 1] ** 2 for i, count in enumerate(self.residual_blocks or ()))
        hidden = self.lstm_hidden_size
        recurrent = 8 * hidden * (channels[-1] + hidden) + channels[-1] * (self.lstm_input_size or 0)
        recurrent += (self.num_lstm_layers - 1) * (8 * hidden * 3 * hidden + 2 * hidden * hidden)
        return trunk + recurrent + 2 * hidden * self.vocab_size

    def downsampling(self) -> list[tuple[Any, Any, Any]]:
        """(kernel, stride, padding), each (height, width), of all convolutions and pools in order of execution."""
        steps = []
        for i in range(len(self.conv_channels)):
            steps.append((self.conv_kernels[i], self.conv_strides[i], self.conv_paddings[i]))
            if self.pool_kernels[i] is not None:
                steps.append((self.pool_kernels[i], self.pool_strides[i], self.pool_paddings[i]))
        return steps

    @classmethod
    def small(cls, **kwargs: Any) -> Self:
        """A trunk for plain CPUs: strided convolutions instead of pools, few channels while the map is large,
        horizontal stride 4; height 40 px unless `image_height` says otherwise (32 to 48 work)."""
        height = kwargs.get("image_height", 40)
        rows = -(-height // 16)
        defaults: dict[str, Any] = {
            "image_height": height,
            "conv_channels": [32, 64, 96, 96, 160, 192, 256, 256],
            "conv_kernels": [[3, 3]] * 7 + [[rows, 3]],
            "conv_strides": [[2, 2], [1, 1], [2, 2], [1, 1], [2, 1], [1, 1], [2, 1], [1, 1]],
            "conv_paddings": [[1, 1]] * 7 + [[0, 1]],
            "conv_batch_norm": [True] * 8,
            "pool_kernels": [None] * 8,
            "pool_strides": [None] * 8,
            "pool_paddings": [None] * 8,
            "lstm_hidden_size": 192,
            "lstm_projection": False,
            "dropout": 0.1,
        }
        return cls(**{**defaults, **kwargs})
