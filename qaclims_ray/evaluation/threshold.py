"""Choosing the background threshold without pixel labels: the one whose masks the pictures' colours describe best.

A threshold read off the scores (Otsu's, say) says where scores are far apart and not where objects end: maps of one
shape, drawn flat or peaked, get different masks. Here the maps only say which masks there are to choose from, and any
rising function of the scores leaves the choice of mask as it is. Three things are asked of a threshold's foreground:

- **Do the picture's colours describe it?** Each of a few colours of the picture takes the side that most of its pixels
  are on. A mask that ends where an object ends is told by its colours; one that ends in a meadow is not.
- **Beyond chance?** A mask over nearly everything agrees with "everything". So the agreement is Cohen's kappa, which is
  0 for what masks of such sizes have anyway, also for an empty mask and a full one, so that sizes compare.
- **Is it small?** An object with all of its meadow is described as well as the object alone, and no colour tells them
  apart. Of two masks that are told equally well the smaller is the object: the figure is multiplied with a power of the
  share of background.

The figure's mean over images has a broad top: masks of many thresholds are nearly as good, and which of them is highest
is chance. So the middle of the top is taken, not its highest point.

All classes count as one foreground: two classes that share out a picture between them part its colours too, and would
reward masks over everything. How it was taken and what else was tried: docs/results/threshold.md.
"""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Float64, Int64, UInt8
from torch import Tensor

AREA_POWER = 1.5
"""Power of the share of background, taken on seeds 10 and 11 of the miniature."""
COLOURS = 8
"""Colours of a picture."""
TOP_POWER = 40
"""Power of a threshold's figure with which it counts for the middle: at 0.98 of the highest figure less than half."""
CRITERION = f"kappa with {COLOURS} colours, background to the power of {AREA_POWER}, middle by the power of {TOP_POWER}"
"""Goes into the fingerprint of every choice."""
LEVELS = (
    *(0.01, 0.02, 0.03, 0.04, 0.05, 0.07, 0.1, 0.13, 0.16, 0.2, 0.24, 0.28, 0.32, 0.36, 0.4, 0.44, 0.48),
    *(0.52, 0.56, 0.6, 0.64, 0.68, 0.72, 0.76, 0.8, 0.85, 0.9, 0.95),
)
"""Thresholds that are tried: finer where peaked maps have their edges."""
_SIDE = 96
_ROUNDS = 8
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
    masks = scores.amax(0) > torch.tensor(thresholds)[:, None, None]
    background = 1 - masks.double().mean((1, 2))
    return agreement_with_colours(pixels, masks) * background**AREA_POWER


def middle_of_top(figures: Float64[Tensor, " threshold"], power: float = TOP_POWER) -> int:
    """Return the position in the middle of the best thresholds: the mean of all, each with a power of its figure.

    Args:
        figures: means or sums of `rate_thresholds` over images, thresholds rising.
        power: the higher, the narrower the top.
    """
    if figures.max() <= 0:  # no mask is better than chance
        return int(figures.argmax())
    weights = (figures.clamp(min=0) / figures.max()) ** power
    return round(float((weights * torch.arange(len(figures))).sum() / weights.sum()))


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


def agreement_with_colours(
    pixels: Float[Tensor, "3 height width"], masks: Bool[Tensor, "mask height width"]
) -> Float64[Tensor, " mask"]:
    """Return how well a picture's colours tell where each mask is: Cohen's kappa, at most 1, 0 for chance.

    Args:
        pixels: the picture.
        masks: any number of them.
    """
    colours = F.one_hot(main_colours(pixels.flatten(1).T), COLOURS).double()  # (pixel, colour)
    share = colours.mean(0)  # of the picture
    inside = masks.flatten(1).double() @ colours / len(colours)  # (mask, colour)
    outside = share - inside
    mask_share, told_share = inside.sum(1), torch.where(inside > outside, share, 0.0).sum(1)
    by_chance = mask_share * told_share + (1 - mask_share) * (1 - told_share)
    return (torch.maximum(inside, outside).sum(1) - by_chance) / (1 - by_chance).clamp(min=_EPSILON)


def main_colours(colours: Float[Tensor, "pixel 3"]) -> Int64[Tensor, " pixel"]:
    """Return which of its picture's main colours each pixel has: k-means from the shades between dark and bright.

    Args:
        colours: of all pixels.
    """
    shades = torch.linspace(0, len(colours) - 1, 2 * COLOURS + 1)[1::2].long()
    centres = colours[colours.sum(1).argsort(stable=True)[shades]]
    for _ in range(_ROUNDS):
        nearest = F.one_hot(torch.cdist(colours, centres).argmin(1), COLOURS).to(colours.dtype)
        count = nearest.sum(0)[:, None]
        centres = torch.where(count > 0, nearest.T @ colours / count.clamp(min=1), centres)
    return torch.cdist(colours, centres).argmin(1)
