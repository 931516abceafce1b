"""Attention OCR: the encoder of a CRNN, and an LSTM that attends to its frames (R2AM, RARE, TRBA)."""

from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import nn
from transformers import GenerationMixin

from .attention_decoder import AttentionDecoder, AttentionMemory
from .attention_search import AttentionSteps, log_probs_along
from .attention_spans import frame_spans
from .beam_search import beam_search, lexicon_search, steps_along, with_the_end
from .configuration_attention_ocr import AttentionOcrConfig
from .configuration_crnn import CrnnConfig
from .ctc_loss import ctc_loss, usable_labels
from .ctc_reading import allowed_symbols, check_num_beams, checked_lexicon, in_parts, read_doubtful, spans_in_px
from .line_inputs import checked_widths
from .modeling_crnn import CrnnForTextRecognition, CrnnModel, CrnnPreTrainedModel
from .modeling_outputs import Recognition, TextRecognitionOutput
from .thin_plate_spline import ThinPlateSplineRectifier


@dataclass
class AttentionOcrOutput(TextRecognitionOutput):
    """Output of `AttentionOcrForTextRecognition.forward`.

    Attributes:
        logits: float32 (B, T, V), those of the CTC head, a frame each. Without the head, those of the decoder.
        logit_lengths: int64 (B,), valid frames; without the head, steps.
        decoder_logits: float32 (B, L, V), of one symbol a step, the end of the text, id 0, the last; with `labels` or
            `output_attentions`, or without the head.
        cross_attentions: one tensor, float32 (B, heads, L, T), the weights over the frames of the image at each step
            (and, with a CTC head, over the frame that stands behind the last of each image); only with
            `output_attentions`.
        decoder_attentions: None; the decoder does not attend to itself.
    """

    decoder_logits: torch.Tensor | None = None
    cross_attentions: tuple[torch.Tensor] | None = None
    decoder_attentions: tuple[torch.Tensor] | None = None


class AttentionOcrPreTrainedModel(CrnnPreTrainedModel):
    """What both classes share: names for transformers, and fresh weights."""

    config_class = AttentionOcrConfig
    base_model_prefix = "attention_ocr"
    main_input_name = "pixel_values"
    input_modalities = ("image",)
    _no_split_modules = ["CrnnConvolution", "CrnnResidualBlock", "CrnnBidirectionalLstm", "AttentionDecoder"]

    def _init_weights(self, module: nn.Module) -> None:
        super()._init_weights(module)
        if isinstance(module, AttentionDecoder | ThinPlateSplineRectifier):
            module.reset_parameters()


