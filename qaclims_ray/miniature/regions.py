"""Random soft masks of every sort, so that the tiny CLIP knows masked pictures before the real work shows it any.

Whole pictures, objects, parts of them, an object with the ring around it, backgrounds, pieces of one stuff and random
blobs; some blurred, some with a floor or a lowered ceiling, as a half-trained CAM network makes them.
"""

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor

from qaclims_ray.miniature.vocabulary import NUM_STUFF

RING_PX = 6
"""How far the ring around an object reaches."""

_BLUR_PX = 7
_SORT_WEIGHTS = {
    "object part": 0.16,
    "ring": 0.12,
    "background": 0.15,
    "all but one": 0.08,
    "stuff": 0.12,
    "blob": 0.30,
}


@dataclass(frozen=True, kw_only=True)
class RegionSettings:
    """Shares of the masks; the rest is split over the other sorts."""

    whole_share: float = 0.25
    """Pictures shown whole."""
    token_share: float = 0.5
    """Pictures that carry a token mask besides the pixel mask."""


def dilate(mask: Float[Tensor, "region height width"], radius_px: int) -> Float[Tensor, "region height width"]:
    """Grow a mask by a square of the given radius."""
    return F.max_pool2d(mask[:, None], 2 * radius_px + 1, 1, radius_px)[:, 0]


def _uniform(generator: torch.Generator, *shape: int) -> Tensor:
    return torch.rand(*shape, generator=generator)


def _one_object(
    things: Int[Tensor, "region height width"], generator: torch.Generator
) -> Float[Tensor, "region height width"]:
    """Mask of one of the picture's objects, chosen at random (of two: the lower or the higher class)."""
    objects = torch.where(things >= NUM_STUFF, things, 0).flatten(1)
    highest = objects.amax(1)
    # Higher than any thing, so that stuff is never the lowest.
    lowest = torch.where(objects > 0, objects, 999).amin(1)
    chosen = torch.where(_uniform(generator, len(things)) < 0.5, highest, lowest)
    return (things == chosen[:, None, None]).float()


def _segment(
    things: Int[Tensor, "region height width"], generator: torch.Generator
) -> Float[Tensor, "region height width"]:
    """Mask of everything of the kind found at a random pixel."""
    flat = things.flatten(1)
    pixel = torch.randint(flat.shape[1], (len(flat), 1), generator=generator)
    return (things == flat.gather(1, pixel)[:, :, None]).float()


def _blobs(num_regions: int, size: tuple[int, int], generator: torch.Generator) -> Float[Tensor, "region height width"]:
    """Smooth random masks in 0..1 of random sharpness and area."""
    cells = int(torch.randint(2, 7, (1,), generator=generator))
    noise = torch.randn(num_regions, 1, cells, cells, generator=generator)
    noise = F.interpolate(noise, size=size, mode="bilinear", align_corners=False)[:, 0]
    sharpness = 8 * _uniform(generator, num_regions, 1, 1)
    offset = torch.randn(num_regions, 1, 1, generator=generator)
    return torch.sigmoid(noise * sharpness + offset)


def random_regions(
    things: Int[Tensor, "region height width"], settings: RegionSettings, generator: torch.Generator
) -> Float[Tensor, "region 1 height width"]:
    """Draw one soft mask in 0..1 a picture.

    Args:
        things: what each pixel shows: stuffs and props, then `NUM_STUFF` + class identifier.
        settings: shares.
        generator: source of all choices (CPU).
    """
    num_regions, size = len(things), (things.shape[1], things.shape[2])
    is_object = (things >= NUM_STUFF).float()
    one = _one_object(things, generator)
    blob = _blobs(num_regions, size, generator)
    segment = _segment(things, generator)
    segment = torch.where(_uniform(generator, num_regions, 1, 1) < 0.4, segment * (blob > 0.45), segment)
    part = torch.where(_uniform(generator, num_regions, 1, 1) < 0.35, one * (blob > 0.5), one)
    sorts = {
        "object part": part,
        "ring": dilate(one, RING_PX),
        "background": 1 - is_object,
        "all but one": 1 - one,
        "stuff": segment,
        "blob": blob,
    }
    weights = torch.tensor([_SORT_WEIGHTS[name] for name in sorts])
    edges = settings.whole_share + (1 - settings.whole_share) * torch.cumsum(weights / weights.sum(), 0)
    draw = _uniform(generator, num_regions)
    mask = torch.ones_like(one)
    lower = settings.whole_share
    for upper, candidate in zip(edges.tolist(), sorts.values(), strict=True):
        mask = torch.where(((draw >= lower) & (draw < upper))[:, None, None], candidate, mask)
        lower = upper
    return _soften(mask[:, None], generator)


def _soften(
    mask: Float[Tensor, "region 1 height width"], generator: torch.Generator
) -> Float[Tensor, "region 1 height width"]:
    """Blur half of the masks; lower the ceiling of half and raise the floor of some."""

    def draw() -> Tensor:
        return _uniform(generator, len(mask), 1, 1, 1)

    # Without the padding's zeros, or masks would fade towards the picture's edge.
    blurred = F.avg_pool2d(mask, _BLUR_PX, 1, _BLUR_PX // 2, count_include_pad=False)
    mask = torch.where(draw() < 0.5, blurred, mask)
    ceiling = torch.where(draw() < 0.5, 1.0, 0.35 + 0.65 * draw())
    floor = torch.where(draw() < 0.6, 0.0, 0.25 * draw())
    return floor + (ceiling - floor) * mask


def random_token_mask(
    mask: Float[Tensor, "region 1 height width"], settings: RegionSettings, generator: torch.Generator
) -> Float[Tensor, "region 1 height width"]:
    """Binarise masks at a random share (.05 to .55) of their maximum; the rest of the pictures keep every patch."""
    threshold = 0.05 + 0.5 * _uniform(generator, len(mask), 1, 1, 1)
    binary = (mask >= threshold * mask.amax((2, 3), keepdim=True)).float()
    is_masked = _uniform(generator, len(mask), 1, 1, 1) < settings.token_share
    return torch.where(is_masked, binary, 1.0)


def visible_area(
    things: Int[Tensor, "region height width"], mask: Float[Tensor, "region 1 height width"], num_things: int
) -> Float[Tensor, "region thing"]:
    """Fraction of the visible (mask-weighted) area that each thing takes."""
    area = torch.zeros(len(things), num_things, dtype=mask.dtype)
    area.scatter_add_(1, things.flatten(1), mask.flatten(1))
    return area / (area.sum(1, keepdim=True) + 1e-6)
