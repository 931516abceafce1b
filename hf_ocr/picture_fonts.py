"""Fonts in which pictures show texts of any script."""

from collections.abc import Sequence

from PIL import ImageFont

__all__ = ["fonts_for"]

PLAIN = ("normal", 400)  # style and weight
LAST_RESORT = "lastresort"  # matplotlib's and that of macOS, which draw a box for every character


def fonts_for(texts: Sequence[str], size: int) -> list[ImageFont.FreeTypeFont]:
    """For each text a font that has all its characters, where one is installed; else one that has most of them.

    DejaVu Sans, which comes with matplotlib, then the upright text faces of the machine, those without serifs first.

    Args:
        texts: white space and control characters in them ask for nothing.
        size: of the fonts, px.
    """
    from matplotlib import font_manager  # of the extras `train` and `eval`
    from matplotlib.ft2font import FT2Font

    fonts = [font for font in font_manager.fontManager.ttflist if LAST_RESORT not in font.name.replace(" ", "").lower()]
    plain = {font.fname: font.name for font in fonts if (font.style, font.weight) == PLAIN}
    installed = sorted(plain, key=lambda path: ("Sans" not in plain[path], plain[path], path))
    wanted = {text: {ord(character) for character in text if character.isprintable()} - {0x20} for text in texts}
    default = ImageFont.truetype(font_manager.findfont("DejaVu Sans"), size)
    found = dict.fromkeys(texts, (-1, default))  # how many of its characters the font has
    for path in [default.path, *installed]:
        missing = [text for text, (count, _) in found.items() if count < len(wanted[text])]
        if not missing:
            break
        try:
            drawn = FT2Font(str(path)).get_charmap().keys()
            font = default if path == default.path else ImageFont.truetype(path, size)
        except (OSError, RuntimeError):  # a font of bitmaps, or a damaged one
            continue
        for text in missing:
            count = len(wanted[text] & drawn)
            if count > found[text][0]:
                found[text] = count, font
    return [found[text][1] for text in texts]
