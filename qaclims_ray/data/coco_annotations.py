"""COCO's annotation files: images, categories and regions, with everything that can be wrong with them.

The file is checked as a whole, and what is broken is told entry by entry. Regions stay in the form in which the file
has them, polygons or run lengths, until `coco_masks` draws them.
"""

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any
from urllib.parse import unquote, urlsplit

import numpy as np

from qaclims_ray.data import storage
from qaclims_ray.data.classes import COCO_CATEGORY_IDS, COCO_CLASSES
from qaclims_ray.data.file_kinds import describe_head
from qaclims_ray.data.image_ids import image_id_of
from qaclims_ray.data.json_fields import MISSING, field, flag, numbers, positive_number, printable, text, whole_number
from qaclims_ray.data.validation import Fault
from qaclims_ray.errors import DataError

_CLASS_IDS: Mapping[int, int] = {category: index for index, category in enumerate(COCO_CATEGORY_IDS)}
_MIN_NUMBERS = 6
"""Of a polygon: x and y of three points."""
_TINY_PX = 2
"""Images of this many pixels a side can have whole objects between 0 and 1."""


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
    repeated: list[Fault] = []
    try:
        content = _parsed(uri, repeated)
    except DataError as error:
        there = "missing" if not storage.exists(uri) else "unreadable"
        return [], [Fault(f"{there} annotation file", name, str(error))]
    faults = [*repeated, *_check_categories(content["categories"], name)]
    entries, found = _read_images(content["images"])
    regions, broken = _read_regions(content["annotations"], entries)
    images = [
        AnnotatedImage(image_id_of(file_name), file_name, width, height, tuple(regions.get(number, ())))
        for number, (file_name, width, height) in sorted(entries.items())
    ]
    return images, [*faults, *found, *broken]


def _parsed(uri: str, repeated: list[Fault]) -> dict[str, Any]:
    """Parse the file; objects that have one key twice, with different values, become faults in `repeated`."""

    def unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        entry = dict(pairs)
        if len(entry) < len(pairs):
            if twice := [key for key, value in pairs if entry[key] != value]:
                where = f"the object {printable(entry)}"
                repeated.append(
                    Fault("repeated key", where, f"{printable(twice[0])} stands twice, with different values")
                )
        return entry

    content_bytes = storage.read_bytes(uri)
    try:
        content = json.loads(content_bytes, object_pairs_hook=unique)
    except (ValueError, RecursionError) as error:
        kind = describe_head(content_bytes)
        raise DataError(f"{uri} is no whole JSON file ({error}); it is {kind}. Fetch it again") from None
    parts = ("images", "annotations", "categories")
    if not isinstance(content, dict) or any(not isinstance(content.get(part), list) for part in parts):
        found = {part: printable(content.get(part, MISSING)) for part in parts} if isinstance(content, dict) else {}
        detail = "; ".join(f"{part} is {value}" for part, value in found.items()) or f"it is {printable(content)}"
        raise DataError(f"{uri} must hold one object with the lists {', '.join(parts)}, but {detail}")
    return content


def _check_categories(entries: Sequence[Any], file: str) -> list[Fault]:
    """Compare the file's categories with COCO's 80; a file of other classes would train the wrong network."""
    faults: list[Fault] = []
    found: dict[int, str] = {}
    for entry in entries:
        try:
            number, name = field(_object(entry), "id", whole_number), field(entry, "name", text)
        except DataError as error:
            faults.append(Fault("unreadable entry", file, f"category {printable(entry)}: {error}"))
            continue
        if found.setdefault(number, name) != name:
            detail = f"category {number} is both {found[number]!a} and {name!a}"
            faults.append(Fault("duplicate id", file, detail))
    expected = dict(zip(COCO_CATEGORY_IDS, COCO_CLASSES, strict=True))
    for number in sorted({*found, *expected}):
        here, there = found.get(number), expected.get(number)
        if here != there:
            detail = f"{file} calls it {here!a}, COCO 2014 {there!r} (None: no such category)"
            faults.append(Fault("category that is not COCO's", str(number), detail))
    return faults


