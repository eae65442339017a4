"""What a few masks made by hand would tell: how far an mIoU over so many images moves with the choice of images.

Without any mask there is no mIoU to resample. What stands in for it is the agreement of two stages, which is an mIoU
with one of them in the place of the truth: it varies from image to image for the same reasons, hard and easy ones.
"""

import numpy as np
from jaxtyping import Float64, Int64

from qaclims_ray.evaluation.bootstrap import LEVEL, Interval, iou_of

NUMBER = 20
"""Images that a person may want to label by hand."""
_RESAMPLES = 2000


def interval_of_few(
    counts: Int64[np.ndarray, "image label 3"], *, number: int = NUMBER, seed: int = 0
) -> Interval | None:
    """Return where the middle 95 % of the mean IoUs over so many images lie; None where no image has one.

    Each resample draws so many images with replacement, adds up their counts, and takes the mean over the labels that
    the "truth" of its images holds, as a person would who has no other masks.

    Args:
        counts: (intersection, predicted, truth) of each image and label.
        number: images of a resample.
        seed: of the draws.
    """
    if not len(counts) or not counts.any():
        return None
    drawn = np.random.default_rng(seed).integers(len(counts), size=(_RESAMPLES, number))
    sums = np.stack([counts[rows].sum(0) for rows in drawn])
    found = _means(sums)
    found = found[np.isfinite(found)]
    if not found.size:
        return None
    low, high = np.quantile(found, [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
    return Interval(float(low), float(high))


def mean_with_interval(
    counts: Int64[np.ndarray, "image label 3"], *, num_resamples: int, seed: int
) -> tuple[float, Interval | None]:
    """Return the mean IoU over labels that the truth holds, and its bootstrap interval over these images.

    Args:
        counts: (intersection, predicted, truth) of each image and label.
        num_resamples: how often images are drawn.
        seed: of the draws.
    """
    drawn = np.random.default_rng(seed).integers(len(counts), size=(num_resamples, len(counts)))
    found = _means(np.stack([counts[rows].sum(0) for rows in drawn]))
    found = found[np.isfinite(found)]
    mean = float(_means(counts.sum(0)[None])[0])
    if not found.size:
        return mean, None
    low, high = np.quantile(found, [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
    return mean, Interval(float(low), float(high))


def _means(sums: Int64[np.ndarray, "resample label 3"]) -> Float64[np.ndarray, " resample"]:
    """Return the mean IoU of each resample over the labels that its truth holds; NaN where it holds none."""
    held = sums[..., 2] > 0
    total = np.where(held, np.nan_to_num(iou_of(sums)), 0.0).sum(-1)
    return np.divide(total, held.sum(-1), out=np.full(len(sums), np.nan), where=held.any(-1))
