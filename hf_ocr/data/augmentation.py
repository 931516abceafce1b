"""Changes of a grey line or word image that leave its text readable: the parts, and `augment`, which draws among them.

The parts are functions of an image and plain numbers; they are shared with the synthetic lines. All take and give 8-bit
grey Pillow images (mode "L"). Coordinates are continuous pixels: the first pixel covers [0, 1).
"""

import io
import math
import random
from functools import lru_cache
from typing import Literal

import numpy as np
from PIL import Image, ImageFilter

__all__ = [
    "add_noise",
    "augment",
    "blur",
    "contrast",
    "cut_out",
    "elastic",
    "jpeg",
    "lower_resolution",
    "motion_blur",
    "noise_field",
    "warp",
]

_TILE = 512


@lru_cache(maxsize=1)
def _white_noise() -> np.ndarray:
    return np.random.default_rng(20250101).standard_normal((_TILE, _TILE)).astype(np.float32)


def noise_field(height: int, width: int, rng: random.Random) -> np.ndarray:
    """Unit white noise, float32 (height, width).

    A window of one fixed tile, mirrored at random: drawing it anew would cost ten times as much.
    """
    tile = _white_noise()
    if height <= _TILE and width <= _TILE:
        top, left = rng.randrange(_TILE - height + 1), rng.randrange(_TILE - width + 1)
        field = tile[top : top + height, left : left + width]
    else:
        rows = (rng.randrange(_TILE) + np.arange(height)) % _TILE
        columns = (rng.randrange(_TILE) + np.arange(width)) % _TILE
        field = tile[rows][:, columns]
    return field[:: rng.choice((1, -1)), :: rng.choice((1, -1))]


def add_noise(image: Image.Image, sigma: float, rng: random.Random, grain: float = 1.0) -> Image.Image:
    """Gaussian noise of standard deviation `sigma` grey levels; with `grain` > 1 in blots of about that many px."""
    if grain > 1.0:
        small = noise_field(max(2, round(image.height / grain)), max(2, round(image.width / grain)), rng)
        # Interpolation takes about a third of the deviation away.
        coarse = Image.fromarray(np.ascontiguousarray(small)).resize(image.size, Image.Resampling.BILINEAR)
        field = 1.5 * np.asarray(coarse)
    else:
        field = noise_field(image.height, image.width, rng)
    values = np.asarray(image, dtype=np.float32) + sigma * field
    return Image.fromarray(np.clip(values, 0.0, 255.0).astype(np.uint8))


def blur(image: Image.Image, radius: float) -> Image.Image:
    """Gaussian blur; `radius` is the standard deviation in px."""
    return image.filter(ImageFilter.GaussianBlur(radius))


@lru_cache(maxsize=64)
def _motion_kernel(length: int, angle: int) -> ImageFilter.Kernel:
    size = 3 if length <= 3 else 5
    centre = size // 2
    kernel = np.zeros((size, size))
    for position in np.linspace(-(length - 1) / 2, (length - 1) / 2, 4 * length):
        x = centre + position * math.cos(math.radians(angle))
        y = centre + position * math.sin(math.radians(angle))
        kernel[min(size - 1, max(0, round(y))), min(size - 1, max(0, round(x)))] += 1
    return ImageFilter.Kernel((size, size), kernel.ravel().tolist(), scale=float(kernel.sum()))


def motion_blur(image: Image.Image, length: int, angle: float) -> Image.Image:
    """The mean along a stroke of `length` px (2 to 5) at `angle` degrees, in steps of 15."""
    return image.filter(_motion_kernel(max(2, min(5, length)), round(angle / 15) * 15 % 180))


def jpeg(image: Image.Image, quality: int) -> Image.Image:
    """The image after JPEG compression at `quality` (1 to 95)."""
    stream = io.BytesIO()
    image.save(stream, "JPEG", quality=quality)
    decoded = Image.open(stream)
    decoded.load()
    return decoded


def lower_resolution(image: Image.Image, factor: float, restore: bool = True) -> Image.Image:
    """The image shrunk by `factor` (below 1), and brought back to its size where `restore`."""
    size = (max(3, round(image.width * factor)), max(3, round(image.height * factor)))
    small = image.resize(size, Image.Resampling.BOX if factor < 0.5 else Image.Resampling.BILINEAR)
    return small.resize(image.size, Image.Resampling.BILINEAR) if restore else small


def contrast(image: Image.Image, gain: float = 1.0, bias: float = 0.0, gamma: float = 1.0) -> Image.Image:
    """255 (v / 255) ** gamma, then gain about the middle grey, then `bias` grey levels; clipped to 0..255."""
    levels = 255.0 * (np.arange(256) / 255.0) ** gamma
    levels = (levels - 127.5) * gain + 127.5 + bias
    return image.point(np.clip(levels, 0, 255).astype(np.uint8).tolist())


