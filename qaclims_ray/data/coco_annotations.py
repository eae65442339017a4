"""COCO's annotation files: images, categories and regions, with everything that can be wrong with them.

The file is checked as a whole, and what is broken is told entry by entry. Regions stay in the form in which the file
has them, polygons or run lengths, until `coco_masks` draws them.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from qaclims_ray.data import storage
from qaclims_ray.data.classes import COCO_CATEGORY_IDS, COCO_CLASSES
from qaclims_ray.data.image_ids import image_id_of
from qaclims_ray.data.validation import Fault
from qaclims_ray.errors import DataError

_CLASS_IDS: Mapping[int, int] = {category: index for index, category in enumerate(COCO_CATEGORY_IDS)}
_MIN_NUMBERS = 6
"""Of a polygon: x and y of three points."""


@dataclass(frozen=True)
class Region:
    """One annotation: an object, or a crowd of objects of one class that nobody told apart."""

    class_id: int
    """Its class."""
    is_crowd: bool
    """Whether it is a crowd."""
    polygons: tuple[np.ndarray, ...] = ()
    """Outlines of its parts: x, y, x, y, ... in pixels; empty where `run_lengths` say it."""
    run_lengths: tuple[int, ...] = ()
    """Pixels outside, inside, outside, ... column by column; empty where there are polygons."""


@dataclass(frozen=True)
class AnnotatedImage:
    """One image as the annotation file describes it."""

    image_id: str
    """Its file's name without the suffix."""
    file_name: str
    """Name of its file."""
    width: int
    """Width in pixels."""
    height: int
    """Height in pixels."""
    regions: tuple[Region, ...]
    """In the order of the file."""

    def labels(self) -> tuple[int, ...]:
        """Return the classes of all regions, crowds included, as the released code reads them."""
        return tuple(sorted({region.class_id for region in self.regions}))


def read_annotations(uri: str) -> tuple[list[AnnotatedImage], list[Fault]]:
    """Read an annotation file; return its images in the order of their ids, and all faults.

    Args:
        uri: ``instances_train2014.json`` or ``instances_val2014.json``, a path or fsspec URI.
    """
    name = uri.rsplit("/", 1)[-1]
    try:
        content = json.loads(storage.read_bytes(uri))
    except DataError as error:
        return [], [Fault("missing annotation file", name, str(error))]
    except ValueError as error:
        detail = f"{uri} is no whole JSON file ({error}); fetch it again"
        return [], [Fault("unreadable annotation file", name, detail)]
    parts = ("images", "annotations", "categories")
    if not isinstance(content, dict) or any(not isinstance(content.get(part), list) for part in parts):
        detail = f"{uri} must hold one object with the lists {', '.join(parts)}"
        return [], [Fault("unreadable annotation file", name, detail)]
    faults = _check_categories(content["categories"], name)
    entries, found = _read_images(content["images"])
    regions, broken = _read_regions(content["annotations"], entries)
    images = [
        AnnotatedImage(image_id_of(file_name), file_name, width, height, tuple(regions.get(number, ())))
        for number, (file_name, width, height) in sorted(entries.items())
    ]
    return images, [*faults, *found, *broken]


def _check_categories(entries: Sequence[Any], file: str) -> list[Fault]:
    """Compare the file's categories with COCO's 80; a file of other classes would train the wrong network."""
    faults, found = [], {}
    for entry in entries:
        try:
            found[int(entry["id"])] = str(entry["name"])
        except (KeyError, TypeError, ValueError):
            faults.append(Fault("unreadable entry", file, f"category {entry!r}, expected an object with id and name"))
    expected = dict(zip(COCO_CATEGORY_IDS, COCO_CLASSES, strict=True))
    for number in sorted({*found, *expected}):
        here, there = found.get(number), expected.get(number)
        if here != there:
            detail = f"{file} calls it {here!r}, COCO 2014 {there!r} (None: no such category)"
            faults.append(Fault("category that is not COCO's", str(number), detail))
    return faults


