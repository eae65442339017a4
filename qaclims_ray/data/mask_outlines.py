"""Outlines of label maps as polygons, and label maps of polygons: what labelling tools draw and people correct.

An outline runs along the edges between pixels, so pixel (0, 0) is the square from (0, 0) to (1, 1). A hole is a polygon
too, of what fills it: polygons are sorted by area, the largest first, and a later one covers an earlier one.
"""

from collections import defaultdict
from collections.abc import Collection, Sequence

import numpy as np
from jaxtyping import Bool, UInt8

from qaclims_ray.errors import DataError

PolygonPoint = tuple[float, float]
"""x and y in pixels."""

PixelCorner = tuple[int, int]
"""x and y of a corner between pixels."""

SPECK_SHARE = 0.0005
"""Polygons of less than this share of the image are left out: nobody wants to correct specks."""
_TOLERANCE_PX = 0.75
"""A simplified outline stays this near to the exact one."""
_SPECK_EDGES = 8
"""Outlines of at most so many pixel edges are not simplified: little would be left of them."""


def outlines(
    labels: UInt8[np.ndarray, "height width"], nothing: int, speck_share: float = SPECK_SHARE
) -> list[tuple[int, list[PolygonPoint]]]:
    """Return the polygons of a label map, in the order in which they are to be filled.

    Args:
        labels: label values.
        nothing: the value of a picture without any polygon; it has outlines only within others.
        speck_share: polygons of less than this share of the image are left out.
    """
    smallest, found = speck_share * labels.size, []
    for value in np.unique(labels).tolist():
        for loop in loops_of(labels == value):
            area = enclosed_area(loop)
            # A loop the other way round is a hole: what fills it has a loop of its own, but for `nothing`.
            if value != nothing and area >= max(smallest, 1):
                found.append((area, value, loop))
            elif value == nothing and area >= max(smallest, 1) and not _at_edge(loop, labels.shape):
                found.append((area, value, loop))
    found.sort(key=lambda one: -one[0])
    return [(value, simplified(loop, labels.shape)) for _, value, loop in found]


def require_size(where: str, size: tuple[int, int], height: int, width: int) -> None:
    """Refuse a drawn mask of another size than its image's.

    Args:
        where: what has the mask, for the message.
        size: its width and height, in pixels.
        height: of the image, in pixels.
        width: of the image, in pixels.

    Raises:
        DataError: naming both sizes.
    """
    if size != (width, height):
        found = f"{size[0]}x{size[1]}"
        raise DataError(f"{where} has {found} pixels, expected {width}x{height}, the size of its image")


def filled(
    polygons: Sequence[tuple[int, Sequence[PolygonPoint]]], height: int, width: int, nothing: int
) -> UInt8[np.ndarray, "height width"]:
    """Return the label map of polygons; of two that overlap the later counts.

    Args:
        polygons: label value and corners.
        height: in pixels.
        width: in pixels.
        nothing: value of pixels in no polygon.
    """
    labels = np.full((height, width), nothing, dtype=np.uint8)
    for value, corners in polygons:
        labels[inside_polygon(np.array(corners, dtype=np.float64), height, width)] = value
    return labels


def inside_polygon(corners: np.ndarray, height: int, width: int) -> Bool[np.ndarray, "height width"]:
    """Return the pixels whose centre lies within a polygon, by the even-odd rule, row by row."""
    inside = np.zeros((height, width), dtype=bool)
    x, y = corners[:, 0], corners[:, 1]
    next_x, next_y = np.roll(x, -1), np.roll(y, -1)
    centres = np.arange(width) + 0.5
    for row in range(max(0, int(y.min())), min(height, int(np.ceil(y.max())))):
        at = row + 0.5
        crosses = (y <= at) != (next_y <= at)
        if crosses.any():
            one, two = y[crosses], next_y[crosses]
            places = np.sort(x[crosses] + (at - one) / (two - one) * (next_x[crosses] - x[crosses]))
            inside[row] = np.searchsorted(places, centres) % 2 == 1
    return inside


