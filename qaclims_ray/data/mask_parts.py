"""The parts of one class as polygons without holes: what COCO's and YOLO's files can hold.

A hole is reached by a slit of no width: the outline runs to it, around it and back the same way. What fills polygons,
pycocotools or OpenCV, then leaves the hole out, where a polygon of its own would be filled.
"""

from collections import defaultdict

import numpy as np
from jaxtyping import Bool

from qaclims_ray.data.mask_outlines import (
    PixelCorner,
    PolygonPoint,
    enclosed_area,
    fixed_corners,
    loops_of,
    simplified,
    stretches,
)

_Slits = dict[int, list[list[PolygonPoint]]]
"""Position in a loop -> the outlines of the holes that are reached from there."""


def mask_parts(mask: Bool[np.ndarray, "height width"]) -> list[list[PolygonPoint]]:
    """Return a polygon for each part of a mask, whose pixels touch along an edge; one pixel is a part too.

    Corners lie within three quarters of a pixel of the exact outline.

    Args:
        mask: where the class is.
    """
    loops = loops_of(mask)
    is_hole = [enclosed_area(loop) < 0 for loop in loops]
    host_of = _upper_edges(loops)
    reached: dict[int, _Slits] = defaultdict(lambda: defaultdict(list))
    entries = {number: _entry(loops[number]) for number, hole in enumerate(is_hole) if hole}
    # A hole is reached from a loop above it, so the lowest are ready first.
    for number in sorted(entries, key=lambda one: -loops[one][entries[one]][1]):
        start = entries[number]
        x, y = loops[number][start]
        above = y
        while above > 0 and mask[above - 1, x]:
            above -= 1
        host, position = host_of[x, above]
        reached[host][position].append(_drawn(loops[number], reached[number], mask.shape, start))
    outer = [number for number, hole in enumerate(is_hole) if not hole]
    return [
        _drawn(loops[number], reached[number], mask.shape, min(reached[number]))
        if reached[number]
        else simplified(loops[number], mask.shape)
        for number in outer
    ]


def _upper_edges(loops: list[list[PixelCorner]]) -> dict[PixelCorner, tuple[int, int]]:
    """Return the left corner of each upper edge of a pixel -> (loop, position of the corner)."""
    found = {}
    for number, loop in enumerate(loops):
        for position, (x, y) in enumerate(loop):
            if loop[(position + 1) % len(loop)] == (x + 1, y):
                found[x, y] = (number, position)
    return found


def _entry(hole: list[PixelCorner]) -> int:
    """Return the position of a hole's corner with a pixel of the mask above it, the topmost one."""
    below = [
        (y, x, position) for position, (x, y) in enumerate(hole) if hole[position - 1] == (x + 1, y)
    ]  # the lower edge of a pixel runs to the left
    return min(below)[2]


def _drawn(loop: list[PixelCorner], slits: _Slits, shape: tuple[int, ...], start: int) -> list[PolygonPoint]:
    """Return a loop with the holes that are reached from it, from a position on and back to it."""
    pins = [start, *({*slits, *fixed_corners(loop, shape)} - {start})]
    points: list[PolygonPoint] = []
    for pin, kept in stretches(loop, pins):
        points.append(kept[0])
        for hole in slits.get(pin, ()):
            points += [*hole, kept[0]]
        points += kept[1:]
    if not slits and len(points) < 3:
        points = [_point(loop[(start + step) % len(loop)]) for step in range(len(loop))]
    return [*points, _point(loop[start])]


def _point(corner: PixelCorner) -> PolygonPoint:
    return float(corner[0]), float(corner[1])
