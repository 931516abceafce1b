"""CRNN: convolutions, bidirectional LSTMs, connectionist temporal classification (Shi et al., arXiv:1507.05717)."""

from typing import Any, cast

import torch
from torch import nn

from .configuration_crnn import CrnnConfig
from .ctc_loss import ctc_loss
from .ctc_reading import recognize_with_ctc
from .language_model import CharacterLanguageModel
from .line_inputs import checked_widths, mask_columns, masked_relu
from .modeling_outputs import Recognition, TextRecognitionOutput
from .modeling_text_recognition import CheckpointError, TextRecognitionPreTrainedModel


class CrnnConvolution(nn.Module):
    """One layer of the trunk: convolution, batch norm or bias, ReLU, max pooling where the configuration has it.

    With a rank the kernel is two, one after the other: `vertical`, which sees one column, and `convolution`, one row.
    """

    def __init__(self, config: CrnnConfig, index: int) -> None:
        super().__init__()
        channels = config.conv_channels[index]
        in_channels = channels if _residual_blocks(config, index) else _channels_before(config, index)
        kernel, stride, padding = config.conv_kernels[index], config.conv_strides[index], config.conv_paddings[index]
        rank = config.conv_ranks[index] if config.conv_ranks is not None else None
        self.vertical: nn.Module = nn.Identity()
        if rank is not None:
            self.vertical = nn.Conv2d(in_channels, rank, (kernel[0], 1), (stride[0], 1), (padding[0], 0), bias=False)
            in_channels, kernel, stride, padding = rank, (1, kernel[1]), (1, stride[1]), (0, padding[1])
        self.convolution = nn.Conv2d(
            in_channels, channels, tuple(kernel), tuple(stride), tuple(padding), bias=config.conv_bias
        )
        self.norm = nn.BatchNorm2d(channels) if config.conv_batch_norm[index] else nn.Identity()
        self.pool = None
        if config.pool_kernels[index] is not None:
            self.pool = nn.MaxPool2d(
                tuple(config.pool_kernels[index]), tuple(config.pool_strides[index]), tuple(config.pool_paddings[index])
            )

    def whole_kernel(self) -> torch.Tensor:
        """(channels, input channels, height, width): of both kernels, where there are two."""
        weight = self.convolution.weight
        if isinstance(self.vertical, nn.Conv2d):
            return torch.einsum("orw,rih->oihw", weight[:, :, 0], self.vertical.weight[..., 0])
        return weight

    def forward(self, hidden: torch.Tensor, widths: torch.Tensor, least: int) -> tuple[torch.Tensor, torch.Tensor, int]:
        """(B, C, H, W), valid widths (B,), the least of them -> the same behind this layer; what is not valid is 0."""
        hidden = self.norm(self.convolution(self.vertical(hidden)))
        widths, least = _output_length(widths, self.convolution), _output_length(least, self.convolution)
        hidden = masked_relu(hidden, widths, least)
        if self.pool is not None:
            hidden = self.pool(hidden)  # behind a ReLU the zeros of the mask equal the pool's own padding
            widths, least = _output_length(widths, self.pool), _output_length(least, self.pool)
            hidden = mask_columns(hidden, widths, least)
        return hidden, widths, least


class CrnnResidualBlock(nn.Module):
    """Two convolutions of 3 x 3 px with batch norm around which the input is led (He et al., arXiv:1512.03385).

    Where the channels change, the input goes through a convolution of 1 x 1 px.
    """

    def __init__(self, in_channels: int, channels: int) -> None:
        super().__init__()
        self.convolutions = nn.ModuleList(
            nn.Conv2d(size, channels, 3, padding=1, bias=False) for size in (in_channels, channels)
        )
        self.norms = nn.ModuleList(nn.BatchNorm2d(channels) for _ in range(2))
        self.shortcut: nn.Module = nn.Identity()
        if in_channels != channels:
            self.shortcut = nn.Sequential(nn.Conv2d(in_channels, channels, 1, bias=False), nn.BatchNorm2d(channels))

    def forward(self, hidden: torch.Tensor, widths: torch.Tensor, least: int) -> tuple[torch.Tensor, torch.Tensor, int]:
        """As of `CrnnConvolution`; the width stays."""
        inner = masked_relu(self.norms[0](self.convolutions[0](hidden)), widths, least)
        outer = self.norms[1](self.convolutions[1](inner)) + self.shortcut(hidden)
        return masked_relu(outer, widths, least), widths, least


