"""Grounds for synthetic lines: flat, shaded, rough or photograph-like grey images, cut from tiles drawn once."""

import math
import random
from functools import lru_cache

import numpy as np
from PIL import Image, ImageChops, ImageDraw, ImageFilter

__all__ = ["gradient", "leaves", "mottled", "paper", "rough", "scene_ground"]

_TILE = 512


@lru_cache(maxsize=8)
def _fractal(number: int) -> Image.Image:
    """Noise whose spectrum falls as 1/f to 1/f², mean 128, deviation about 50 grey levels."""
    rng = np.random.default_rng([7, number])
    slope = (0.8, 1.2, 1.6, 2.0)[number % 4]
    frequency = np.hypot(np.fft.fftfreq(_TILE)[:, None], np.fft.rfftfreq(_TILE)[None, :])
    frequency[0, 0] = 1.0
    phase = np.exp(2j * np.pi * rng.random(frequency.shape))
    values = np.fft.irfft2(phase / frequency**slope, s=(_TILE, _TILE))
    values = (values - values.mean()) / values.std()
    return Image.fromarray(np.clip(128 + 50 * values, 0, 255).astype(np.uint8))


@lru_cache(maxsize=8)
def _leaves(number: int) -> Image.Image:
    """ "Dead leaves": shapes of all sizes lying on each other, which have the edges and the spectrum of photographs."""
    draw = random.Random(1000 + number)
    tile = Image.new("L", (_TILE, _TILE), 128)
    pen = ImageDraw.Draw(tile)
    for _ in range(2500):
        radius = 4.0 / (draw.random() ** 0.75 + 0.025)
        x, y = draw.uniform(-20, _TILE + 20), draw.uniform(-20, _TILE + 20)
        grey = int(min(255, max(0, draw.gauss(128, 55))))
        aspect = math.exp(draw.uniform(-1, 1))
        box = (x - radius * aspect, y - radius / aspect, x + radius * aspect, y + radius / aspect)
        if draw.random() < 0.4:
            pen.ellipse(box, fill=grey)
        else:
            turn = draw.choice((0.0, 0.0, draw.uniform(0, math.pi)))
            corners = [(radius * aspect * i, radius / aspect * j) for i, j in ((-1, -1), (1, -1), (1, 1), (-1, 1))]
            pen.polygon(
                [
                    (x + a * math.cos(turn) - b * math.sin(turn), y + a * math.sin(turn) + b * math.cos(turn))
                    for a, b in corners
                ],
                fill=grey,
            )
    return Image.blend(tile.filter(ImageFilter.GaussianBlur(0.8)), _fractal(number), 0.2)


def _window(tile: Image.Image, size: tuple[int, int], draw: random.Random, zoom: float) -> Image.Image:
    """A window of the tile, `zoom` times enlarged, turned or mirrored at random."""
    width, height = size
    w, h = min(_TILE, width / zoom), min(_TILE, height / zoom)
    x, y = draw.uniform(0, _TILE - w), draw.uniform(0, _TILE - h)
    window = tile.resize(size, Image.Resampling.BILINEAR, box=(x, y, x + w, y + h))
    return window.transpose(draw.choice(list(Image.Transpose)[:2])) if draw.random() < 0.5 else window


def rough(size: tuple[int, int], draw: random.Random) -> Image.Image:
    """Fractal noise of mean 128, deviation about 50."""
    return _window(_fractal(draw.randrange(8)), size, draw, math.exp(draw.uniform(-1.0, 1.2)))


def leaves(size: tuple[int, int], draw: random.Random) -> Image.Image:
    """A window of a photograph-like texture, mean about 128, deviation about 50."""
    return _window(_leaves(draw.randrange(6)), size, draw, math.exp(draw.uniform(-1.0, 1.2)))


def gradient(size: tuple[int, int], draw: random.Random) -> Image.Image:
    """A smooth shade in a random direction, from 0 to 255 at the most, mean about 128."""
    angle = draw.uniform(0, 2 * math.pi)
    across, down = math.cos(angle), math.sin(angle)
    norm = abs(across) + abs(down)
    corners = [round(127.5 + 127.5 * (i * across + j * down) / norm) for j in (-1, 1) for i in (-1, 1)]
    small = Image.frombytes("L", (2, 2), bytes(corners))
    # The middle half: bilinear enlarging keeps the outer halves of edge pixels flat.
    return small.resize(size, Image.Resampling.BILINEAR, box=(0.5, 0.5, 1.5, 1.5))