def _read_images(entries: Sequence[Any]) -> tuple[dict[int, tuple[str, int, int]], list[Fault]]:
    """Return COCO's number of each image -> its file, width and height."""
    images: dict[int, tuple[str, int, int]] = {}
    files: set[str] = set()
    faults = []
    for entry in entries:
        try:
            number, file = int(entry["id"]), str(entry["file_name"]).rsplit("/", 1)[-1]
            width, height = int(entry["width"]), int(entry["height"])
        except (KeyError, TypeError, ValueError):
            detail = f"image {str(entry)[:80]}, expected id, file_name, width and height"
            faults.append(Fault("unreadable entry", "images", detail))
            continue
        if number in images or file in files:
            faults.append(Fault("duplicate id", file, f"image {number} stands more than once in the annotation file"))
            continue
        images[number] = (file, width, height)
        files.add(file)
    return images, faults


def _read_regions(
    entries: Sequence[Any], images: Mapping[int, tuple[str, int, int]]
) -> tuple[dict[int, list[Region]], list[Fault]]:
    regions: dict[int, list[Region]] = {}
    faults = []
    for entry in entries:
        try:
            name, number, category = f"annotation {entry['id']}", int(entry["image_id"]), int(entry["category_id"])
            shape, is_crowd = entry["segmentation"], bool(entry.get("iscrowd", 0))
        except (KeyError, TypeError, ValueError):
            detail = f"annotation {str(entry)[:80]}, expected id, image_id, category_id and segmentation"
            faults.append(Fault("unreadable entry", "annotations", detail))
            continue
        if number not in images:
            faults.append(Fault("annotation of an unknown image", name, f"there is no image {number} in the file"))
            continue
        file, width, height = images[number]
        if category not in _CLASS_IDS:
            detail = f"{name} has category {category}; COCO's are 1 to 90 with gaps"
            faults.append(Fault("unknown category", image_id_of(file), detail))
            continue
        try:
            region = _read_region(_CLASS_IDS[category], is_crowd, shape, width, height)
        except (ValueError, TypeError) as error:
            faults.append(Fault("broken region", image_id_of(file), f"{name}: {error}"))
            continue
        regions.setdefault(number, []).append(region)
    return regions, faults


def _read_region(class_id: int, is_crowd: bool, shape: Any, width: int, height: int) -> Region:
    """Check one segmentation.

    Raises:
        ValueError: says what is wrong with it.
    """
    if isinstance(shape, dict):
        return Region(class_id, is_crowd, run_lengths=_read_run_lengths(shape, width, height))
    if not isinstance(shape, list) or not shape:
        raise ValueError("there is no polygon and no run length encoding")
    polygons = []
    for part in shape:
        points = np.asarray(part, dtype=np.float64)
        if points.ndim != 1 or len(points) < _MIN_NUMBERS or len(points) % 2 or not np.isfinite(points).all():
            raise ValueError(f"a polygon of {points.size} numbers, expected x and y of at least three points")
        polygons.append(points)
    return Region(class_id, is_crowd, polygons=tuple(polygons))


def _read_run_lengths(shape: Mapping[str, Any], width: int, height: int) -> tuple[int, ...]:
    if shape.get("size") != [height, width]:
        raise ValueError(f"run lengths for {shape.get('size')}, the image has (height, width) {[height, width]}")
    counts = shape.get("counts")
    lengths = _from_text(counts) if isinstance(counts, str) else counts
    if not isinstance(lengths, list) or any(not isinstance(n, int) or n < 0 for n in lengths):
        raise ValueError("run lengths must be a list of counts, or its compressed text")
    if sum(lengths) != width * height:
        raise ValueError(f"run lengths cover {sum(lengths)} pixels, the image has {width * height}")
    return tuple(lengths)


def _from_text(text: str) -> list[int]:
    """Read COCO's compressed run lengths: digits of 5 bits, the sixth says that more follow, from "0" on.

    From the fourth on, a number is the difference to the one two places before.
    """
    lengths: list[int] = []
    value = shift = 0
    for code in text.encode():
        digit = code - 48
        if not 0 <= digit < 64:
            raise ValueError(f"compressed run lengths hold {chr(code)!r}")
        value |= (digit & 31) << shift
        shift += 5
        if digit & 32:
            continue
        value -= (1 << shift) if digit & 16 else 0
        lengths.append(value + (lengths[-2] if len(lengths) > 2 else 0))
        value = shift = 0
    if shift:
        raise ValueError("compressed run lengths end in the middle of a number")
    return lengths
