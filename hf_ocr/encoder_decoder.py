"""Encoder-decoders of transformers (TrOCR, Donut, any encoder with GPT-2) under the training loop and the evaluation.

A `VisionEncoderDecoderModel` lacks three things here: a loss that is a mean over lines whatever the accumulation,
labels from texts with one start and one end, and a refusal where the parts of a checkpoint do not agree about them.
"""

import copy
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import nn
from transformers import (
    AutoConfig,
    AutoImageProcessor,
    AutoModelForImageTextToText,
    AutoModelForTextRecognition,
    AutoProcessor,
    AutoTokenizer,
)

from hf_ocr.mgp_str import load_mgp_str
from hf_ocr.models.generation import start_token
from hf_ocr.models.mgp_str_reading import MGP_STR
from hf_ocr.models.modeling_outputs import TextRecognitionOutput
from hf_ocr.models.processing_text_recognition import IGNORED
from hf_ocr.models.tokenization_characters import CharacterTokenizer
from hf_ocr.registration import find_checkpoint
from hf_ocr.stock_parts import StockProcessor, WritableTokenizer, padded

__all__ = ["EncoderDecoderProcessor", "EncoderDecoderRecognizer", "decoder_positions", "load_recognizer"]


def load_recognizer(name: str | Path, lora_rank: int = 0) -> tuple[Any, Any]:
    """A recognizer to train, float32, and its processor.

    Args:
        name: folder or Hub name of a checkpoint of ours, of a `VisionEncoderDecoderModel`, or of MGP-STR; or the
            name of one in the package.
        lora_rank: of the low-rank matrices (Hu et al., arXiv:2106.09685) that learn beside each linear layer of an
            encoder-decoder, instead of its weights (extra `lora`); 0 for none.

    Raises:
        ValueError: an encoder-decoder whose parts do not agree about start, end and padding; an MGP-STR without the
            tokenizers of its heads; a rank for another model.
    """
    name = find_checkpoint(name)
    model_type = AutoConfig.from_pretrained(name).model_type
    if model_type != "vision-encoder-decoder":
        if lora_rank:
            raise ValueError(
                f"lora_rank is {lora_rank}, but {name} is no encoder-decoder of transformers. Leave it out: these "
                "models are small enough to be trained whole."
            )
        if model_type == MGP_STR:
            return load_mgp_str(name)
        model = AutoModelForTextRecognition.from_pretrained(name, dtype=torch.float32)
        return model, AutoProcessor.from_pretrained(name)
    processor = EncoderDecoderProcessor(AutoImageProcessor.from_pretrained(name), AutoTokenizer.from_pretrained(name))
    stock = AutoModelForImageTextToText.from_pretrained(name, dtype=torch.float32)
    if lora_rank:
        try:
            from peft import LoraConfig, get_peft_model
        except ImportError as error:
            raise ImportError("lora_rank wants the package peft: pip install 'hf_ocr[lora]'") from error

        check_special_tokens(stock, processor.tokenizer)  # peft would bury the message
        stock = get_peft_model(stock, LoraConfig(r=lora_rank, lora_alpha=2 * lora_rank, target_modules="all-linear"))
    return EncoderDecoderRecognizer(stock, processor.tokenizer), processor


def decoder_positions(model: Any) -> int | None:
    """Tokens of a label, its end among them where the tokenizer writes one, that a model has positions for; None for a
    model without such a bound."""
    config = model.config
    if config.model_type == MGP_STR:
        return config.max_token_length - 1  # the first stands for the start
    own = getattr(config, "max_label_length", None)
    return own if own is not None else getattr(getattr(config, "decoder", None), "max_position_embeddings", None)


