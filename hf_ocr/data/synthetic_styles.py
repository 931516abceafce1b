"""The styles of synthetic lines: how a text comes to look like a receipt, a document, a form, a screen or a sign."""

import math
import random
from collections.abc import Callable
from functools import lru_cache, partial
from typing import Any

import numpy as np
from PIL import Image, ImageChops, ImageDraw, ImageFilter

from hf_ocr.data import synthetic_grounds as grounds
from hf_ocr.data.augmentation import (
    add_noise,
    blur,
    contrast,
    cut_out,
    homography,
    jpeg,
    lower_resolution,
    motion_blur,
    noise_field,
)
from hf_ocr.data.fonts import FontFace
from hf_ocr.data.synthetic_forms import blank_form, draw_form
from hf_ocr.data.synthetic_setting import (
    Setting,
    add_effects,
    bend,
    crop_margins,
    draw_rules,
    font_of,
    place,
    set_line,
    wide_gap,
)

__all__ = ["STYLES", "blank"]

Neighbour = Callable[[], str]
"""Draws the text of a neighbouring line or word."""


def _neighbours(draw: random.Random, neighbour: Neighbour, length: int, beside: float, over: float) -> dict[str, Any]:
    """Texts on the four sides, each with a chance; no longer than what can show."""
    texts = {}
    for side, chance in (("above", over), ("below", over), ("before", beside), ("after", beside)):
        if draw.random() < chance:
            text = neighbour()
            texts[side] = text[-4:] if side == "before" else text[:4] if side == "after" else text[: length + 6]
    return texts


def _receipt(draw: random.Random, text: str, face: FontFace, neighbour: Neighbour) -> Image.Image | None:
    size = draw.randint(15, 36)
    setting = Setting(
        font_of(face, size),
        spacing=draw.uniform(-0.04, 0.25) * size if draw.random() < 0.2 else 0.0,
        gap=wide_gap(draw, text, size) if draw.random() < 0.15 else None,
        pitch=draw.uniform(0.85, 1.3),
        jitter=0.02 * size if draw.random() < 0.05 else 0.0,
        bilevel=draw.random() < 0.3,
        **_neighbours(draw, neighbour, len(text), 0.03, 0.22),
    )
    ink = set_line(text, setting, draw)
    if ink is None:
        return None
    canvas = ink.layers[0][0]
    draw_rules(canvas, ink.box, draw, 0.06)
    chance = draw.random()
    if chance < 0.13 and size > 18:
        canvas = canvas.filter(ImageFilter.MaxFilter(3))
    elif chance < 0.2 and size > 22:
        eroded = canvas.filter(ImageFilter.MinFilter(3))
        canvas = eroded if _amount(eroded) > 0.45 * _amount(canvas) else canvas  # thin strokes would vanish
    canvas = _worn(canvas, draw, size)
    ink.layers[0] = (canvas, None)
    stretch = math.exp(draw.gauss(-0.08, 0.22)) if draw.random() < 0.65 else 1.0
    scale = draw.uniform(0.75, 1.3) if size < 26 else draw.uniform(0.6, 1.1)
    if draw.random() < 0.1:
        scale *= 13 / (size * scale)
    steep = min(1.5, math.degrees(0.3 * size / max(1.0, ink.box[2] - ink.box[0])))
    angle = draw.uniform(-steep, steep) if draw.random() < 0.4 else 0.0
    matrix = homography(
        *canvas.size,
        angle,
        draw.uniform(-0.06, 0.06) if draw.random() < 0.15 else 0.0,
        min(1.7, max(0.6, stretch)),
        scale,
    )
    layers, size_out = place(ink, matrix, crop_margins(draw, size * scale, -0.05, 0.3, setting))
    level = draw.randint(225, 255) if draw.random() < 0.72 else draw.randint(110, 225)
    distance = draw.uniform(120, 240) if draw.random() < 0.75 else draw.uniform(55, 120)
    grey = max(0, round(level - distance))
    image = grounds.paper(size_out, draw, level)
    image.paste(grey, (0, 0), layers[0][0])
    height = size * scale
    if draw.random() < 0.6:
        image = blur(image, height * draw.uniform(0.012, 0.05))
    if draw.random() < 0.3:
        # Scanners drive paper to white: stretched about the ink, which stays where it is.
        gain = draw.uniform(1.0, 1.6)
        image = contrast(image, gain, (grey - 127.5) * (1 - gain) - draw.uniform(0, 20))
    if draw.random() < 0.12:
        image = grounds.shaded(image, draw, draw.uniform(0.1, 0.5))
    if draw.random() < 0.3:
        image = add_noise(image, draw.uniform(1, 9), draw, draw.choice((1.0, 1.0, 2.0)))
    if draw.random() < 0.03:
        _scribble(image, draw)
    return _finished(image, draw, height, 0.6, layers[-1][0], 20.0)


