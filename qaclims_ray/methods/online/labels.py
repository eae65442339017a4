"""The masks that a network makes for itself: maps of the tagged classes, refined, cut at two thresholds."""

from typing import NamedTuple

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int64, UInt8
from torch import Tensor

from qaclims_ray.data.classes import BACKGROUND_VALUE, IGNORE_VALUE
from qaclims_ray.methods.online.config import OnlineConfig
from qaclims_ray.models.devices import constant, upload
from qaclims_ray.refine.pamr import pamr_together

_TINY = 1e-6


class PresentClasses(NamedTuple):
    """The tagged classes of every image, in slots: as many as the image with the most has, and at least one."""

    class_ids: Int64[Tensor, "batch slot"]
    """0 where a slot is empty."""
    is_tagged: Bool[Tensor, "batch slot"]
    """Whether a slot holds a class."""


def present_classes(tags: Float[Tensor, "batch class"], device: torch.device) -> PresentClasses:
    """Return the tagged classes of some images on a device; only they are refined, and not all that there are.

    Args:
        tags: 1 where an image shows a class; on the CPU, so that nothing waits for a device.
        device: where they go.
    """
    num_slots = max(1, int(tags.sum(1).max()))
    # Stable: an image's classes keep their order.
    ids = tags.argsort(dim=1, descending=True, stable=True)[:, :num_slots]
    is_tagged = tags.gather(1, ids) > 0
    return PresentClasses(upload(ids * is_tagged, device), upload(is_tagged, device))


def of_present(maps: Float[Tensor, "batch class cell"], present: PresentClasses) -> Float[Tensor, "batch slot cell"]:
    """Return the maps of the tagged classes."""
    return maps.gather(1, present.class_ids[:, :, None].expand(-1, -1, maps.shape[2]))


def stretched(maps: Float[Tensor, "batch slot cell"]) -> Float[Tensor, "batch slot cell"]:
    """Bring every map to the range from 0 to 1 (min-max)."""
    low, high = maps.amin(2, keepdim=True), maps.amax(2, keepdim=True)
    return (maps - low) / (high - low).clamp_min(_TINY)


def spread_by_affinity(
    maps: Float[Tensor, "batch slot cell"],
    affinity: Float[Tensor, "batch cell cell"],
    alike: Float[Tensor, "batch cell cell"],
    *,
    steps: int,
) -> Float[Tensor, "batch slot cell"]:
    """Let every cell take the mean of the cells that belong to it, `steps` times.

    The weight of cell j at cell i is affinity[i, j] * alike[i, j], divided by the sum over j: what the frozen encoder
    says of the two, as far as the network that learns agrees. While it has learned nothing its likenesses are all near
    one half, and the frozen encoder's word counts alone.

    Args:
        maps: any scores.
        affinity: of the encoder, not negative.
        alike: of the decoder's features, from 0 to 1.
        steps: how often; 0 gives the maps back.
    """
    weights = affinity * alike
    weights = weights / weights.sum(2, keepdim=True).clamp_min(_TINY)
    for _ in range(steps):
        maps = maps @ weights.transpose(1, 2)
    return maps


def online_labels(
    scores: Float[Tensor, "batch slot height width"],
    present: PresentClasses,
    outside: UInt8[Tensor, "batch height width"],
    *,
    above: float,
    below: float,
) -> UInt8[Tensor, "batch height width"]:
    """Cut the maps of the tagged classes into label maps.

    A pixel takes the class of its highest score where that is at least `above`; below `below` it is background; between
    the two it has no label (255), and so has what lies outside of the image. An image without a tag is background.

    Args:
        scores: of the tagged classes; those of empty slots are not looked at.
        present: the classes.
        outside: 255 beyond the image, 0 within.
        above: lowest score of an object.
        below: what the background's scores stay under; at most `above`.
    """
    highest, slot = scores.masked_fill(~present.is_tagged[:, :, None, None], 0).max(1)
    class_ids = present.class_ids.gather(1, slot.flatten(1)).view_as(slot)
    labels = torch.where(highest >= above, (class_ids + 1).to(torch.uint8), IGNORE_VALUE)
    labels = torch.where(highest < below, BACKGROUND_VALUE, labels)
    # Without a tag the highest of nothing was set to 0: background even where `below` is 0.
    labels = labels * present.is_tagged.any(1)[:, None, None]
    return torch.maximum(labels.to(torch.uint8), outside)


@torch.no_grad()
def labels_of_maps(
    maps: Float[Tensor, "batch slot rows columns"],
    image: Float[Tensor, "batch 3 height width"],
    normalisation: tuple[tuple[float, float, float], tuple[float, float, float]],
    present: PresentClasses,
    outside: UInt8[Tensor, "batch height width"],
    online: OnlineConfig,
) -> UInt8[Tensor, "batch height width"]:
    """Enlarge refined maps to the image, sharpen them by its colours (PAMR) and cut them.

    Args:
        maps: from 0 to 1, on the encoder's grid.
        image: normalised.
        normalisation: mean and deviation of the image, on the 0-1 scale.
        present: see `online_labels`.
        outside: see `online_labels`.
        online: PAMR and thresholds.
    """
    full = F.interpolate(maps, size=image.shape[2:], mode="bilinear", align_corners=False)
    mean, std = (constant(values, image.device)[:, None, None] for values in normalisation)
    pixels = ((image.float() * std + mean) * 255).round().clamp(0, 255).to(torch.uint8)
    sharp = pamr_together(pixels, full, online.pamr)
    return online_labels(sharp, present, outside, above=online.object_above, below=online.background_below)
