"""An n-gram model of characters, which says how likely a text is whatever the image: tables, as buffers of a model."""

import torch
from torch import Tensor, nn

KEY_BITS = 60  # of an n-gram's classes; its length stands above them
NATS = 1000.0  # the tables hold log-probabilities in thousandths: integers, the same in every dtype of the model


class CharacterLanguageModel(nn.Module):
    """log P(text) by the n characters up to each one, with back-off (Katz 1987) where they were never seen together.

    Symbols are taken by class, as the same letter in both cases: what cannot be known before the image is seen (which
    digit) or is seen well enough (the case) is left to the image, and so is which signs there are: texts that differ in
    them are not for it to choose among. `fit_language_model` fills the tables.

    Args:
        vocab_size: V, symbols of the alphabet, the padding (id 0) included.
        order: n, at most 7.
        size: N, entries of the table.
    """

    classes: Tensor  # int16 (V,), the class of each symbol; 0 stands for the ends of a text
    signs: Tensor  # bool (V,), which symbols are neither letters nor digits
    keys: Tensor  # int64 (N,), ascending
    log_probs: Tensor  # int16 (N,), of the last character after those before it
    backoffs: Tensor  # int16 (N,), what is added where another character follows than ever did

    def __init__(self, vocab_size: int, order: int, size: int) -> None:
        super().__init__()
        self.order = order
        self.register_buffer("classes", torch.zeros(vocab_size, dtype=torch.int16))
        self.register_buffer("signs", torch.zeros(vocab_size, dtype=torch.bool))
        self.register_buffer("keys", torch.zeros(size, dtype=torch.int64))
        self.register_buffer("log_probs", torch.zeros(size, dtype=torch.int16))
        self.register_buffer("backoffs", torch.zeros(size, dtype=torch.int16))

    def order_of_tables(self) -> int:
        """n of the longest n-grams, which says how the keys are read."""
        return int(self.keys[-1]) >> KEY_BITS

    def signs_of(self, texts: Tensor) -> Tensor:
        """The signs of each text one after the other, int64 (R, L) padded with 0, as the texts are."""
        signs = texts * self.signs[texts]
        return signs.gather(1, (signs == 0).int().sort(dim=1, stable=True).indices)

    def forward(self, texts: Tensor) -> Tensor:
        """log P of whole texts, their end included.

        Args:
            texts: int64 (R, L) padded with 0.

        Returns:
            float32 (R,), in nats. A text's does not depend on those beside it.
        """
        ends = (texts != 0).sum(1, keepdim=True)
        classes = nn.functional.pad(self.classes[texts].long(), (self.order, 1))
        lengths = torch.arange(1, self.order + 1, device=texts.device)
        # From one place before the text to its end, the n-grams of each length that end there: (R, L + 2, order).
        ending = classes.unfold(1, self.order, 1).flip(2) << (lengths - 1) * (KEY_BITS // self.order)
        keys = ending.cumsum(2) + (lengths << KEY_BITS)
        places = torch.arange(keys.shape[1], device=texts.device) <= ends + 1
        index = torch.searchsorted(self.keys, keys[places]).clamp_(max=len(self.keys) - 1)  # (places, order)
        known = self.keys[index] == keys[places]
        log_probs = self.log_probs[index].int()[1:]
        backoffs = (self.backoffs[index].int() * known)[:-1]
        total = log_probs[:, 0]
        for longer in range(1, self.order):
            total = torch.where(known[1:, longer], log_probs[:, longer], total + backoffs[:, longer - 1])
        # Of places one after the other, in the texts one after the other; what is before a text is none of its places.
        found = torch.zeros(keys.shape[:2], dtype=torch.int32, device=texts.device)
        found[places] = nn.functional.pad(total, (1, 0))
        return found[:, 1:].sum(1).float() / NATS
