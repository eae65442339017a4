"""Seeds choose and label the class-agnostic masks of SAM (step "sam").

The rule of "Segment Anything Model Enhanced Pseudo Labels for Weakly Supervised Semantic Segmentation" (Chen et al.
2023), which the SAM rows of the SemPLeS paper build on: a mask belongs to a class that fills it, or whose seed it
holds. The edges come from SAM, the classes from the seeds.
"""

import dataclasses

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, UInt8
from torch import Tensor

from qaclims_ray.cams.inference import ImageCam
from qaclims_ray.data.classes import BACKGROUND_VALUE, IGNORE_VALUE, label_value
from qaclims_ray.errors import DataError
from qaclims_ray.refine.config import SamConfig


def label_masks(
    seeds: UInt8[Tensor, "height width"], masks: Bool[Tensor, "mask height width"], config: SamConfig
) -> UInt8[Tensor, "height width"]:
    """Label an image by the masks that its seeds choose.

    With |M| the area of a mask, |S| that of a class's seed and n the area that both share:

    1. A mask is inside a class when n / |M| >= `min_inside`, and covers it when n / |S| >= `min_covered` (n > 0).
    2. Of the masks that cover a class, only the tightest counts: the one of highest n / |M|, of equals the first.
    3. A mask takes a class that it is inside of, or that it is the tightest cover of; of several classes, the one
       with the larger n, of equals the lower one.
    4. A pixel takes the class of the masks that hold it; of masks of several classes, that of the mask with the
       highest n / |M|, of equals the first (SAM's best).
    5. A pixel that no chosen mask holds keeps its seed when no mask took that class; otherwise it is background.
       Ignored pixels (255) that no chosen mask holds stay ignored.

    Chen et al. have 1 (with 0.5 and 0.85), the larger overlap in 3, the union of masks in 4 and the kept seeds in 5.
    Ours: 2, because SAM also returns masks of an object with all that is around it, and each of those covers the
    seed; the order of masks in 4; and that pixels of 255 belong to no seed, but do count in |M|.

    Args:
        seeds: label values.
        masks: class-agnostic masks, best first; on the seeds' device.
        config: the two shares.
    """
    values = [value for value in seeds.unique().tolist() if value not in (BACKGROUND_VALUE, IGNORE_VALUE)]
    if not values or not len(masks):
        return seeds.clone()
    overlap = torch.stack([(masks & (seeds == value)).sum((1, 2)) for value in values], 1).double()  # (mask, class)
    inside = overlap / masks.sum((1, 2)).clamp_min(1)[:, None]
    covered = overlap / torch.stack([(seeds == value).sum() for value in values])
    covers = (overlap > 0) & (covered >= config.min_covered)
    takes = ((overlap > 0) & (inside >= config.min_inside)) | _tightest(covers, inside)
    column = torch.where(takes, overlap, -1.0).argmax(1)
    chosen = takes.any(1)
    found = set(column[chosen].tolist())
    kept = [value for index, value in enumerate(values) if index not in found]
    is_kept = torch.isin(seeds, seeds.new_tensor([*kept, IGNORE_VALUE]))
    labels = torch.where(is_kept, seeds, BACKGROUND_VALUE).to(torch.uint8)
    share = inside.gather(1, column[:, None])[:, 0]
    # Worst first, so that the purest mask lies on top; the sort keeps SAM's order among equals.
    for position in torch.sort(share, descending=True, stable=True).indices.flip(0).tolist():
        if chosen[position]:
            labels[masks[position]] = values[int(column[position])]
    return labels


def refine_by_sam(
    cam: ImageCam,
    seeds: UInt8[Tensor, "height width"],
    masks: Bool[Tensor, "mask height width"],
    config: SamConfig,
) -> ImageCam:
    """Label the masks of an image by its seeds, as maps that are 1 where a class is and 0 elsewhere.

    Args:
        cam: names the image and its classes; its maps are not read.
        seeds: label map of these classes.
        masks: class-agnostic masks, best first.
        config: which masks are chosen.

    Returns:
        Maps at the image's resolution, on the CPU; no maps on the small grid.

    Raises:
        DataError: when the seeds hold another class or ignored pixels, which such maps cannot show, or have another
            size.
    """
    known = [label_value(class_id) for class_id in cam.class_ids]
    if foreign := set(seeds.unique().tolist()) - {BACKGROUND_VALUE, *known}:
        raise DataError(
            f"the seeds of {cam.image_id} hold the label values {sorted(foreign)}; expected {BACKGROUND_VALUE} and "
            f"those of its classes, {known}; make them by label_map from the same maps"
        )
    if tuple(seeds.shape) != (cam.height, cam.width):
        raise DataError(
            f"the seeds of {cam.image_id} have {tuple(seeds.shape)} pixels, the image {(cam.height, cam.width)}; make "
            "them by label_map from the same maps"
        )
    labels = label_masks(seeds, masks, config).cpu()
    full = torch.zeros((len(known), cam.height, cam.width))
    for one, value in zip(full, known, strict=True):
        one[labels == value] = 1.0
    return dataclasses.replace(cam, full=full, grid=None)


def _tightest(covers: Bool[Tensor, "mask class"], inside: Float[Tensor, "mask class"]) -> Bool[Tensor, "mask class"]:
    """Of the masks that cover a class, the one that the class fills most."""
    first = torch.where(covers, inside, -1.0).argmax(0)
    return covers & F.one_hot(first, len(covers)).T.bool()
