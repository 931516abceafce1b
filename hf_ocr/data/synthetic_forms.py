"""What is printed round the text of a form: lines to write on, frames, columns, boxes to tick. None of it is text."""

import random

from PIL import Image, ImageChops, ImageDraw

from hf_ocr.data.synthetic_setting import Ink

__all__ = ["blank_form", "draw_form"]


def draw_form(ink: Ink, draw: random.Random, size: int) -> tuple[float, float, float, float]:
    """Draw a line under the text, a frame or some of its sides, or a box before or behind it; some have two of them.

    Args:
        ink: the canvas of its main layer is made larger.
        draw: decides what is drawn, and where.
        size: of the font, px.

    Returns:
        px of the canvas that a crop of the text shows beyond it: left, top, right, bottom.
    """
    canvas = ink.layers[0][0]
    room = 3 * size
    larger = Image.new("L", (canvas.width + 2 * room, canvas.height + 2 * room))
    larger.paste(canvas, (room, room))
    left, top, right, bottom = (edge + room for edge in ink.box)
    ink.box = (left, top, right, bottom)
    form = Image.new("L", larger.size)
    pen = ImageDraw.Draw(form)
    shown = [0.0, 0.0, 0.0, 0.0]
    chance = draw.random()
    if chance < 0.25 or chance > 0.9:
        start, end = (left, right) if draw.random() < 0.4 else (0.0, float(larger.width))
        y = bottom + draw.uniform(-0.2, 0.35) * size  # through the letters' feet, too
        _rule(pen, draw, start, end, y, size)
        shown[3] = max(0.0, y - bottom) + draw.uniform(0, 0.15) * size
    if 0.2 < chance < 0.65:
        beside, above = draw.uniform(0.08, 0.7) * size, draw.uniform(0.05, 0.5) * size
        _frame(pen, draw, (left - beside, top - above, right + beside, bottom + above))
        if draw.random() < 0.8:
            shown = [max(a, b + 0.1 * size) for a, b in zip(shown, (beside, above, beside, above), strict=True)]
    if chance > 0.62:
        side = draw.uniform(0.55, 1.1) * size
        gap = draw.uniform(0.25, 1.0) * size
        middle = (top + bottom) / 2 + draw.uniform(-0.12, 0.12) * size
        behind = draw.random() < 0.15
        x = right + gap if behind else left - gap - side
        _tick_box(pen, draw, (x, middle - side / 2, x + side, middle + side / 2))
        # Some crops cut through the box.
        part = (gap + side) * (draw.uniform(0.3, 1.0) if draw.random() < 0.2 else 1.08)
        shown[2 if behind else 0] = max(shown[2 if behind else 0], part)
        shown[1] = max(shown[1], side / 2 - (middle - top))
        shown[3] = max(shown[3], side / 2 - (bottom - middle))
    ink.layers[0] = (ImageChops.lighter(larger, form), None)  # pale lines make no letter paler
    return shown[0], shown[1], shown[2], shown[3]


def blank_form(image: Image.Image, draw: random.Random) -> None:
    """Draw an empty field, or a box to tick, on a grey image."""
    width, height = image.size
    drawn = Image.new("L", image.size)
    pen = ImageDraw.Draw(drawn)
    chance = draw.random()
    if chance < 0.4:
        _rule(pen, draw, 0, width, height * draw.uniform(0.5, 0.95), height)
    elif chance < 0.75:
        edges = [draw.uniform(0, 0.25) * height for _ in range(4)]
        _frame(pen, draw, (edges[0], edges[1], width - edges[2], height - edges[3]))
    else:
        side = height * draw.uniform(0.4, 0.8)
        x, y = draw.uniform(0, max(0.0, width - side)), draw.uniform(0, height - side)
        _tick_box(pen, draw, (x, y, x + side, y + side))
    image.paste(draw.randint(0, 120), (0, 0), drawn)


def _coverage(draw: random.Random) -> int:
    return 255 if draw.random() < 0.5 else draw.randint(90, 255)


def _rule(pen: ImageDraw.ImageDraw, draw: random.Random, start: float, end: float, y: float, size: int) -> None:
    """A whole line, a dotted one or a dashed one."""
    cover, thick, chance = _coverage(draw), draw.randint(1, 2), draw.random()
    if chance < 0.6:
        pen.line((start, y, end, y), fill=cover, width=thick)
        return
    length = draw.randint(1, 2) if chance < 0.85 else max(2.0, draw.uniform(0.15, 0.4) * size)
    pitch = length + max(2.0, draw.uniform(0.08, 0.3) * size)
    x = start + draw.uniform(0, pitch)
    while x < end:
        pen.rectangle((x, y, x + (length - 1), y + (thick - 1)), fill=cover)
        x += pitch


def _frame(pen: ImageDraw.ImageDraw, draw: random.Random, box: tuple[float, float, float, float]) -> None:
    """A frame, one with round corners, or some of its sides, which go on: the lines of a table."""
    cover, thick, chance = _coverage(draw), draw.choice((1, 1, 2, 3)), draw.random()
    left, top, right, bottom = box
    if chance < 0.5:
        pen.rectangle(box, outline=cover, width=thick)
    elif chance < 0.6:
        pen.rounded_rectangle(box, 0.3 * (bottom - top), outline=cover, width=thick)
    else:
        far = 3 * (bottom - top)
        for x in (left, right):
            if draw.random() < 0.6:
                pen.line((x, top - far, x, bottom + far), fill=cover, width=thick)
        for y in (top, bottom):
            if draw.random() < 0.5:
                pen.line((left - far, y, right + far, y), fill=cover, width=thick)


def _tick_box(pen: ImageDraw.ImageDraw, draw: random.Random, box: tuple[float, float, float, float]) -> None:
    """A square or a circle, empty, filled or ticked."""
    cover, thick, mark = _coverage(draw), draw.choice((1, 1, 2, 3)), draw.random()
    left, top, right, bottom = box
    outline = pen.ellipse if draw.random() < 0.25 else pen.rectangle
    outline(box, outline=cover, width=thick)
    width, height = right - left, bottom - top
    if mark < 0.12:
        pen.line((left + 0.2 * width, top + 0.2 * height, right - 0.2 * width, bottom - 0.2 * height), cover, thick)
        pen.line((left + 0.2 * width, bottom - 0.2 * height, right - 0.2 * width, top + 0.2 * height), cover, thick)
    elif mark < 0.24:
        points = ((0.2, 0.55), (0.42, 0.8), (draw.uniform(0.8, 1.1), draw.uniform(-0.1, 0.2)))
        pen.line([(left + a * width, top + b * height) for a, b in points], cover, thick)
    elif mark < 0.3:
        outline((left + 0.25 * width, top + 0.25 * height, right - 0.25 * width, bottom - 0.25 * height), fill=cover)
