"""Contact sheets: image, ground truth, and what each system's stages make of the image, side by side.

The pictures tell in a second what a mean cannot: whether a CAM shows the whole object, only its head, or the track.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import matplotlib
import numpy as np
from jaxtyping import Float, UInt8
from PIL import Image, ImageDraw
from torch import Tensor

from qaclims_ray.data.classes import BACKGROUND_VALUE, IGNORE_VALUE, label_value, voc_palette
from qaclims_ray.errors import DataError
from qaclims_ray.evaluation.confusion import ConfusionMatrix, iou_per_label, mean_iou
from qaclims_ray.report.lettering import font_of, shortened
from qaclims_ray.report.palette import INK, PAPER, QUIET_INK, system_colours

_GAP_PX = 6
_GROUP_GAP_PX = 18
_CAPTION_PX = 120
_HEADER_PX = 50
_HEAT, _SEED, _PSEUDO, _FINAL = "CAM", "seed", "pseudo mask", "network"


@dataclass(frozen=True, kw_only=True)
class SheetRow:
    """One image of a contact sheet and what each system makes of it."""

    image_id: str
    """Shown under the class names."""
    image: UInt8[Tensor, "3 height width"]
    """RGB pixels."""
    truth: UInt8[Tensor, "height width"] | None
    """True label values, where there are any."""
    class_ids: tuple[int, ...]
    """Present classes."""
    heat: Mapping[str, Tensor]
    """Label of each system -> its highest class score per pixel, (height, width), in [0, 1]."""
    masks: Mapping[str, Tensor]
    """Label of each system -> its seed's label map, (height, width)."""
    pseudo: Mapping[str, Tensor] = field(default_factory=dict)
    """Label of a system -> its pseudo mask, (height, width); 255 is ignored."""
    final: Mapping[str, Tensor] = field(default_factory=dict)
    """Label of a system -> its final network's label map, (height, width); may name systems without seeds, such as the
    fully supervised bound, which come last."""


def contact_sheet(
    rows: Sequence[SheetRow],
    class_names: Sequence[str],
    *,
    tile_px: int = 128,
    colours: Mapping[str, str] | None = None,
) -> UInt8[np.ndarray, "height width 3"]:
    """Draw a contact sheet: a row per image, a column per system and stage.

    Every system has two columns, heat map and seed; pseudo masks and the final network's label maps have columns where
    any row has them, and blank places in rows without.

    The number in a mask's corner is the mean IoU of the image's classes in percent; it uses pixel labels.

    Args:
        rows: images; all with the same systems.
        class_names: foreground classes in label order.
        tile_px: side of the square that each picture is fitted into.
        colours: label of a system -> colour of its header; by default as `palette.system_colours` deals them to the
            systems with seeds, the others in ink.

    Raises:
        DataError: when there is no row, or rows name different systems.
    """
    seeded = list(rows[0].heat) if rows else []
    if not rows or any(list(row.heat) != seeded or list(row.masks) != seeded for row in rows):
        raise DataError("a contact sheet needs at least one image, and the same systems for each")
    groups = _groups(rows, seeded)
    scale = [tile_px / max(row.image.shape[1:]) for row in rows]
    heights = [
        max(round(row.image.shape[1] * s), 24 + 18 * min(len(row.class_ids), 5))
        for row, s in zip(rows, scale, strict=True)
    ]
    has_truth = any(row.truth is not None for row in rows)
    lefts = _column_lefts(1 + has_truth, [len(titles) for titles in groups.values()], tile_px)
    canvas = Image.new("RGB", (lefts[-1] + tile_px + _GAP_PX, _HEADER_PX + sum(heights) + _GAP_PX * len(rows)), PAPER)
    draw = ImageDraw.Draw(canvas)
    _draw_header(draw, groups, colours or system_colours(seeded), lefts, tile_px, has_truth)
    top = _HEADER_PX
    for row, height in zip(rows, heights, strict=True):
        _draw_caption(draw, row, class_names, top)
        for left, tile in zip(lefts, _tiles(row, groups, len(class_names), has_truth), strict=True):
            if tile is not None:
                _paste(canvas, tile, left, top, tile_px)
        top += height + _GAP_PX
    return np.asarray(canvas).copy()


def heat_picture(
    image: UInt8[Tensor, "3 height width"], heat: Float[Tensor, "height width"]
) -> UInt8[np.ndarray, "height width 3"]:
    """Lay a heat map over the greyed image: dark purple is 0, pale yellow is 1."""
    grey = image.float().mean(0, keepdim=True).permute(1, 2, 0).numpy()
    colours = matplotlib.colormaps["inferno"](heat.float().clamp(0, 1).numpy())[..., :3] * 255
    return (0.3 * grey + 0.7 * colours).round().astype(np.uint8)


def mask_picture(
    image: UInt8[Tensor, "3 height width"], labels: UInt8[Tensor, "height width"]
) -> UInt8[np.ndarray, "height width 3"]:
    """Show labels in VOC's colours over the washed-out image; ignored pixels are hatched."""
    grey = image.float().mean(0)[..., None].numpy()
    washed = 0.2 * grey + 0.8 * 250
    values = labels.numpy()
    colours = np.array(voc_palette(), dtype=np.float64).reshape(-1, 3)[values]
    picture = np.where((values != BACKGROUND_VALUE)[..., None], 0.12 * grey + 0.88 * colours, washed)
    row, column = np.indices(values.shape)
    hatch = np.where((row + column) % 4 < 2, 255, 190)[..., None]
    return np.where((values == IGNORE_VALUE)[..., None], hatch, picture).round().astype(np.uint8)