def loops_of(mask: Bool[np.ndarray, "height width"]) -> list[list[PixelCorner]]:
    """Return the closed outlines of a mask, each with the mask on its right; holes run the other way round."""
    padded = np.pad(mask, 1)
    leaving: dict[PixelCorner, list[PixelCorner]] = defaultdict(list)
    # Edges between pixels, directed so that the mask lies on the right as one sees it (y points down).
    for dy, dx, start, end in (
        (-1, 0, (0, 0), (1, 0)), (0, 1, (1, 0), (1, 1)), (1, 0, (1, 1), (0, 1)), (0, -1, (0, 1), (0, 0)),
    ):  # fmt: skip
        beside = np.roll(padded, (-dy, -dx), (0, 1))
        for row, column in np.argwhere(padded & ~beside).tolist():
            x, y = column - 1, row - 1
            leaving[x + start[0], y + start[1]].append((x + end[0], y + end[1]))
    loops = []
    while leaving:
        loop, here, before = [], next(iter(leaving)), (0, 0)
        while here in leaving:
            there = _turn(leaving[here], here, before)
            leaving[here].remove(there)
            if not leaving[here]:
                del leaving[here]
            loop.append(here)
            here, before = there, (there[0] - here[0], there[1] - here[1])
        loops.append(loop)
    return loops


def _turn(ways: list[PixelCorner], here: PixelCorner, before: PixelCorner) -> PixelCorner:
    """Return the way on; where two pixels touch at a corner, the one that keeps to the pixel at hand."""
    if len(ways) == 1:
        return ways[0]
    # Right of the direction (dx, dy), with y down, is (-dy, dx).
    right = (here[0] - before[1], here[1] + before[0])
    return right if right in ways else ways[0]


def enclosed_area(loop: Sequence[PixelCorner]) -> float:
    """Return the area that a loop encloses; negative for a hole."""
    x, y = np.array(loop, dtype=np.float64).T
    return float((x * np.roll(y, -1) - np.roll(x, -1) * y).sum() / 2)


def _at_edge(loop: Sequence[PixelCorner], shape: tuple[int, ...]) -> bool:
    height, width = shape
    return any(x in (0, width) or y in (0, height) for x, y in loop)


def simplified(loop: Sequence[PixelCorner], shape: tuple[int, ...]) -> list[PolygonPoint]:
    """Return fewer corners by Douglas and Peucker's rule; what runs along the picture's edge stays there.

    Args:
        loop: closed outline.
        shape: height and width of the picture.
    """
    kept = [point for _, points in stretches(loop, fixed_corners(loop, shape)) for point in points]
    return kept if len(kept) >= 3 else [(float(x), float(y)) for x, y in loop]


def fixed_corners(loop: Sequence[PixelCorner], shape: tuple[int, ...]) -> set[int]:
    """Return the positions of corners that stay: of a speck all, of others those at the picture's edge.

    Args:
        loop: closed outline.
        shape: height and width of the picture.
    """
    height, width = shape
    corners = np.array(loop)
    x, y = corners.T
    turns = (np.roll(corners, -1, 0) - corners != corners - np.roll(corners, 1, 0)).any(1)
    at_edge = (x == 0) | (x == width) | (y == 0) | (y == height)
    return set(np.flatnonzero(turns & (at_edge | (len(loop) <= _SPECK_EDGES))).tolist())


def stretches(loop: Sequence[PixelCorner], pins: Collection[int]) -> list[tuple[int, list[PolygonPoint]]]:
    """Cut an outline at positions that must stay; return each with the corners that are kept up to the next.

    Args:
        loop: closed outline.
        pins: the positions; the first in order comes first. Of fewer than two the farthest corner is another.
    """
    corners = np.array(loop, dtype=np.float64)
    order = list(pins) or [0]
    if len(order) == 1:
        order.append(int(((corners - corners[order[0]]) ** 2).sum(1).argmax()))
    first, found = order[0], []
    order.sort(key=lambda position: (position - first) % len(loop))
    for pin, following in zip(order, [*order[1:], order[0]], strict=True):
        length = (following - pin) % len(loop) or len(loop)
        stretch = corners[np.arange(pin, pin + length + 1) % len(loop)]
        found.append((pin, [(float(x), float(y)) for x, y in _kept(stretch)[:-1]]))
    return found


def _kept(line: np.ndarray) -> list[np.ndarray]:
    spans, kept = [(0, len(line) - 1)], {0, len(line) - 1}
    while spans:
        start, end = spans.pop()
        if end - start < 2:
            continue
        along, between = line[end] - line[start], line[start + 1 : end] - line[start]
        length = np.hypot(*along)
        away = np.abs(along[0] * between[:, 1] - along[1] * between[:, 0]) / length if length else np.hypot(*between.T)
        if away.max() > _TOLERANCE_PX:
            middle = start + 1 + int(away.argmax())
            kept.add(middle)
            spans += [(start, middle), (middle, end)]
    return [line[position] for position in sorted(kept)]
