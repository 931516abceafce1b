"""Where characters stand in an image, from where a decoder looked when it read them."""

import torch
import torch.nn.functional as F


def frame_spans(attentions: torch.Tensor, sequences: torch.Tensor, lengths: torch.Tensor) -> torch.Tensor:
    """Where the characters of texts stand.

    A character reaches from where the decoder looked half the way to its neighbours, and half a frame at least. The
    first and the last reach as far outwards as inwards, a lone character to the nearer end of its image.

    Args:
        attentions: float32 (B, heads, L + 1, T), weights over the frames for each character and the end.
        sequences: int64 (B, L), padded with 0.
        lengths: int64 (B,), frames of each image.

    Returns:
        float32 (B, L, 2), frame coordinates; 0 behind the end.
    """
    weights = attentions.float().mean(1)[:, :-1]
    # No `@`: autocast would round it to 16 bits, which do not tell frames beyond 128 apart.
    centres = (weights * (torch.arange(weights.shape[-1], device=weights.device) + 0.5)).sum(-1)
    ends = lengths[:, None].to(centres)
    centres = torch.minimum(centres, ends - 0.5)  # not the frame behind the last
    lone = torch.minimum(centres, ends - centres)
    valid = sequences != 0
    gaps = (centres[:, 1:] - centres[:, :-1]).abs() / 2
    gaps = torch.where(valid[:, 1:], gaps, torch.nan)
    before, behind = F.pad(gaps, (1, 0), value=torch.nan), F.pad(gaps, (0, 1), value=torch.nan)
    before, behind = torch.where(before.isnan(), behind, before), torch.where(behind.isnan(), before, behind)
    before, behind = torch.where(before.isnan(), lone, before), torch.where(behind.isnan(), lone, behind)
    spans = torch.stack([centres - before.clamp(min=0.5), centres + behind.clamp(min=0.5)], dim=-1)
    return torch.minimum(spans.clamp(min=0.0), ends[:, :, None]) * valid[:, :, None]
