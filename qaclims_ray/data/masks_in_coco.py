"""Label maps in COCO's JSON, with the classes of any data set: run lengths or polygons, written and read back.

Each class of an image is one annotation, or with polygons one for each part. Ignored pixels are a crowd, which COCO's
own tools leave out of training and scores. pycocotools encodes and draws.
"""

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from jaxtyping import UInt8
from torch import Tensor

from qaclims_ray.data.classes import IGNORE_VALUE, Classes, class_id, label_value
from qaclims_ray.data.coco_annotations import Region, read_region
from qaclims_ray.data.coco_masks import draw_label_map, region_decoder
from qaclims_ray.data.json_fields import field, flag, positive_number, text, whole_number
from qaclims_ray.data.mask_outlines import require_size
from qaclims_ray.data.mask_parts import mask_parts
from qaclims_ray.data.validation import Fault
from qaclims_ray.data.value_names import nothing_value, value_of
from qaclims_ray.errors import DataError


@dataclass(frozen=True)
class CocoImage:
    """What a COCO file draws on one image."""

    width: int
    """Of the image, in pixels."""
    height: int
    """Of the image, in pixels."""
    regions: tuple[Region, ...]
    """In the order of the file."""


def coco_file(
    images: Iterable[tuple[str, UInt8[Tensor, "_height _width"]]], classes: Classes, *, as_polygons: bool
) -> dict[str, Any]:
    """Return the content of a COCO file that draws label maps.

    Args:
        images: file name of each image, and its label map.
        classes: those of the data set; categories are numbered from 1 on in their order.
        as_polygons: draw outlines instead of run lengths; they are within one pixel.
    """
    listed: list[dict[str, Any]] = []
    annotations: list[dict[str, Any]] = []
    for number, (name, labels) in enumerate(images, start=1):
        height, width = labels.shape
        listed.append({"id": number, "file_name": name, "width": width, "height": height})
        for entry in _annotations(labels.numpy(), as_polygons=as_polygons):
            annotations.append({"id": len(annotations) + 1, "image_id": number, **entry})
    categories = [
        {"id": label_value(index), "name": name, "supercategory": ""} for index, name in enumerate(classes.names)
    ]
    return {"info": {}, "licenses": [], "images": listed, "annotations": annotations, "categories": categories}


def _annotations(labels: np.ndarray, *, as_polygons: bool) -> list[dict[str, Any]]:
    shown = [value for value in np.unique(labels).tolist() if value not in (0, IGNORE_VALUE)]
    entries = []
    for value in shown:
        mask = labels == value
        if not as_polygons:
            entries.append(_entry(value, mask))
            continue
        for part in mask_parts(mask):
            x, y = np.array(part).T
            box = [x.min(), y.min(), x.max() - x.min(), y.max() - y.min()]
            corners = [number for point in part for number in point]
            area = abs(float((x * np.roll(y, -1) - np.roll(x, -1) * y).sum() / 2))
            entries.append({"category_id": value, "segmentation": [corners], "area": area, "bbox": box, "iscrowd": 0})
    if (labels == IGNORE_VALUE).any():
        # A category of its own would be a class to whoever counts them.
        entries.append({**_entry(shown[0] if shown else label_value(0), labels == IGNORE_VALUE), "iscrowd": 1})
    return entries


def _entry(value: int, mask: np.ndarray) -> dict[str, Any]:
    decoder = region_decoder()
    code = decoder.encode(np.asfortranarray(mask.astype(np.uint8)))
    return {
        "category_id": value,
        "segmentation": {"size": [int(side) for side in code["size"]], "counts": code["counts"].decode()},
        "area": int(decoder.area(code)),
        "bbox": [float(side) for side in decoder.toBbox(code)],
        "iscrowd": 0,
    }


def coco_images(content: Mapping[str, Any], classes: Classes) -> tuple[dict[str, CocoImage], list[Fault]]:
    """Return what a COCO file draws, by the images' file names, and what is wrong with its entries.

    Args:
        content: of the file, see `exported_coco.is_coco`.
        classes: those of the data set, to which categories belong by name.
    """
    faults: list[Fault] = []
    values, unknown = _category_values(content["categories"], classes, faults)
    images: dict[int, tuple[str, int, int]] = {}
    listed: set[str] = set()
    for number, entry in enumerate(content["images"], start=1):
        try:
            # Some programs count images from 0.
            key = field(_entry_of(entry), "id", whole_number)
            name = field(entry, "file_name", text)
            if key in images or name in listed:
                faults.append(Fault("two masks of one image", name, f"image {number} is listed before"))
            listed.add(name)
            images[key] = (name, field(entry, "width", positive_number), field(entry, "height", positive_number))
        except DataError as error:
            faults.append(Fault("unreadable image", f"image {number}", str(error)))
    regions: dict[int, list[Region]] = defaultdict(list)
    for number, entry in enumerate(content["annotations"], start=1):
        try:
            image, category = (field(_entry_of(entry), name, whole_number) for name in ("image_id", "category_id"))
            if image not in images:
                raise DataError(f"belongs to image {image}, which the file does not list")
            if category not in values:
                raise DataError(f"its category is {unknown.get(category, f'{category}, which the file does not list')}")
            value = values[category]
            is_crowd = value == IGNORE_VALUE or flag(entry.get("iscrowd", 0))
            _, width, height = images[image]
            regions[image].append(read_region(class_id(value), is_crowd, entry.get("segmentation"), width, height))
        except DataError as error:
            faults.append(Fault("unreadable annotation", f"annotation {number}", str(error)))
    found = {
        name: CocoImage(width, height, tuple(regions.get(number, ())))
        for number, (name, width, height) in images.items()
    }
    return found, faults


def _entry_of(entry: Any) -> dict[str, Any]:
    if not isinstance(entry, dict):
        raise DataError("is no object")
    return entry


def _category_values(
    entries: Sequence[Any], classes: Classes, faults: list[Fault]
) -> tuple[dict[int, int], dict[int, str]]:
    """Return category -> label value, and for those of no class what is wrong: it counts where an annotation has it."""
    values, unknown = {}, {}
    for number, entry in enumerate(entries, start=1):
        try:
            key, name = field(_entry_of(entry), "id", whole_number), field(entry, "name", text)
        except DataError as error:
            faults.append(Fault("unreadable category", f"category {number}", str(error)))
            continue
        try:
            values[key] = value_of(name, classes)
        except DataError as error:
            unknown[key] = str(error)
    return values, unknown


def coco_label_map(
    height: int, width: int, *, image: CocoImage, classes: Classes, where: str
) -> UInt8[Tensor, "_height _width"]:
    """Return the label map of an image; where objects overlap, the smaller one lies on top.

    Args:
        height: of the run's image, in pixels.
        width: of the run's image, in pixels.
        image: see `coco_images`.
        classes: those of the data set.
        where: the file and image, for messages.

    Raises:
        DataError: when the image in the file has another size.
    """
    require_size(where, (image.width, image.height), height, width)
    return torch.as_tensor(draw_label_map(image.regions, width=width, height=height, nothing=nothing_value(classes)))
