"""Label maps as LabelMe and X-AnyLabeling keep them: one JSON file of polygons beside each image.

Both tools open a folder of images with such files. What they add (flags, groups, the picture itself) is left alone;
read back are polygons, rectangles and masks with the names of classes.
"""

import base64
import io
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from jaxtyping import UInt8
from PIL import Image
from torch import Tensor

from qaclims_ray.data.classes import Classes
from qaclims_ray.data.mask_outlines import SPECK_SHARE, inside_polygon, outlines
from qaclims_ray.data.value_names import nothing_value, value_names, value_of
from qaclims_ray.errors import DataError

_VERSION = "5.4.1"
"""Version of the form, as LabelMe writes it."""


def labelme_file(
    labels: UInt8[Tensor, "height width"], image_name: str, classes: Classes, *, speck_share: float = SPECK_SHARE
) -> dict[str, Any]:
    """Return the content of a JSON file that draws a label map.

    Args:
        labels: label values.
        image_name: file name of the image, in the same folder.
        classes: those of the data set.
        speck_share: polygons of less than this share of the image are left out.
    """
    names = value_names(classes)
    shapes = [
        {
            "label": names[value],
            "points": [list(point) for point in corners],
            "group_id": None,
            "description": "",
            "shape_type": "polygon",
            "flags": {},
        }
        for value, corners in outlines(labels.numpy(), nothing_value(classes), speck_share)
    ]
    return {
        "version": _VERSION,
        "flags": {},
        "shapes": shapes,
        "imagePath": image_name,
        "imageData": None,
        "imageHeight": labels.shape[0],
        "imageWidth": labels.shape[1],
    }


def labels_of(content: Any, height: int, width: int, classes: Classes, where: str) -> UInt8[Tensor, "height width"]:
    """Return the label map that a JSON file draws; a later shape covers an earlier one.

    Args:
        content: of the file.
        height: of the image, in pixels.
        width: of the image, in pixels.
        classes: those of the data set.
        where: the file, for messages.

    Raises:
        DataError: when it is no such file, names unknown classes, or holds shapes without an area.
    """
    labels = np.full((height, width), nothing_value(classes), np.uint8)
    for number, shape in enumerate(shapes_of(content, where)):
        name = shape.get("label")
        try:
            value = value_of(name, classes)
        except DataError as error:
            raise DataError(f"{where}: shape {number + 1} is called {error}") from None
        told = f"{where}: shape {number + 1} ({name})"
        if shape.get("shape_type") == "mask":
            _paint(labels, value, shape, told)
        else:
            labels[inside_polygon(np.array(_corners(shape, told)), height, width)] = value
    return torch.from_numpy(labels)


def _paint(labels: UInt8[np.ndarray, "height width"], value: int, shape: dict[str, Any], where: str) -> None:
    """Paint a shape that LabelMe's models drew: a PNG within the box of its two points."""
    try:
        left, top = (round(float(one)) for one in shape["points"][0])
        with Image.open(io.BytesIO(base64.b64decode(shape["mask"]))) as picture:
            pixels = np.array(picture.convert("L")) > 0
    except (KeyError, IndexError, TypeError, ValueError, OverflowError, OSError):
        raise DataError(f"{where} is a mask without a picture and its box") from None
    part = labels[max(top, 0) : top + pixels.shape[0], max(left, 0) : left + pixels.shape[1]]
    if part.shape != pixels.shape:
        raise DataError(f"{where} is a mask that reaches beyond the image")
    part[pixels] = value


def shapes_of(content: Any, where: str) -> Sequence[dict[str, Any]]:
    """Return the shapes of a JSON file.

    Raises:
        DataError: when it has none.
    """
    shapes = content.get("shapes") if isinstance(content, dict) else None
    if not isinstance(shapes, list) or not all(isinstance(shape, dict) for shape in shapes):
        raise DataError(f"{where} has no list of shapes: expected a file of LabelMe or X-AnyLabeling")
    return shapes


def _corners(shape: dict[str, Any], where: str) -> list[tuple[float, float]]:
    kind = shape.get("shape_type", "polygon")
    try:
        corners = [(float(x), float(y)) for x, y in shape["points"]]
    except (KeyError, TypeError, ValueError):
        raise DataError(f"{where} has no points (x, y)") from None
    if not np.isfinite(corners).all():
        raise DataError(f"{where} has points that are no numbers")
    if kind == "rectangle" and len(corners) == 2:
        (left, top), (right, bottom) = corners
        return [(left, top), (right, top), (right, bottom), (left, bottom)]
    if kind not in ("polygon", "rectangle", "rotation") or len(corners) < 3:
        raise DataError(
            f"{where} is a {kind} of {len(corners)} points: expected polygons of at least three, or rectangles"
        )
    return corners
