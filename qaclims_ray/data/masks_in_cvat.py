"""Label maps in "CVAT for images 1.1", an XML file of masks and polygons: written, and read back once corrected.

A mask's run lengths go row by row within its box and begin with the pixels that are not part of it.
"""

import itertools
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any
from xml.etree import ElementTree

import numpy as np
import torch
from jaxtyping import Bool, UInt8
from torch import Tensor

from qaclims_ray.data.classes import BACKGROUND_VALUE, IGNORE_VALUE, Classes, hexadecimal, voc_palette
from qaclims_ray.data.mask_outlines import PolygonPoint, inside_polygon, require_size
from qaclims_ray.data.validation import Fault
from qaclims_ray.data.value_names import nothing_value, value_names, value_of
from qaclims_ray.data.xml_text import parse_xml
from qaclims_ray.errors import DataError

_OUTLINES = ("polygon", "box", "mask", "ellipse", "polyline", "points", "cuboid", "skeleton")
"""What CVAT draws; only the first three have an area that is read."""


@dataclass(frozen=True)
class CvatShape:
    """One shape: a polygon, or a mask within its box."""

    value: int
    """Label value."""
    z_order: int
    """Higher ones lie above lower ones."""
    corners: tuple[PolygonPoint, ...] = ()
    """Of a polygon."""
    run_lengths: tuple[int, ...] = ()
    """Of a mask."""
    box: tuple[int, int, int, int] = (0, 0, 0, 0)
    """Left, top, width and height of a mask."""


@dataclass(frozen=True)
class CvatImage:
    """What a CVAT file draws on one image."""

    width: int
    """Of the image, in pixels; 0 where the file does not say."""
    height: int
    """Of the image, in pixels; 0 where the file does not say."""
    shapes: tuple[CvatShape, ...]
    """In the order of the file."""


def cvat_file(images: Iterable[tuple[str, UInt8[Tensor, "_height _width"]]], classes: Classes) -> bytes:
    """Return the XML file that draws label maps, a mask for each class of an image.

    Args:
        images: file name of each image, and its label map.
        classes: those of the data set.
    """
    root = ElementTree.Element("annotations")
    ElementTree.SubElement(root, "version").text = "1.1"
    labels = ElementTree.SubElement(ElementTree.SubElement(ElementTree.SubElement(root, "meta"), "task"), "labels")
    names = {value: name for value, name in value_names(classes).items() if value != BACKGROUND_VALUE}
    for value, name in names.items():
        label = ElementTree.SubElement(labels, "label")
        ElementTree.SubElement(label, "name").text = name
        ElementTree.SubElement(label, "color").text = _colour(value)
        ElementTree.SubElement(label, "attributes")
    for number, (name, label_map) in enumerate(images):
        height, width = label_map.shape
        image = ElementTree.SubElement(
            root, "image", {"id": str(number), "name": name, "width": str(width), "height": str(height)}
        )
        pixels = label_map.numpy()
        for value in np.unique(pixels).tolist():
            if value in names and value != nothing_value(classes):
                ElementTree.SubElement(image, "mask", _mask_fields(pixels == value, names[value]))
    ElementTree.indent(root)
    return b'<?xml version="1.0" encoding="utf-8"?>\n' + ElementTree.tostring(root, encoding="utf-8") + b"\n"


def cvat_labels(classes: Classes, *, with_ignored: bool) -> list[dict[str, Any]]:
    """Return the labels of a project for CVAT's "Raw" constructor: its masks can be drawn only where these exist.

    Args:
        classes: those of the data set.
        with_ignored: whether some pixels are ignored.
    """
    left_out = {BACKGROUND_VALUE} if with_ignored else {BACKGROUND_VALUE, IGNORE_VALUE}
    return [
        {"name": name, "color": _colour(value), "attributes": []}
        for value, name in value_names(classes).items()
        if value not in left_out
    ]


def _colour(value: int) -> str:
    red, green, blue = voc_palette()[3 * value : 3 * value + 3]
    return hexadecimal((red, green, blue))


def _mask_fields(mask: Bool[np.ndarray, "height width"], name: str) -> dict[str, str]:
    rows, columns = np.flatnonzero(mask.any(1)), np.flatnonzero(mask.any(0))
    top, left, bottom, right = rows[0], columns[0], rows[-1] + 1, columns[-1] + 1
    pixels = mask[top:bottom, left:right].ravel()
    runs = [len(list(run)) for _, run in itertools.groupby(pixels.tolist())]
    lengths = [0, *runs] if pixels[0] else runs
    return {
        "label": name, "source": "auto", "occluded": "0", "rle": ", ".join(map(str, lengths)), "left": str(left),
        "top": str(top), "width": str(right - left), "height": str(bottom - top), "z_order": "0",
    }  # fmt: skip


