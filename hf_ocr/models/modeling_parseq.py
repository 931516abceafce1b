"""PARSeq: a vision transformer, and a decoder that has learnt to read in any order."""

from typing import Any

import torch
import torch.nn.functional as F
from torch import nn
from transformers import GenerationMixin
from transformers import initialization as init
from transformers.modeling_outputs import BaseModelOutput, Seq2SeqLMOutput

from .attention_spans import frame_spans
from .beam_search import beam_search, lexicon_search, steps_along, with_the_end
from .configuration_parseq import ParseqConfig
from .ctc_loss import usable_labels
from .ctc_reading import allowed_symbols, check_num_beams, checked_lexicon, eval_mode
from .line_inputs import checked_widths
from .modeling_outputs import Recognition, TextRecognitionOutput
from .modeling_text_recognition import TextRecognitionPreTrainedModel
from .parseq_layers import KeyValue, ParseqDecoder, ParseqEncoderLayer, stretched


class ParseqPreTrainedModel(TextRecognitionPreTrainedModel):
    """What both classes share: names for transformers, and fresh weights."""

    config_class = ParseqConfig
    base_model_prefix = "parseq"
    main_input_name = "pixel_values"
    input_modalities = ("image",)
    supports_gradient_checkpointing = True
    _no_split_modules = ["ParseqEncoderLayer", "ParseqDecoder"]

    def _init_weights(self, module: nn.Module) -> None:
        super()._init_weights(module)
        if isinstance(module, ParseqModel | ParseqDecoder):
            init.normal_(module.positions, std=self.config.initializer_range)


class ParseqModel(ParseqPreTrainedModel):
    """The encoder: image -> one feature vector a patch, by a vision transformer without a class token.

    It has learnt where patches stand in images of one width, so every image is stretched to that: what is read depends
    on the image alone, however wide it is, and whatever stands beside it in the batch.
    """

    def __init__(self, config: ParseqConfig) -> None:
        super().__init__(config)
        rows, columns = config.patch_size
        self.patches = nn.Conv2d(config.num_channels, config.hidden_size, (rows, columns), stride=(rows, columns))
        self.positions = nn.Parameter(torch.empty(config.grid[0] * config.grid[1], config.hidden_size))
        self.layers = nn.ModuleList(ParseqEncoderLayer(config) for _ in range(config.encoder_layers))
        self.norm = nn.LayerNorm(config.hidden_size, eps=1e-6)
        self.gradient_checkpointing = False
        self.post_init()

    def forward(self, pixel_values: torch.Tensor, widths: torch.Tensor | None = None, **kwargs: Any) -> BaseModelOutput:
        """Features of each patch.

        Args:
            pixel_values: float (B, num_channels, image_height, W).
            widths: int64 (B,), valid columns of each image, px; all of W when None.

        Returns:
            `last_hidden_state` (B, rows * columns, hidden_size) in the model's dtype, row by row.

        Raises:
            ValueError: another shape than the configuration's, or an image without a column.
        """
        config = self.config
        widths = checked_widths(pixel_values, widths, config.num_channels, config.image_height)
        if (widths < 1).any():
            raise ValueError(
                f"the narrowest image is {int(widths.min())} px wide, expected at least 1 px. Widen images to "
                f"{config.image_width} px (the image processor's min_width)."
            )
        images = stretched(pixel_values, widths, config.image_width).to(self.dtype)
        hidden = self.patches(images).flatten(2).transpose(1, 2) + self.positions
        for layer in self.layers:
            hidden = layer(hidden)
        return BaseModelOutput(last_hidden_state=self.norm(hidden))


