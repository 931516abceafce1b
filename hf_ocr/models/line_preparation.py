"""What every reader does to the image of a line around the network, with NumPy and Pillow alone.

The rules of size, of turned lines and of lines read again stand here once: the pipeline and the reader of an exported
network take them from here.
"""

import math

import numpy as np
from PIL import Image

from .image_loading import ImageError

MIN_SIDE = 3  # px; below it there is no text to see
# A line whose height exceeds this many widths is read upright and in both quarter turns: 4 % of the words in ICDAR
# 2015 are like this, most of them turned by 90 degrees.
TALL = 1.5
QUARTER_TURNS = {90: Image.Transpose.ROTATE_90, 270: Image.Transpose.ROTATE_270}
# A line whose probability a character is below this is read again at one width after the other, until it is not, and
# the best reading is kept. Chosen on held-back training words and validation lines of SROIE: two more widths between
# these make it no better there, and reading slower.
DOUBTFUL = 0.9
STRETCHES = (0.7, 1.35)
# `DOUBTFUL` of a model with a language model, which has mended a text before it is read again at the wider of the two
# widths; chosen on the same lines, where the narrower one makes it no better.
DOUBTFUL_TO_BOTH = 0.7
# A line whose probability a character is below this and that is tilted is read again level, before any other width.
# Chosen with what follows on validation lines as they are, where it makes nothing better or worse, and turned by up to
# six degrees, where it does.
DOUBTFUL_IF_TILTED = 0.97
# Of a tilted line: rows down for a column to the right, at most; by how many times rows of ink are clearer along its
# slope than along the image's rows; and how much of the height is cut off at most, above and below each.
STEEPEST, CLEARER, CUT = 0.18, 1.1, 0.32
INK = 0.3  # of the strongest contrast with the ground
STRIP, STEP = 12, 3  # px: columns that are moved together where slopes are compared, and how far the ends each time
SLOPES = 64  # compared at once: all those of a wide line take six times the memory, and longer

# What of its ground a line keeps round its ink when it is cut out of a loose crop, in heights of the ink; and how much
# of the height must go for that. In training print fills more of a line.
KEPT_GROUND = 0.25
LOOSE = 0.7
# How far the border of an even ground departs from its median: grey levels, and a share of what the ink does. What
# departs farther than the border by half is ink.
UNEVEN = (12, 0.12)
MIN_INK = 5  # px high; nothing lower is print
SOLID = 0.8  # share of its box that the ink of a dash, a dot or a rule fills
LONGEST = 50  # widths of a part to its height; what is longer is no line of print


