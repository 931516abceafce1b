"""Setting a line of text: its ink on a canvas, with wide gaps, loose letters, neighbours, arcs, shadows and borders."""

import math
import random
from dataclasses import dataclass
from functools import lru_cache
from itertools import pairwise

import numpy as np
from PIL import Image, ImageChops, ImageDraw, ImageFilter, ImageFont

from hf_ocr.data.augmentation import blur, mapped, warp
from hf_ocr.data.fonts import FontFace

__all__ = [
    "Ink",
    "Setting",
    "add_effects",
    "bend",
    "crop_margins",
    "draw_rules",
    "font_of",
    "place",
    "set_line",
    "wide_gap",
]


@lru_cache(maxsize=400)
def _open(path: str, index: int, size: int) -> ImageFont.FreeTypeFont:
    # The basic layout forms no ligatures: one character, one shape.
    return ImageFont.truetype(path, size, index=index, layout_engine=ImageFont.Layout.BASIC)


def font_of(face: FontFace, size: int) -> ImageFont.FreeTypeFont:
    """The face at a size in px, kept open for the next line."""
    return _open(face.path, face.index, size)


@dataclass
class Ink:
    """Layers of ink on a canvas that is larger than the text, and where the text lies.

    Attributes:
        layers: (coverage, grey level), from the lowest to the highest; grey None is the main ink.
        box: left, top, right, bottom of the main text on the canvas, px.
    """

    layers: list[tuple[Image.Image, int | None]]
    box: tuple[float, float, float, float]


@dataclass(frozen=True)
class Setting:
    """How a text is set.

    Attributes:
        font: with its size.
        spacing: extra px between characters.
        stroke: px by which strokes are thickened on both sides.
        gap: (position of a space, px by which it is widened).
        above, below, before, after: texts of neighbours, "" for none.
        pitch: from line to line, in font sizes.
        jitter: deviation of the height of single characters, px.
        bilevel: without anti-aliasing.
        margin: px of empty canvas round everything.
    """

    font: ImageFont.FreeTypeFont
    spacing: float = 0.0
    stroke: int = 0
    gap: tuple[int, float] | None = None
    above: str = ""
    below: str = ""
    before: str = ""
    after: str = ""
    pitch: float = 1.2
    jitter: float = 0.0
    bilevel: bool = False
    margin: int = 3


def set_line(line: str, setting: Setting, draw: random.Random) -> Ink | None:
    """Draw a line with its neighbours; None where nothing shows (a face may draw nothing for a sign)."""
    font, spacing = setting.font, setting.spacing
    size = font.size
    mode = "1" if setting.bilevel else "L"  # without anti-aliasing, hinting gives other widths
    pieces: list[tuple[float, str]]
    if spacing or setting.gap or setting.jitter:
        pieces, x, run, start = [], 0.0, "", 0.0
        for position, character in enumerate(line):
            if spacing or setting.jitter:
                pieces.append((x, character))
                x += font.getlength(character, mode) + spacing
            else:
                run += character
                x = start + font.getlength(run, mode)
            if setting.gap and position == setting.gap[0]:
                if run:
                    pieces.append((start, run))
                x += setting.gap[1]
                run, start = "", x
        if run:
            pieces.append((start, run))
    else:
        pieces = [(0.0, line)]
    boxes = [
        (x, font.getbbox(piece, mode, anchor="ls", stroke_width=setting.stroke)) for x, piece in pieces if piece != " "
    ]
    if not boxes:
        return None
    left = min(x + box[0] for x, box in boxes)
    top = min(box[1] for _, box in boxes)
    right = max(x + box[2] for x, box in boxes)
    bottom = max(box[3] for _, box in boxes)
    if right - left < 1 or bottom - top < 1 or bottom - top > 4 * size:
        return None
    crowded = setting.above or setting.below
    margin_x = setting.margin + (round(0.8 * size) if setting.before or setting.after or crowded else 0)
    margin_y = setting.margin + (round(0.9 * size) if crowded else 0)
    canvas = Image.new("L", (math.ceil(right - left) + 2 * margin_x, math.ceil(bottom - top) + 2 * margin_y))
    pen = ImageDraw.Draw(canvas)
    pen.fontmode = mode
    origin_x, origin_y = margin_x - left, margin_y - top
    for x, piece in pieces:
        shift = draw.gauss(0, setting.jitter) if setting.jitter else 0.0
        pen.text((origin_x + x, origin_y + shift), piece, fill=255, font=font, anchor="ls", stroke_width=setting.stroke)
    box = canvas.getbbox()  # the boxes of the pieces reach to the ends of their advances, beyond the ink
    if box is None or box[0] == 0 or box[1] == 0 or box[2] == canvas.width or box[3] == canvas.height:
        return None  # nothing, or a face whose ink is not where it says
    space = max(0.2 * size, font.getlength(" ")) + spacing
    offset = draw.uniform(-0.6, 0.1) * size
    for text, x, y, anchor in (
        (setting.above, origin_x + offset, origin_y - setting.pitch * size, "ls"),
        (setting.below, origin_x + offset, origin_y + setting.pitch * size, "ls"),
        (setting.before, box[0] - space * draw.uniform(0.9, 1.3), origin_y, "rs"),
        (setting.after, box[2] + space * draw.uniform(0.9, 1.3), origin_y, "ls"),
    ):
        if text:
            pen.text((x, y), text, fill=255, font=font, anchor=anchor)
    return Ink([(canvas, None)], box)