class ParseqForTextRecognition(ParseqPreTrainedModel, GenerationMixin):
    """PARSeq (Bautista and Atienza, arXiv:2207.06966): image of a word -> text.

    The decoder learns a text in several orders at once (section 3.3). So it can read from left to right, and then look
    at each character again with all others known.
    """

    # The loss is a mean over lines: gradient accumulation divides it (the stock Trainer asks this attribute).
    accepts_loss_kwargs = False

    def __init__(self, config: ParseqConfig) -> None:
        super().__init__(config)
        self.parseq = ParseqModel(config)
        self.decoder = ParseqDecoder(config)
        self.post_init()
        self._generate_at_most(config.max_label_length)

    def vocabulary_layers(self) -> list[nn.Linear | nn.Embedding]:
        """The layers with one row for each symbol of the alphabet."""
        return [self.decoder.classifier, self.decoder.embedding]

    def forward(
        self,
        pixel_values: torch.Tensor | None = None,
        widths: torch.Tensor | None = None,
        labels: torch.Tensor | None = None,
        decoder_input_ids: torch.Tensor | None = None,
        encoder_outputs: BaseModelOutput | None = None,
        **kwargs: Any,
    ) -> TextRecognitionOutput | Seq2SeqLMOutput:
        """Logits of each character and of the end behind them; the loss when labels are given.

        Args:
            pixel_values: float (B, num_channels, image_height, W) in [-1, 1].
            widths: int64 (B,), valid columns of each image, px; all of W when None.
            labels: int64 (B, L), alphabet ids padded with -100.
            decoder_input_ids, encoder_outputs: of `generate`: int64 (B, L), what stands before each step, 0 before the
                first; and the output of `ParseqModel`. The logits are then those of each step, (B, L, V).

        Returns:
            With labels the logits (B, L + 1, V) are those of each character given those to its left. The loss is the
            mean over lines of -log P(text and its end | image), divided by the square root of the steps: from left to
            right in eval mode, in training the mean over `num_permutations` orders, of which the random ones do not
            count the end. Without labels they are those of what is read greedily, (B, max_label_length + 1, V), behind
            the end of the text without meaning.

        Raises:
            ValueError: wrong shapes; labels that cannot be learnt (`ParseqConfig.invalid_labels`, `empty_labels`).
        """
        if encoder_outputs is None:
            if pixel_values is None:
                raise ValueError("pixel_values is None, expected images, or encoder_outputs. Pass one of them.")
            encoder_outputs = self.parseq(pixel_values, widths)
        image = self.decoder.look_at(encoder_outputs.last_hidden_state)
        if decoder_input_ids is not None:
            if decoder_input_ids.shape[1] > self.config.max_label_length + 1:
                raise ValueError(
                    f"decoder_input_ids has shape {tuple(decoder_input_ids.shape)}, expected at most "
                    f"{self.config.max_label_length + 1} columns, the start and config.max_label_length characters. "
                    "Generate with a smaller max_length."
                )
            return Seq2SeqLMOutput(logits=self._along(image, decoder_input_ids[:, 1:])[0])
        if labels is not None:
            return self._with_loss(image, labels)
        most = self.config.max_label_length
        texts = self._search(image, 1, None)
        if self.config.num_refinements:
            logits, _ = self._refined(image, texts, None)
        else:
            logits, _ = self._along(image, F.pad(texts, (0, most - texts.shape[1])))
        lengths = torch.full((len(logits),), most + 1, device=logits.device)
        return TextRecognitionOutput(logits=logits, logit_lengths=lengths)

    def _with_loss(self, image: KeyValue, labels: torch.Tensor) -> TextRecognitionOutput:
        config, device = self.config, image[0].device
        most = torch.full((len(image[0]),), config.max_label_length, device=device)
        targets, lengths, usable = usable_labels(
            labels, most, config.vocab_size, config.invalid_labels, config.empty_labels, aligned=False
        )
        lengths = lengths * usable
        longest = int(lengths.max()) if len(lengths) else 0
        targets = targets[:, :longest] * usable[:, None]
        ranks = self._orders(longest, device)
        orders = len(ranks)
        told = (ranks[:, None, :-1] < ranks[:, :, None]).flatten(0, 1)
        places = torch.arange(longest + 1, device=device)
        logits, _ = self.decoder(targets, places.repeat(orders), told & (targets != 0)[:, None], image)
        logits = logits.unflatten(1, (orders, -1))
        wanted = F.pad(targets, (0, 1))[:, None].expand(-1, orders, -1)
        losses = F.cross_entropy(logits.permute(0, 3, 1, 2), wanted, reduction="none")  # (B, orders, L + 1)
        # Only the order from left to right and its reverse know where a text ends.
        steps = lengths[:, None] + (torch.arange(orders, device=device) < 2)
        losses = losses.masked_fill(places >= steps[:, :, None], 0.0)
        lines = losses.sum((1, 2)) / (orders * (lengths + 1).sqrt())
        return TextRecognitionOutput(
            loss=lines[usable].sum() / usable.sum().clamp(min=1),
            logits=logits[:, 0],
            logit_lengths=lengths + 1,
            skipped=(~usable).sum(),
        )

    def _orders(self, longest: int, device: torch.device) -> torch.Tensor:
        """int64 (orders, longest + 1): when each character, and the end, comes; the first is from left to right."""
        forward = torch.arange(longest + 1, device=device)[None]
        if not self.training or self.config.num_permutations == 1:
            return forward
        drawn = torch.rand(self.config.num_permutations // 2 - 1, longest, device=device).argsort(-1)
        drawn = F.pad(torch.cat([drawn, longest - 1 - drawn]), (0, 1), value=longest)
        return torch.cat([forward, forward.flip(1), drawn])

    def _along(self, image: KeyValue, texts: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Logits of each character given those to its left, and of the end, (R, L + 1, V); and where each looked."""
        places = torch.arange(texts.shape[1] + 1, device=texts.device)
        return self.decoder(texts, places, (places[:-1] < places[:, None])[None], image)

    def _search(self, image: KeyValue, num_beams: int, allowed: torch.Tensor | None) -> torch.Tensor:
        """The most probable texts from left to right, int64 (B, L)."""
        images = len(image[0])
        texts = torch.empty(images * num_beams, 0, dtype=torch.int64, device=image[0].device)
        started = False

        def advance(parents: torch.Tensor, symbols: torch.Tensor) -> torch.Tensor:
            nonlocal image, texts, started
            if started:
                kept = parents[::num_beams] // num_beams
                if len(kept) < len(image[0]):
                    image = image[0][kept], image[1][kept]
                texts = torch.cat([texts[parents], symbols[:, None]], 1)
            started = True
            place = torch.tensor([texts.shape[1]], device=texts.device)
            everything = torch.ones(1, 1, texts.shape[1], dtype=torch.bool, device=texts.device)
            logits, _ = self.decoder(texts, place, everything, image)
            return logits[:, 0].log_softmax(-1)

        most = torch.full((images,), self.config.max_label_length, device=image[0].device)
        return beam_search(advance, most, num_beams, allowed).sequences

    def _refined(
        self, image: KeyValue, texts: torch.Tensor, allowed: torch.Tensor | None
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Each character read again from all others (section 3.4 of the paper), `num_refinements` times: the logits of
        the last time, (B, max_label_length + 1, V), and the texts by these."""
        places = torch.arange(self.config.max_label_length + 1, device=texts.device)
        for _ in range(self.config.num_refinements):
            others = (places[: texts.shape[1]] != places[:, None]) & (texts != 0)[:, None]
            logits, _ = self.decoder(texts, places, others, image)
            choices = logits[:, :-1]
            if allowed is not None:
                choices = choices.masked_fill(~allowed, -torch.inf)
            best = choices.argmax(-1)
            texts = best.masked_fill((best == 0).cumsum(-1) > 0, 0)
            texts = texts[:, : int((texts != 0).sum(-1).max()) if len(texts) else 0]
        return logits, texts

    def _best_of(self, image: KeyValue, lexicon: torch.Tensor) -> torch.Tensor:
        """The text of the lexicon that is the most probable for each image."""
        images, most = len(image[0]), self.config.max_label_length
        lexicon = lexicon[(lexicon[:, most:] == 0).all(-1), :most]
        if not len(lexicon):
            raise ValueError(
                f"lexicon has no words of at most {most} characters, expected at least one. Leave it out to read "
                "without a lexicon."
            )
        return lexicon_search(
            lambda texts: self._along(image, texts.flatten(0, 1))[0].log_softmax(-1).unflatten(0, texts.shape[:2]),
            images,
            lexicon,
            self.config.vocab_size,
        ).sequences

    @torch.no_grad()
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

        The score is P(text | image) from left to right, also of what was refined.

        Args:
            pixel_values: float (B, num_channels, image_height, W) in [-1, 1].
            widths: int64 (B,), valid columns, px; all of W when None.
            num_beams: 1 reads greedily and refines; more runs a beam search from left to right.
            allowed_ids: alphabet ids that may appear; all when None.
            lexicon: int64 (N, L) padded with 0: the answer is one of these N texts. Those longer than
                `max_label_length` are never read.
            with_characters: also give the score and the px span of every character. The score is the character's
                probability given those before it, the last one's also that the text ends there; the span is taken from
                where the decoder looked.

        Raises:
            ValueError: `num_beams` below 1, ids outside the alphabet, no words, both `allowed_ids` and `lexicon`, or
                what `forward` does not take.
        """
        check_num_beams(num_beams)
        config = self.config
        allowed = allowed_symbols(allowed_ids, config.vocab_size, pixel_values.device)
        lexicon = checked_lexicon(lexicon, allowed_ids, config.vocab_size, pixel_values.device)
        if allowed is not None:
            allowed[0] = True  # a text always may end
        with eval_mode(self):
            image = self.decoder.look_at(self.parseq(pixel_values, widths).last_hidden_state)
            if lexicon is not None:
                texts = self._best_of(image, lexicon)
            else:
                texts = self._search(image, num_beams, allowed)
                if num_beams == 1 and config.num_refinements:
                    _, texts = self._refined(image, texts, allowed)
            logits, looked = self._along(image, texts)
        steps = steps_along((logits / config.temperature).log_softmax(-1), texts)
        found = Recognition(sequences=texts, scores=steps.sum(-1).exp())
        if config.temperature != 1:
            found.raw_scores = steps_along(logits.log_softmax(-1), texts).sum(-1).exp()
        if with_characters:
            found.character_scores = with_the_end(texts, steps[:, :-1].exp() * (texts != 0), steps.sum(-1))
            widths = checked_widths(pixel_values, widths, config.num_channels, config.image_height)
            columns = torch.full_like(widths, config.grid[1])
            looked = looked.unflatten(-1, config.grid).sum(-2)[:, None]
            found.character_spans = frame_spans(looked, texts, columns) * (widths / columns)[:, None, None]
        return found

    # What `generate` of transformers asks for.

    def get_encoder(self, *_: Any, **__: Any) -> ParseqModel:
        """What is computed once for an image."""
        return self.parseq

    @classmethod
    def _supports_default_dynamic_cache(cls) -> bool:
        return False

    def prepare_inputs_for_generation(self, input_ids: torch.Tensor, **kwargs: Any) -> dict[str, Any]:
        """What `forward` takes in a step of `generate`; nothing is refined there."""
        return {"decoder_input_ids": input_ids, "encoder_outputs": kwargs["encoder_outputs"]}


__all__ = ["ParseqForTextRecognition", "ParseqModel", "ParseqPreTrainedModel"]
