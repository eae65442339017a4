"""How well a classifier tells which classes an image shows: needs image labels alone.

Average precision of a class: images sorted by its probability, the mean of the precision at each image that shows it.
It does not depend on a threshold; accuracy, and what is missed and invented, are at probability one half.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float

PRESENT = 0.5
"""Probability from which a class counts as found, as in `predict`."""


@dataclass(frozen=True)
class ClassAccuracy:
    """How well one class is told."""

    num_images: int
    """Images that show it."""
    average_precision: float | None
    """None where no image shows it, or all do: there is nothing to tell."""
    recall: float | None
    """Share of its images whose probability is at least one half; None without any."""
    precision: float | None
    """Share of the images with such a probability that show it; None without any."""


@dataclass(frozen=True)
class ClassifierFigures:
    """How well a classifier tells the classes of images."""

    split: str
    """Split of the images."""
    is_held_out: bool
    """Whether it did not learn from any of them."""
    num_images: int
    """How many they are."""
    mean_average_precision: float | None
    """Over the classes that have one."""
    accuracy: float
    """Share of right answers over all images and classes, at one half."""
    classes: dict[str, ClassAccuracy]
    """By class."""


def average_precision(scores: Float[np.ndarray, " image"], shown: Bool[np.ndarray, " image"]) -> float | None:
    """Return the average precision of one class; images of equal scores count as found together.

    Args:
        scores: higher is more probable.
        shown: whether each image shows the class.
    """
    if not shown.any() or shown.all():
        return None
    order = np.argsort(-scores, kind="stable")
    hits = shown[order].astype(np.float64)
    # The last place of each score: what stands level is found at once, whatever its order.
    sorted_scores = scores[order]
    last = np.append(sorted_scores[1:] != sorted_scores[:-1], True)
    found, seen = hits.cumsum()[last], np.arange(1, len(scores) + 1)[last]
    return float((np.diff(found, prepend=0.0) * found / seen).sum() / hits.sum())


def classifier_figures(
    probabilities: Float[np.ndarray, "image class"],
    shown: Bool[np.ndarray, "image class"],
    class_names: Sequence[str],
    *,
    split: str,
    is_held_out: bool,
) -> ClassifierFigures:
    """Return all figures.

    Args:
        probabilities: of each class.
        shown: whether each image is labelled with it.
        class_names: of the classes, in order.
        split: see `ClassifierFigures`.
        is_held_out: see `ClassifierFigures`.
    """
    found = probabilities >= PRESENT
    classes = {}
    for class_id, name in enumerate(class_names):
        own, there = found[:, class_id], shown[:, class_id]
        right = int((own & there).sum())
        classes[name] = ClassAccuracy(
            num_images=int(there.sum()),
            average_precision=average_precision(probabilities[:, class_id], there),
            recall=right / int(there.sum()) if there.any() else None,
            precision=right / int(own.sum()) if own.any() else None,
        )
    known = [one.average_precision for one in classes.values() if one.average_precision is not None]
    return ClassifierFigures(
        split=split,
        is_held_out=is_held_out,
        num_images=len(shown),
        mean_average_precision=sum(known) / len(known) if known else None,
        accuracy=float((found == shown).mean()) if shown.size else 0.0,
        classes=classes,
    )
