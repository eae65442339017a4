"""Foreground adaptive thresholding, FAT (QA-CLIMS Eq. 9, 10)."""

from jaxtyping import Bool, Float
from torch import Tensor


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
