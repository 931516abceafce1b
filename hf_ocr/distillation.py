"""Learning without forgetting: a recognizer in training held to what an earlier one says of the same images."""

from typing import Any

import torch
from torch import nn

from hf_ocr.models.tokenization_characters import CharacterTokenizer

__all__ = ["Teacher"]


class Teacher:
    """The earlier model, and which of its symbols the model in training still has.

    After Li and Hoiem, Learning without Forgetting (arXiv:1606.09282), section 3: on the new images, the new model's
    outputs for the old classes are held to those of the old model. New characters are outside the comparison, so that
    learning them costs nothing.
    """

    def __init__(self, model: nn.Module, tokenizer: CharacterTokenizer, student_tokenizer: CharacterTokenizer) -> None:
        """Args: the earlier model, which is put in evaluation mode; its tokenizer; that of the model in training."""
        self.model = model.eval()
        old, new = tokenizer.get_vocab(), student_tokenizer.get_vocab()
        shared = sorted(set(old) & set(new), key=old.__getitem__)
        self.own_ids = torch.tensor([old[symbol] for symbol in shared])
        self.student_ids = torch.tensor([new[symbol] for symbol in shared])

    def loss(self, batch: dict[str, torch.Tensor], outputs: Any) -> torch.Tensor:
        """Mean over the frames of the batch of KL(teacher || student), over the symbols that both have.

        Args:
            batch: what the student was given; labels are not looked at.
            outputs: what it answered: `logits` float32 (B, T, V) and `logit_lengths` int64 (B,).

        Raises:
            ValueError: a teacher whose frames are not the student's.
        """
        logits, lengths = outputs.logits, outputs.logit_lengths
        device = logits.device
        inputs = {name: tensor for name, tensor in batch.items() if name != "labels"}
        with torch.no_grad():
            own = self.model.to(device)(**inputs).logits
            if own.shape[:2] != logits.shape[:2]:
                raise ValueError(
                    f"the teacher gives {own.shape[1]} frames where the model in training gives {logits.shape[1]}. "
                    "Take the checkpoint that the training starts from."
                )
            expected = own[..., self.own_ids.to(device)].float().log_softmax(-1)
        answered = logits[..., self.student_ids.to(device)].float().log_softmax(-1)
        valid = torch.arange(logits.shape[1], device=device) < lengths[:, None]
        divergence = nn.functional.kl_div(answered, expected, reduction="none", log_target=True).sum(-1)
        return divergence[valid].mean()
