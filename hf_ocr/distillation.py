"""Distillation: a recognizer learns from another, of its frames and steps or of the text that it reads."""

from __future__ import annotations

import unicodedata
from collections.abc import Set
from typing import TYPE_CHECKING, Any

import torch
from accelerate import PartialState
from accelerate.utils import gather_object
from PIL import Image
from torch import nn

from hf_ocr.batch_reading import BatchReader

if TYPE_CHECKING:
    from datasets import Dataset

__all__ = ["Teacher", "read_with_teacher"]


class Teacher:
    """Another model that sees the same images, and which of its symbols the model in training has.

    It may be of another family, or the model from which the training starts, against forgetting. After Li and Hoiem,
    Learning without Forgetting (arXiv:1606.09282), section 3: the model's outputs for the symbols that both have are
    held to those of the teacher. New characters are outside the comparison, so that learning them costs nothing.

    Args:
        model: the teacher, which is put in evaluation mode.
        processor: of the teacher.
        student_processor: of the model in training.

    Raises:
        ValueError: processors that make different tensors of an image; a teacher without a CTC head that has another
            alphabet.
    """

    def __init__(self, model: Any, processor: Any, student_processor: Any) -> None:
        image = Image.merge("RGB", [Image.linear_gradient("L").rotate(turn).resize((150, 37)) for turn in (0, 90, 180)])
        seen, shown = (
            own(images=[image], return_tensors="pt")["pixel_values"] for own in (processor, student_processor)
        )
        if seen.shape != shown.shape or not torch.equal(seen, shown):
            raise ValueError(
                f"the teacher takes an image as a tensor of shape {tuple(seen.shape[1:])}, the model in training as "
                f"one of {tuple(shown.shape[1:])}, or with other values: its logits cannot be compared. Set "
                "distillation_weight to 0: what it reads can still be learnt, as texts (`read_with_teacher`)."
            )
        self.model = model.eval()
        if hasattr(model, "recognize"):  # what to do with a label that cannot be aligned is the student's to say
            model.config.invalid_labels, model.config.empty_labels = "skip", "blank"
        old, new = processor.tokenizer.get_vocab(), student_processor.tokenizer.get_vocab()
        shared = sorted(set(old) & set(new), key=old.__getitem__)
        self.own_ids = torch.tensor([old[symbol] for symbol in shared])
        self.student_ids = torch.tensor([new[symbol] for symbol in shared])
        self.same_symbols = old == new
        # Only what ends in CTC has frames, and no decoder alone (TRBA).
        frames = hasattr(model.base_model, "frame_count") and getattr(model.config, "ctc_weight", 1) > 0
        self.needs_labels = not frames
        if self.needs_labels and not self.same_symbols:
            raise ValueError(
                f"the teacher has no CTC head and {len(old)} symbols, the model in training {len(new)}: a decoder is "
                "compared along the labels, for which both need one alphabet. Keep the teacher's, or set "
                "distillation_weight to 0."
            )

    def loss(self, batch: dict[str, torch.Tensor], outputs: Any) -> torch.Tensor:
        """KL(teacher || student) over the symbols that both have: the mean over the frames of the batch.

        Where both have decoders and the same alphabet, also the mean over the steps along the labels (word-level
        distillation of Kim and Rush, arXiv:1606.07947, section 3.1); the loss is then the mean of both.

        Args:
            batch: what the student was given.
            outputs: what it answered: `logits` float32 (B, T, V), `logit_lengths` int64 (B,), and `decoder_logits`
                float32 (B, L + 1, V) where it has them.

        Raises:
            ValueError: a teacher with neither the student's frames nor its steps.
        """
        steps = getattr(outputs, "decoder_logits", None)
        along_labels = self.needs_labels or (self.same_symbols and steps is not None)
        inputs = {name: tensor for name, tensor in batch.items() if along_labels or name != "labels"}
        with torch.no_grad():
            own = self.model.to(outputs.logits.device)(**inputs)
        losses = []
        if own.logits.shape[:2] == outputs.logits.shape[:2]:
            losses.append(self._divergence(own.logits, outputs.logits, outputs.logit_lengths))
        own_steps = getattr(own, "decoder_logits", None)
        if along_labels and steps is not None and own_steps is not None:
            losses.append(self._divergence(own_steps, steps, (batch["labels"] >= 0).sum(-1) + 1))
        if not losses:
            raise ValueError(
                f"the teacher gives {own.logits.shape[1]} frames where the model in training gives "
                f"{outputs.logits.shape[1]}. Take one with the same frames, or set distillation_weight to 0: what it "
                "reads can still be learnt, as texts (`read_with_teacher`)."
            )
        return torch.stack(losses).mean()

    def _divergence(self, own: torch.Tensor, answered: torch.Tensor, lengths: torch.Tensor) -> torch.Tensor:
        """The mean over what is valid, `lengths` (B,), of logits (B, T, V)."""
        device = answered.device
        expected = own[..., self.own_ids.to(device)].float().log_softmax(-1)
        answered = answered[..., self.student_ids.to(device)].float().log_softmax(-1)
        valid = torch.arange(answered.shape[1], device=device) < lengths[:, None]
        divergence = nn.functional.kl_div(answered, expected, reduction="none", log_target=True).sum(-1)
        return divergence[valid].mean()


def read_with_teacher(rows: Dataset, model: str, alphabet: Set[str], min_score: float = 0.95) -> Dataset:
    """Rows whose text is what another recognizer reads, without those it is not sure of.

    Distillation by texts (Kim and Rush, arXiv:1606.07947, section 3.2), for images without labels: it asks nothing of
    the teacher but that the pipeline reads with it. Processes share the rows, and each gets all of them back. datasets
    keeps what was read of rows that come from parquet files, so that a run that goes on need not read them again.

    Args:
        rows: "image", and a "text" that is not looked at.
        model: folder of a checkpoint, or its name on the Hub, of any recognizer.
        alphabet: rows with other characters are left out.
        min_score: least probability a character (the geometric mean over the text), in [0, 1]. Rows in which nothing
            is read, or that cannot be read, are left out too.
    """
    from datasets import Image as ImageFeature

    state = PartialState()
    own = rows.shard(state.num_processes, state.process_index).cast_column("image", ImageFeature(decode=False))
    own = own.map(
        BatchReader(model, device=str(state.device)),
        batched=True,
        remove_columns=own.column_names,
        desc="reading with the teacher",
    )
    readings = gather_object([(unicodedata.normalize("NFC", row["text"]), row["score"]) for row in own])
    sure = [
        index
        for index, (text, score) in enumerate(readings)
        if text and score ** (1 / len(text)) >= min_score and alphabet >= set(text)
    ]
    return rows.remove_columns("text").add_column("text", [text for text, _ in readings]).select(sure)
