"""MGP-STR of transformers (Wang et al., arXiv:2209.03592) under the training loop: the loss and the labels it lacks."""

from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
import transformers
from torch import nn
from transformers import AutoImageProcessor, AutoTokenizer

from hf_ocr.models.mgp_str_reading import MgpStrTokenizers, check_heads, missing
from hf_ocr.models.modeling_outputs import TextRecognitionOutput
from hf_ocr.models.processing_text_recognition import IGNORED
from hf_ocr.stock_parts import StockProcessor, WritableTokenizer, padded

__all__ = ["MgpStrProcessor", "MgpstrForSceneTextRecognition", "load_mgp_str"]


def load_mgp_str(name: str | Path) -> tuple[Any, Any]:
    """The model to train, float32, and its processor.

    Raises:
        ValueError: the tokenizers of GPT-2 and BERT are missing, or a tokenizer does not fit its head. A model of which
            one head alone has learnt would read with the two others as before.
    """
    model = MgpstrForSceneTextRecognition.from_pretrained(name, dtype=torch.float32)
    characters = AutoTokenizer.from_pretrained(name)
    try:
        tokenizers = MgpStrTokenizers.load(characters)
    except (OSError, ValueError) as error:
        raise ValueError(f"{name}: MGP-STR learns with three heads, and {missing(error)}") from error
    check_heads(model, tokenizers)
    return model, MgpStrProcessor(AutoImageProcessor.from_pretrained(name), tokenizers)


class MgpstrForSceneTextRecognition(transformers.MgpstrForSceneTextRecognition):
    """The stock model with a loss. It has the stock name, so that what it saves is stock."""

    def vocabulary_layers(self) -> list[nn.Module]:
        """The layers with one row for each symbol, one a head."""
        return [self.char_head, self.bpe_head, self.wp_head]

    def forward(
        self,
        pixel_values: torch.Tensor,
        labels: torch.Tensor | None = None,
        widths: torch.Tensor | None = None,
        **kwargs: Any,
    ) -> Any:
        """What the stock model gives; with labels the loss of all heads, and the logits of the characters.

        Args:
            pixel_values: what the checkpoint's image processor gives.
            labels: int64 (B, 3, L), the ids of characters, byte pairs and word pieces with their ends, without a start,
                padded with -100.
            widths: not looked at.

        Returns:
            The loss is the mean over lines of the cross entropies of a text in the three heads, each divided by the
            square root of its length there, as in the other families. Lines with more symbols than positions, or none,
            in any head are skipped.
        """
        output = super().forward(pixel_values, **kwargs)
        if labels is None:
            return output
        logits = [head[:, 1:].float() for head in output.logits]  # the first position stands for the start
        positions = logits[0].shape[1]
        lengths = (labels != IGNORED).sum(-1)
        usable = ((lengths > 0) & (lengths <= positions)).all(-1)
        labels = labels[..., :positions]
        steps = [
            F.cross_entropy(head[:, : labels.shape[-1]].transpose(1, 2), own, reduction="none", ignore_index=IGNORED)
            for head, own in zip(logits, labels.unbind(1), strict=True)
        ]
        lines = (torch.stack(steps, 1).sum(-1) / lengths.clamp(min=1).sqrt()).sum(-1) * usable
        return TextRecognitionOutput(
            loss=lines.sum() / usable.sum().clamp(min=1),
            logits=logits[0],
            logit_lengths=lengths[:, 0].clamp(max=positions),
            skipped=(~usable).sum(),
        )


class MgpStrProcessor(StockProcessor):
    """The processor of MGP-STR, with the tokenizers of its three heads; only that of the characters is saved."""

    def __init__(self, image_processor: Any, tokenizers: MgpStrTokenizers) -> None:
        super().__init__(image_processor, _Characters(tokenizers.characters))
        self.bpe_tokenizer, self.wp_tokenizer = tokenizers.bpe, tokenizers.word_pieces

    def labels(self, texts: Sequence[str]) -> torch.Tensor:
        """int64 (B, 3, L), padded with -100."""
        heads = MgpStrTokenizers.of(self).heads
        rows = [
            [*head.tokenizer(text, add_special_tokens=False)["input_ids"], head.end] for text in texts for head in heads
        ]
        return padded(rows).view(len(texts), len(heads), -1)


class _Characters(WritableTokenizer):
    @cached_property
    def alphabet(self) -> list[str]:
        """The characters of the head, in the order of their ids."""
        vocabulary = self.part.get_vocab()
        return [c for c in sorted(vocabulary, key=vocabulary.__getitem__) if c not in self.part.all_special_tokens]