class AttentionOcrModel(AttentionOcrPreTrainedModel):
    """The encoder: image -> one feature vector a frame, by the trunk and LSTMs of a CRNN."""

    def __init__(self, config: AttentionOcrConfig) -> None:
        super().__init__(config)
        self.rectifier = None
        if config.rectifier_points:
            self.rectifier = ThinPlateSplineRectifier(config.num_channels, config.rectifier_points)
        self.crnn = CrnnModel(config)
        self.projection = None
        if config.feature_projection:
            self.projection = nn.Linear(2 * config.lstm_hidden_size, config.feature_size)
        self.post_init()

    def forward(
        self, pixel_values: torch.Tensor, widths: torch.Tensor | None = None, **kwargs: Any
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Features of each frame.

        Args:
            pixel_values: float (B, num_channels, image_height, W).
            widths: int64 (B,), valid columns of each image, px; all of W when None.

        Returns:
            features (B, T, feature_size) in the model's dtype, and the valid frames of each row, int64 (B,).

        Raises:
            ValueError: another shape than the configuration's, or an image too narrow for a single frame.
        """
        if self.rectifier is not None:
            widths = checked_widths(pixel_values, widths, self.config.num_channels, self.config.image_height)
            # A narrower image than a frame is the encoder's to refuse.
            columns = torch.arange(pixel_values.shape[-1], device=widths.device)
            inside = (columns < widths[:, None])[:, None, None]
            pixel_values = self.rectifier(pixel_values.to(self.dtype).masked_fill(~inside, 0.0), widths.clamp(min=1))
        features, lengths = self.crnn(pixel_values, widths)
        return features if self.projection is None else self.projection(features), lengths

    def frame_count(self, widths: Any) -> Any:
        """Frames of images of these valid widths, px: an int, or int64 of the shape of `widths`."""
        return self.crnn.frame_count(widths)

    def frame_to_pixel(self) -> tuple[float, float]:
        """(scale, offset): the frame coordinate u (frame f covers [f, f + 1)) lies at px `scale * u + offset`, of the
        straightened image where there is a rectifier."""
        return self.crnn.frame_to_pixel()


class AttentionOcrEncoder(nn.Module):
    """What `generate` of transformers calls once an image: the model's `remember`."""

    main_input_name = "pixel_values"

    def __init__(self, model: "AttentionOcrForTextRecognition") -> None:
        super().__init__()
        self.remember = model.remember

    def forward(self, pixel_values: torch.Tensor, widths: torch.Tensor | None = None, **kwargs: Any) -> AttentionMemory:
        """See `AttentionOcrForTextRecognition.remember`."""
        return self.remember(pixel_values, widths)


class AttentionOcrForTextRecognition(AttentionOcrPreTrainedModel, GenerationMixin):
    """Attention OCR: image of a text line -> text, one character after the other."""

    # The loss is a mean over lines: gradient accumulation divides it (the stock Trainer asks this attribute).
    accepts_loss_kwargs = False

    def __init__(self, config: AttentionOcrConfig) -> None:
        super().__init__(config)
        self.attention_ocr = AttentionOcrModel(config)
        self.decoder = AttentionDecoder(config)
        self.ctc_dropout = nn.Dropout(config.dropout)
        self.ctc_classifier = nn.Linear(config.feature_size, config.vocab_size) if config.ctc_weight else None
        self.post_init()
        self._generate_at_most()

    @classmethod
    def from_crnn(cls, crnn: CrnnForTextRecognition, **config_kwargs: Any) -> "AttentionOcrForTextRecognition":
        """A model with the encoder and, as its CTC head, the classifier of a trained CRNN; the decoder is new.

        Args:
            crnn: is copied.
            config_kwargs: of `AttentionOcrConfig`; the encoder is described by the CRNN's own configuration.
        """
        trained = {name: getattr(crnn.config, name) for name in CrnnConfig.__annotations__}
        model = cls(AttentionOcrConfig(**{**trained, **config_kwargs}))
        model.attention_ocr.crnn.load_state_dict(crnn.crnn.state_dict())
        if model.ctc_classifier is not None:
            model.ctc_classifier.load_state_dict(crnn.classifier.state_dict())
        return model

    def vocabulary_layers(self) -> list[nn.Linear | nn.Embedding]:
        """The layers with one row for each symbol of the alphabet."""
        heads = [] if self.ctc_classifier is None else [self.ctc_classifier]
        return [*heads, self.decoder.symbol_gates, self.decoder.classifier]

    def remember(self, pixel_values: torch.Tensor, widths: torch.Tensor | None = None) -> AttentionMemory:
        """What the decoder reads of images; arguments as for `forward`."""
        features, lengths = self.attention_ocr(pixel_values, widths)
        ctc_logits = None
        if self.ctc_classifier is not None:
            # Frames first, as the LSTM left them: a product whose kernel does not change with a batch of one.
            hidden = self.ctc_dropout(features.transpose(0, 1))
            ctc_logits = self.ctc_classifier(hidden).transpose(0, 1).float()
        return self.decoder.remember(features, lengths, ctc_logits)

    def forward(
        self,
        pixel_values: torch.Tensor | None = None,
        widths: torch.Tensor | None = None,
        labels: torch.Tensor | None = None,
        decoder_input_ids: torch.Tensor | None = None,
        encoder_outputs: AttentionMemory | None = None,
        output_attentions: bool | None = None,
        **kwargs: Any,
    ) -> AttentionOcrOutput:
        """Logits of each frame and, where they are asked for, of each step; the loss when labels are given.

        With labels the decoder is told what stands before each step, without labels what it reads itself, greedily.

        Args:
            pixel_values: float (B, num_channels, image_height, W) in [-1, 1].
            widths: int64 (B,), valid columns of each image, px; all of W when None.
            labels: int64 (B, L), alphabet ids padded with -100.
            decoder_input_ids: of `generate`: int64 (B, L), what stands before each step, 0 before the first. The answer
                is then `logits`, float32 (B, L, V), the log-probabilities of decoder and CTC head.
            encoder_outputs: of `remember`, instead of the images.
            output_attentions: give the attention weights of each step.

        Returns:
            The loss is the mean over lines of the negative log probability of the label and its end, divided by the
            square root of its steps, so that long lines weigh more than short ones, but not in proportion. With a CTC
            head it counts 1 - `ctc_weight`, and that of `ctc_loss` for the head `ctc_weight`.

        Raises:
            ValueError: wrong shapes; labels that cannot be aligned (see `CrnnConfig.invalid_labels`, `empty_labels`).
        """
        memory = encoder_outputs
        if memory is None:
            if pixel_values is None:
                raise ValueError("pixel_values is None, expected images, or encoder_outputs. Pass one of them.")
            memory = self.remember(pixel_values, widths)
        if decoder_input_ids is not None:
            logits, attentions = log_probs_along(self.decoder, memory, decoder_input_ids[:, None, 1:])
            return AttentionOcrOutput(
                logits=logits[:, 0], cross_attentions=(attentions,) if output_attentions else None
            )
        output = AttentionOcrOutput(logits=memory.ctc_logits, logit_lengths=memory.lengths)
        if labels is not None:
            config = self.config
            targets, steps, usable = usable_labels(
                labels, memory["lengths"], config.vocab_size, config.invalid_labels, config.empty_labels
            )
            steps = steps * usable  # what is skipped is not read along, however long
            targets = targets[:, : int(steps.max()) if len(steps) else 0] * usable[:, None]
        elif self.ctc_classifier is None or output_attentions:
            targets = beam_search(AttentionSteps(self.decoder, memory), memory["lengths"], 1).sequences
            steps = (targets != 0).sum(-1)
        else:
            return output
        output.decoder_logits, attentions = self.decoder(memory, F.pad(targets, (1, 0)))
        if self.ctc_classifier is None:
            output.logits, output.logit_lengths = output.decoder_logits, steps + 1
        if output_attentions:
            output.cross_attentions = (attentions,)
        if labels is not None:
            losses = F.cross_entropy(output.decoder_logits.transpose(1, 2), F.pad(targets, (0, 1)), reduction="none")
            counted = torch.arange(losses.shape[1], device=losses.device) <= steps[:, None]
            lines = (losses * counted).sum(-1) / (steps + 1).sqrt()
            output.loss = lines[usable].sum() / usable.sum().clamp(min=1)
            output.skipped = (~usable).sum()
            if config.ctc_weight and memory.ctc_logits is not None:
                beside, _ = ctc_loss(
                    memory.ctc_logits, memory["lengths"], labels, config.invalid_labels, config.empty_labels
                )
                output.loss = (1 - config.ctc_weight) * output.loss + config.ctc_weight * beside
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

        Without a lexicon a text has at most as many characters as its image has frames. Greedily, and with a CTC head,
        the decoder is asked where CTC is not certain alone (see `read_doubtful`).

        Args:
            pixel_values: float (B, num_channels, image_height, W) in [-1, 1].
            widths: int64 (B,), valid columns, px; all of W when None.
            num_beams: 1 reads greedily; more runs a beam search.
            allowed_ids: alphabet ids that may appear; all when None.
            lexicon: int64 (N, L) padded with 0: the answer is one of these N texts.
            with_characters: also give the score and the px span of every character. The score is the character's
                probability given those before it, the last one's also that the text ends there; the span is taken from
                where the decoder looked, or where CTC was certain, from its alignment. Behind a rectifier it is that of
                the straightened image.

        Raises:
            ValueError: `num_beams` below 1, ids outside the alphabet, both `allowed_ids` and `lexicon`, or what
                `forward` does not take.
        """
        check_num_beams(num_beams)
        allowed = allowed_symbols(allowed_ids, self.config.vocab_size, pixel_values.device)
        lexicon = checked_lexicon(lexicon, allowed_ids, self.config.vocab_size, pixel_values.device)
        widths = checked_widths(pixel_values, widths, self.config.num_channels, self.config.image_height)

        def read(part: slice) -> Recognition:
            valid = widths[part]
            memory = self.remember(pixel_values[part], valid)

            def by_decoder(rows: torch.Tensor) -> Recognition:
                chosen = AttentionMemory(**{name: tensor[rows] for name, tensor in memory.items()})
                return self._read(chosen, valid[rows], num_beams, allowed, lexicon, with_characters)

            if memory.ctc_logits is not None and lexicon is None and num_beams == 1:
                return read_doubtful(
                    by_decoder, self, memory.ctc_logits, memory["lengths"], valid, allowed, with_characters
                )
            return self._read(memory, valid, num_beams, allowed, lexicon, with_characters)

        return in_parts(read, self, pixel_values)

    def _read(
        self,
        memory: AttentionMemory,
        widths: torch.Tensor,
        num_beams: int,
        allowed: torch.Tensor | None,
        lexicon: torch.Tensor | None,
        with_characters: bool,
    ) -> Recognition:
        if lexicon is None:
            steps = AttentionSteps(self.decoder, memory, num_beams)
            found = beam_search(steps, memory["lengths"], num_beams, allowed)
        else:
            found = lexicon_search(
                lambda texts: log_probs_along(self.decoder, memory, texts)[0],
                len(memory["lengths"]),
                lexicon,
                self.config.vocab_size,
            )
        log_scores, character_scores = found.log_scores, found.step_scores
        if with_characters or self.config.temperature != 1:
            log_probs, attentions = log_probs_along(self.decoder, memory, found.sequences[:, None])
        if self.config.temperature != 1:
            warm = (log_probs[:, 0] / self.config.temperature).log_softmax(-1)
            along = steps_along(warm, found.sequences)
            log_scores, character_scores = along.sum(-1), along[:, :-1].exp() * (found.sequences != 0)
        spans = None
        if with_characters:
            spans = frame_spans(attentions, found.sequences, memory["lengths"])
            spans = spans_in_px(self, spans, found.sequences, widths)
            character_scores = with_the_end(found.sequences, character_scores, log_scores)
        return Recognition(
            sequences=found.sequences,
            scores=log_scores.exp(),
            character_scores=character_scores if with_characters else None,
            character_spans=spans,
            raw_scores=None if self.config.temperature == 1 else found.log_scores.exp(),
        )

    # What `generate` of transformers asks for.

    def get_encoder(self, modality: str | None = None) -> AttentionOcrEncoder:
        """What is computed once for an image."""
        return AttentionOcrEncoder(self)

    @classmethod
    def _supports_default_dynamic_cache(cls) -> bool:
        return False

    def prepare_inputs_for_generation(
        self,
        input_ids: torch.Tensor,
        encoder_outputs: AttentionMemory | None = None,
        output_attentions: bool | None = None,
        **kwargs: Any,
    ) -> dict[str, Any]:
        """The arguments of `forward` for the next step.

        All steps are computed again, for the names by which a state is carried change with the version of transformers;
        `recognize` carries it.
        """
        return {
            "decoder_input_ids": input_ids,
            "encoder_outputs": encoder_outputs,
            "output_attentions": output_attentions,
        }


__all__ = ["AttentionOcrForTextRecognition", "AttentionOcrModel", "AttentionOcrPreTrainedModel"]