def _residual_blocks(config: CrnnConfig, index: int) -> int:
    return config.residual_blocks[index] if config.residual_blocks is not None else 0


def _channels_before(config: CrnnConfig, index: int) -> int:
    return config.conv_channels[index - 1] if index else config.num_channels


def _output_length(lengths: Any, layer: nn.Conv2d | nn.MaxPool2d) -> Any:
    kernel, stride, padding = (cast(tuple[int, int], v)[1] for v in (layer.kernel_size, layer.stride, layer.padding))
    return (lengths + 2 * padding - kernel) // stride + 1


class CrnnBidirectionalLstm(nn.Module):
    """A bidirectional LSTM layer that never reads padding.

    The backward direction gets each row reversed within its valid length: equal to a packed sequence, but the LSTM
    stays on the fast kernel of the CPU.
    """

    def __init__(self, input_size: int, hidden_size: int) -> None:
        super().__init__()
        self.forward_lstm = nn.LSTM(input_size, hidden_size)
        self.backward_lstm = nn.LSTM(input_size, hidden_size)

    def forward(self, hidden: torch.Tensor, reversal: torch.Tensor) -> torch.Tensor:
        """(T, B, C), reversal int64 (T, B) -> (T, B, 2 * hidden_size)."""
        onward = self.forward_lstm(hidden)[0]
        backward = self.backward_lstm(_gather_frames(hidden, reversal))[0]
        return torch.cat([onward, _gather_frames(backward, reversal)], dim=-1)


def _gather_frames(hidden: torch.Tensor, index: torch.Tensor) -> torch.Tensor:
    rows = torch.arange(index.shape[1], device=index.device)
    places = (index * index.shape[1] + rows).flatten()
    return hidden.flatten(0, 1).index_select(0, places).view_as(hidden)  # whole frames at a time, unlike `gather`


class CrnnPreTrainedModel(TextRecognitionPreTrainedModel):
    """What both classes share: names for transformers, and fresh weights."""

    config_class = CrnnConfig
    base_model_prefix = "crnn"
    main_input_name = "pixel_values"
    input_modalities = ("image",)
    _no_split_modules = ["CrnnConvolution", "CrnnResidualBlock", "CrnnBidirectionalLstm"]

    def _init_weights(self, module: nn.Module) -> None:
        super()._init_weights(module)
        if isinstance(module, nn.Conv2d):
            nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
        elif isinstance(module, nn.LSTM):
            for name, parameter in module.named_parameters():
                if name.startswith("weight_hh"):
                    nn.init.orthogonal_(parameter)
                elif name.startswith("weight"):
                    nn.init.xavier_uniform_(parameter)
                else:
                    nn.init.zeros_(parameter)


