"""REG, the size of the activated area, kept small: QA-CLIMS Eq. 11, which CLIMS has too (its delta term)."""

from typing import Literal

import torch
from jaxtyping import Float, Int
from torch import Tensor

from qaclims_ray.models.devices import upload


def activated_area(probabilities: Float[Tensor, "batch class height width"]) -> Float[Tensor, "batch class"]:
    """Return the mean activation of each map over its pixels.

    QA-CLIMS Eq. 11, symbol L_REG, at the CAM's own resolution and in at least float32. Not reduced: the training
    step takes the mean over all classes (released code) or over the present ones (R13) of all workers' images, see
    `area_share`.

    Args:
        probabilities: CAMs P in [0, 1].
    """
    return probabilities.to(torch.promote_types(probabilities.dtype, torch.float32)).mean(dim=(-2, -1))


def area_share(
    areas: Float[Tensor, "batch class"],
    present: Int[Tensor, "present 2"],
    *,
    over: Literal["all", "present"],
    num_present: Int[Tensor, ""],
    images_per_step: int,
) -> Float[Tensor, ""]:
    """Return this worker's share of the mean activated area (REG; R13).

    Args:
        areas: of every class.
        present: position in the batch and class of every pair.
        over: mean over all classes (official) or present ones.
        num_present: pairs of the step over all workers, at least 1.
        images_per_step: images of the step over all workers.
    """
    if over == "all":
        # Absent classes count too, as released: their maps should be small everywhere.
        return areas.sum() / (images_per_step * areas.shape[1])
    image, class_id = upload(present, areas.device).unbind(dim=1)
    return areas[image, class_id].sum() / num_present
