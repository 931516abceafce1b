"""Vision encoder and text decoder: convolutions and transformer layers, read by CTC and a decoder together."""

from dataclasses import dataclass
from functools import partial
from typing import Any, Literal

import torch
import torch.nn.functional as F
from torch import nn
from transformers import GenerationMixin
from transformers.modeling_outputs import BaseModelOutput, Seq2SeqLMOutput

from .beam_search import FoundTexts, steps_along, with_the_end
from .configuration_vision_text import VisionTextConfig
from .ctc import align, minimum_frames
from .ctc_loss import usable_labels
from .ctc_prefix_scores import CtcPrefixScores, expected_frames
from .ctc_reading import (
    allowed_symbols,
    check_num_beams,
    checked_lexicon,
    in_parts,
    read_doubtful,
    recognize_with_ctc,
    spans_in_px,
)
from .line_inputs import checked_widths, mask_columns
from .modeling_outputs import Recognition, TextRecognitionOutput
from .modeling_text_recognition import TextRecognitionPreTrainedModel
from .vision_text_layers import (
    Rotation,
    VisionTextConvolution,
    VisionTextDecoder,
    VisionTextEncoderLayer,
    attention_mask,
)
from .vision_text_search import DecoderState, score_lexicon, search_texts


@dataclass
class VisionTextEncoderOutput(BaseModelOutput):
    """Output of the encoder.

    Attributes:
        last_hidden_state: (B, T, hidden_size) in the model's dtype, one feature vector a frame.
        lengths: int64 (B,), valid frames.
    """

    lengths: torch.Tensor | None = None


@dataclass
class VisionTextOutput(TextRecognitionOutput):
    """Output of `forward`: `logits` are those of the CTC head, a frame each.

    Attributes:
        decoder_logits: float32 (B, L + 1, V), before the softmax: of each character of the label given those before it,
            and of the end, id 0; only with `labels`.
        encoder_last_hidden_state: (B, T, hidden_size) in the model's dtype.
    """

    decoder_logits: torch.Tensor | None = None
    encoder_last_hidden_state: torch.Tensor | None = None


class VisionTextPreTrainedModel(TextRecognitionPreTrainedModel):
    """What both classes share: names for transformers, and fresh weights."""

    config_class = VisionTextConfig
    base_model_prefix = "vision_text"
    main_input_name = "pixel_values"
    input_modalities = ("image",)
    supports_gradient_checkpointing = True
    _no_split_modules = ["VisionTextConvolution", "VisionTextEncoderLayer", "VisionTextDecoderLayer"]

    def _init_weights(self, module: nn.Module) -> None:
        super()._init_weights(module)
        if isinstance(module, nn.Conv2d):
            nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
        elif isinstance(module, nn.Conv1d):
            nn.init.kaiming_uniform_(module.weight, a=5**0.5)
        elif isinstance(module, nn.Linear):
            nn.init.xavier_uniform_(module.weight)
        elif isinstance(module, nn.Embedding):
            nn.init.normal_(module.weight, std=self.config.hidden_size**-0.5)