def place(
    ink: Ink, matrix: np.ndarray, pads: tuple[float, float, float, float]
) -> tuple[list[tuple[Image.Image, int | None]], tuple[int, int]]:
    """The layers under a homography, cut to the upright box round the text.

    Args:
        ink: what to place.
        matrix: float (3, 3), from canvas to result.
        pads: px by which the box is wider: left, top, right, bottom; negative cuts into the text.

    Returns:
        The layers, all of one size, and this size.
    """
    x0, y0, x1, y1 = ink.box
    corners = mapped(matrix, np.array([[x0, y0], [x1, y0], [x1, y1], [x0, y1]], dtype=np.float64))
    left, top = corners.min(axis=0) - pads[:2]
    right, bottom = corners.max(axis=0) + pads[2:]
    size = (max(6, math.ceil(right - left)), max(8, math.ceil(bottom - top)))
    shift = np.array([[1.0, 0, -left], [0, 1, -top], [0, 0, 1]])
    return [(warp(layer, shift @ matrix, size), grey) for layer, grey in ink.layers], size


def crop_margins(
    draw: random.Random, height: float, tightest: float, loosest: float, setting: Setting
) -> tuple[float, float, float, float]:
    """Pads for `place`, px: left, top, right, bottom.

    Each is between `tightest` and `loosest` times the height, about a common amount. One crop in six is a loose one: on
    a side without a neighbour up to 4 heights of empty ground follow at the ends, half a height above and below.
    """
    usual = draw.uniform(max(0.0, tightest), loosest * 0.6)
    pads = [min(loosest, max(tightest, usual + draw.uniform(-0.5, 0.5) * loosest)) for _ in range(4)]
    if draw.random() < 1 / 6:
        neighbours = (setting.before, setting.above, setting.after, setting.below)
        for side, (neighbour, most) in enumerate(zip(neighbours, (4.0, 0.5, 4.0, 0.5), strict=True)):
            if not neighbour and draw.random() < 0.7:
                pads[side] += draw.uniform(0.0, most)
    left, top, right, bottom = (height * pad for pad in pads)
    return left, top, right, bottom


def wide_gap(draw: random.Random, text: str, size: float) -> tuple[int, float] | None:
    """The gap of a `Setting` at one of the spaces, 0.5 to 5 font sizes; None without a space."""
    spaces = [i for i, c in enumerate(text) if c == " "]
    return (draw.choice(spaces), size * draw.uniform(0.5, 5.0)) if spaces else None