def bucket_width(width: int) -> int:
    """The width (px) to which an image of this width is padded for reading; of the image alone, never of its batch.

    Steps of 32 px below 512, twice that with every doubling of the width: from 256 px on at most an eighth is padding.
    """
    step = 32 * 2 ** max(0, math.floor(math.log2(max(width, 1) / 256)))
    return -(-width // step) * step


def resized_width(size: tuple[int, int], height: int, min_width: int, max_width: int) -> int:
    """Width of a line of `size` (width, height) once it is scaled to `height`; all in px.

    Where `min_width` and `max_width` are one, every line is stretched to it.

    Raises:
        ImageError: a side below 3 px; a line longer than `max_width`, or as tall as that when turned.
    """
    given_width, given_height = size
    if min(size) < MIN_SIDE:
        raise ImageError(
            f"image of {given_width} x {given_height} px: too small to hold text. Expected sides of at least "
            f"{MIN_SIDE} px; check the crop."
        )
    if min_width == max_width:
        return min_width
    scaled = round(given_width * height / given_height)
    if scaled > max_width:
        raise ImageError(
            f"image of {given_width} x {given_height} px: {scaled} px wide at height {height}. Expected at most "
            f"{max_width}; cut the line into parts, or raise max_width."
        )
    if round(given_height * height / given_width) > max_width:
        raise ImageError(
            f"image of {given_width} x {given_height} px: far too tall for a text line. Expected one line of text; "
            "cut the page into lines, or turn the image by 90 degrees and cut it into parts."
        )
    return max(scaled, min_width)


def text_width(size: tuple[int, int], height: int, min_width: int, max_width: int, narrow: str) -> int:
    """Columns of the prepared line that show the image; with `narrow` "pad" they may be fewer than `resized_width`."""
    prepared = resized_width(size, height, min_width, max_width)
    if narrow == "pad" and min_width < max_width:
        return max(1, min(round(size[0] * height / size[1]), prepared))
    return prepared


def grey_values(image: Image.Image) -> np.ndarray:
    """uint8 (H, W) of a "L" or "RGB" image; of colours their luma, ITU-R 601."""
    image = image if image.mode == "L" else image.convert("L")
    # As np.asarray(image), which asks Pillow for more and takes half as long again.
    return np.frombuffer(image.tobytes(), np.uint8).reshape(image.height, image.width)


def line_pixels(
    image: Image.Image, height: int, min_width: int, max_width: int, num_channels: int, narrow: str, resample: int
) -> np.ndarray:
    """The `text_part` of a "L" or "RGB" image at its `resized_width`: uint8 (height, W, num_channels).

    `num_channels` is 1 for grey or 3 for RGB, `resample` the number of Pillow's filter.

    Raises:
        ImageError: no text line, as `resized_width`.
    """
    if num_channels == 1 and image.mode != "L":
        image = image.convert("L")
    grey = grey_values(image)
    left, top, right, bottom = part = text_part(grey)
    given = right - left, bottom - top
    size = text_width(given, height, min_width, max_width, narrow), height
    if num_channels == 1 and size == given:  # a second copy out of Pillow takes as long as all else here
        pixels = grey[top:bottom, left:right, None]
    else:
        image = image if given == image.size else image.crop(part)
        if num_channels == 3 and image.mode == "L":
            image = image.convert("RGB")
        # Pillow widens the filter when it makes an image smaller, so thin strokes grey out rather than vanish.
        image = image if given == size else image.resize(size, Image.Resampling(resample))
        pixels = np.asarray(image).reshape(height, size[0], num_channels)
    return pixels if size[0] >= min_width else np.pad(pixels, ((0, 0), (0, min_width - size[0]), (0, 0)))


def pixel_scale(mean: float | list[float], std: float | list[float]) -> tuple[np.ndarray, np.ndarray]:
    """Factor and offset of `scale_pixels`, float32 (C, 1, 1), of one number or one for each channel."""
    means, stds = (np.reshape(setting, (-1, 1, 1)) for setting in (mean, std))
    return (1 / (255 * stds)).astype(np.float32), (means / stds).astype(np.float32)


def scale_pixels(pixels: np.ndarray, scale: tuple[np.ndarray, np.ndarray], out: np.ndarray | None = None) -> np.ndarray:
    """uint8 (C, H, W) -> float32 (value / 255 - mean) / std, into `out` where it is given."""
    factor, offset = scale
    values: np.ndarray = np.multiply(pixels, factor, out=out)
    values -= offset
    return values


def text_part(grey: np.ndarray) -> tuple[int, int, int, int]:
    """(left, top, right, bottom) of the part to read, px: of a loose crop the ink with some ground, else all of it.

    Scaled to the height of a line, print with much ground above and below it is smaller than a recognizer has seen. The
    border of the image must be even, and the ink no dash, dot or rule: scaled up they would be taken for more. The part
    of a part is all of it.

    Args:
        grey: uint8 (H, W), `grey_values` of an image.
    """
    height, width = grey.shape
    whole = (0, 0, width, height)
    border = np.sort(_border(grey), kind="stable")  # of bytes by radix, twice as fast
    ground = (int(border[(len(border) - 1) // 2]) + int(border[len(border) // 2])) // 2  # the median
    uneven = max(int(border[-1]) - ground, ground - int(border[0]))
    if uneven > max(UNEVEN[0], UNEVEN[1] * 255):  # whatever the ink
        return whole
    tolerance = max(UNEVEN[0], 1.5 * uneven)
    dark, light = ground - tolerance, ground + tolerance
    # Most lines show in two of their rows that they are none too small; the others are looked at row by row.
    quarter = height // 4
    two = grey[quarter : height - quarter : max(height - 1 - 2 * quarter, 1)]
    if _fills(height - 2 * quarter, height) and (
        max(two.min(axis=1).tolist()) < dark or min(two.max(axis=1).tolist()) > light
    ):
        return whole
    darkest, lightest = grey.min(axis=1).tolist(), grey.max(axis=1).tolist()  # of each row
    contrast = max(max(lightest) - ground, ground - min(darkest))
    if uneven > max(UNEVEN[0], UNEVEN[1] * contrast) or contrast < 2 * tolerance:
        return whole
    rows = [y for y in range(height) if darkest[y] < dark or lightest[y] > light]
    ink_height = rows[-1] - rows[0] + 1
    if ink_height < MIN_INK or _fills(ink_height, height):
        return whole
    ink = (grey < dark) | (grey > light)
    columns = np.flatnonzero(ink.any(axis=0))
    ink_width = int(columns[-1] - columns[0]) + 1
    if ink.sum() > SOLID * ink_height * ink_width or ink_width > LONGEST * ink_height:
        return whole
    kept = round(KEPT_GROUND * ink_height)
    left, top = max(0, int(columns[0]) - kept), max(0, rows[0] - kept)
    right, bottom = min(width, int(columns[-1]) + 1 + kept), min(height, rows[-1] + 1 + kept)
    part = text_part(grey[top:bottom, left:right])
    return left + part[0], top + part[1], left + part[2], top + part[3]


def turned(image: Image.Image) -> dict[int, Image.Image]:
    """{degrees counter-clockwise: image}: upright, and where the line is `TALL` in both quarter turns."""
    turns = {0: image}
    if image.height > TALL * image.width:
        turns |= {degrees: image.transpose(turn) for degrees, turn in QUARTER_TURNS.items()}
    return turns


def stretch_line(pixel_values: np.ndarray, stretch: float) -> np.ndarray:
    """float32 (C, H, W) -> (C, H, round(stretch * W)): a line that is read again."""
    height, width = pixel_values.shape[1:]
    size = (round(width * stretch), height)
    channels = [Image.fromarray(np.ascontiguousarray(channel)) for channel in pixel_values]
    return np.stack([np.asarray(channel.resize(size, Image.Resampling.BILINEAR)) for channel in channels])


def level_line(pixel_values: np.ndarray) -> np.ndarray | None:
    """A tilted line made level, with what its tilt took of the height cut off: a line that is read again.

    Columns are moved up and down, so each character stays at its share of the width.

    Args:
        pixel_values: float32 (C, H, W).

    Returns:
        float32 (C, H, W'), W' up to W / (1 - 2 CUT); None for a line that is level, or of which that cannot be said.
    """
    height, width = pixel_values.shape[1:]
    slope = _slope(pixel_values.mean(axis=0))
    if slope == 0:
        return None
    cut = min(abs(slope) * width / 2, CUT * height)
    scale = height / (height - 2 * cut)
    matrix = (1 / scale, 0, 0, slope / scale, 1 / scale, cut - slope * width / 2)
    size = (round(width * scale), height)
    return np.stack([_moved(channel, size, matrix) for channel in pixel_values])


def _slope(grey: np.ndarray) -> float:
    """Rows down a column to the right by which the rows of ink of float32 (H, W) are clearest; 0 if not clearly so."""
    height, width = grey.shape
    contrast = np.abs(grey - np.median(_border(grey)))
    ink = np.where(contrast > INK * contrast.max(), contrast, 0)
    starts = np.arange(0, width, STRIP)
    strips = np.add.reduceat(ink, starts, axis=1)
    most = int(STEEPEST * width / STEP)
    slopes = np.arange(-most, most + 1) * (STEP / width)
    down = np.rint(slopes[:, None] * (starts + STRIP / 2 - width / 2)).astype(np.int64)
    reach = int(np.abs(down).max())
    padded = np.pad(strips, ((reach, reach), (0, 0)))
    rows = np.arange(reach, reach + height)[:, None]
    clear = np.empty(len(slopes), dtype=strips.dtype)
    for first in range(0, len(slopes), SLOPES):
        some = slice(first, first + SLOPES)
        profiles = padded[rows + down[some, None], np.arange(len(starts))].sum(axis=2)  # (slopes, height)
        clear[some] = (profiles**2).sum(axis=1)
    best = int(np.argmax(clear))
    return float(slopes[best]) if clear[best] > CLEARER * clear[most] else 0.0


def _fills(ink_height: int, height: int) -> bool:
    """Whether ink this high, and the ground kept above and below it, is most of the height."""
    return ink_height + 2 * round(KEPT_GROUND * ink_height) > LOOSE * height


def _border(grey: np.ndarray) -> np.ndarray:
    return np.concatenate([grey[0], grey[-1], grey[:, 0], grey[:, -1]])


def _moved(channel: np.ndarray, size: tuple[int, int], matrix: tuple[float, ...]) -> np.ndarray:
    """float32 (H, W) under an affine map from the result's pixels to its own; the ground goes on outside of it."""
    image = Image.fromarray(np.ascontiguousarray(channel))
    fill = float(np.median(_border(channel)))
    return np.asarray(image.transform(size, Image.Transform.AFFINE, matrix, Image.Resampling.BICUBIC, fillcolor=fill))
