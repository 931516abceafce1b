"""Layers of PARSeq: a vision transformer, and a decoder that is asked for characters by their positions."""

from typing import Any, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from transformers.modeling_layers import GradientCheckpointingLayer

from .configuration_parseq import ParseqConfig

KeyValue = tuple[Tensor, Tensor]


def _heads(hidden: Tensor, count: int) -> Tensor:
    """(R, L, D) -> (R, heads, L, size of a head)."""
    return hidden.unflatten(-1, (count, -1)).transpose(1, 2)


class ParseqFeedForward(nn.Sequential):
    """Two linear layers with a GELU between them."""

    def __init__(self, config: ParseqConfig, dropout: float) -> None:
        wide = config.mlp_ratio * config.hidden_size
        super().__init__(
            nn.Linear(config.hidden_size, wide), nn.GELU(), nn.Dropout(dropout), nn.Linear(wide, config.hidden_size)
        )


class ParseqEncoderLayer(GradientCheckpointingLayer):
    """A layer of a vision transformer (Dosovitskiy et al., arXiv:2010.11929): pre-norm, no dropout."""

    def __init__(self, config: ParseqConfig) -> None:
        super().__init__()
        size = config.hidden_size
        self.num_heads = config.num_attention_heads
        self.attention_norm = nn.LayerNorm(size, eps=1e-6)
        self.query_key_value = nn.Linear(size, 3 * size)
        self.output = nn.Linear(size, size)
        self.feed_forward_norm = nn.LayerNorm(size, eps=1e-6)
        self.feed_forward = ParseqFeedForward(config, dropout=0.0)

    def forward(self, hidden: Tensor) -> Tensor:
        """(B, N, D) -> (B, N, D)."""
        query, key, value = (
            _heads(part, self.num_heads) for part in self.query_key_value(self.attention_norm(hidden)).chunk(3, -1)
        )
        found = F.scaled_dot_product_attention(query, key, value)
        hidden = hidden + self.output(found.transpose(1, 2).flatten(2))
        return hidden + self.feed_forward(self.feed_forward_norm(hidden))


class ParseqAttention(nn.Module):
    """Multi-head attention that also gives its weights."""

    def __init__(self, config: ParseqConfig) -> None:
        super().__init__()
        size = config.hidden_size
        self.num_heads = config.decoder_attention_heads
        self.query = nn.Linear(size, size)
        self.key_value = nn.Linear(size, 2 * size)
        self.output = nn.Linear(size, size)
        self.dropout = nn.Dropout(config.dropout)

    def keys_and_values(self, hidden: Tensor) -> KeyValue:
        """(R, L, D) -> twice (R, heads, L, size of a head)."""
        key, value = self.key_value(hidden).chunk(2, -1)
        return _heads(key, self.num_heads), _heads(value, self.num_heads)

    def forward(self, hidden: Tensor, keys_and_values: KeyValue, seen: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Queries (R, Q, D), `seen` bool (R, Q, L) -> (R, Q, D), and the weights (R, Q, L), the mean of all heads."""
        key, value = keys_and_values
        query = _heads(self.query(hidden), self.num_heads)
        weights = query @ key.transpose(-1, -2) * query.shape[-1] ** -0.5
        if seen is not None:
            weights = weights.masked_fill(~seen[:, None], float("-inf"))
        weights = weights.softmax(-1)
        found = self.dropout(weights) @ value
        return self.output(found.transpose(1, 2).flatten(2)), weights.mean(1)


class ParseqDecoder(nn.Module):
    """Asks for the characters at some positions, given some of the other characters and the image.

    The queries are positions alone, so any character can be asked for from any others: those to its left (reading), all
    others (refining), those before it in an order drawn by chance (learning). There is one layer, as in all published
    networks: neither queries nor characters look at queries, and a character's vector depends on nothing but itself.
    """

    def __init__(self, config: ParseqConfig) -> None:
        super().__init__()
        size = config.hidden_size
        self.embedding = nn.Embedding(config.vocab_size, size)
        self.positions = nn.Parameter(torch.empty(config.max_label_length + 1, size))
        self.query_norm = nn.LayerNorm(size)
        self.character_norm = nn.LayerNorm(size)
        self.self_attention = ParseqAttention(config)
        self.cross_attention_norm = nn.LayerNorm(size)
        self.cross_attention = ParseqAttention(config)
        self.feed_forward_norm = nn.LayerNorm(size)
        self.feed_forward = ParseqFeedForward(config, config.dropout)
        self.norm = nn.LayerNorm(size)
        self.dropout = nn.Dropout(config.dropout)
        self.classifier = nn.Linear(size, config.vocab_size)

    def look_at(self, features: Tensor) -> KeyValue:
        """The keys and values of images, (B, N, D), once an image."""
        return self.cross_attention.keys_and_values(features)

    def forward(self, texts: Tensor, places: Tensor, seen: Tensor, image: KeyValue) -> tuple[Tensor, Tensor]:
        """Logits of the characters at some places of R = B * K texts, K of each image.

        Args:
            texts: int64 (R, L), what is known of the texts; L may be 0.
            places: int64 (Q,), 0 being that of the first character.
            seen: bool (1 or R, Q, L), which characters each place is told. It always sees the start.
            image: of `look_at`.

        Returns:
            float32 (R, Q, V), and where each looked, (R, Q, N).
        """
        rows, length = texts.shape
        given = self.embedding(F.pad(texts, (1, 0))) * self.embedding.embedding_dim**0.5
        given = self.dropout(given + F.pad(self.positions[:length], (0, 0, 1, 0)))  # the start has no position
        hidden = self.dropout(self.positions[places].expand(rows, -1, -1))
        keys = self.self_attention.keys_and_values(self.character_norm(given))
        found, _ = self.self_attention(self.query_norm(hidden), keys, F.pad(seen, (1, 0), value=True))
        hidden = hidden + self.dropout(found)
        # The texts of one image ask it together.
        asked = self.cross_attention_norm(hidden)
        asked = asked.view(len(image[0]), rows // max(len(image[0]), 1) * len(places), asked.shape[-1])
        found, weights = self.cross_attention(asked, image)
        hidden = hidden + self.dropout(found.view_as(hidden))
        hidden = hidden + self.dropout(self.feed_forward(self.feed_forward_norm(hidden)))
        return self.classifier(self.norm(hidden)).float(), weights.float().view(rows, len(places), weights.shape[-1])


def stretched(pixel_values: Tensor, widths: Tensor, width: int) -> Tensor:
    """Images (B, C, H, W) of which `widths` columns are valid, each of its own, stretched to `width` columns."""
    if pixel_values.shape[-1] == width and bool((widths == width).all()):
        return pixel_values
    images = pixel_values.new_empty(*pixel_values.shape[:3], width, dtype=torch.float32)
    for own in cast(Any, widths.unique().tolist()):
        rows = widths == own
        part = pixel_values[rows, ..., :own].float()
        size = (part.shape[2], width)
        images[rows] = F.interpolate(part, size, mode="bilinear", align_corners=False, antialias=True)
    return images
