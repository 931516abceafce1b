"""The decoder of attention OCR: at each step an LSTM attends to the frames of the image and gives one symbol."""

from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import nn
from transformers import initialization as init
from transformers.utils import ModelOutput

from .configuration_attention_ocr import AttentionOcrConfig


@dataclass
class AttentionMemory(ModelOutput):
    """What is computed once for an image, and read at every step.

    Attributes:
        features: (B, T, feature_size), a vector for each frame. With a CTC head one frame stands behind the last of
            the image, at which the decoder learns to look when no character is left.
        keys: (B, T, attention_size), the part of the attention that is the same at every step.
        valid: bool (B, T).
        characters: float32 (B, T), how many characters begin in the frames up to this one, as the CTC head sees it;
            the frame behind the last counts one more. Without the head there is none.
        ctc_logits: float32 (B, frames, V), likewise.
        lengths: int64 (B,), frames of the image.
    """

    features: torch.Tensor | None = None
    keys: torch.Tensor | None = None
    valid: torch.Tensor | None = None
    characters: torch.Tensor | None = None
    ctc_logits: torch.Tensor | None = None
    lengths: torch.Tensor | None = None

    def select(self, rows: torch.Tensor) -> "AttentionMemory":
        """These rows of what the decoder reads, in this order."""
        return AttentionMemory(
            **{
                name: self[name].index_select(0, rows)
                for name in ("features", "keys", "valid", "characters")
                if name in self
            }
        )


class AttentionState(NamedTuple):
    """The decoder between two steps.

    Attributes:
        hidden: (B, decoder_hidden_size).
        cell: float32, likewise.
        attended: float32 (B, T), the weights of the last step, the mean of all heads; zeros before the first.
        covered: float32 (B, T), their sum over all steps.
    """

    hidden: torch.Tensor
    cell: torch.Tensor
    attended: torch.Tensor
    covered: torch.Tensor

    def select(self, rows: torch.Tensor) -> "AttentionState":
        """These rows, in this order."""
        return AttentionState(*(tensor.index_select(0, rows) for tensor in self))