def present_iou(
    labels: UInt8[Tensor, "height width"],
    truth: UInt8[Tensor, "height width"],
    class_ids: Sequence[int],
    num_classes: int,
) -> float | None:
    """Return the mean IoU of one image's classes, background left out; None where it has none.

    Args:
        labels: predicted label values.
        truth: true ones.
        class_ids: classes that the image is labelled with: they count besides those of the truth, for every system.
        num_classes: classes of the data set.
    """
    matrix = ConfusionMatrix(num_classes)
    matrix.update(labels, truth)
    averaged = matrix.counts.sum(1)[1:] > 0
    averaged[list(class_ids)] = True
    iou = float(mean_iou(iou_per_label(matrix.counts)[1:], averaged))
    return None if np.isnan(iou) else iou


def _groups(rows: Sequence[SheetRow], seeded: Sequence[str]) -> dict[str, list[str]]:
    """Label of each system -> titles of its columns."""
    pseudo = dict.fromkeys(system for row in rows for system in row.pseudo)
    final = dict.fromkeys(system for row in rows for system in row.final)
    seed = _SEED if pseudo or final else "mask"
    groups = {}
    for system in dict.fromkeys([*seeded, *pseudo, *final]):
        titles = [_HEAT, seed] if system in seeded else []
        titles += [_PSEUDO] if system in pseudo else []
        groups[system] = titles + ([_FINAL] if system in final else [])
    return groups


def _column_lefts(num_plain: int, num_columns: Sequence[int], tile_px: int) -> list[int]:
    lefts, left = [], _CAPTION_PX
    for _ in range(num_plain):
        lefts.append(left)
        left += tile_px + _GAP_PX
    for count in num_columns:
        left += _GROUP_GAP_PX - _GAP_PX
        lefts.extend(left + column * (tile_px + _GAP_PX) for column in range(count))
        left += count * (tile_px + _GAP_PX)
    return lefts


_Tile = tuple[UInt8[np.ndarray, "height width 3"], str]


def _tiles(row: SheetRow, groups: Mapping[str, Sequence[str]], num_classes: int, has_truth: bool) -> list[_Tile | None]:
    """Pictures of one row with the text in their corner."""
    tiles: list[_Tile | None] = [(row.image.permute(1, 2, 0).numpy(), "")]
    if has_truth:
        tiles.append(None if row.truth is None else (mask_picture(row.image, row.truth), ""))
    for system, titles in groups.items():
        for title in titles:
            if title == _HEAT:
                tiles.append((heat_picture(row.image, row.heat[system]), ""))
            else:
                stage = {_PSEUDO: row.pseudo, _FINAL: row.final}.get(title, row.masks)
                tiles.append(_label_tile(row, stage.get(system), num_classes))
    return tiles


def _label_tile(row: SheetRow, labels: Tensor | None, num_classes: int) -> _Tile | None:
    if labels is None:
        return None
    iou = None if row.truth is None else present_iou(labels, row.truth, row.class_ids, num_classes)
    return mask_picture(row.image, labels), "" if iou is None else f"{100 * iou:.0f}"


def _paste(canvas: Image.Image, tile: _Tile, left: int, top: int, tile_px: int) -> None:
    pixels, corner = tile
    height, width = pixels.shape[:2]
    scale = tile_px / max(height, width)
    # Small pictures keep their pixels visible, large ones are averaged down.
    method = Image.Resampling.NEAREST if scale > 1 else Image.Resampling.LANCZOS
    picture = Image.fromarray(pixels).resize((round(width * scale), round(height * scale)), method)
    canvas.paste(picture, (left, top))
    if corner:
        draw, font = ImageDraw.Draw(canvas), font_of(12)
        box = draw.textbbox((left + 8, top + picture.height - 20), corner, font=font)
        draw.rounded_rectangle((box[0] - 5, box[1] - 3, box[2] + 5, box[3] + 3), 4, fill=INK)
        draw.text((left + 8, top + picture.height - 20), corner, font=font, fill=PAPER)


def _draw_header(
    draw: ImageDraw.ImageDraw,
    groups: Mapping[str, Sequence[str]],
    colours: Mapping[str, str],
    lefts: Sequence[int],
    tile_px: int,
    has_truth: bool,
) -> None:
    plain = ["image", "ground truth"][: 1 + has_truth]
    columns = plain + [title for titles in groups.values() for title in titles]
    for left, title in zip(lefts, columns, strict=True):
        draw.text((left + tile_px / 2, 38), title, font=font_of(12), fill=QUIET_INK, anchor="mm")
    first = len(plain)
    for system, titles in groups.items():
        left, right = lefts[first], lefts[first + len(titles) - 1] + tile_px
        first += len(titles)
        draw.rectangle((left, 24, right, 26), fill=colours.get(system, INK))
        font = font_of(14, bold=True)
        if draw.textlength(system, font=font) > right - left:
            font = font_of(11, bold=True)
        text = shortened(draw, system, font, right - left)
        draw.text(((left + right) / 2, 13), text, font=font, fill=INK, anchor="mm")


def _draw_caption(draw: ImageDraw.ImageDraw, row: SheetRow, class_names: Sequence[str], top: int) -> None:
    palette = voc_palette()
    for position, present in enumerate(row.class_ids[:5]):
        line = top + 4 + 18 * position
        value = label_value(present)
        draw.rectangle((8, line + 2, 18, line + 12), fill=tuple(palette[3 * value : 3 * value + 3]))
        font = font_of(12, bold=True)
        name = shortened(draw, class_names[present], font, _CAPTION_PX - 28)
        draw.text((24, line), name, font=font, fill=INK)
    line = top + 4 + 18 * min(len(row.class_ids), 5)
    text = shortened(draw, row.image_id, font_of(10), _CAPTION_PX - 12)
    draw.text((8, line), text, font=font_of(10), fill=QUIET_INK)