def cut_out(image: Image.Image, rng: random.Random, count: int = 1) -> Image.Image:
    """`count` small spots or thin stripes (at most a tenth of the height wide) filled with a grey of the image."""
    pixels = np.asarray(image)
    image = image.copy()
    width, height = image.size
    thin = max(1, round(height * 0.09))
    for _ in range(count):
        grey = int(pixels[rng.randrange(height), rng.randrange(width)])
        if rng.random() < 0.5:
            w, h = rng.randint(1, thin), rng.randint(1, height)
        else:
            w, h = rng.randint(1, 2 * thin), rng.randint(1, 2 * thin)
        x, y = rng.randrange(width), rng.randrange(height)
        image.paste(grey, (x, y, min(width, x + w), min(height, y + h)))
    return image


def warp(image: Image.Image, matrix: np.ndarray, size: tuple[int, int], fill: int = 0) -> Image.Image:
    """The image under a homography.

    Args:
        image: mode "L".
        matrix: float (3, 3), from coordinates of `image` to coordinates of the result.
        size: (width, height) of the result, px.
        fill: grey level of what lies outside the image.
    """
    inverse = np.linalg.inv(matrix)
    inverse /= inverse[2, 2]
    coefficients = inverse.ravel().tolist()
    if abs(coefficients[6]) < 1e-9 and abs(coefficients[7]) < 1e-9:
        return image.transform(
            size, Image.Transform.AFFINE, coefficients[:6], Image.Resampling.BILINEAR, fillcolor=fill
        )
    return image.transform(
        size, Image.Transform.PERSPECTIVE, coefficients[:8], Image.Resampling.BILINEAR, fillcolor=fill
    )


def homography(
    width: float,
    height: float,
    angle: float = 0.0,
    shear: float = 0.0,
    stretch: float = 1.0,
    scale: float = 1.0,
    tilt_x: float = 0.0,
    tilt_y: float = 0.0,
) -> np.ndarray:
    """A homography about the middle of a width x height box, float64 (3, 3).

    In order: horizontal stretch and scale, shear (px right per px up), perspective (`tilt_x`, `tilt_y`: how much
    smaller the right or lower side is than the middle, as a part of 1), rotation by `angle` degrees, counter-clockwise.
    """
    turn = math.radians(angle)
    cos, sin = math.cos(turn), math.sin(turn)
    centre = np.array([[1, 0, -width / 2], [0, 1, -height / 2], [0, 0, 1]])
    linear = np.array([[stretch * scale, -shear * scale, 0], [0, scale, 0], [0, 0, 1]])
    half_width = max(1.0, width * stretch * scale / 2)
    tilt = np.array([[1, 0, 0], [0, 1, 0], [tilt_x / half_width, tilt_y / max(1.0, height * scale / 2), 1]])
    rotation = np.array([[cos, sin, 0], [-sin, cos, 0], [0, 0, 1]])
    return rotation @ tilt @ linear @ centre


def mapped(matrix: np.ndarray, points: np.ndarray) -> np.ndarray:
    """Points (n, 2) under a homography (3, 3), float64 (n, 2)."""
    result = points @ matrix[:, :2].T + matrix[:, 2]
    return result[:, :2] / result[:, 2:]


def elastic(image: Image.Image, draw: random.Random, strength: float) -> Image.Image:
    """Strips between upright lines, about a height apart, whose ends move: text that is unevenly wide, high or bent.

    After the distortion, stretch and perspective of Luo et al. (arXiv:2003.06606), with random in place of learnt
    moves.

    Args:
        image: mode "L".
        draw: moves the ends.
        strength: the farthest that an end moves, in heights.
    """
    width, height = image.size
    strips = min(width, max(2, min(8, round(width / height))))  # each of a pixel at least
    edges = [width * i / strips for i in range(strips + 1)]
    reach = strength * height

    def moves() -> list[tuple[float, float]]:
        """Of the upper or lower ends, px: along the line but for the first and the last; outwards, or a bit inwards."""
        return [
            (draw.uniform(-reach, reach) if 0 < i < strips else 0.0, draw.uniform(-0.2, 1.0) * reach)
            for i in range(strips + 1)
        ]

    upper, lower = moves(), moves()
    mesh = []
    for i in range(strips):
        corners = [
            (edges[i] + upper[i][0], -upper[i][1]),
            (edges[i] + lower[i][0], height + lower[i][1]),
            (edges[i + 1] + lower[i + 1][0], height + lower[i + 1][1]),
            (edges[i + 1] + upper[i + 1][0], -upper[i + 1][1]),
        ]
        box = (round(edges[i]), 0, round(edges[i + 1]), height)
        mesh.append((box, tuple(value for corner in corners for value in corner)))
    # What lies outside the image repeats its edge.
    pad = math.ceil(reach) + 1
    padded = Image.fromarray(np.pad(np.asarray(image), pad, mode="edge"))
    mesh = [(box, tuple(value + pad for value in quad)) for box, quad in mesh]
    return padded.transform((width, height), Image.Transform.MESH, mesh, Image.Resampling.BILINEAR)