class AttentionDecoder(nn.Module):
    """Additive attention (Bahdanau et al., arXiv:1409.0473) and an LSTM (Baek et al., arXiv:1904.01906, section 3.4).

    e_t = w tanh(W_k H_t + W_q s_{n-1} + location_t), a = softmax(e), c = sum_t a_t H_t,
    s_n = LSTM(c, y_{n-1}, s_{n-1}), and the logits of the symbol are W_o s_n.

    Two terms hold the attention in its place on lines longer than those it learnt from. The location is a convolution
    over the last weights and over the sum of all weights so far, so that what has been read is seen (Chorowski et al.,
    arXiv:1506.07503, section 2.1). And where a CTC head counts characters, e_t of each head is lowered by half its
    precision times (characters_t - characters at the last weights - 1) squared: the next character is looked for one
    character further, however wide the gap before it, and what lies several characters away weighs nothing.
    """

    def __init__(self, config: AttentionOcrConfig) -> None:
        super().__init__()
        self.config = config
        heads, hidden_size = config.num_attention_heads, config.decoder_hidden_size
        self.key = nn.Linear(config.feature_size, config.attention_size, bias=False)
        self.query = nn.Linear(hidden_size, config.attention_size)
        self.energy = nn.Parameter(torch.empty(heads, config.attention_size // heads))
        self.location = self.location_key = self.precision = self.end = None
        if config.location_kernel:
            kernel = config.location_kernel
            self.location = nn.Conv1d(2, config.location_channels, kernel, padding=kernel // 2, bias=False)
            self.location_key = nn.Linear(config.location_channels, config.attention_size, bias=False)
        if config.ctc_weight:
            self.precision = nn.Parameter(torch.empty(heads))
            self.end = nn.Parameter(torch.empty(config.feature_size))
        # The gates of the LSTM in parts: the symbols' is an embedding, so that each symbol has a row of its own.
        self.symbol_gates = nn.Embedding(config.vocab_size, 4 * hidden_size)
        self.context_gates = nn.Linear(config.feature_size, 4 * hidden_size)
        self.hidden_gates = nn.Linear(hidden_size, 4 * hidden_size)
        self.dropout = nn.Dropout(config.dropout)
        self.classifier = nn.Linear(hidden_size, config.vocab_size)

    def reset_parameters(self) -> None:
        """Fresh weights; what was loaded from a file stays."""
        for name, parameter in self.named_parameters():
            if name.startswith("hidden_gates.weight"):
                init.orthogonal_(parameter)
            elif name in ("precision", "end") or parameter.ndim < 2:
                init.constant_(parameter, 1.0 if name == "precision" else 0.0)
            else:
                init.xavier_uniform_(parameter)

    def remember(
        self, features: torch.Tensor, lengths: torch.Tensor, ctc_logits: torch.Tensor | None
    ) -> AttentionMemory:
        """What every step needs of the encoder's features (B, T, feature_size), whose valid frames are `lengths`."""
        frames = torch.arange(features.shape[1] + (self.end is not None), device=features.device)
        valid = frames < lengths[:, None]
        characters = None
        if self.end is not None and ctc_logits is not None:
            last = frames == lengths[:, None]
            valid = valid | last
            features = torch.where(last[:, :, None], self.end.to(features.dtype), F.pad(features, (0, 0, 0, 1)))
            characters = _characters_begun(ctc_logits.detach(), lengths) + last.float()
        return AttentionMemory(
            features=features,
            keys=self.key(features),
            valid=valid,
            characters=characters,
            ctc_logits=ctc_logits,
            lengths=lengths,
        )

    def start(self, memory: AttentionMemory) -> AttentionState:
        """The state before the first step."""
        features, valid = memory["features"], memory["valid"]
        hidden = features.new_zeros((len(features), self.query.in_features))
        weights = torch.zeros(valid.shape, device=valid.device)
        return AttentionState(hidden, hidden.float(), weights, weights)

    def step(
        self, memory: AttentionMemory, state: AttentionState, symbol_gates: torch.Tensor
    ) -> tuple[AttentionState, torch.Tensor]:
        """One step: `symbol_gates` (B, 4 * decoder_hidden_size) of the symbols before it -> the state behind it, whose
        `hidden` the classifier reads, and the weights of each head, float32 (B, heads, T)."""
        heads = len(self.energy)
        energies = memory["keys"] + self.query(state.hidden)[:, None]
        if self.location is not None and self.location_key is not None:
            seen = torch.stack([state.attended, state.covered], dim=1).to(self.location.weight.dtype)
            energies = energies + self.location_key(self.location(seen).transpose(1, 2))
        energies = energies.tanh().unflatten(-1, (heads, -1))
        scores = torch.einsum("bthd,hd->bht", energies, self.energy).float()
        if self.precision is not None:
            characters = memory["characters"]
            ahead = characters - (state.attended * characters).sum(-1, keepdim=True) - 1
            scores = scores - F.softplus(self.precision.float())[:, None] / 2 * ahead.square()[:, None]
        weights = scores.masked_fill(~memory["valid"][:, None], -torch.inf).softmax(-1)
        values = memory["features"].unflatten(-1, (heads, -1))
        context = torch.einsum("bht,bthd->bhd", weights.to(values.dtype), values).flatten(1)
        gates = symbol_gates + self.context_gates(context) + self.hidden_gates(state.hidden)
        enter, forget, new, leave = gates.float().chunk(4, dim=-1)
        cell = forget.sigmoid() * state.cell + enter.sigmoid() * new.tanh()
        hidden = (leave.sigmoid() * cell.tanh()).to(state.hidden.dtype)
        attended = weights.mean(1)
        return AttentionState(hidden, cell, attended, state.covered + attended), weights

    def forward(self, memory: AttentionMemory, symbols: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """All steps of known symbols.

        Args:
            memory: of the images.
            symbols: int64 (B, L), what stands before each step; 0 before the first.

        Returns:
            logits float32 (B, L, V), and attention weights float32 (B, heads, L, T).
        """
        state = self.start(memory)
        hiddens, attentions = [], []
        for gates in self.symbol_gates(symbols).unbind(1):
            state, weights = self.step(memory, state, gates)
            hiddens.append(state.hidden)
            attentions.append(weights)
        return self.logits(torch.stack(hiddens, dim=1)), torch.stack(attentions, dim=2)

    def logits(self, hidden: torch.Tensor) -> torch.Tensor:
        """Of the symbols, float32 (..., V)."""
        logits: Any = self.classifier(self.dropout(hidden))
        return logits.float()


def _characters_begun(ctc_logits: torch.Tensor, lengths: torch.Tensor) -> torch.Tensor:
    """float32 (B, T + 1): the expected number of frames up to this one whose symbol is new.

    The symbol of a frame is new if it is no blank and not that of the frame before. Frames are taken as independent of
    each other, as CTC takes them.
    """
    probabilities = ctc_logits.float().softmax(-1)[..., 1:]
    same = (probabilities[:, 1:] * probabilities[:, :-1]).sum(-1)
    begun = probabilities.sum(-1) - F.pad(same, (1, 0))
    frames = torch.arange(begun.shape[1], device=begun.device)
    return F.pad(begun * (frames < lengths[:, None]), (0, 1)).cumsum(-1)
