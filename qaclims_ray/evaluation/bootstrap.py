"""Paired bootstrap over images: how far a difference of mIoU would move with other images of the same kind.

A resample draws as many images as there are, with replacement, the same ones for both runs, adds up their counts and
computes the figures anew, as scoring does. Nothing is averaged over images, because mIoU is no mean over images.
Means are over the same labels in every resample. A resample may hold no pixel of one of them: it counts as 0 on both
sides there, so it adds nothing to the difference, and the mean stays one over as many labels. The label's own interval
is over the resamples whose truth holds it.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float64, Int

LEVEL = 0.95
"""Share of the resamples inside an interval."""
_CELLS_AT_ONCE = 1 << 22
"""Draws held in memory together: 32 MiB."""


@dataclass(frozen=True)
class Interval:
    """A percentile interval, fractions."""

    low: float
    """Lower end."""
    high: float
    """Upper end."""


@dataclass(frozen=True)
class BootstrapDifference:
    """Intervals of differences, other minus first; None where no resample has the figure."""

    miou: Interval | None
    """Of the mean IoU."""
    labels: tuple[Interval | None, ...]
    """Of each label's IoU, over the resamples whose truth holds it."""


def iou_of(counts: Int[np.ndarray, "*_ 3"] | Float64[np.ndarray, "*_ 3"]) -> Float64[np.ndarray, "*_"]:
    """Return IoU from (intersection, predicted, truth); NaN where neither truth nor prediction has the label."""
    union = counts[..., 1] + counts[..., 2] - counts[..., 0]
    return np.divide(counts[..., 0], union, out=np.full(union.shape, np.nan), where=union > 0)


def mean_of(iou: Float64[np.ndarray, "*_ label"], averaged: Bool[np.ndarray, " label"]) -> Float64[np.ndarray, "*_"]:
    """Return the mean over labels; NaN where it is over none.

    Args:
        iou: of each label; one that has none (NaN) counts as 0.
        averaged: which labels the mean is over.
    """
    total = np.asarray(np.where(averaged & np.isfinite(iou), iou, 0.0).sum(-1))
    return np.divide(total, averaged.sum(), out=np.full_like(total, np.nan), where=averaged.any())


def paired_bootstrap(
    first: Int[np.ndarray, "image label 3"],
    other: Int[np.ndarray, "image label 3"],
    averaged: Bool[np.ndarray, " label"],
    *,
    num_resamples: int,
    seed: int,
) -> BootstrapDifference:
    """Return percentile intervals of IoU differences under resampling of images.

    Args:
        first: counts of one run (see `ScoredImages`).
        other: counts of another on the same images in the same order, with the same truth.
        averaged: which labels means are over, in every resample.
        num_resamples: how often images are drawn.
        seed: of the draws; equal seeds draw equal images for any two runs on as many images.
    """
    from scipy.sparse import csr_array  # takes a quarter of a second to load

    # An image has few of the labels, so most counts are 0. Sums of pixels stay far below 2^53: in float64 they are
    # exact, in whichever order they are added.
    flat = [csr_array(counts.reshape(len(counts), -1), dtype=np.float64) for counts in (first, other)]
    means, labels = [], []
    for weights in _draws(len(first), num_resamples, np.random.default_rng(seed)):
        sums = [(weights @ counts).reshape(len(weights), *first.shape[1:]) for counts in flat]
        one, two = (iou_of(counts) for counts in sums)
        means.append(mean_of(two, averaged) - mean_of(one, averaged))
        # Where the truth has no pixel of a label, whether it has an IoU would hang on what is predicted.
        labels.append(np.where((sums[0][..., 2] > 0) & (sums[1][..., 2] > 0), two - one, np.nan))
    return BootstrapDifference(
        miou=_interval(np.concatenate(means)),
        labels=tuple(_interval(values) for values in np.concatenate(labels).T),
    )


def _draws(
    num_images: int, num_resamples: int, generator: np.random.Generator
) -> Iterator[Float64[np.ndarray, "resample image"]]:
    """Yield how often each image is drawn, a few resamples at a time."""
    at_once = max(1, _CELLS_AT_ONCE // num_images)
    for start in range(0, num_resamples, at_once):
        size = min(at_once, num_resamples - start)
        drawn = generator.integers(num_images, size=(size, num_images))
        cells = (drawn + num_images * np.arange(size)[:, None]).ravel()
        # How often each image is drawn, not which: a resample's sums are then one row of a matrix product.
        yield np.bincount(cells, minlength=size * num_images).reshape(size, num_images).astype(np.float64)


def _interval(values: Float64[np.ndarray, " resample"]) -> Interval | None:
    found = values[np.isfinite(values)]
    if not found.size:
        return None
    low, high = np.quantile(found, [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
    return Interval(float(low), float(high))
