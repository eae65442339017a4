"""Words in pictures, in matplotlib's own font: the same on every machine."""

import functools
from pathlib import Path

import matplotlib
from matplotlib.ft2font import FT2Font
from PIL import ImageDraw, ImageFont


def shortened(draw: ImageDraw.ImageDraw, text: str, font: ImageFont.FreeTypeFont, width_px: int) -> str:
    """Write out letters that the font has not, and cut a text that would run into its neighbour."""
    text = "".join(letter if ord(letter) in _letters() else ascii(letter)[1:-1] for letter in text)
    if draw.textlength(text, font=font) <= width_px:
        return text
    while text and draw.textlength(f"{text}..", font=font) > width_px:
        text = text[:-1]
    return f"{text}.."


@functools.cache
def _letters() -> frozenset[int]:
    """Return the code points that the font draws, but for line breaks and the like."""
    drawn = FT2Font(_font_file("DejaVuSans-Bold.ttf")).get_charmap()
    return frozenset(code for code in drawn if chr(code).isprintable())


def font_of(size_px: int, *, bold: bool = False) -> ImageFont.FreeTypeFont:
    """Matplotlib's own font: the same on every machine."""
    name = "DejaVuSans-Bold.ttf" if bold else "DejaVuSans.ttf"
    return ImageFont.truetype(_font_file(name), size_px)


def _font_file(name: str) -> str:
    return str(Path(matplotlib.get_data_path()) / "fonts" / "ttf" / name)
