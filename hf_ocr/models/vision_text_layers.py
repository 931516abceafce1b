"""Layers of the vision encoder and the text decoder: positions are distances in frames, so that any width works."""

from typing import Any, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from transformers.modeling_layers import GradientCheckpointingLayer

from .configuration_vision_text import VisionTextConfig
from .line_inputs import mask_columns, masked_relu

KeyValue = tuple[Tensor, Tensor]

ROTARY_BASE = 1000.0
FEW_QUERIES = 8  # measured on a CPU in float32: two products are faster than fused attention for these
FADING = 8.0  # frames beyond the window over which attention to the image loses one nat


class VisionTextConvolution(nn.Module):
    """One layer of the stem: convolution, batch norm, ReLU; what is not valid is 0."""

    def __init__(self, config: VisionTextConfig, index: int) -> None:
        super().__init__()
        channels = [config.num_channels, *config.stem_channels, config.hidden_size]
        last = index == len(config.stem_channels)
        self.convolution = nn.Conv2d(
            channels[index],
            channels[index + 1],
            (config.stem_rows, 3) if last else (3, 3),
            (1, 1) if last else tuple(config.stem_strides[index]),
            (0, 1) if last else (1, 1),
        )
        self.norm = nn.BatchNorm2d(channels[index + 1])

    def forward(self, hidden: Tensor, widths: Tensor, least: int) -> tuple[Tensor, Tensor, int]:
        """(B, C, H, W), valid widths (B,), the least of them -> the same behind this layer."""
        hidden = self.norm(self.convolution(hidden))
        stride = cast(tuple[int, int], self.convolution.stride)[1]
        widths, least = (widths + stride - 1) // stride, (least + stride - 1) // stride
        return masked_relu(hidden, widths, least), widths, least


def attention_mask(seen: Tensor, dtype: torch.dtype) -> Tensor:
    """bool (R, L, C), which keys a query sees -> (R, 1, L, C), to be added for all heads."""
    return torch.zeros_like(seen, dtype=dtype).masked_fill_(~seen, float("-inf"))[:, None]


class Rotation:
    """Rotary positions (Su et al., arXiv:2104.09864) that may be fractions: what attention sees is their distance."""

    def __init__(self, positions: Tensor, size: int, dtype: torch.dtype) -> None:
        """Args: float32 (R or 1, L) frames; units of a head; what comes out."""
        steps = torch.arange(0, size, 2, device=positions.device, dtype=torch.float32) / size
        angles = positions[:, None, :, None] * ROTARY_BASE**-steps
        cosine, sine = angles.cos().to(dtype), angles.sin().to(dtype)
        self.cosine, self.sine = torch.cat([cosine, cosine], -1), torch.cat([-sine, sine], -1)

    def __call__(self, hidden: Tensor) -> Tensor:
        """(R, heads, L, size) -> the same, turned."""
        halves = torch.cat(hidden.chunk(2, -1)[::-1], -1)
        return torch.addcmul(hidden * self.cosine, halves, self.sine).to(hidden.dtype)


class VisionTextAttention(nn.Module):
    """Multi-head attention of positions. No biases: one on the keys would be without effect."""

    def __init__(self, config: VisionTextConfig) -> None:
        super().__init__()
        size = config.hidden_size
        self.num_heads, self.head_size = config.num_attention_heads, size // config.num_attention_heads
        self.query = nn.Linear(size, size, bias=False)
        self.key_value = nn.Linear(size, 2 * size, bias=False)
        self.output = nn.Linear(size, size)

    def keys_and_values(self, hidden: Tensor, turn: Rotation) -> KeyValue:
        """(R, L, D) -> twice (R, heads, L, size of a head)."""
        key, value = self.key_value(hidden).chunk(2, -1)
        return turn(self._heads(key)), self._heads(value)

    def forward(self, hidden: Tensor, turn: Rotation, keys_and_values: KeyValue, mask: Tensor) -> Tensor:
        """Queries (R, L, D); the mask is added."""
        query, (key, value) = turn(self._heads(self.query(hidden))), keys_and_values
        # In half precision they round what fused attention does not: a text would depend on those read beside it.
        if hidden.shape[1] < FEW_QUERIES and hidden.dtype == torch.float32:
            found = (query * self.head_size**-0.5 @ key.transpose(2, 3) + mask).softmax(-1) @ value
        else:
            found = F.scaled_dot_product_attention(query, key, value, attn_mask=mask)
        return self.output(found.transpose(1, 2).flatten(2))

    def _heads(self, hidden: Tensor) -> Tensor:
        return hidden.unflatten(-1, (self.num_heads, self.head_size)).transpose(1, 2)