def _page(draw: random.Random, text: str, face: FontFace, neighbour: Neighbour, in_form: bool) -> Image.Image | None:
    """A document, or in a form what is printed round the text in place of rules."""
    size = draw.randint(13, 40)
    typed = face.kind == "mono" and draw.random() < 0.5
    setting = Setting(
        font_of(face, size),
        spacing=draw.uniform(0.03, 0.3) * size if draw.random() < 0.07 else 0.0,
        gap=wide_gap(draw, text, size) if draw.random() < 0.04 else None,
        pitch=draw.uniform(1.0, 1.5),
        jitter=0.03 * size if typed else 0.0,
        **_neighbours(draw, neighbour, len(text), 0.03, 0.2),
    )
    ink = set_line(text, setting, draw)
    if ink is None:
        return None
    shown = (-math.inf,) * 4  # beyond the text, px: nothing, and a tight crop cuts into it
    if in_form:
        shown = draw_form(ink, draw, size)
    else:
        draw_rules(ink.layers[0][0], ink.box, draw, 0.06)
    canvas = ink.layers[0][0]
    if typed or draw.random() < 0.12:
        canvas = _worn(canvas, draw, size)
    ink.layers[0] = (canvas, None)
    scale = draw.uniform(0.8, 1.2) if size < 24 else draw.uniform(0.55, 1.1)
    steep = min(2.0, math.degrees(0.35 * size / max(1.0, ink.box[2] - ink.box[0])))
    angle = draw.uniform(-steep, steep) if draw.random() < 0.4 else 0.0
    tilt = draw.uniform(-0.05, 0.05) if draw.random() < 0.1 else 0.0
    matrix = homography(*canvas.size, angle, 0.0, math.exp(draw.gauss(0, 0.08)), scale, tilt)
    height = size * scale
    pads = crop_margins(draw, height, -0.02, 0.35, setting)
    left, top, right, bottom = (max(pad, scale * beyond) for pad, beyond in zip(pads, shown, strict=True))
    layers, size_out = place(ink, matrix, (left, top, right, bottom))
    if draw.random() < 0.06:  # white on a dark bar
        grey, level = draw.randint(200, 255), draw.randint(0, 110)
    else:
        level = draw.randint(205, 255) if draw.random() < 0.8 else draw.randint(130, 215)
        grey = draw.randint(0, level - 90) if draw.random() < 0.85 else level - draw.randint(60, 100)
    image = grounds.paper(size_out, draw, level)
    if draw.random() < 0.05:  # the print of the other side shows through
        faint = layers[0][0].transpose(Image.Transpose.FLIP_LEFT_RIGHT).point([v // 8 for v in range(256)])
        image.paste(grey, (draw.randint(-9, 9), draw.randint(-9, 9)), faint)
    image.paste(grey, (0, 0), layers[0][0])
    if draw.random() < 0.5:
        image = blur(image, height * draw.uniform(0.01, 0.05))
    if draw.random() < 0.08:  # photocopy or fax
        threshold = round((grey + level) / 2 + draw.uniform(-0.1, 0.2) * (level - grey))
        copied = image.point([0 if v < threshold else 255 for v in range(256)])
        left = 255 - _amount(copied) if grey < level else _amount(copied)
        if left > 0.6 * _amount(layers[0][0]):  # else thin strokes would be lost
            image = copied
    if draw.random() < 0.15:
        image = grounds.shaded(image, draw, draw.uniform(0.1, 0.5))
    if draw.random() < 0.3:
        image = add_noise(image, draw.uniform(1, 10), draw, draw.choice((1.0, 1.0, 2.0)))
    return _finished(image, draw, height, 0.4, layers[-1][0], 20.0)


def _screen(draw: random.Random, text: str, face: FontFace, neighbour: Neighbour) -> Image.Image | None:
    size = round(math.exp(draw.uniform(math.log(10), math.log(30))))
    setting = Setting(
        font_of(face, size), pitch=draw.uniform(1.1, 1.5), **_neighbours(draw, neighbour, len(text), 0.04, 0.08)
    )
    ink = set_line(text, setting, draw)
    if ink is None:
        return None
    canvas = ink.layers[0][0]
    draw_rules(canvas, ink.box, draw, 0.04)
    if draw.random() < 0.45:  # dark theme, button
        level = draw.randint(0, 120)
        grey = min(255, level + draw.randint(80, 255))
    else:
        level = draw.randint(170, 255)
        grey = max(0, level - draw.randint(80, 255))
    pads = [round(p) for p in crop_margins(draw, size, 0.0, 0.45, setting)]
    x0, y0, x1, y1 = (round(v) for v in ink.box)
    cut = (x0 - pads[0], y0 - pads[1], x1 + pads[2], y1 + pads[3])
    mask = canvas.crop(cut)
    image = (
        Image.new("L", mask.size, level)
        if draw.random() < 0.85
        else grounds.leveled(grounds.gradient(mask.size, draw), level, draw.uniform(2, 20))
    )
    image.paste(grey, (0, 0), mask)
    if draw.random() < 0.05:
        ImageDraw.Draw(image).rectangle((0, 0, image.width - 1, image.height - 1), outline=(grey + level) // 2)
    if draw.random() < 0.15:
        factor = draw.uniform(0.7, 2.0) if size < 16 else draw.uniform(0.55, 1.5)
        image = image.resize(
            (max(6, round(image.width * factor)), max(8, round(image.height * factor))),
            draw.choice((Image.Resampling.BILINEAR, Image.Resampling.BICUBIC)),
        )
    if draw.random() < 0.1:
        image = blur(image, size * draw.uniform(0.01, 0.04))
    if draw.random() < 0.25:
        image = jpeg(image, draw.randint(40, 95))
    return image if _readable(image, mask, 20.0) else None


def _scene(draw: random.Random, text: str, face: FontFace, neighbour: Neighbour) -> Image.Image | None:
    height = min(64.0, max(10.0, math.exp(draw.gauss(math.log(25), 0.45))))
    size = min(56, max(16, 4 * round(height * 1.1 / 4)))
    spacing = 0.0
    if draw.random() < 0.2:
        spacing = size * (draw.uniform(-0.06, 0.2) if draw.random() < 0.65 else draw.uniform(0.2, 0.7))
    stroke = 1 if draw.random() < 0.08 and size > 20 else 0
    setting = Setting(
        font_of(face, size),
        spacing=spacing,
        stroke=stroke,
        pitch=draw.uniform(0.85, 1.3),
        jitter=draw.uniform(0.01, 0.07) * size if draw.random() < 0.05 else 0.0,
        margin=5,
        **_neighbours(draw, neighbour, len(text), 0.14, 0.16),
    )
    ink = set_line(text, setting, draw)
    if ink is None:
        return None
    if draw.random() < 0.12:
        bend(ink, draw, size)
    least, most = (30, 70) if draw.random() < 0.2 else (60, 235)
    grey, level = _greys(draw, (0, 255), least, most)
    room = abs(grey - level)
    add_effects(ink, draw, size, grey, level)
    chance = draw.random()
    angle = (
        draw.gauss(0, 1.5)
        if chance < 0.45
        else draw.gauss(0, 6)
        if chance < 0.8
        else draw.uniform(-18, 18)
        if chance < 0.94
        else draw.uniform(-32, 32)
    )
    shear = draw.gauss(0, 0.12) if draw.random() < 0.35 else 0.0
    stretch = min(1.6, max(0.6, math.exp(draw.gauss(0, 0.22)))) if draw.random() < 0.6 else 1.0
    tilt_x = tilt_y = 0.0
    if draw.random() < 0.35:
        tilt_x, tilt_y = draw.uniform(-0.22, 0.22), draw.uniform(-0.1, 0.1)
    scale = height / size
    # At least 4.5 px a character, or nobody could read it.
    width = (ink.box[2] - ink.box[0]) * scale * stretch
    scale *= min(3.0, max(1.0, 4.5 * len(text) / max(1.0, width)))
    matrix = homography(*ink.layers[0][0].size, angle, shear, stretch, scale, tilt_x, tilt_y)
    layers, size_out = place(ink, matrix, crop_margins(draw, height, -0.06, 0.3, setting))
    image = grounds.scene_ground(size_out, draw, level, room)
    for layer, own in layers:
        if own is None and draw.random() < 0.15:
            image.paste(
                grounds.leveled(grounds.gradient(size_out, draw), grey, draw.uniform(0.1, 0.3) * room), (0, 0), layer
            )
        elif own is None and draw.random() < 0.08:
            image.paste(
                grounds.leveled(grounds.rough(size_out, draw), grey, draw.uniform(0.05, 0.25) * room), (0, 0), layer
            )
        else:
            image.paste(grey if own is None else own, (0, 0), layer)
    if draw.random() < 0.18:
        image = grounds.shaded(image, draw, draw.uniform(0.15, 0.6))
    if draw.random() < 0.5:
        image = blur(image, height * (0.01 + 0.08 * draw.random() ** 1.5))
    if draw.random() < 0.07 and height > 16:
        image = motion_blur(image, draw.randint(2, 4), draw.uniform(0, 180))
    if draw.random() < 0.12:
        image = image.filter(ImageFilter.UnsharpMask(draw.uniform(1, 2.5), draw.randint(50, 200), 0))
    if draw.random() < 0.3:
        image = add_noise(image, draw.uniform(1, min(12.0, room * 0.14)), draw, draw.choice((1.0, 1.0, 1.6, 2.4)))
    if draw.random() < 0.03:
        image = cut_out(image, draw)
    return _finished(image, draw, height, 0.45, layers[-1][0], 14.0)


def _greys(draw: random.Random, ground: tuple[float, float], least: float, most: float) -> tuple[int, int]:
    """(ink, ground) grey levels that differ by `least` to `most`, the ground between two levels."""
    level = draw.uniform(*ground)
    distance = draw.uniform(least, most)
    choices = [level + sign * distance for sign in (-1, 1) if 0 <= level + sign * distance <= 255]
    ink = draw.choice(choices) if choices else (0 if level > 127 else 255)
    return round(ink), round(level)


def _finished(
    image: Image.Image, draw: random.Random, height: float, jpeg_share: float, ink: Image.Image, least: float
) -> Image.Image | None:
    """The last losses; None where the ink cannot be seen any more."""
    if draw.random() < 0.1 and height > 12:
        image = lower_resolution(image, draw.uniform(max(0.45, 10.0 / height), 0.95), restore=draw.random() < 0.5)
    if draw.random() < jpeg_share:
        image = jpeg(image, draw.randint(25, 92))
    return image if _readable(image, ink, least) else None


def _worn(canvas: Image.Image, draw: random.Random, size: int) -> Image.Image:
    """Uneven print: fading along the line, bands of rows, specks without ink, the dots of a matrix printer."""
    chance = draw.random()
    if chance < 0.55:
        return canvas
    if chance < 0.7:
        return ImageChops.multiply(
            canvas, grounds.leveled(grounds.gradient(canvas.size, draw), draw.uniform(150, 210), draw.uniform(10, 45))
        )
    if chance < 0.79:
        rows = max(2, canvas.height // draw.randint(1, 3))
        bands = Image.frombytes("L", (1, rows), bytes(draw.randint(90, 255) for _ in range(rows)))
        return ImageChops.multiply(canvas, bands.resize(canvas.size, Image.Resampling.NEAREST))
    if chance < 0.92:
        # Blots of the size of a stroke: ink is missing where the noise is low.
        grain = max(1.0, size / 14)
        field_size = (max(2, round(canvas.width / grain)), max(2, round(canvas.height / grain)))
        noise = noise_field(field_size[1], field_size[0], draw)
        depth = draw.uniform(0.3, 1.2)
        specks = Image.fromarray(np.clip(255 * (1.25 + depth * noise * 0.7), 60, 255).astype(np.uint8))
        return ImageChops.multiply(canvas, specks.resize(canvas.size, Image.Resampling.BILINEAR))
    if size < 24:
        return canvas
    return ImageChops.multiply(canvas, _dots(4 if size >= 32 and draw.random() < 0.5 else 3).crop((0, 0, *canvas.size)))


@lru_cache(maxsize=4)
def _dots(pitch: int) -> Image.Image:
    coordinates = np.arange(1536) % pitch
    wave = np.where(coordinates == pitch - 1, 0.35, 1.0)
    return Image.fromarray((255 * np.minimum(wave[:256, None], wave[None, :])).astype(np.uint8))


def _amount(image: Image.Image) -> float:
    """Mean grey level."""
    return float(np.asarray(image).mean())


def _readable(image: Image.Image, ink: Image.Image, least: float) -> bool:
    """Whether the ink still shows: how many grey levels full ink makes, and how much else there is in the image.

    Args:
        image: the finished line.
        ink: its coverage before blur and noise, of any size.
        least: grey levels.
    """
    values = np.asarray(image, dtype=np.float32)
    values = values - values.mean()
    cover = (
        np.asarray(
            ink if ink.size == image.size else ink.resize(image.size, Image.Resampling.BILINEAR), dtype=np.float32
        )
        / 255
    )
    cover = cover - cover.mean()
    product, spread = float(np.vdot(values, cover)), float(np.vdot(cover, cover))
    if spread == 0:
        return False
    return abs(product) / spread > least and abs(product) > 0.3 * math.sqrt(spread * float(np.vdot(values, values)))


def _scribble(image: Image.Image, draw: random.Random) -> None:
    """A stroke of a pen across the line."""
    width, height = image.size
    x, y = draw.uniform(0, width), draw.uniform(0, height)
    points = [(x, y)]
    for _ in range(draw.randint(2, 4)):
        x, y = x + draw.gauss(0, height), y + draw.gauss(0, 0.5 * height)
        points.append((x, y))
    ImageDraw.Draw(image).line(points, fill=draw.randint(60, 150), width=draw.randint(1, 2), joint="curve")


def blank(draw: random.Random, style: str) -> Image.Image:
    """An image without text: white, black, paper, blotches, texture, a ruled line, an empty field, noise."""
    size = (draw.randint(16, 400), draw.randint(14, 60))
    chance = draw.random()
    if chance < 0.2:
        image = Image.new("L", size, draw.choice((0, 255, draw.randint(0, 255))))
    elif chance < 0.65:
        image = grounds.mottled(size, draw, draw.uniform(20 if style == "scene" else 140, 250))
    elif chance < 0.8 or style != "scene":
        image = grounds.paper(size, draw, draw.uniform(150, 255))
    else:
        image = grounds.scene_ground(size, draw, draw.uniform(0, 255), 80)
    if style == "form":
        blank_form(image, draw)
    elif draw.random() < 0.15:
        y = draw.uniform(0, size[1])
        ImageDraw.Draw(image).line(
            (0, y, size[0], y + draw.uniform(-2, 2)), fill=draw.randint(0, 255), width=draw.randint(1, 2)
        )
    if draw.random() < 0.4:
        image = add_noise(image, draw.uniform(1, 12), draw, draw.choice((1.0, 2.0)))
    return jpeg(image, draw.randint(30, 90)) if draw.random() < 0.3 else image


STYLES: dict[str, Callable[[random.Random, str, FontFace, Neighbour], Image.Image | None]] = {
    "receipt": _receipt,
    "document": partial(_page, in_form=False),
    "form": partial(_page, in_form=True),
    "screen": _screen,
    "scene": _scene,
}
"""Each makes the picture of a text, or None where its ink would not show."""
