"""From CAMs to the masked pictures that CLIP sees (QA-CLIMS Eq. 3, 4, 10; rows R2, R5, R6)."""

from dataclasses import dataclass
from typing import Literal

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float
from torch import Tensor

RegionMode = Literal["token_mask", "pixel_mask", "both", "none"]


@dataclass(frozen=True)
class Regions:
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
        return torch.tensor(values, dtype=image.dtype, device=image.device)[:, None, None]

    return (image * channels(from_std) + channels(from_mean) - channels(to_mean)) / channels(to_std)


def compose_regions(
    image: Float[Tensor, "pair 3 height width"],
    cam: Float[Tensor, "pair height width"],
    is_foreground: Bool[Tensor, "pair height width"],
    *,
    mode: RegionMode,
) -> Regions:
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
    weights = torch.cat([cam, 1 - cam])  # (region, height, width)
    masks = torch.cat([foreground, 1 - foreground])  # (region, height, width)
    if mode in ("pixel_mask", "both"):
        weights = weights * masks
    pixels = torch.cat([image, image]) * weights.unsqueeze(1)
    return Regions(pixels=pixels, token_mask=masks.unsqueeze(1) if mode in ("token_mask", "both") else None)
