"""Choosing the background threshold without pixel labels.

The best threshold of a sweep is found with the masks that weak supervision is meant to do without. What every run
has is the histogram of its own scores, summed over images in the same pass that scores them. On the miniature it is no
good choice for RITC's CAMs, which are peaked: it takes about 0.37 where 0.03 is best (docs/log.md, 2026-11-20).
"""

from collections.abc import Sequence

import torch
from jaxtyping import Float64, Int64
from torch import Tensor

from qaclims_ray.errors import DataError


def otsu_index(histogram: Int64[Tensor, " bin"], thresholds: Sequence[float]) -> int:
    """Return the position of the threshold that best parts low from high scores, by Otsu's criterion.

    Otsu (1979), "A threshold selection method from gray-level histograms": the threshold that maximises the variance
    between the two sides, w0 * w1 * (mu0 - mu1)^2, which is to minimise the variance within them.

    Args:
        histogram: pixels between neighbouring thresholds: bin 0 holds scores up to the first threshold, the last
            bin those above the last.
        thresholds: rising, in (0, 1); one fewer than bins.

    Raises:
        DataError: when no pixel was counted.
    """
    if int(histogram.sum()) == 0:
        raise DataError("no image has a foreground class: there are no scores to choose a threshold from")
    edges = torch.tensor([0.0, *thresholds, 1.0], dtype=torch.float64)
    centres: Float64[Tensor, " bin"] = (edges[1:] + edges[:-1]) / 2
    share = histogram.double() / histogram.sum()
    below, moment = share.cumsum(0)[:-1], (share * centres).cumsum(0)
    # Otsu's criterion with the means multiplied out. With nothing on one side it is 0 / 0, which has to count as 0.
    spread = (moment[-1] * below - moment[:-1]) ** 2 / (below * (1 - below)).clamp_min(1e-12)
    return int(spread.argmax())
