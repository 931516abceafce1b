"""Straightens bent and slanted text before it is read (Shi et al., arXiv:1603.03915, section 3.1)."""

from functools import lru_cache

import numpy as np
import torch
import torch.nn.functional as F
from torch import nn
from transformers import initialization as init

CHANNELS = (64, 128, 256, 512)
HIDDEN_SIZE = 256


class ThinPlateSplineRectifier(nn.Module):
    """A small network finds points along both edges of the text; a spline moves them to the edges of the image.

    Layers as in Baek et al. (arXiv:1904.01906, supplement). The image keeps its size, and each its own width: the
    points are in units of its valid part, (-1, -1) its upper left corner. Fresh weights move next to nothing.
    """

    def __init__(self, num_channels: int, num_points: int) -> None:
        super().__init__()
        sizes = [num_channels, *CHANNELS]
        self.convolutions = nn.ModuleList(
            nn.Conv2d(size, channels, 3, padding=1, bias=False) for size, channels in zip(sizes, CHANNELS, strict=False)
        )
        self.norms = nn.ModuleList(nn.BatchNorm2d(channels) for channels in CHANNELS)
        self.hidden = nn.Linear(CHANNELS[-1], HIDDEN_SIZE)
        self.points = nn.Linear(HIDDEN_SIZE, 2 * num_points)

    def reset_parameters(self) -> None:
        """Fresh weights whose points are near those of the straight image; what was loaded from a file stays."""
        init.normal_(self.points.weight, std=1e-3)
        init.copy_(self.points.bias, torch.from_numpy(_points(len(self.points.bias) // 2)).float().flatten())

    def forward(self, pixel_values: torch.Tensor, widths: torch.Tensor) -> torch.Tensor:
        """(B, C, H, W) with zeros behind the valid widths (B,), px -> the same, straightened."""
        hidden, valid = pixel_values, widths
        for index, (convolution, norm) in enumerate(zip(self.convolutions, self.norms, strict=True)):
            hidden = F.relu(_masked(norm(convolution(hidden)), valid))
            if index < len(CHANNELS) - 1:
                # Half columns count, unlike in the source, where a width of 1 px would be none.
                hidden, valid = F.max_pool2d(hidden, 2, ceil_mode=True), (valid + 1) // 2
        mean = hidden.sum((2, 3)) / (valid * hidden.shape[2])[:, None]
        points = self.points(F.relu(self.hidden(mean.to(self.hidden.weight.dtype)))).unflatten(-1, (-1, 2))
        return _masked(_warped(pixel_values, widths, points.float()), widths)


def _masked(hidden: torch.Tensor, widths: torch.Tensor) -> torch.Tensor:
    columns = torch.arange(hidden.shape[-1], device=hidden.device)
    return hidden * (columns < widths[:, None])[:, None, None].to(hidden.dtype)


def _warped(pixel_values: torch.Tensor, widths: torch.Tensor, points: torch.Tensor) -> torch.Tensor:
    """The image whose spline through `points` float32 (B, F, 2) is straight; x from -1 to 1 is the valid width."""
    height, width = pixel_values.shape[-2:]
    device, num_points = pixel_values.device, points.shape[1]
    x = ((2 * torch.arange(width, device=device) + 1) / widths[:, None] - 1)[:, None]  # (B, 1, W)
    y = ((2 * torch.arange(height, device=device) + 1) / height - 1)[:, None]  # (H, 1)
    solver = torch.from_numpy(_solver(num_points)).to(device, torch.float32)
    # Sums and no `@`, which autocast would round to 16 bits: large terms cancel here.
    coefficients = (solver[:, :num_points, None] * points[:, None]).sum(2)[..., None, None]  # (B, F + 3, 2, 1, 1)
    grid = coefficients[:, 0] + x[:, None] * coefficients[:, 1] + y * coefficients[:, 2]  # (B, 2, H, W)
    # Point by point: all distances at once take F times the memory, and longer.
    for index, (fixed_x, fixed_y) in enumerate(_points(num_points).tolist()):
        bends = _radial((x - fixed_x).square() + (y - fixed_y).square())
        grid = grid + bends[:, None] * coefficients[:, 3 + index]
    across, down = grid.unbind(1)
    # Never beyond the image's own edge; then from the middles of px of the valid part to those of the padded image.
    across = (across.clamp(-1, 1) + 1) * widths[:, None, None] / 2 - 0.5
    across = torch.minimum(across.clamp(min=0), widths[:, None, None] - 1.0)
    grid = torch.stack([(2 * across + 1) / width - 1, down], dim=-1)
    warped = F.grid_sample(pixel_values.float(), grid, padding_mode="border", align_corners=False)
    return warped.to(pixel_values.dtype)


def _radial(squares: torch.Tensor) -> torch.Tensor:
    """r^2 log r of squared distances."""
    return squares * (squares + 1e-12).log() / 2


@lru_cache
def _points(num_points: int) -> np.ndarray:
    """(F, 2): half of the points along the upper edge, half along the lower."""
    x = np.tile(np.linspace(-1.0, 1.0, num_points // 2), 2)
    return np.stack([x, np.repeat([-1.0, 1.0], num_points // 2)], axis=1)


@lru_cache
def _solver(num_points: int) -> np.ndarray:
    """(F + 3, F + 3): from where the points lie, and three zeros, to the coefficients of the spline.

    In the order constant, x, y, and one for each point.
    """
    points = _points(num_points)
    squares = np.square(points[:, None] - points[None]).sum(-1)
    system = np.zeros((num_points + 3, num_points + 3))
    system[:num_points, 0] = 1.0
    system[:num_points, 1:3] = points
    system[:num_points, 3:] = squares * np.log(squares + 1e-12) / 2
    system[num_points, 3:] = 1.0
    system[num_points + 1 :, 3:] = points.T
    return np.linalg.inv(system)
