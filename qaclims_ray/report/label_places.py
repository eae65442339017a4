"""Where the numbers beside a chart's points go, so that they cover neither lines nor each other."""

from collections.abc import Sequence

import numpy as np
from jaxtyping import Float

Place = tuple[int, int]
"""Direction from a point to its text: -1, 0 or 1 to the right and upwards."""

LEFT: Place = (-1, 0)
_PLACES: tuple[Place, ...] = ((0, 1), (0, -1), (-1, 1), (1, -1), (1, 1), (-1, -1), LEFT, (1, 0))
_GAP_POINTS = 7.0
_OVERLAP_COST = 100.0
_OUTSIDE_COST = 50.0
_ORDER_COST = 0.1


def place_labels(
    anchors: Float[np.ndarray, "label 2"],
    obstacles: Float[np.ndarray, "obstacle 2"],
    *,
    text: tuple[float, float],
    ground: tuple[float, float],
    first_choices: Sequence[Place],
    taken: Float[np.ndarray, "box 4"],
) -> Float[np.ndarray, "label 2"]:
    """Return the offset of each text's centre from its point: the place around it where least is in the way.

    Points are given one after the other, and each keeps clear of the texts before it. All lengths are in typographic
    points, from the lower left corner.

    Args:
        anchors: the labelled points.
        obstacles: points along lines and on markers that no text should cover.
        text: width and height of a text.
        ground: width and height of the panel that texts must stay in.
        first_choices: place of each label that is taken when nothing is in the way.
        taken: boxes of texts that are there already: left, bottom, right, top.
    """
    half = np.array(text) / 2
    boxes = taken
    offsets = np.zeros_like(anchors)
    for index, (anchor, first) in enumerate(zip(anchors, first_choices, strict=True)):
        choices = np.array(list(dict.fromkeys((first, *_PLACES))), dtype=float)
        # Diagonal texts start at their point, straight ones are centred on it or stand a gap away.
        reach = np.where(
            choices[:, :1] * choices[:, 1:] != 0, (half[0] + 1, half[1] + _GAP_POINTS - 1), half + _GAP_POINTS
        )
        centres = anchor + choices * reach
        costs = _ORDER_COST * np.arange(len(choices)) + _costs(centres, half, obstacles, boxes, ground)
        centre = centres[costs.argmin()]
        offsets[index] = centre - anchor
        boxes = np.vstack([boxes, np.concatenate([centre - half, centre + half])])
    return offsets


def _costs(
    centres: Float[np.ndarray, "choice 2"],
    half: Float[np.ndarray, " 2"],
    obstacles: Float[np.ndarray, "obstacle 2"],
    boxes: Float[np.ndarray, "box 4"],
    ground: tuple[float, float],
) -> Float[np.ndarray, " choice"]:
    low, high = centres - half, centres + half
    covered = (np.abs(centres[:, None] - obstacles) < half + 1).all(-1).sum(1)
    hits = ((low[:, None] < boxes[:, 2:]) & (high[:, None] > boxes[:, :2])).all(-1).sum(1)
    outside = ((low < 0) | (high > np.array(ground))).any(1)
    return covered + _OVERLAP_COST * hits + _OUTSIDE_COST * outside
