"""A legend below a picture: the colour, the name and the area of each class that it shows."""

from collections.abc import Mapping, Sequence

import numpy as np
from jaxtyping import UInt8
from PIL import Image, ImageDraw

from qaclims_ray.data.classes import label_value, voc_palette
from qaclims_ray.report.lettering import font_of, shortened
from qaclims_ray.report.palette import INK, PAPER, QUIET_INK

_LINE_PX, _MARGIN_PX, _SWATCH_PX, _GAP_PX = 20, 8, 11, 18
_NARROWEST_PX = 180
_LETTERS_PX = 12
SHOWS_NOTHING = "none of the classes"
"""What stands below a picture that shows no class."""


def with_legend(
    picture: UInt8[np.ndarray, "height width 3"], areas: Mapping[int, float], class_names: Sequence[str]
) -> UInt8[np.ndarray, "_height _width 3"]:
    """Return a picture with a legend below it; the picture itself stays as it is, in the upper left corner.

    Args:
        picture: RGB pixels.
        areas: class -> share of the pixels that show it, in the order of the legend.
        class_names: foreground classes in label order.
    """
    width = max(picture.shape[1], _NARROWEST_PX)
    measure = ImageDraw.Draw(Image.new("RGB", (1, 1)))
    font = font_of(_LETTERS_PX)
    room = width - 2 * _MARGIN_PX - _SWATCH_PX - 6
    texts = {one: shortened(measure, f"{class_names[one]} {_share(share)}", font, room) for one, share in areas.items()}
    lines: list[list[int]] = [[]]
    left = float(_MARGIN_PX)
    for one, text in texts.items():
        needed = _SWATCH_PX + 6 + measure.textlength(text, font=font)
        if lines[-1] and left + needed > width - _MARGIN_PX:
            lines.append([])
            left = float(_MARGIN_PX)
        lines[-1].append(one)
        left += needed + _GAP_PX
    height = picture.shape[0] + _MARGIN_PX + _LINE_PX * len(lines)
    canvas = Image.new("RGB", (width, height), PAPER)
    canvas.paste(Image.fromarray(picture), (0, 0))
    draw, palette = ImageDraw.Draw(canvas), voc_palette()
    if not texts:
        draw.text((_MARGIN_PX, picture.shape[0] + _MARGIN_PX // 2), SHOWS_NOTHING, font=font, fill=QUIET_INK)
    for row, line in enumerate(lines):
        top, left = picture.shape[0] + _MARGIN_PX // 2 + _LINE_PX * row, float(_MARGIN_PX)
        for one in line:
            value = label_value(one)
            box = (left, top + 3, left + _SWATCH_PX, top + 3 + _SWATCH_PX)
            draw.rectangle(box, fill=tuple(palette[3 * value : 3 * value + 3]))
            left += _SWATCH_PX + 6
            draw.text((left, top), texts[one], font=font, fill=INK)
            left += draw.textlength(texts[one], font=font) + _GAP_PX
    return np.asarray(canvas).copy()


def _share(share: float) -> str:
    return f"{100 * share:.0f} %" if share >= 0.01 else "< 1 %"