def cvat_images(uri: str, content: bytes, classes: Classes) -> tuple[dict[str, CvatImage], list[Fault]]:
    """Return what a CVAT file draws, by the images' names, and what is wrong with its shapes.

    Args:
        uri: the file, for messages.
        content: of the file.
        classes: those of the data set.

    Raises:
        DataError: when it is no XML of this form.
    """
    try:
        root = parse_xml(content)
    except DataError as error:
        raise DataError(f"{uri} is {error}: export it again") from None
    entries = root.findall("image")
    if root.tag != "annotations" or not entries:
        what = f"<{root.tag}>" if root.tag != "annotations" else "no image"
        raise DataError(f'{uri} holds {what}; export the task as "CVAT for images 1.1", not as video')
    found: dict[str, CvatImage] = {}
    faults = []
    for number, entry in enumerate(entries, start=1):
        name = (entry.get("name") or "").strip()
        shapes = []
        for place, child in enumerate((one for one in entry if one.tag in _OUTLINES), start=1):
            try:
                shapes.append(_shape(child, classes))
            except (DataError, KeyError, ValueError) as error:
                told = (
                    f"{child.tag} {place} {error}" if isinstance(error, DataError) else f"{child.tag} {place} is broken"
                )
                faults.append(Fault("shapes that cannot be read", name or f"image {number}", told))
        try:
            width, height = (int(entry.get(side) or 0) for side in ("width", "height"))
        except ValueError:
            width = height = 0
        if name and name in found:
            faults.append(Fault("two masks of one image", name, "it is listed twice, as merged tasks do"))
        found[name or f"image {number}"] = CvatImage(width, height, tuple(shapes))
    return found, faults


def _shape(entry: ElementTree.Element, classes: Classes) -> CvatShape:
    try:
        value = value_of(entry.get("label"), classes)
    except DataError as error:
        raise DataError(f"is called {error}") from None
    z_order = int(entry.get("z_order") or 0)
    if entry.tag == "mask":
        left, top, width, height = (int(entry.attrib[side]) for side in ("left", "top", "width", "height"))
        lengths = tuple(int(length) for length in entry.attrib["rle"].split(","))
        if min(lengths) < 0 or sum(lengths) > width * height or min(left, top, width, height) < 0:
            raise DataError(f"has run lengths of {sum(lengths)} pixels, its box has {width * height}")
        return CvatShape(value, z_order, run_lengths=lengths, box=(left, top, width, height))
    if entry.tag == "box":
        if float(entry.get("rotation") or 0):
            raise DataError("is a rotated box: draw a polygon")
        left, top, right, bottom = (float(entry.attrib[side]) for side in ("xtl", "ytl", "xbr", "ybr"))
        return CvatShape(value, z_order, corners=((left, top), (right, top), (right, bottom), (left, bottom)))
    if entry.tag != "polygon":
        raise DataError("has no area that is read: expected masks, polygons and boxes")
    pairs = [point.split(",") for point in entry.attrib["points"].split(";")]
    corners = tuple((float(x), float(y)) for x, y in pairs)
    if len(corners) < 3 or not np.isfinite(corners).all():
        raise DataError(f"has {len(corners)} corners, expected at least three")
    return CvatShape(value, z_order, corners=corners)


def cvat_label_map(
    height: int, width: int, *, image: CvatImage, classes: Classes, where: str
) -> UInt8[Tensor, "_height _width"]:
    """Return the label map of an image: shapes of a higher layer, and later ones of one layer, cover others.

    Args:
        height: of the run's image, in pixels.
        width: of the run's image, in pixels.
        image: see `cvat_images`.
        classes: those of the data set.
        where: the file and image, for messages.

    Raises:
        DataError: when the image in the file has another size.
    """
    if image.width:  # old files do not say
        require_size(where, (image.width, image.height), height, width)
    labels = np.full((height, width), nothing_value(classes), np.uint8)
    for shape in sorted(image.shapes, key=lambda one: one.z_order):
        if shape.corners:
            labels[inside_polygon(np.array(shape.corners), height, width)] = shape.value
            continue
        left, top, box_width, box_height = shape.box
        if left + box_width > width or top + box_height > height:
            raise DataError(f"{where}: a mask reaches beyond the image of {width}x{height} pixels")
        part = labels[top : top + box_height, left : left + box_width]
        part[_decoded(shape)] = shape.value
    return torch.from_numpy(labels)


def _decoded(shape: CvatShape) -> Bool[np.ndarray, "height width"]:
    _, _, width, height = shape.box
    pixels = np.zeros(width * height, bool)
    ends = np.cumsum(shape.run_lengths)
    for start, end in zip(ends[::2], ends[1::2], strict=False):
        pixels[start:end] = True
    return pixels.reshape(height, width)