def augment(image: Image.Image, rng: np.random.Generator, kind: Literal["line", "word"] = "line") -> Image.Image:
    """A real training crop, changed at random; one in seven stays as it is. The text stays readable.

    Args:
        image: mode "L", at least 3 px a side.
        rng: decides everything: equal generators give equal images.
        kind: "line" for long level lines (slight rotation), "word" for scene words (more rotation, shear, perspective).

    Returns:
        A new image, mode "L"; its size may differ.

    Raises:
        ValueError: another mode than "L", or an unknown kind.
    """
    if image.mode != "L":
        raise ValueError(f"image has mode {image.mode!r}, expected 'L'. Use image.convert('L').")
    if kind not in ("line", "word"):
        raise ValueError(f"kind is {kind!r}, expected 'line' or 'word'.")
    draw = random.Random(int(rng.integers(1 << 62)))
    original = image
    if draw.random() < 0.1:
        return image.copy()
    if draw.random() < 0.65:
        image = _moved(image, draw, kind)
    if draw.random() < (0.35 if kind == "word" else 0.15):
        image = elastic(image, draw, 0.2 if kind == "word" else 0.1)
    if draw.random() < 0.4:
        least = 0.3 if kind == "word" else 0.55  # signs in the dark; a receipt fades towards its paper, below
        image = contrast(image, draw.uniform(least, 1.4), draw.uniform(-30, 30), math.exp(draw.uniform(-0.5, 0.5)))
    elif kind == "line" and draw.random() < 0.12:
        gain = draw.uniform(0.3, 0.7)
        image = contrast(image, gain, 127.5 * (1 - gain))  # white stays white
    if draw.random() < 0.1:
        image = image.point(range(255, -1, -1))
    height = image.height
    chance = draw.random()
    if chance < 0.15:
        # Not under 14 px: a box of 14 px holds letters of 7 to 10 px, the least that can be told apart.
        least = min(1.0, 14.0 / height)
        image = lower_resolution(image, draw.uniform(max(0.4, least), 1.0), restore=draw.random() < 0.7)
    elif chance < 0.35:  # not both: either takes the finest detail that is left
        if draw.random() < 0.75:
            strongest = 2.0 if kind == "word" else 1.3
            image = blur(image, (0.25 + (strongest - 0.25) * draw.random() ** 1.5) * min(1.5, max(0.6, height / 32)))
        elif height > 20:
            image = motion_blur(image, draw.randint(2, 4), draw.uniform(0, 180))
    if draw.random() < 0.25:
        # Faint print takes little noise.
        deviation = draw.uniform(0.05, 0.6) * min(50.0, float(np.asarray(image).std()))
        image = add_noise(image, deviation, draw, draw.choice((1.0, 1.0, 2.0)))
    if draw.random() < 0.08:
        image = cut_out(image, draw, draw.randint(1, 2))
    if draw.random() < 0.2:
        image = jpeg(image, draw.randint(25, 80))
    return image.copy() if image is original else image


def _moved(image: Image.Image, draw: random.Random, kind: str) -> Image.Image:
    """Stretch, rotation, shear, perspective and another cut in one interpolation; near the edges they are repeated."""
    width, height = image.size
    # A line turns so little that its ends move by a quarter of its height.
    steepest = 12.0 if kind == "word" else min(3.0, math.degrees(math.atan2(0.5 * height, width)))
    angle = draw.uniform(-steepest, steepest) if draw.random() < 0.4 else 0.0
    shear = draw.uniform(-0.25, 0.25) if draw.random() < 0.3 else 0.0
    stretch = math.exp(draw.uniform(math.log(0.75), math.log(1.35))) if draw.random() < 0.4 else 1.0
    tilt_x = tilt_y = 0.0
    if draw.random() < 0.25:
        most = 0.18 if kind == "word" else 0.05
        tilt_x, tilt_y = draw.uniform(-most, most), draw.uniform(-most, most) * 0.5
    matrix = homography(width, height, angle, shear, stretch, 1.0, tilt_x, tilt_y)
    corners = mapped(matrix, np.array([[0, 0], [width, 0], [width, height], [0, height]], dtype=np.float64))
    left, top = corners.min(axis=0)
    right, bottom = corners.max(axis=0)
    if draw.random() < 0.5:
        ends, sides = (0.09, 0.25), (0.1, 0.25)
        left += height * draw.uniform(-ends[1], ends[0])
        right -= height * draw.uniform(-ends[1], ends[0])
        top += height * draw.uniform(-sides[1], sides[0])
        bottom -= height * draw.uniform(-sides[1], sides[0])
    if draw.random() < 0.12:  # a loose crop: empty ground at an end
        room = height * draw.uniform(0.0, 4.0)
        left, right = (left - room, right) if draw.random() < 0.5 else (left, right + room)
    pad = max(2, height // 3)
    padded = Image.fromarray(np.pad(np.asarray(image), pad, mode="edge"))
    shift = np.array([[1, 0, -left], [0, 1, -top], [0, 0, 1]])
    unpad = np.array([[1, 0, -pad], [0, 1, -pad], [0, 0, 1]])
    size = (max(3, round(right - left)), max(3, round(bottom - top)))
    median = int(np.median(np.asarray(image)[::2, ::2]))
    return warp(padded, shift @ matrix @ unpad, size, fill=median)