def _read_images(entries: Sequence[Any]) -> tuple[dict[int, tuple[str, int, int]], list[Fault]]:
    """Return COCO's number of each image -> its file, width and height."""
    images: dict[int, tuple[str, int, int]] = {}
    paths: dict[str, str] = {}
    faults = []
    for entry in entries:
        try:
            number = field(_object(entry), "id", whole_number)
            path = field(entry, "file_name", text)
            file = _file_of(path)
            width, height = field(entry, "width", positive_number), field(entry, "height", positive_number)
        except DataError as error:
            faults.append(Fault("unreadable entry", "images", f"image {printable(entry)}: {error}"))
            continue
        if number in images:
            detail = f"image {number} stands more than once in the annotation file"
            faults.append(Fault("duplicate id", file, detail))
        elif file in paths:
            detail = f"{paths[file]!a} and {path!a} (image {number}) have one name, and all images lie in one folder"
            faults.append(Fault("duplicate file name", file, detail))
        else:
            images[number] = (file, width, height)
            paths[file] = path
    return images, faults


def _object(entry: Any) -> dict[str, Any]:
    if not isinstance(entry, dict):
        raise DataError("expected an object")
    return entry


def _file_of(path: str) -> str:
    """Return the name of an image's file, which may be given by a path of any system, or by an address."""
    if "://" in path:
        path = unquote(urlsplit(path).path)
    name = path.strip().replace("\\", "/").rsplit("/", 1)[-1]
    if name in ("", ".", ".."):
        raise DataError(f"file_name is {printable(path)}, which names no file")
    return name


def _read_regions(
    entries: Sequence[Any], images: Mapping[int, tuple[str, int, int]]
) -> tuple[dict[int, list[Region]], list[Fault]]:
    regions: dict[int, list[Region]] = {}
    known: dict[int, Any] = {}
    faults = []
    for entry in entries:
        try:
            id_ = field(_object(entry), "id", whole_number)
            number, category = field(entry, "image_id", whole_number), field(entry, "category_id", whole_number)
            is_crowd = field(entry, "iscrowd", flag)
        except DataError as error:
            faults.append(Fault("unreadable entry", "annotations", f"annotation {printable(entry)}: {error}"))
            continue
        name, same = f"annotation {id_}", known.setdefault(id_, entry)
        if same is not entry:
            if same != entry:  # the same once more says nothing new
                faults.append(Fault("duplicate id", name, f"it is both {printable(same)} and {printable(entry)}"))
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
            region = read_region(_CLASS_IDS[category], is_crowd, entry.get("segmentation", MISSING), width, height)
        except DataError as error:
            faults.append(Fault("broken region", image_id_of(file), f"{name}: {error}"))
            continue
        regions.setdefault(number, []).append(region)
    return regions, [*faults, *_check_unit(regions, images)]


def read_region(class_id: int, is_crowd: bool, shape: Any, width: int, height: int) -> Region:
    """Check one segmentation.

    Args:
        class_id: its class.
        is_crowd: whether it is a crowd.
        shape: polygons or run lengths, as the file has them.
        width: of the image, in pixels.
        height: of the image, in pixels.

    Raises:
        DataError: says what is wrong with it.
    """
    if isinstance(shape, dict):
        return Region(class_id, is_crowd, run_lengths=_read_run_lengths(shape, width, height))
    if not isinstance(shape, list):
        raise DataError(f"segmentation is {printable(shape)}, expected a list of polygons or an object of run lengths")
    if not shape:
        raise DataError("there is no polygon and no run length encoding")
    # One polygon that is not put into a list, which COCO's own tools take too.
    parts = [shape] if all(not isinstance(part, list | dict) for part in shape) else shape
    polygons = tuple(_read_polygon(part) for part in parts)
    if all(_is_outside(points, width, height) for points in polygons):
        raise DataError(f"its polygons lie outside the image of {width} x {height} pixels")
    return Region(class_id, is_crowd, polygons=polygons)