def draw_rules(canvas: Image.Image, box: tuple[float, float, float, float], draw: random.Random, share: float) -> None:
    """Underlines, table lines above, below and at the ends."""
    if draw.random() >= share:
        return
    pen = ImageDraw.Draw(canvas)
    x0, y0, x1, y1 = box
    thick = draw.randint(1, 2)
    gap = draw.uniform(0.5, 3)
    chance = draw.random()
    if chance < 0.6:
        pen.line(
            (x0 if draw.random() < 0.5 else 0, y1 + gap, x1 if draw.random() < 0.5 else canvas.width, y1 + gap),
            fill=255,
            width=thick,
        )
    elif chance < 0.8:
        pen.line((0, y0 - gap, canvas.width, y0 - gap), fill=255, width=thick)
    else:
        x = draw.choice((x0 - gap, x1 + gap))
        pen.line((x, 0, x, canvas.height), fill=255, width=thick)


def bend(ink: Ink, draw: random.Random, size: int) -> None:
    """Bend the line to an arc: columns shift by a parabola."""
    canvas = ink.layers[0][0]
    width, height = canvas.size
    x0, y0, x1, y1 = ink.box
    rise = draw.choice((-1, 1)) * draw.uniform(0.08, 0.45) * min(size, 0.3 * (x1 - x0))
    down, up = math.ceil(max(0.0, rise)), math.ceil(max(0.0, -rise))

    def shift(x: float) -> float:
        u = (x - (x0 + x1) / 2) / max(1.0, (x1 - x0) / 2)
        return rise * min(2.0, u * u)

    new_height = height + down + up
    strips = max(4, min(24, width // 8))
    edges = [round(width * i / strips) for i in range(strips + 1)]
    mesh = []
    for a, b in pairwise(edges):
        sa, sb = -shift(a) - up, -shift(b) - up
        mesh.append(((a, 0, b, new_height), (a, sa, a, sa + new_height, b, sb + new_height, b, sb)))
    bent = canvas.transform((width, new_height), Image.Transform.MESH, mesh, Image.Resampling.BILINEAR)
    ink.layers[0] = (bent, None)
    ink.box = (x0, y0, x1, y1 + down + up)


def add_effects(ink: Ink, draw: random.Random, size: int, grey: int, level: int) -> None:
    """Shadow, border, extrusion or outline, as layers under or instead of the ink."""
    chance = draw.random()
    mask = ink.layers[0][0]
    if chance > 0.28 or size < 18:
        return
    far = max(1, size // 14)
    other = round(
        min(
            255,
            max(
                0,
                draw.choice(
                    (level + (level - grey) * draw.uniform(0.2, 0.8), (level + grey) / 2, draw.uniform(0, 255))
                ),
            ),
        )
    )
    if chance < 0.1:
        shift = (draw.choice((-1, 1)) * draw.randint(0, far + 1), draw.choice((-1, 1, 1)) * draw.randint(1, far))
        shadow = ImageChops.offset(mask, *shift)
        if draw.random() < 0.5:
            shadow = blur(shadow, draw.uniform(0.5, 2.0))
        ink.layers.insert(0, (shadow, other))
    elif chance < 0.16:
        if abs(other - grey) < 40:
            other = 255 - grey if abs(255 - 2 * grey) > 80 else level
        ink.layers.insert(0, (mask.filter(ImageFilter.MaxFilter(3 if size < 30 else 5)), other))
    elif chance < 0.25:
        step = (draw.choice((-1, 1)), draw.choice((-1, 1)))
        body = mask
        for distance in range(1, draw.randint(far, 2 * far) + 1):
            body = ImageChops.lighter(body, ImageChops.offset(mask, step[0] * distance, step[1] * distance))
        ink.layers.insert(0, (body, round(0.5 * (other + level))))
    elif size >= 28:
        inner = mask.filter(ImageFilter.MinFilter(3))
        outer = mask.filter(ImageFilter.MaxFilter(3))
        ink.layers[0] = (ImageChops.subtract(outer, inner), None)
