"""From CAMs to the masked pictures that CLIP sees: foreground adaptive thresholding, FAT, and what it cuts out.

QA-CLIMS Eq. 3, 4, 9, 10; rows R2, R4, R5, R6.
"""

from dataclasses import dataclass
from typing import Literal

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int64
from torch import Tensor
from torchvision.ops import roi_align

from qaclims_ray.models.devices import constant

RegionMode = Literal["token_mask", "pixel_mask", "both", "none"]


@dataclass(frozen=True)
class RegionPictures:
    """Foreground regions of all pairs, then background regions of all pairs: one batch for CLIP."""

    pixels: Float[Tensor, "region 3 height width"]
    """Masked pictures; zero is the mean colour of their normalisation."""
    token_mask: Float[Tensor, "region 1 height width"] | None
    """1 where the pixel belongs to the region, for a mask-adapted CLIP; None sends all tokens as they are."""


def resize_bilinear(
    maps: Float[Tensor, "batch channel height width"], size: int, *, antialias: bool = False
) -> Float[Tensor, "batch channel {size} {size}"]:
    """Resize to a square, bilinear with aligned corners as in the released code (R6).

    Args:
        maps: images or CAMs.
        size: side of the result in pixels.
        antialias: smooth when shrinking; the released code does not.
    """
    return F.interpolate(maps, (size, size), mode="bilinear", align_corners=True, antialias=antialias)


def renormalise(
    image: Float[Tensor, "batch 3 height width"],
    *,
    from_mean: tuple[float, ...],
    from_std: tuple[float, ...],
    to_mean: tuple[float, ...],
    to_std: tuple[float, ...],
) -> Float[Tensor, "batch 3 height width"]:
    """Change the normalisation of an image: undo one mean and deviation (0-1 scale), apply another (R5)."""

    def channels(values: tuple[float, ...]) -> Tensor:
        return constant(values, image.device, image.dtype)[:, None, None]

    return (image * channels(from_std) + channels(from_mean) - channels(to_mean)) / channels(to_std)


def cam_maximum(cam: Float[Tensor, "pair height width"]) -> Float[Tensor, " pair"]:
    """Return the largest value of each map, without gradient."""
    return cam.detach().amax(dim=(-2, -1))


def foreground_mask(
    cam: Float[Tensor, "pair height width"], maximum: Float[Tensor, " pair"], *, omega: float
) -> Bool[Tensor, "pair height width"]:
    """Say which pixels count as foreground: those that reach a share of their map's maximum.

    QA-CLIMS Eq. 9 and 10, symbols theta and b: b = [P >= omega * max(P)]. The mask carries no gradient.

    A map whose maximum is not positive responds nowhere, so nothing of it is foreground. The released code agrees
    for negative maxima, but calls a map of zeros all foreground (0 >= 0). Sigmoid maps reach zero only by
    underflow, so training is not touched by the difference.

    Args:
        cam: maps P; a sigmoid's output.
        maximum: the maximum of each map, taken at CLIP's or the CAM's own resolution (R4).
        omega: share of the maximum, in [0, 1].
    """
    maximum = maximum.detach()[:, None, None]
    return (cam.detach() >= omega * maximum) & (maximum > 0)


def compose_regions(
    image: Float[Tensor, "pair 3 height width"],
    cam: Float[Tensor, "pair height width"],
    is_foreground: Bool[Tensor, "pair height width"],
    *,
    mode: RegionMode,
) -> RegionPictures:
    """Cut the foreground and the background region out of each pair's image.

    With X the image, P the CAM and b FAT's mask (R2):

    ========== ======================= ==================================== ===================
    mode       foreground pixels       background pixels                    token masks
    ========== ======================= ==================================== ===================
    token_mask P * X                   (1 - P) * X                          b and 1 - b
    pixel_mask P * b * X               (1 - P) * (1 - b) * X                none
    both       P * b * X               (1 - P) * (1 - b) * X                b and 1 - b
    none       P * X                   (1 - P) * X                          none (FAT off)
    ========== ======================= ==================================== ===================

    `token_mask` is the released code with its mask-adapted CLIP, `pixel_mask` the paper's wording (Eq. 10).
    """
    foreground = is_foreground.to(cam.dtype)
    # The soft map weighs the pixels, and the gradient flows through it; the binary one only switches.
    weights = torch.cat([cam, 1 - cam])  # (region, height, width)
    masks = torch.cat([foreground, 1 - foreground])  # (region, height, width)
    if mode in ("pixel_mask", "both"):
        weights = weights * masks
    pixels = torch.cat([image, image]) * weights.unsqueeze(1)
    return RegionPictures(pixels=pixels, token_mask=masks.unsqueeze(1) if mode in ("token_mask", "both") else None)


def crop_regions(regions: RegionPictures, masks: Bool[Tensor, "region height width"]) -> RegionPictures:
    """Enlarge each region's bounding box to the whole picture, aspect not kept (R6).

    OVSeg, whose mask-adapted CLIP QA-CLIMS uses, shows CLIP such crops; the released code of QA-CLIMS does not. What
    lies outside the region but inside the box stays as it is masked. A region without pixels stays whole.

    Args:
        regions: masked pictures and token masks.
        masks: where each region is; carries no gradient.
    """
    height, width = masks.shape[-2:]
    boxes = _boxes(masks)
    index = torch.arange(len(masks), device=masks.device, dtype=regions.pixels.dtype)
    boxes = torch.cat([index[:, None], boxes.to(regions.pixels.dtype)], dim=1)

    # All boxes in one call; each output pixel takes one bilinear sample, so gradients reach the CAM.
    def crop(pictures: Tensor) -> Tensor:
        return roi_align(pictures, boxes, (height, width), sampling_ratio=1, aligned=True)

    # Enlarging makes grey values at the mask's edge. Every pixel that the region touches counts as part of it.
    token_mask = None if regions.token_mask is None else (crop(regions.token_mask) > 0).to(regions.token_mask.dtype)
    return RegionPictures(pixels=crop(regions.pixels), token_mask=token_mask)


def _boxes(masks: Bool[Tensor, "region height width"]) -> Int64[Tensor, "region 4"]:
    """Return left, top, right, bottom of each mask, right and bottom exclusive; of an empty one the whole picture."""
    height, width = masks.shape[1:]
    rows, columns = masks.any(dim=2).int(), masks.any(dim=1).int()
    # The first of equal values is the highest one's place, so an empty mask begins at 0, from either side.
    left, top = columns.argmax(1), rows.argmax(1)
    right, bottom = width - columns.flip(1).argmax(1), height - rows.flip(1).argmax(1)
    return torch.stack([left, top, right, bottom], dim=1)