class CrnnModel(CrnnPreTrainedModel):
    """The trunk and the recurrent layers: image -> one feature vector a frame."""

    def __init__(self, config: CrnnConfig) -> None:
        super().__init__(config)
        self.convolutions = nn.ModuleList()
        for i, channels in enumerate(config.conv_channels):
            for block in range(_residual_blocks(config, i)):
                self.convolutions.append(
                    CrnnResidualBlock(channels if block else _channels_before(config, i), channels)
                )
            self.convolutions.append(CrnnConvolution(config, i))
        hidden_size, first_size = config.lstm_hidden_size, config.conv_channels[-1]
        self.first_projection: nn.Module = nn.Identity()
        if config.lstm_input_size is not None:
            self.first_projection = nn.Linear(first_size, config.lstm_input_size)
            first_size = config.lstm_input_size
        between = (config.lstm_input_size or hidden_size) if config.lstm_projection else 2 * hidden_size
        sizes = [first_size] + [between] * (config.num_lstm_layers - 1)
        self.lstms = nn.ModuleList(CrnnBidirectionalLstm(size, hidden_size) for size in sizes)
        self.projections = nn.ModuleList(
            nn.Linear(2 * hidden_size, between) if config.lstm_projection else nn.Identity() for _ in sizes[1:]
        )
        self.post_init()

    def forward(
        self, pixel_values: torch.Tensor, widths: torch.Tensor | None = None, **kwargs: Any
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Features of each frame.

        Args:
            pixel_values: float (B, num_channels, image_height, W).
            widths: int64 (B,), valid columns of each image, px; all of W when None.

        Returns:
            features (B, T, 2 * lstm_hidden_size) in the model's dtype, and the valid frames of each row, int64 (B,).

        Raises:
            ValueError: another shape than the configuration's, or an image too narrow for a single frame.
        """
        widths = checked_widths(pixel_values, widths, self.config.num_channels, self.config.image_height)
        least = int(widths.min()) if len(widths) else pixel_values.shape[-1]
        if self.frame_count(least) < 1:
            raise ValueError(
                f"the narrowest image is {least} px wide, too narrow for one frame. Widen images to at least 64 px "
                "(the image processor's min_width)."
            )
        # Not `contiguous`: with one channel it changes nothing, and the convolutions would choose the slow layout.
        hidden = torch.empty_like(pixel_values, dtype=self.dtype, memory_format=torch.channels_last)
        hidden = mask_columns(hidden.copy_(pixel_values), widths, least)
        for convolution in self.convolutions:
            hidden, widths, least = convolution(hidden, widths, least)
        hidden = self.first_projection(hidden.squeeze(2).permute(2, 0, 1).contiguous())
        frames = torch.arange(len(hidden), device=hidden.device)[:, None]
        reversal = torch.where(frames < widths, widths - 1 - frames, frames)
        for index, lstm in enumerate(self.lstms):
            if index:
                hidden = self.projections[index - 1](hidden)
            hidden = lstm(hidden, reversal)
        return hidden.transpose(0, 1), widths

    def frame_count(self, widths: Any) -> Any:
        """Frames of images of these valid widths, px: an int, or int64 of the shape of `widths`."""
        for kernel, stride, padding in self.config.downsampling():
            widths = (widths + 2 * padding[1] - kernel[1]) // stride[1] + 1
        return widths

    def frame_to_pixel(self) -> tuple[float, float]:
        """(scale, offset): the frame coordinate u (frame f covers [f, f + 1)) lies at px `scale * u + offset`."""
        jump, centre = 1, 0.0
        for kernel, stride, padding in self.config.downsampling():
            centre += ((kernel[1] - 1) / 2 - padding[1]) * jump
            jump *= stride[1]
        return float(jump), centre + 0.5 - 0.5 * jump


class CrnnForTextRecognition(CrnnPreTrainedModel):
    """CRNN with a CTC head: image of a text line -> text."""

    # The loss is a mean over lines: gradient accumulation divides it (the stock Trainer asks this attribute).
    accepts_loss_kwargs = False

    def __init__(self, config: CrnnConfig) -> None:
        super().__init__(config)
        self.crnn = CrnnModel(config)
        self.dropout = nn.Dropout(config.dropout)
        self.classifier = nn.Linear(2 * config.lstm_hidden_size, config.vocab_size)
        self.language_model = None
        if config.language_model_size is not None:
            sizes = config.vocab_size, config.language_model_order, config.language_model_size
            self.language_model = CharacterLanguageModel(*sizes)
        self.post_init()

    @classmethod
    def from_pretrained(cls, pretrained_model_name_or_path: Any, *args: Any, **kwargs: Any) -> Any:
        """Load as `TextRecognitionPreTrainedModel.from_pretrained` does (same arguments).

        A language model whose tables do not fit is left out, where `ignore_mismatched_sizes` allows that.

        Raises:
            CheckpointError: also for a language model without tables, or with those of another order.
        """
        wants_info = kwargs.pop("output_loading_info", False)
        model, info = super().from_pretrained(pretrained_model_name_or_path, *args, output_loading_info=True, **kwargs)
        if model.language_model is not None:
            names = ("missing_keys", "mismatched_keys")
            missing, mismatched = ([key for key in info[name] if "language_model." in str(key)] for name in names)
            found = None if missing or mismatched else model.language_model.order_of_tables()
            if mismatched:
                model.set_language_model(None)
            elif found != model.language_model.order:
                raise CheckpointError(
                    f"{pretrained_model_name_or_path}: config.json names a language model of order "
                    f"{model.language_model.order}, the weights have {found or 'none'}. Take both from the same "
                    "checkpoint."
                )
        return (model, info) if wants_info else model

    def set_language_model(self, language_model: CharacterLanguageModel | None) -> None:
        """Choose doubtful texts by this one too (`hf_ocr.character_ngrams` fits it), or by none.

        Raises:
            ValueError: a language model of another alphabet.
        """
        size = None
        if language_model is not None:
            if len(language_model.classes) != self.config.vocab_size:
                raise ValueError(
                    f"the language model has {len(language_model.classes)} symbols, the recognizer "
                    f"{self.config.vocab_size}. Fit it with the recognizer's tokenizer."
                )
            language_model, size = language_model.to(self.device), len(language_model.keys)
            self.config.language_model_order = language_model.order
        self.language_model = language_model
        self.config.language_model_size = size

    def vocabulary_layers(self) -> list[nn.Linear | nn.Embedding]:
        """The layers with one row for each symbol of the alphabet."""
        return [self.classifier]

    def forward(
        self,
        pixel_values: torch.Tensor,
        widths: torch.Tensor | None = None,
        labels: torch.Tensor | None = None,
        **kwargs: Any,
    ) -> TextRecognitionOutput:
        """Logits of each frame, and the CTC loss when labels are given.

        Args:
            pixel_values: float (B, num_channels, image_height, W) in [-1, 1].
            widths: int64 (B,), valid columns of each image, px; all of W when None.
            labels: int64 (B, L), alphabet ids padded with -100.

        Returns:
            The loss is the mean over lines of the negative log probability of the label divided by the square root
            of its length, so that long lines weigh more than short ones, but not in proportion.

        Raises:
            ValueError: wrong shapes; labels that cannot be aligned (see `CrnnConfig.invalid_labels`, `empty_labels`).
        """
        features, lengths = self.crnn(pixel_values, widths)
        # Frames first, as the LSTM left them: a contiguous product, whose kernel does not change with a batch of one.
        logits = self.classifier(self.dropout(features.transpose(0, 1))).transpose(0, 1).float()
        output = TextRecognitionOutput(logits=logits, logit_lengths=lengths)
        if labels is not None:
            output.loss, output.skipped = ctc_loss(
                logits, lengths, labels, self.config.invalid_labels, self.config.empty_labels
            )
        return output

    def recognize(
        self,
        pixel_values: torch.Tensor,
        widths: torch.Tensor | None = None,
        num_beams: int = 1,
        allowed_ids: list[int] | None = None,
        lexicon: torch.Tensor | None = None,
        with_characters: bool = True,
    ) -> Recognition:
        """Reads images; in eval mode whatever the model's own mode, which is left as it was.

        Args:
            pixel_values: float (B, num_channels, image_height, W) in [-1, 1].
            widths: int64 (B,), valid columns, px; all of W when None.
            num_beams: 1 reads greedily; more runs a prefix beam search. With a language model, doubtful texts
                are chosen by both.
            allowed_ids: alphabet ids that may appear; all when None.
            lexicon: int64 (N, L) padded with 0: the answer is one of these N texts.
            with_characters: also give the score and the px span of every character.
        """
        return recognize_with_ctc(self, pixel_values, widths, num_beams, allowed_ids, lexicon, with_characters)


__all__ = ["CrnnForTextRecognition", "CrnnModel", "CrnnPreTrainedModel"]
