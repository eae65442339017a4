"""Choosing the background threshold without pixel labels."""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from jaxtyping import Float, Float64, UInt8
from torch import Tensor

from qaclims_ray.evaluation.separation import colour_parting

CRITERION = "colour parting"
"""Goes into the fingerprint of every choice."""
LEVELS = (
    *(0.01, 0.02, 0.03, 0.04, 0.05, 0.07, 0.1, 0.13, 0.16, 0.2, 0.24, 0.28, 0.32, 0.36, 0.4, 0.44, 0.48),
    *(0.52, 0.56, 0.6, 0.64, 0.68, 0.72, 0.76, 0.8, 0.85, 0.9, 0.95),
)
"""Thresholds that are tried: finer where maps are peaked."""
_SIDE = 96


def candidates(thresholds: Sequence[float]) -> tuple[float, ...]:
    """Return those of a sweep's thresholds that lie nearest to the levels that are tried, rising.

    Args:
        thresholds: rising, at least one.
    """
    return tuple(sorted({min(thresholds, key=lambda one: abs(one - level)) for level in LEVELS}))


def rate_thresholds(
    image: UInt8[Tensor, "3 height width"], maps: Float[Tensor, "class height width"], thresholds: Sequence[float]
) -> Float64[Tensor, " threshold"]:
    """Return what an image says for each threshold, higher is better.

    Args:
        image: RGB pixels.
        maps: in [0, 1], those of its classes.
        thresholds: rising.
    """
    size = max(image.shape[1:])
    pixels, score = image.float()[None] / 255, maps.float()[None]
    if size > _SIDE:
        shape = [max(round(side * _SIDE / size), 1) for side in image.shape[1:]]
        pixels = F.interpolate(pixels, shape, mode="bilinear", antialias=True)
        score = F.interpolate(score, shape, mode="bilinear", antialias=True)
    shown, foremost = score[0].max(0)
    masks = shown > torch.tensor(thresholds)[:, None, None]
    figures = [
        colour_parting(pixels.expand(len(thresholds), -1, -1, -1), masks & (foremost == position))
        for position in range(len(maps))
    ]
    return torch.stack(figures).double().mean(0)
