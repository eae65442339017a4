"""How well masks part objects from their surroundings: a figure for choosing settings that needs image labels only.

Two things are asked of the mask of an (image, class) pair. Does it hold the class: the cosine of the masked picture
and the class text, by a frozen CLIP, which the caller brings. Does its edge lie where the picture changes: the share
of the colour variance, in the mask and a band around it, that lies between the two. The pair's figure is the product.
An empty mask and one that fills the picture give zero. How it was chosen, against mask mIoU: docs/results/tune.md.
"""

import torch.nn.functional as F
from jaxtyping import Bool, Float
from torch import Tensor

BAND_SHARE = 0.1
"""Width of the band of surroundings, as a share of the picture's side."""
_EPSILON = 1e-6


def separation(
    pixels: Float[Tensor, "pair 3 side side"],
    masks: Bool[Tensor, "pair side side"],
    class_cosine: Float[Tensor, " pair"],
) -> Float[Tensor, " pair"]:
    """Return each pair's figure in [0, 1], higher is better.

    Args:
        pixels: square pictures, in any normalisation with one deviation per channel.
        masks: the pairs' masks.
        class_cosine: of the masked picture and its class's text; negative ones count as zero.
    """
    return class_cosine.clamp(min=0) * colour_parting(pixels, masks)


def colour_parting(
    pixels: Float[Tensor, "pair 3 side side"], masks: Bool[Tensor, "pair side side"]
) -> Float[Tensor, " pair"]:
    """Return the share of the colour variance of mask and band that lies between mask and band, in [0, 1].

    Zero where either of the two has no pixel, or all their pixels are of one colour.

    Args:
        pixels: square pictures.
        masks: the pairs' masks.
    """
    inside = masks.to(pixels.dtype).unsqueeze(1)  # (pair, 1, side, side)
    around = surroundings(masks).to(pixels.dtype).unsqueeze(1)
    both = inside + around
    num_inside, num_around = inside.sum(dim=(1, 2, 3)), around.sum(dim=(1, 2, 3))
    centre = _mean_colour(pixels, both)
    spread = ((pixels - centre[:, :, None, None]) ** 2 * both).sum(dim=(1, 2, 3))
    between = num_inside * ((_mean_colour(pixels, inside) - centre) ** 2).sum(dim=1)
    between = between + num_around * ((_mean_colour(pixels, around) - centre) ** 2).sum(dim=1)
    has_both = (num_inside > 0) & (num_around > 0)
    return (between / spread.clamp(min=_EPSILON)).clamp(max=1) * has_both


def surroundings(masks: Bool[Tensor, "pair side side"]) -> Bool[Tensor, "pair side side"]:
    """Return the pixels outside each mask that are at most `BAND_SHARE` of the side away from it, by rows or columns.

    Args:
        masks: the pairs' masks.
    """
    width = max(round(BAND_SHARE * masks.shape[-1]), 1)
    grown = F.max_pool2d(masks.float().unsqueeze(1), 2 * width + 1, stride=1, padding=width).squeeze(1)
    return (grown > 0) & ~masks


def _mean_colour(
    pixels: Float[Tensor, "pair 3 side side"], weight: Float[Tensor, "pair 1 side side"]
) -> Float[Tensor, "pair 3"]:
    return (pixels * weight).sum(dim=(2, 3)) / weight.sum(dim=(2, 3)).clamp(min=1)
