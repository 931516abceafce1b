"""PP-OCRv6 small (PaddleOCR), made trainable: transformers' layers under the contract of a recognizer."""

from typing import Any

import torch
import torch.nn.functional as F
from torch import nn
from transformers import PPLCNetV4Backbone, PPOCRV6SmallRecEncoderWithSVTR

from .configuration_pp_ocr import POOL, PpOcrConfig
from .ctc_loss import ctc_loss
from .ctc_reading import recognize_with_ctc
from .line_inputs import checked_widths
from .line_preparation import bucket_width
from .modeling_outputs import Recognition, TextRecognitionOutput
from .modeling_text_recognition import TextRecognitionPreTrainedModel


class PpOcrPreTrainedModel(TextRecognitionPreTrainedModel):
    """What both classes share: names for transformers."""

    config_class = PpOcrConfig
    base_model_prefix = "pp_ocr"
    main_input_name = "pixel_values"
    input_modalities = ("image",)
    _no_split_modules = ["PPLCNetV4DepthwiseSeparableConvLayer", "PPOCRV6SmallRecBlock"]


class PpOcrModel(PpOcrPreTrainedModel):
    """PP-LCNetV4 and the encoder of SVTR: image -> one feature vector for each 8 px.

    The squeezes of the backbone and the attention see the whole width of what they are given, and no mask of theirs
    exists: what is read from an image depends on how far it is padded. So this class pads, by a rule that knows the
    image alone: the columns behind an image's own become 0.0, up to `bucket_width(width)`, and images of equal bucket
    width are computed together. Whatever else is in the batch, and whatever the batch was padded to, changes nothing.
    """

    def __init__(self, config: PpOcrConfig) -> None:
        super().__init__(config)
        self.backbone = PPLCNetV4Backbone(config.backbone_config())
        self.encoder = PPOCRV6SmallRecEncoderWithSVTR(config.encoder_config())
        for block in self.encoder.svtr_block:  # as PaddleOCR has it; transformers takes 1e-6, its value behind them
            block.layer_norm1.eps = block.layer_norm2.eps = 1e-5
        # transformers has given all layers one small deviation, with which the convolutions that no norm follows,
        # depthwise and squeezing, would pass on next to nothing. What is done here it leaves alone.
        for layer in self.modules():
            if isinstance(layer, nn.Conv2d):
                nn.init.kaiming_normal_(layer.weight, nonlinearity="relu")
        self.post_init()

    def train(self, mode: bool = True) -> "PpOcrModel":
        """As of every module; batch norms stay in eval mode with `config.freeze_batch_norm`."""
        super().train(mode)
        if self.config.freeze_batch_norm:
            for module in self.modules():
                if isinstance(module, nn.BatchNorm2d):
                    module.eval()
        return self

    def forward(
        self, pixel_values: torch.Tensor, widths: torch.Tensor | None = None, **kwargs: Any
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Features of each frame.

        Args:
            pixel_values: float (B, num_channels, image_height, W).
            widths: int64 (B,), valid columns of each image, px; all of W when None.

        Returns:
            features (B, T, hidden_size) in the model's dtype, and the valid frames of each row, int64 (B,): one for
            each 8 px or part of them.

        Raises:
            ValueError: another shape than the configuration's, or an image without a column.
        """
        widths = checked_widths(pixel_values, widths, self.config.num_channels, self.config.image_height)
        if (widths < 1).any():
            raise ValueError(
                f"the narrowest image is {int(widths.min())} px wide, expected at least 1 px. Widen images to at least "
                "64 px (the image processor's min_width)."
            )
        lengths = self.frame_count(widths)
        rows_of: dict[int, list[int]] = {}
        for row, width in enumerate(widths.tolist()):
            rows_of.setdefault(bucket_width(width), []).append(row)
        frames = int(lengths.max()) if len(lengths) else 0
        features, order = [pixel_values.new_zeros((0, frames, self.config.hidden_size), dtype=self.dtype)], []
        for padded_width, rows in rows_of.items():
            # All rows, where one bucket holds them, are neither copied nor put in order.
            index: Any = slice(None) if len(rows_of) == 1 else torch.tensor(rows, device=pixel_values.device)
            found = self._features(pixel_values[index], widths[index], padded_width)
            features.append(F.pad(found[:, :frames], (0, 0, 0, max(frames - found.shape[1], 0))))
            order += rows
        if len(rows_of) == 1:
            return features[1], lengths
        places = torch.tensor(order, dtype=torch.int64, device=pixel_values.device).argsort()
        return torch.cat(features)[places], lengths

    def _features(self, pixel_values: torch.Tensor, widths: torch.Tensor, padded_width: int) -> torch.Tensor:
        """Images of one bucket: (B, C, H, W), valid widths (B,) -> (B, padded_width / 8, hidden_size)."""
        shape = (*pixel_values.shape[:3], padded_width)
        images = torch.empty(
            shape, dtype=self.dtype, device=pixel_values.device, memory_format=torch.channels_last
        ).zero_()
        kept = min(padded_width, pixel_values.shape[-1])
        images[..., :kept] = pixel_values[..., :kept]
        columns = torch.arange(padded_width, device=images.device)
        images.masked_fill_((columns >= widths[:, None])[:, None, None], 0.0)
        hidden = self.backbone(images).feature_maps[-1]
        return self.encoder(F.avg_pool2d(hidden, POOL)).last_hidden_state

    def frame_count(self, widths: Any) -> Any:
        """Frames of images of these valid widths, px: an int, or int64 of the shape of `widths`."""
        return (widths + self.config.frame_width - 1) // self.config.frame_width

    def frame_to_pixel(self) -> tuple[float, float]:
        """(scale, offset): the frame coordinate u (frame f covers [f, f + 1)) lies at px `scale * u + offset`.

        The stem has two branches, whose centres lie 0.5 px to the left and to the right of the frame's middle.
        """
        return float(self.config.frame_width), 0.0


class PpOcrForTextRecognition(PpOcrPreTrainedModel):
    """PP-OCRv6 small with a CTC head: image of a text line -> text."""

    # The loss is a mean over lines: gradient accumulation divides it (the stock Trainer asks this attribute).
    accepts_loss_kwargs = False

    def __init__(self, config: PpOcrConfig) -> None:
        super().__init__(config)
        self.pp_ocr = PpOcrModel(config)
        self.dropout = nn.Dropout(config.dropout)
        self.classifier = nn.Linear(config.hidden_size, config.vocab_size)
        self.post_init()

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
        """Logits of each frame, before the softmax, and the CTC loss when labels are given.

        Args:
            pixel_values: float (B, 3, image_height, W), RGB in [-1, 1].
            widths: int64 (B,), valid columns of each image, px; all of W when None.
            labels: int64 (B, L), alphabet ids padded with -100.

        Returns:
            The loss is that of `ctc_loss`: the mean over lines of the negative log probability of the label divided by
            the square root of its length.

        Raises:
            ValueError: wrong shapes; labels that cannot be aligned (see `PpOcrConfig.invalid_labels`, `empty_labels`).
        """
        features, lengths = self.pp_ocr(pixel_values, widths)
        logits = self.classifier(self.dropout(features)).float()
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
            pixel_values: float (B, 3, image_height, W), RGB in [-1, 1].
            widths: int64 (B,), valid columns, px; all of W when None.
            num_beams: 1 reads greedily; more runs a prefix beam search.
            allowed_ids: alphabet ids that may appear; all when None.
            lexicon: int64 (N, L) padded with 0: the answer is one of these N texts.
            with_characters: also give the score and the px span of every character.
        """
        return recognize_with_ctc(self, pixel_values, widths, num_beams, allowed_ids, lexicon, with_characters)


__all__ = ["PpOcrForTextRecognition", "PpOcrModel", "PpOcrPreTrainedModel"]
