"""An n-gram model of characters, which says how likely a text is whatever the image: tables, as buffers of a model."""

import torch
from torch import Tensor, nn

KEY_BITS = 60  # of an n-gram's classes; its length stands above them
NATS = 1000.0  # the tables hold log-probabilities in thousandths: integers, the same in every dtype of the model


class CharacterLanguageModel(nn.Module):
    """log P(text) by the n characters up to each one, with back-off (Katz 1987) where they were never seen together.

    Symbols are taken by class, as the same letter in both cases: what cannot be known before the image is seen (which
    digit) or is seen well enough (the case) is left to the image. `fit_language_model` fills the tables.

    Args:
        vocab_size: V, symbols of the alphabet, the padding (id 0) included.
        order: n, at most 7.
        size: N, entries of the table.
    """

    classes: Tensor  # int16 (V,), the class of each symbol; 0 stands for the ends of a text
    keys: Tensor  # int64 (N,), ascending
    log_probs: Tensor  # int16 (N,), of the last character after those before it
    backoffs: Tensor  # int16 (N,), what is added where another character follows than ever did

    def __init__(self, vocab_size: int, order: int, size: int) -> None:
        super().__init__()
        self.order = order
        self.register_buffer("classes", torch.zeros(vocab_size, dtype=torch.int16))
        self.register_buffer("keys", torch.zeros(size, dtype=torch.int64))
        self.register_buffer("log_probs", torch.zeros(size, dtype=torch.int16))
        self.register_buffer("backoffs", torch.zeros(size, dtype=torch.int16))

    def forward(self, texts: Tensor) -> Tensor:
        """log P of whole texts, their end included.

        Args:
            texts: int64 (R, L) padded with 0.

        Returns:
            float32 (R,), in nats. A text's does not depend on those beside it.
        """
        ends = (texts != 0).sum(1, keepdim=True)
        classes = nn.functional.pad(self.classes[texts].long(), (self.order - 1, 1))
        positions = torch.arange(texts.shape[1] + 1, device=texts.device)
        bits = KEY_BITS // self.order
        keys = torch.zeros_like(classes[:, self.order - 1 :])
        total = torch.zeros_like(keys)
        backoff = torch.zeros_like(keys)  # of the characters before, one fewer than now
        for length in range(1, self.order + 1):
            first = self.order - length
            keys = keys | classes[:, first : first + keys.shape[1]] << bits * (length - 1)
            index, known = self._find(keys | length << KEY_BITS)
            total = torch.where(known, self.log_probs[index], total + backoff)
            seen = torch.where(known, self.backoffs[index], 0).long()
            start, start_known = self._find(torch.full_like(keys[:1, :1], length << KEY_BITS))
            start_backoff = torch.where(start_known, self.backoffs[start], 0).long().expand(len(texts), 1)
            backoff = torch.cat([start_backoff, seen[:, :-1]], 1)
        return total.masked_fill(positions > ends, 0).sum(1) / NATS

    def _find(self, keys: Tensor) -> tuple[Tensor, Tensor]:
        """Where these stand in the table, and whether they do."""
        index = torch.searchsorted(self.keys, keys).clamp(max=len(self.keys) - 1)
        return index, self.keys[index] == keys