class VisionTextModel(VisionTextPreTrainedModel):
    """The encoder: image -> one feature vector a frame.

    Convolutions reduce the height to 1, then each layer mixes near frames by a depthwise convolution and those of a
    window by attention, as in SVTRv2 (arXiv:2411.15858, section 3.1) at a single row. Positions are distances.
    """

    def __init__(self, config: VisionTextConfig) -> None:
        super().__init__(config)
        self.convolutions = nn.ModuleList(
            VisionTextConvolution(config, index) for index in range(len(config.stem_channels) + 1)
        )
        self.layers = nn.ModuleList(VisionTextEncoderLayer(config) for _ in range(config.encoder_layers))
        self.norm = nn.LayerNorm(config.hidden_size)
        self.gradient_checkpointing = False
        self.post_init()

    def forward(
        self, pixel_values: torch.Tensor, widths: torch.Tensor | None = None, **kwargs: Any
    ) -> VisionTextEncoderOutput:
        """Features of each frame.

        Args:
            pixel_values: float (B, num_channels, image_height, W).
            widths: int64 (B,), valid columns of each image, px; all of W when None.

        Raises:
            ValueError: another shape than the configuration's, or an image without a column.
        """
        config = self.config
        widths = checked_widths(pixel_values, widths, config.num_channels, config.image_height)
        least = int(widths.min()) if len(widths) else pixel_values.shape[-1]
        if least < 1:
            raise ValueError(
                f"the narrowest image is {least} px wide, expected at least 1 px. Widen images to at least "
                "64 px (the image processor's min_width)."
            )
        # Not `contiguous`: with one channel it changes nothing, and the convolutions would choose the slow layout.
        hidden = torch.empty_like(pixel_values, dtype=self.dtype, memory_format=torch.channels_last)
        hidden, lengths = mask_columns(hidden.copy_(pixel_values), widths, least), widths
        for convolution in self.convolutions:
            hidden, lengths, least = convolution(hidden, lengths, least)
        hidden = hidden.squeeze(2).transpose(1, 2)
        frames = torch.arange(hidden.shape[1], device=hidden.device)
        near = (frames[:, None] - frames).abs() <= config.attention_window
        # A frame that is not valid sees itself, for a softmax of nothing is not a number.
        seen = near & (frames < lengths[:, None])[:, None] | (frames[:, None] == frames)
        mask = attention_mask(seen, hidden.dtype)
        turn = Rotation(frames[None].float(), config.hidden_size // config.num_attention_heads, hidden.dtype)
        for layer in self.layers:
            hidden = layer(hidden, turn, lengths, least, mask)
        return VisionTextEncoderOutput(last_hidden_state=self.norm(hidden), lengths=lengths)

    def frame_count(self, widths: Any) -> Any:
        """Frames of images of these valid widths, px: an int, or int64 of the shape of `widths`."""
        return (widths + self.config.frame_width - 1) // self.config.frame_width

    def frame_to_pixel(self) -> tuple[float, float]:
        """(scale, offset): the frame coordinate u (frame f covers [f, f + 1)) lies at px `scale * u + offset`."""
        return float(self.config.frame_width), 0.5 - 0.5 * self.config.frame_width


class VisionTextForTextRecognition(VisionTextPreTrainedModel, GenerationMixin):
    """Image of a text line -> text, by a CTC head and a decoder that share an encoder.

    The decoder goes on from the text so far, and looks at the image around the frame where CTC expects its last
    character. What is read is the product of both opinions at each step, as in Watanabe et al. (IEEE JSTSP 11, 2017):
    the decoder knows how texts go on, CTC what is still to be read, so that no text babbles on behind its image or ends
    before it, however long the line. Read greedily, the decoder is
    not asked of what CTC alone is certain (see `read_doubtful`).
    """

    def __init__(self, config: VisionTextConfig) -> None:
        super().__init__(config)
        self.vision_text = VisionTextModel(config)
        self.decoder = VisionTextDecoder(config)
        self.dropout = nn.Dropout(config.dropout)
        self.classifier = nn.Linear(config.hidden_size, config.vocab_size)
        self.post_init()
        self._generate_at_most()

    @classmethod
    def from_crnn(cls, crnn: Any, **config_kwargs: Any) -> "VisionTextForTextRecognition":
        """A new small model with the convolutions of a trained one of `CrnnConfig.small()`, for the same alphabet.

        Args:
            crnn: a `CrnnForTextRecognition`.
            config_kwargs: of `VisionTextConfig.small`.

        Raises:
            ValueError: a CRNN with residual blocks, of which there are none here.
        """
        if any(crnn.config.residual_blocks or ()):
            raise ValueError(
                f"from_crnn: the CRNN has residual_blocks={crnn.config.residual_blocks}, expected none, as in "
                "CrnnConfig.small(). Begin with such a one, or with fresh weights: "
                "VisionTextForTextRecognition(VisionTextConfig.small())."
            )
        same = {name: getattr(crnn.config, name) for name in ("vocab_size", "image_height", "num_channels")}
        model = cls(VisionTextConfig.small(**same, **config_kwargs))
        state = {name: part for name, part in crnn.crnn.convolutions.state_dict().items() if ".vertical." not in name}
        for index, layer in enumerate(crnn.crnn.convolutions):
            state[f"{index}.convolution.weight"] = layer.whole_kernel().detach()
        model.vision_text.convolutions.load_state_dict(state)
        return model

    def vocabulary_layers(self) -> list[nn.Linear | nn.Embedding]:
        """The layers with one row for each symbol of the alphabet."""
        return [self.classifier, self.decoder.classifier, self.decoder.embedding]

    def get_encoder(self, *_: Any, **__: Any) -> VisionTextModel:
        """The encoder, for `generate`."""
        return self.vision_text

    def forward(
        self,
        pixel_values: torch.Tensor | None = None,
        widths: torch.Tensor | None = None,
        labels: torch.Tensor | None = None,
        num_items_in_batch: torch.Tensor | int | None = None,
        decoder_input_ids: torch.Tensor | None = None,
        encoder_outputs: VisionTextEncoderOutput | None = None,
        **kwargs: Any,
    ) -> VisionTextOutput | Seq2SeqLMOutput:
        """CTC logits of each frame; with labels also those of the decoder, and the loss of both.

        Args:
            pixel_values: float (B, num_channels, image_height, W) in [-1, 1].
            widths: int64 (B,), valid columns of each image, px; all of W when None.
            labels: int64 (B, L), alphabet ids padded with -100. Not shifted, without start or end: id 0 is put there.
            num_items_in_batch: characters of all batches of a step: the loss is then the sum over this one's lines,
                divided by that. Else it is the mean over lines of what a line loses, divided by the square root of its
                length.
            decoder_input_ids, encoder_outputs: of `generate`; the answer is then log P(next symbol | text so far,
                image), (B, 1, V), that of both opinions.

        Raises:
            ValueError: wrong shapes; labels that cannot be aligned (`VisionTextConfig.invalid_labels`, `empty_labels`).
        """
        if decoder_input_ids is not None:
            return self._next(pixel_values, widths, decoder_input_ids, encoder_outputs)
        features: Any = self.vision_text(pixel_values, widths)
        logits = self.classifier(self.dropout(features.last_hidden_state)).float()
        output = VisionTextOutput(
            logits=logits, logit_lengths=features.lengths, encoder_last_hidden_state=features.last_hidden_state
        )
        if labels is not None:
            self._add_loss(output, labels, num_items_in_batch)
        return output

    def _add_loss(self, output: Any, labels: torch.Tensor, num_items_in_batch: torch.Tensor | int | None) -> None:
        config, lengths = self.config, output.logit_lengths
        targets, label_lengths, usable = usable_labels(
            labels, lengths, config.vocab_size, config.invalid_labels, config.empty_labels
        )
        # What is skipped is not seen: of a text that cannot be aligned CTC's loss is infinite, its gradient no number.
        label_lengths = label_lengths * usable
        targets = targets[:, : int(label_lengths.max()) if len(labels) else 0] * usable[:, None]
        ctc = F.ctc_loss(
            output.logits.log_softmax(-1).transpose(0, 1),
            F.pad(targets, (0, 1)),  # torch refuses texts of no width
            lengths,
            label_lengths,
            reduction="none",
        )
        with torch.no_grad():
            frames = expected_frames(CtcPrefixScores(output.logits, lengths), targets)
        output.decoder_logits = self.decoder(
            F.pad(targets, (1, 0))[:, None],
            F.pad(frames, (1, 0), value=-1.0)[:, None],
            self.decoder.look_at(output.encoder_last_hidden_state),
            lengths,
        )[0][:, 0]
        steps = F.cross_entropy(output.decoder_logits.transpose(1, 2), F.pad(targets, (0, 1)), reduction="none")
        behind = torch.arange(steps.shape[1], device=steps.device) > label_lengths[:, None]
        line = (1 - config.ctc_weight) * steps.masked_fill(behind, 0.0).sum(-1) + config.ctc_weight * ctc
        line = line[usable]
        output.skipped = (~usable).sum()
        if num_items_in_batch is not None:
            output.loss = line.sum() / max(num_items_in_batch, 1)  # blank lines have no characters
        else:
            weights = label_lengths[usable].clamp(min=1).rsqrt()
            output.loss = (line * weights).sum() / usable.sum().clamp(min=1)

    def _next(
        self,
        pixel_values: torch.Tensor | None,
        widths: torch.Tensor | None,
        decoder_input_ids: torch.Tensor,
        encoder_outputs: VisionTextEncoderOutput | None,
    ) -> Seq2SeqLMOutput:
        """Without a cache: what transformers carries between steps changes with its versions. `recognize` has one."""
        features: Any = encoder_outputs if encoder_outputs is not None else self.vision_text(pixel_values, widths)
        hidden = features.last_hidden_state
        state = self.start(hidden, self.classifier(hidden).float(), features.lengths)()
        for symbols in decoder_input_ids.T:
            log_probs = state.append(symbols[:, None])
        return Seq2SeqLMOutput(logits=log_probs)

    def start(self, features: torch.Tensor, logits: torch.Tensor, lengths: torch.Tensor) -> "partial[DecoderState]":
        """Makes states in which nothing has been read yet of images, given what `forward` says of them."""
        return partial(
            DecoderState,
            decoder=self.decoder,
            features=features,
            ctc_logits=logits,
            lengths=lengths,
            ctc_weight=self.config.ctc_weight,
        )

    @classmethod
    def _supports_default_dynamic_cache(cls) -> bool:
        return False

    def prepare_inputs_for_generation(self, input_ids: torch.Tensor, **kwargs: Any) -> dict[str, Any]:
        """What `forward` takes in a step of `generate`."""
        return {"decoder_input_ids": input_ids, "encoder_outputs": kwargs["encoder_outputs"]}

    def recognize(
        self,
        pixel_values: torch.Tensor,
        widths: torch.Tensor | None = None,
        num_beams: int = 1,
        allowed_ids: list[int] | None = None,
        lexicon: torch.Tensor | None = None,
        with_characters: bool = True,
        decoder: Literal["joint", "ctc"] = "joint",
    ) -> Recognition:
        """Reads images; in eval mode whatever the model's own mode, which is left as it was.

        Greedily the decoder is asked where CTC is not certain alone (see `read_doubtful`).

        Args:
            pixel_values: float (B, num_channels, image_height, W) in [-1, 1].
            widths: int64 (B,), valid columns, px; all of W when None.
            num_beams: 1 reads greedily; more runs a beam search.
            allowed_ids: alphabet ids that may appear; all when None.
            lexicon: int64 (N, L) padded with 0: the answer is one of these N texts.
            with_characters: also give the probability of every character given those before it, of the last one also
                that the text ends there, and its px span, from the alignment of the CTC head.
            decoder: "joint", or "ctc": by the CTC head alone, which is faster.

        Raises:
            ValueError: an unknown decoder, `num_beams` below 1, ids outside the alphabet, both `allowed_ids` and
                `lexicon`, or what `forward` refuses.
        """
        if decoder not in ("joint", "ctc"):
            raise ValueError(f"decoder is {decoder!r}, expected 'joint' or 'ctc'.")
        if decoder == "ctc":
            return recognize_with_ctc(self, pixel_values, widths, num_beams, allowed_ids, lexicon, with_characters)
        check_num_beams(num_beams)
        allowed = allowed_symbols(allowed_ids, self.config.vocab_size, pixel_values.device)
        lexicon = checked_lexicon(lexicon, allowed_ids, self.config.vocab_size, pixel_values.device)
        widths = checked_widths(pixel_values, widths, self.config.num_channels, self.config.image_height)

        def read_joint(part: slice) -> Recognition:
            valid = widths[part]
            output: Any = self(pixel_values[part], valid)
            logits, lengths = output.logits, output.logit_lengths

            def by_decoder(rows: torch.Tensor) -> Recognition:
                start = self.start(output.encoder_last_hidden_state[rows], logits[rows], lengths[rows])
                if lexicon is not None:
                    read = score_lexicon(start, lexicon)
                else:
                    read = search_texts(start, lengths[rows], num_beams, allowed)
                return self._recognition(read, start, valid[rows], with_characters)

            if lexicon is None and num_beams == 1:
                return read_doubtful(by_decoder, self, logits, lengths, valid, allowed, with_characters)
            return by_decoder(torch.arange(len(valid), device=valid.device))

        return in_parts(read_joint, self, pixel_values)

    def _recognition(
        self, read: FoundTexts, start: "partial[DecoderState]", widths: torch.Tensor, with_characters: bool
    ) -> Recognition:
        log_scores, step_scores = read.log_scores, read.step_scores
        if self.config.temperature != 1:
            warm = (start().along(read.sequences)[0] / self.config.temperature).log_softmax(-1)
            steps = steps_along(warm, read.sequences)
            log_scores, step_scores = steps.sum(-1), steps[:, :-1].exp() * (read.sequences != 0)
        found = Recognition(sequences=read.sequences, scores=log_scores.exp())
        if with_characters:
            spans = _frame_spans(start.keywords["ctc_logits"], start.keywords["lengths"], read.sequences)
            found.character_scores = with_the_end(read.sequences, step_scores, log_scores)
            found.character_spans = spans_in_px(self, spans, read.sequences, widths)
        if self.config.temperature != 1:
            found.raw_scores = read.log_scores.exp()
        return found


def _frame_spans(logits: torch.Tensor, lengths: torch.Tensor, sequences: torch.Tensor) -> torch.Tensor:
    """Where CTC sees the characters, float32 (B, L, 2) in frames; where a text has too many of them for that, they
    share the line evenly."""
    counts = (sequences != 0).sum(-1, keepdim=True).clamp(min=1)
    edges = torch.arange(sequences.shape[1] + 1, device=sequences.device) * lengths[:, None] / counts
    spans = torch.stack([edges[:, :-1], edges[:, 1:]], -1)
    fitting = minimum_frames(sequences) <= lengths
    spans[fitting] = align(logits[fitting], lengths[fitting], sequences[fitting]).frame_spans
    return spans


__all__ = ["VisionTextForTextRecognition", "VisionTextModel", "VisionTextPreTrainedModel"]