def leveled(texture: Image.Image, level: float, swing: float) -> Image.Image:
    """A texture of mean 128 brought to mean `level`, 64 of its grey levels becoming `swing`."""
    values = level + (np.arange(256) - 128.0) * (swing / 64.0)
    return texture.point(np.clip(values, 0, 255).astype(np.uint8).tolist())


def paper(size: tuple[int, int], draw: random.Random, level: float) -> Image.Image:
    """Paper about the grey `level`: flat, shaded, or slightly rough."""
    chance = draw.random()
    if chance < 0.5:
        return Image.new("L", size, round(level))
    if chance < 0.7:
        return leveled(gradient(size, draw), level, draw.uniform(2, 14))
    return leveled(rough(size, draw), level, draw.uniform(1, 7))


def mottled(size: tuple[int, int], draw: random.Random, level: float) -> Image.Image:
    """Soft blotches about the grey `level`, as large as strokes or letters: fibres, stains, what shines through."""
    width, height = size
    rng = np.random.default_rng(draw.randrange(2**32))
    values = np.full((height, width), level, dtype=np.float32)
    for _ in range(draw.choice((1, 1, 2))):
        across, down = (math.exp(draw.uniform(math.log(1.5), math.log(16))) for _ in range(2))
        if draw.random() < 0.6:
            down = across
        coarse = rng.normal(0, draw.uniform(1.5, 16), (2 + round(height / down), 2 + round(width / across)))
        values += np.asarray(Image.fromarray(coarse.astype(np.float32)).resize(size, Image.Resampling.BICUBIC))
    return Image.fromarray(values.clip(0, 255).astype(np.uint8))


def scene_ground(size: tuple[int, int], draw: random.Random, level: float, room: float) -> Image.Image:
    """What a scene word stands on.

    Args:
        size: (width, height), px.
        level: mean grey.
        room: how far, in grey levels, the ground may come towards the ink without hiding it.
    """
    chance = draw.random()
    if chance < 0.3:
        return Image.new("L", size, round(level))
    if chance < 0.5:
        return leveled(gradient(size, draw), level, min(room, draw.uniform(4, 50)) * 0.5)
    if chance < 0.68:
        return leveled(rough(size, draw), level, min(room, draw.uniform(3, 45)) * 0.5)
    if chance < 0.86:
        ground = leveled(leaves(size, draw), level, min(room, draw.uniform(8, 60)) * 0.5)
    else:
        ground = leveled(gradient(size, draw), level, min(room, draw.uniform(4, 30)) * 0.5)
    if draw.random() < 0.5:
        _edges(ground, draw, level, room)
    return ground


def _edges(ground: Image.Image, draw: random.Random, level: float, room: float) -> None:
    """Borders of signs, joints of walls: one or two straight strokes or fields of another grey."""
    width, height = ground.size
    pen = ImageDraw.Draw(ground)
    for _ in range(draw.randint(1, 2)):
        grey = round(min(255, max(0, level + draw.uniform(-1, 1) * room * 0.8)))
        if draw.random() < 0.5:
            y = draw.choice((draw.uniform(0, 0.15), draw.uniform(0.85, 1.0))) * height
            slope = draw.uniform(-0.1, 0.1) * width
            pen.line((0, y, width, y + slope), fill=grey, width=draw.randint(1, max(1, height // 10)))
        else:
            x = draw.uniform(0, width)
            lean = draw.uniform(-0.3, 0.3) * height
            pen.polygon(((x, 0), (width, 0), (width, height), (x + lean, height)), fill=grey)


def shaded(image: Image.Image, draw: random.Random, strength: float) -> Image.Image:
    """Uneven light: the image darker, by up to `strength` (0 to 1), towards one side."""
    return ImageChops.multiply(image, leveled(gradient(image.size, draw), 255 - 127 * strength, 63.5 * strength))
