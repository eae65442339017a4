"""Choosing the background threshold without pixel labels: the one whose masks part the colours of the pictures best.

Otsu (1979) takes the threshold that parts a histogram of grey levels with the most variance between the two sides. Asked
of a CAM's scores, that says where the scores are far apart and not where objects end: maps of one shape, drawn flat or
peaked, get different masks. So Otsu's criterion is asked of the colours instead, and the maps only say which sets of
pixels there are to choose from: of a picture's colour variance, the share that lies between what the mask at a threshold
shows and what it does not. Any rising function of the scores leaves the choice of mask as it is. The whole picture's
variance is the same for every threshold, so small and large masks compare; an empty mask and a full one part nothing.
All classes count as one foreground: two classes that share out a picture between them part its colours too, and
would reward masks over everything. Measured beside other criteria: docs/results/threshold.md.
"""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Float64, UInt8
from torch import Tensor

CRITERION = "colour variance between foreground and background, pictures of 96 pixels"
"""Goes into the fingerprint of every choice."""
LEVELS = (
    *(0.01, 0.02, 0.03, 0.04, 0.05, 0.07, 0.1, 0.13, 0.16, 0.2, 0.24, 0.28, 0.32, 0.36, 0.4, 0.44, 0.48),
    *(0.52, 0.56, 0.6, 0.64, 0.68, 0.72, 0.76, 0.8, 0.85, 0.9, 0.95),
)
"""Thresholds that are tried: finer where peaked maps have their edges."""
_SIDE = 96
_EPSILON = 1e-9


def candidates(thresholds: Sequence[float]) -> tuple[float, ...]:
    """Return those of a sweep's thresholds that lie nearest to the levels that are tried, rising.

    Args:
        thresholds: at least one.
    """
    return tuple(sorted({min(thresholds, key=lambda one: abs(one - level)) for level in LEVELS}))


def rate_thresholds(
    image: UInt8[Tensor, "3 height width"], maps: Float[Tensor, "class height width"], thresholds: Sequence[float]
) -> Float64[Tensor, " threshold"]:
    """Return what an image says for each threshold, in [0, 1], higher is better; means over images compare thresholds.

    Args:
        image: RGB pixels.
        maps: in [0, 1], those of its classes, at least one.
        thresholds: rising.
    """
    pixels, scores = small(image, maps)
    return parted_variance(pixels, scores.amax(0) > torch.tensor(thresholds)[:, None, None])


def small(
    image: UInt8[Tensor, "3 height width"], maps: Float[Tensor, "class height width"]
) -> tuple[Float[Tensor, "3 rows columns"], Float[Tensor, "class rows columns"]]:
    """Return picture (0 to 1) and maps on a grid whose longer side is at most 96: edges of objects, no grain.

    Args:
        image: RGB pixels.
        maps: of the same size.
    """
    pixels, scores, size = image.float()[None] / 255, maps.float()[None], max(image.shape[1:])
    if size > _SIDE:
        shape = [max(round(side * _SIDE / size), 1) for side in image.shape[1:]]
        pixels = F.interpolate(pixels, shape, mode="bilinear", antialias=True)
        scores = F.interpolate(scores, shape, mode="bilinear", antialias=True)
    return pixels[0], scores[0]


def parted_variance(
    pixels: Float[Tensor, "3 height width"], masks: Bool[Tensor, "mask height width"]
) -> Float64[Tensor, " mask"]:
    """Return the share of a picture's colour variance that lies between the inside and the outside of each mask.

    Args:
        pixels: the picture.
        masks: any number of them.
    """
    colours, inside = pixels.flatten(1).double(), masks.flatten(1).double()
    away = colours - colours.mean(1, keepdim=True)
    num_inside = inside.sum(1)
    num_outside = inside.shape[1] - num_inside
    # The sums of both sides cancel, so one of them gives the squared distance of both means from the centre.
    sums = ((inside @ away.T) ** 2).sum(1)
    between = sums / num_inside.clamp(min=1) + sums / num_outside.clamp(min=1)
    return between / (away**2).sum().clamp(min=_EPSILON)