class VisionTextFeedForward(nn.Sequential):
    """Two linear layers with a GELU between them."""

    def __init__(self, config: VisionTextConfig) -> None:
        super().__init__(
            nn.Linear(config.hidden_size, config.intermediate_size),
            nn.GELU(),
            nn.Linear(config.intermediate_size, config.hidden_size),
        )


class VisionTextEncoderLayer(GradientCheckpointingLayer):
    """Mixing of near frames by a depthwise convolution, of the frames of a window by attention; pre-norm."""

    def __init__(self, config: VisionTextConfig) -> None:
        super().__init__()
        size, kernel = config.hidden_size, config.conv_kernel_size
        self.mixing = nn.Conv1d(size, size, kernel, padding=kernel // 2, groups=size)
        self.attention_norm = nn.LayerNorm(size)
        self.attention = VisionTextAttention(config)
        self.feed_forward_norm = nn.LayerNorm(size)
        self.feed_forward = VisionTextFeedForward(config)
        self.dropout = nn.Dropout(config.dropout)

    def forward(self, hidden: Tensor, turn: Rotation, lengths: Tensor, least: int, mask: Tensor) -> Tensor:
        """(B, T, D), valid frames (B,), the least of them -> (B, T, D)."""
        near = mask_columns(hidden.transpose(1, 2).clone(memory_format=torch.contiguous_format), lengths, least)
        hidden = hidden + self.mixing(near).transpose(1, 2)
        normed = self.attention_norm(hidden)
        found = self.attention(normed, turn, self.attention.keys_and_values(normed, turn), mask)
        hidden = hidden + self.dropout(found)
        return hidden + self.dropout(self.feed_forward(self.feed_forward_norm(hidden)))


class VisionTextDecoderLayer(GradientCheckpointingLayer):
    """Attention to the last characters and to the image; pre-norm."""

    def __init__(self, config: VisionTextConfig) -> None:
        super().__init__()
        size = config.hidden_size
        self.self_attention_norm = nn.LayerNorm(size)
        self.self_attention = VisionTextAttention(config)
        self.cross_attention_norm = nn.LayerNorm(size)
        self.cross_attention = VisionTextAttention(config)
        self.feed_forward_norm = nn.LayerNorm(size)
        self.feed_forward = VisionTextFeedForward(config)
        self.dropout = nn.Dropout(config.dropout)

    def forward(
        self,
        hidden: Tensor,
        turn: Rotation,
        image: KeyValue,
        image_turn: Rotation,
        image_bias: Tensor,
        past: KeyValue | None,
        places: Tensor,
        seen: Tensor,
    ) -> tuple[Tensor, KeyValue]:
        """Characters of R = B * K texts; those of the K texts of one image ask the image together.

        Args:
            hidden: (R, L, D).
            turn: of the characters.
            image: keys and values of the image, (B, heads, T, size).
            image_turn: of the characters as (B, K * L) queries.
            image_bias: (B, 1, K * L, T), added to the attention to the image.
            past: keys and values of the characters before these, (R, heads, C, size), with room for these.
            places: int64 (R, L), where in `past` these are written.
            seen: mask (R, 1, L, C), or (R, 1, L, L) without `past`: which characters each of these sees.

        Returns:
            (R, L, D), and the keys and values that have been seen.
        """
        normed = self.self_attention_norm(hidden)
        own = self.self_attention.keys_and_values(normed, turn)
        if past is not None:
            rows = torch.arange(len(places), device=places.device)[:, None]
            for before, new in zip(past, own, strict=True):
                before[rows, :, places] = new.transpose(1, 2)
            own = past
        hidden = hidden + self.dropout(self.self_attention(normed, turn, own, seen))
        normed = self.cross_attention_norm(hidden).view(len(image[0]), image_bias.shape[2], hidden.shape[-1])
        found = self.cross_attention(normed, image_turn, image, image_bias).view_as(hidden)
        hidden = hidden + self.dropout(found)
        return hidden + self.dropout(self.feed_forward(self.feed_forward_norm(hidden))), own


class DecoderPast:
    """The characters that R texts have so far, as the decoder keeps them.

    Attributes:
        layers: keys and values of each layer, (R, heads, C, size).
        counts: int64 (R,), how many of the C are characters; what is behind them is not seen, and written over.
    """

    def __init__(self, layers: list[KeyValue], counts: Tensor) -> None:
        self.layers, self.counts = layers, counts

    def keep(self, rows: Tensor) -> None:
        """Go on with these texts, int64 (R',)."""
        self.layers = [(key[rows], value[rows]) for key, value in self.layers]
        self.counts = self.counts[rows]

    def make_room(self, length: int, window: int) -> list[KeyValue]:
        """The layers, with room for `length` more; where there was none, without what lies before the last `window`."""
        if not len(self.counts):
            return self.layers
        missing = int(self.counts.max()) + length - self.layers[0][0].shape[2]
        if missing > 0:
            unseen = max(0, int(self.counts.min()) - window + 1)
            room = (0, 0, 0, missing + window)  # so that most steps copy nothing
            self.layers = [
                (F.pad(key[:, :, unseen:], room), F.pad(value[:, :, unseen:], room)) for key, value in self.layers
            ]
            self.counts = self.counts - unseen
        return self.layers


class VisionTextDecoder(nn.Module):
    """Characters so far and the frames up to which they have been read -> what comes next.

    A character's position is the frame at which CTC expects it, in attention to other characters and to the image
    alike, and what lies far from it is not looked at. Nothing in here counts characters or columns from the beginning,
    so a long line is read as its parts are.
    """

    def __init__(self, config: VisionTextConfig) -> None:
        super().__init__()
        self.config = config
        self.embedding = nn.Embedding(config.vocab_size, config.hidden_size)
        self.layers = nn.ModuleList(VisionTextDecoderLayer(config) for _ in range(config.decoder_layers))
        self.norm = nn.LayerNorm(config.hidden_size)
        self.dropout = nn.Dropout(config.dropout)
        self.classifier = nn.Linear(config.hidden_size, config.vocab_size)

    def look_at(self, features: Tensor) -> list[KeyValue]:
        """The keys and values of the image for each layer, once an image; features (B, T, D)."""
        frames = torch.arange(features.shape[1], device=features.device, dtype=torch.float32)[None]
        turn = Rotation(frames, self._head_size, features.dtype)
        both = (cast(Any, layer).cross_attention.keys_and_values(features, turn) for layer in self.layers)
        return [(key.contiguous(), value.contiguous()) for key, value in both]

    def forward(
        self,
        input_ids: Tensor,
        frames: Tensor,
        image: list[KeyValue],
        lengths: Tensor,
        past: DecoderPast | None = None,
    ) -> tuple[Tensor, DecoderPast]:
        """Logits of the symbol behind each input.

        Args:
            input_ids: int64 (B, K, L); id 0 is the start.
            frames: float32 (B, K, L), where each is; -1 for the start.
            image: of `look_at`.
            lengths: int64 (B,), valid frames.
            past: of the call before, of which any number of characters may have been taken back.

        Returns:
            float32 (B, K, L, V), and what `past` is for the next call.
        """
        rows, texts, length = input_ids.shape
        hidden = self.dropout(self.embedding(input_ids.flatten(0, 1)))
        keys = image[0][0]
        columns = torch.arange(keys.shape[2], device=keys.device)
        distance = (frames.flatten(1)[:, :, None] - columns).abs()
        bias = -F.relu(distance - self.config.attention_window) / FADING
        bias = bias.masked_fill((columns >= lengths[:, None])[:, None], float("-inf"))[:, None].to(keys.dtype)
        turn = Rotation(frames.flatten(0, 1), self._head_size, keys.dtype)
        image_turn = Rotation(frames.flatten(1), self._head_size, keys.dtype)
        before = [None] * len(self.layers) if past is None else past.make_room(length, self.config.decoder_window)
        counts = lengths.new_zeros(len(hidden)) if past is None else past.counts
        places = counts[:, None] + torch.arange(length, device=keys.device)
        most = length if past is None else past.layers[0][0].shape[2]
        back = places[:, :, None] - torch.arange(most, device=keys.device)
        seen = attention_mask((back >= 0) & (back < self.config.decoder_window), keys.dtype)
        kept = []
        for index, layer in enumerate(self.layers):
            hidden, own = layer(hidden, turn, image[index], image_turn, bias, before[index], places, seen)
            kept.append(own)
        logits = self.classifier(self.dropout(self.norm(hidden))).float()
        return logits.view(rows, texts, length, logits.shape[-1]), DecoderPast(kept, counts + length)

    @property
    def _head_size(self) -> int:
        return self.config.hidden_size // self.config.num_attention_heads