class EncoderDecoderRecognizer(nn.Module):
    """A stock encoder-decoder as `train` wants a model; all else it answers as the model inside does.

    Args:
        model: a `VisionEncoderDecoderModel`, or one wrapped by peft.
        tokenizer: of the same checkpoint.

    Raises:
        ValueError: start, end or padding that are missing, or that model and tokenizer do not agree about.
    """

    def __init__(self, model: Any, tokenizer: Any) -> None:
        super().__init__()
        check_special_tokens(model, tokenizer)
        self.model = model
        pooler = getattr(getattr(model, "encoder", None), "pooler", None)
        if pooler is not None:  # no decoder asks it, and several processes wait for the gradients of what is trained
            pooler.requires_grad_(False)

    def __getattr__(self, name: str) -> Any:
        """Of this module, else of the model inside."""
        try:
            return super().__getattr__(name)
        except AttributeError:
            return getattr(super().__getattr__("model"), name)

    def vocabulary_layers(self) -> list[nn.Module]:
        """The layers with one row for each symbol: the decoder's embedding and its head, which may be tied to it."""
        return [self.model.decoder.get_input_embeddings(), self.model.decoder.get_output_embeddings()]

    def forward(
        self, pixel_values: torch.Tensor, labels: torch.Tensor, widths: torch.Tensor | None = None, **kwargs: Any
    ) -> TextRecognitionOutput:
        """Logits of each symbol given those before it, float32 (B, L, V), and the loss.

        Args:
            pixel_values: what the checkpoint's image processor gives.
            labels: int64 (B, L), token ids with their end, padded with -100; not shifted.
            widths: not looked at.

        Returns:
            The loss is the mean over lines of what the tokens of a line lose together, divided by the square root of
            their number, as in the other families. Lines with more tokens than the decoder has positions are skipped.
        """
        settings = self.model.generation_config
        lengths = (labels != IGNORED).sum(-1)
        positions = decoder_positions(self.model) or labels.shape[1]
        usable = (lengths > 0) & (lengths <= positions)
        labels = labels[:, :positions]
        given = F.pad(labels[:, :-1], (1, 0), value=settings.decoder_start_token_id)
        given = given.masked_fill(given == IGNORED, settings.pad_token_id)
        logits = self.model(pixel_values=pixel_values, decoder_input_ids=given, use_cache=False).logits.float()
        steps = F.cross_entropy(logits.transpose(1, 2), labels, reduction="none", ignore_index=IGNORED)
        lines = steps.sum(-1) * usable / lengths.clamp(min=1).sqrt()
        return TextRecognitionOutput(
            loss=lines.sum() / usable.sum().clamp(min=1),
            logits=logits,
            logit_lengths=lengths.clamp(max=positions),
            skipped=(~usable).sum(),
        )

    def save_pretrained(self, save_directory: str | os.PathLike[str], **kwargs: Any) -> None:
        """As the stock model, which reads without this package; what peft has learnt is added to its weights."""
        model = self.model
        if hasattr(model, "merge_and_unload"):
            model = copy.deepcopy(model).merge_and_unload()
        model.save_pretrained(save_directory, **kwargs)


class EncoderDecoderProcessor(StockProcessor):
    """The processor of an encoder-decoder: each text ends with the end token, once."""

    def __init__(self, image_processor: Any, tokenizer: Any) -> None:
        own = tokenizer if isinstance(tokenizer, CharacterTokenizer) else WritableTokenizer(tokenizer)
        super().__init__(image_processor, own)

    def labels(self, texts: Sequence[str]) -> torch.Tensor:
        """int64 (B, L), padded with -100."""
        return padded([self.tokenizer.label_ids(text) for text in texts])


def check_special_tokens(model: Any, tokenizer: Any) -> None:
    """Refuse an encoder-decoder that would learn or read with another start, end or padding than its tokenizer has.

    transformers takes a missing or a different id without a word, and the text is then rubbish from its first token on.

    Raises:
        ValueError: says which ids stand where, and what to set.
    """
    settings = model.generation_config
    for name in ("eos_token_id", "pad_token_id"):
        expected, found = getattr(tokenizer, name), _single(getattr(settings, name, None))
        if found is None or found != expected:
            raise ValueError(
                f"{name} is {found} in the model's generation_config and {expected} in the tokenizer. Expected one id "
                f"in both: set model.generation_config.{name} and model.config.{name} to the id with which the model "
                "was trained, the tokenizer's if it was not, and save the model again. Where the tokenizer has none, "
                "as that of GPT-2, first tokenizer.pad_token = tokenizer.eos_token, and save it too."
            )
    if start_token(model, tokenizer) is None:
        raise ValueError(
            "decoder_start_token_id is None in the model's generation_config. Expected the id with which the decoder "
            f"was trained, for a new one tokenizer.bos_token_id ({tokenizer.bos_token_id}), for Donut that of the tag "
            "of its task. Set it there and in model.config, and save the model again."
        )
    symbols, rows = len(tokenizer), model.get_output_embeddings().weight.shape[0]
    if symbols > rows:
        raise ValueError(
            f"the tokenizer has {symbols} symbols, but the decoder has {rows}. Take model and tokenizer from the same "
            "checkpoint."
        )


def _single(ids: int | Sequence[int] | None) -> int | None:
    return ids[0] if isinstance(ids, Sequence) and len(ids) == 1 else ids  # type: ignore[return-value]
