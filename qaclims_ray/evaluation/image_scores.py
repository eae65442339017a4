"""What single images score: the mean IoU of each image's own classes, for lists that begin with the worst."""

import numpy as np

from qaclims_ray.evaluation.bootstrap import Interval, iou_of, mean_of, paired_bootstrap
from qaclims_ray.evaluation.image_counts import ScoredImages


def image_scores(scored: ScoredImages) -> dict[str, float]:
    """Return image id -> mean IoU of its classes, those that its mask or its labels hold; the background is left out.

    It is the number in the corner of a contact sheet's masks (`contact_sheet.present_iou`). An image without a class
    has none, and is left out.
    """
    first = 1 if scored.labels[0] == "background" else 0
    counts = scored.counts[:, first:]
    held = (counts[..., 2] > 0) | scored.labelled[:, first:]
    iou = np.where(held, np.nan_to_num(iou_of(counts)), 0.0)
    means = np.divide(iou.sum(1), held.sum(1), out=np.full(len(iou), np.nan), where=held.any(1))
    return {name: float(mean) for name, mean in zip(scored.image_ids, means, strict=True) if np.isfinite(mean)}


def own_interval(scored: ScoredImages, *, num_resamples: int, seed: int) -> Interval | None:
    """Return the bootstrap interval of a mean IoU over its images; None without any.

    Args:
        scored: counts of one figure.
        num_resamples: how often images are drawn.
        seed: of the draws.
    """
    # A run without a single right pixel has an mIoU of 0, so the difference to it is the figure itself.
    nothing = scored.counts.copy()
    nothing[..., :2] = 0
    averaged = scored.scored_labels().averaged
    return paired_bootstrap(nothing, scored.counts, averaged, num_resamples=num_resamples, seed=seed).miou


def own_mean(scored: ScoredImages) -> float:
    """Return the mean IoU over the labels that means are over, as scores have it."""
    return float(mean_of(iou_of(scored.counts.sum(0)), scored.scored_labels().averaged))
