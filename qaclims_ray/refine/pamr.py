"""Pixel-adaptive mask refinement: maps spread over pixels of similar colour (step "pamr").

Araslanov and Roth, "Single-Stage Semantic Segmentation from Image Labels" (CVPR 2020), section 3.3. Each update
replaces a pixel's scores by a convex combination of those of its neighbours; the weights follow the colours and are
computed once. Cheaper than a CRF, and it needs no unary.
"""

import dataclasses
from collections.abc import Iterator

import torch
import torch.nn.functional as F
from jaxtyping import Float, UInt8
from torch import Tensor

from qaclims_ray.cams.inference import ImageCam
from qaclims_ray.data.classes import NO_BACKGROUND
from qaclims_ray.refine.config import PamrConfig
from qaclims_ray.refine.full_maps import maps_of_image
from qaclims_ray.refine.shares import shares_against

_SPREAD = 0.1
"""Share of the local standard deviation by which colour differences are divided: the authors' value."""
_EPSILON = 1e-8
"""Keeps a flat window from dividing by zero; all its differences are zero, so its weights are equal."""


def pamr(
    image: UInt8[Tensor, "3 height width"], maps: Float[Tensor, "label height width"], config: PamrConfig
) -> Float[Tensor, "label height width"]:
    """Refine maps by the colours of an image.

    The neighbours of a pixel are the eight around it at each dilation (48 of them with the default six); beyond the
    image's edge the nearest pixel stands in. The weight of neighbour n at pixel p is the softmax over the neighbours
    of the mean over the three channels of -|I(n) - I(p)| / (0.1 s), s being the standard deviation of that channel in
    p's window: the neighbours and p itself. Division by s, not by its square as the paper prints it, makes the
    weights independent of the range of grey levels; so does the authors' own program.

    One map at a time costs as many passes over the image as there are neighbours and iterations; the weights take
    4 bytes per pixel and neighbour (48 MB for 500x500 pixels and 48 neighbours).

    Args:
        image: RGB pixels.
        maps: any scores; on the image's device.
        config: dilations and number of iterations.

    Returns:
        Refined maps in float32, each value within the range of its input map.
    """
    return pamr_together(image[None], maps[None], config)[0]


def pamr_together(
    images: UInt8[Tensor, "batch 3 height width"],
    maps: Float[Tensor, "batch label height width"],
    config: PamrConfig,
) -> Float[Tensor, "batch label height width"]:
    """Refine maps of several images of one size, each by the colours of its own; see `pamr`."""
    weights = _neighbour_weights(images.float(), config.dilations)
    refined = maps.float()
    for _ in range(config.iterations):
        refined = _update(refined, weights, config.dilations)
    return refined


def refine_by_pamr(
    image: UInt8[Tensor, "3 height width"], cam: ImageCam, background: float, config: PamrConfig
) -> ImageCam:
    """Refine an image's maps and make one half the border between an object and the background.

    The background is a map that is `background` everywhere. Refinement leaves it as it is, since a convex combination
    of one number is that number, so only the classes' maps are refined.

    Args:
        image: RGB pixels; their device does the work.
        cam: maps at the image's resolution.
        background: score of the background, the threshold of the seeds; `NO_BACKGROUND` where there is none.
        config: dilations and number of iterations.

    Returns:
        Maps foreground / (foreground + background), in [0, 1], where 0/0 counts as 0; the refined maps themselves
        where there is no background. No maps on the small grid. An image without any class is returned as it is.

    Raises:
        ArtifactError: when the maps were stored on the small grid only.
        DataError: when image and maps differ in size.
    """
    if not cam.class_ids:
        return cam
    full = maps_of_image(cam, image)
    foreground = pamr(image, full.to(image.device), config).clamp_min(0)
    if background == NO_BACKGROUND:
        return dataclasses.replace(cam, full=foreground.to(full.device), grid=None)
    share = shares_against(foreground, background)
    return dataclasses.replace(cam, full=share.to(full.device), grid=None)


def _neighbour_weights(
    image: Float[Tensor, "batch 3 height width"], dilations: tuple[int, ...]
) -> Float[Tensor, "neighbour batch height width"]:
    """Weigh each pixel's neighbours by colour; the weights of a pixel sum to one."""
    total, squares, num_neighbours = torch.zeros_like(image), torch.zeros_like(image), 0
    for neighbour in _neighbours(image, dilations):
        # The variance is computed from differences to the pixel itself: squares of grey levels would cancel each other
        # out and leave few digits.
        difference = neighbour - image
        total += difference
        squares.addcmul_(difference, difference)
        num_neighbours += 1
    window = num_neighbours + 1
    spread = ((squares - total.square() / window) / num_neighbours).clamp_min_(0).sqrt_()
    scale = 1 / (_SPREAD * spread + _EPSILON)
    weights = image.new_empty((num_neighbours, len(image), *image.shape[2:]))
    for weight, neighbour in zip(weights, _neighbours(image, dilations), strict=True):
        torch.mean((neighbour - image).abs_().mul_(scale), dim=1, out=weight)
    return weights.neg_().softmax(0)


def _update(
    maps: Float[Tensor, "batch label height width"],
    weights: Float[Tensor, "neighbour batch height width"],
    dilations: tuple[int, ...],
) -> Float[Tensor, "batch label height width"]:
    updated = torch.zeros_like(maps)
    for weight, neighbour in zip(weights, _neighbours(maps, dilations), strict=True):
        updated.addcmul_(neighbour, weight[:, None])
    return updated


def _neighbours(
    maps: Float[Tensor, "batch channel height width"], dilations: tuple[int, ...]
) -> Iterator[Float[Tensor, "batch channel height width"]]:
    """Yield the maps shifted to each neighbour: views, so that no copy per neighbour is kept."""
    height, width = maps.shape[2:]
    reach = max(dilations)
    padded = F.pad(maps, (reach, reach, reach, reach), mode="replicate")
    for dilation in dilations:
        for down in (-dilation, 0, dilation):
            for right in (-dilation, 0, dilation):
                if down or right:
                    top, left = reach + down, reach + right
                    yield padded[:, :, top : top + height, left : left + width]
