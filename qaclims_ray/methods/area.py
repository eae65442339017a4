"""The size of the activated area, kept small (QA-CLIMS Eq. 11)."""

import torch
from jaxtyping import Float
from torch import Tensor


def activated_area(probabilities: Float[Tensor, "batch class height width"]) -> Float[Tensor, "batch class"]:
    """Return the mean activation of each map over its pixels.

    QA-CLIMS Eq. 11, symbol L_REG, at the CAM's own resolution and in at least float32. Not reduced: the training
    step takes the mean over all classes (released code) or over the present ones (R13) of all workers' images.

    Args:
        probabilities: CAMs P in [0, 1].
    """
    return probabilities.to(torch.promote_types(probabilities.dtype, torch.float32)).mean(dim=(-2, -1))