def _is_outside(points: np.ndarray, width: int, height: int) -> bool:
    """Whether a polygon lies beyond one edge; outlines that run along an edge are in the published files."""
    x, y = points[::2], points[1::2]
    return bool(x.max() < 0 or y.max() < 0 or x.min() > width or y.min() > height)


def _read_polygon(part: Any) -> np.ndarray:
    try:
        points = numbers(part)
    except DataError as error:
        raise DataError(f"a polygon {error}; expected x, y, x, y, ... in one list") from None
    if len(points) < _MIN_NUMBERS or len(points) % 2:
        raise DataError(f"a polygon of {points.size} numbers, expected x and y of at least three points")
    return points


def _check_unit(regions: Mapping[int, Sequence[Region]], images: Mapping[int, tuple[str, int, int]]) -> list[Fault]:
    """Refuse polygons that are given as shares of the image: as pixels they would be specks in its corner."""
    outlined = [(number, region.polygons) for number, own in regions.items() for region in own if region.polygons]
    shares = [number for number, polygons in outlined if _are_shares(polygons, *images[number][1:])]
    told = "lie below 1: shares of the image, expected pixels"
    if shares and len(shares) == len(outlined):
        return [Fault("broken region", "annotations", f"the coordinates of all {len(shares)} objects {told}")]
    return [
        Fault("broken region", image_id_of(images[number][0]), f"the coordinates of {count} of its objects {told}")
        for number, count in Counter(shares).items()
    ]


def _are_shares(polygons: Sequence[np.ndarray], width: int, height: int) -> bool:
    """Whether all outlines of an object lie between 0 and 1 and have an area there."""
    if max(width, height) <= _TINY_PX or any(points.max() > 1 for points in polygons):
        return False
    return any(np.ptp(points[::2]) > 0 and np.ptp(points[1::2]) > 0 for points in polygons)


def _read_run_lengths(shape: Mapping[str, Any], width: int, height: int) -> tuple[int, ...]:
    size = shape.get("size")
    try:
        sides = [whole_number(side) for side in size] if isinstance(size, list) else None
    except DataError:
        sides = None
    if sides != [height, width]:
        raise DataError(f"run lengths for {printable(size)}, the image has (height, width) {[height, width]}")
    counts = shape.get("counts")
    counts = _from_text(counts) if isinstance(counts, str) else counts
    if not isinstance(counts, list):
        raise DataError(
            f"counts is {printable(counts)}, expected run lengths: a list of counts, or its compressed text"
        )
    lengths = tuple(_run_length(place, count) for place, count in enumerate(counts))
    if sum(lengths) != width * height:
        raise DataError(f"run lengths cover {sum(lengths)} pixels, the image has {width * height}")
    return lengths


def _run_length(place: int, count: Any) -> int:
    try:
        length = whole_number(count)
    except DataError as error:
        raise DataError(f"run length {place} {error}") from None
    if length < 0:
        raise DataError(f"run length {place} is {length}, expected none below 0")
    return length


def _from_text(code: str) -> list[int]:
    """Read COCO's compressed run lengths: digits of 5 bits, the sixth says that more follow, from "0" on.

    From the fourth on, a number is the difference to the one two places before.
    """
    lengths: list[int] = []
    value = shift = 0
    for char in code:
        digit = ord(char) - 48
        if not 0 <= digit < 64:
            hint = ", as Python prints bytes: write counts.decode() into the file" if code[:2] in ("b'", 'b"') else ""
            raise DataError(f"compressed run lengths hold {char!a}{hint}")
        value |= (digit & 31) << shift
        shift += 5
        if digit & 32:
            continue
        value -= (1 << shift) if digit & 16 else 0
        lengths.append(value + (lengths[-2] if len(lengths) > 2 else 0))
        value = shift = 0
    if shift:
        raise DataError("compressed run lengths end in the middle of a number")
    return lengths
