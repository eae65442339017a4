"""The confusion matrix and the figures read from it (method part 4).

Sums of pixels merge over images, shards and machines; averages do not, so figures are computed once, from the sum.
Functions take counts with any leading axes, so a whole sweep of thresholds is one call. Which labels a mean is over is
given, not read off the counts: it must not depend on what is predicted (`scored_labels.py`).
"""

import torch
from jaxtyping import Bool, Float64, Int64, UInt8
from torch import Tensor

from qaclims_ray.data.classes import BACKGROUND_VALUE, IGNORE_VALUE, label_value
from qaclims_ray.errors import ArtifactError, DataError


class ConfusionMatrix:
    """Pixel counts: row is the true label value, column the predicted one; pixels of value 255 are not counted."""

    def __init__(self, num_classes: int) -> None:
        self.num_classes = num_classes
        self.counts: Int64[Tensor, "truth prediction"] = torch.zeros(
            (num_classes + 1, num_classes + 1), dtype=torch.int64
        )

    def update(self, prediction: UInt8[Tensor, "height width"], labels: UInt8[Tensor, "height width"]) -> None:
        """Add one image.

        Args:
            prediction: predicted label values; 255 counts as background (E11).
            labels: true label values, 255 where nothing is scored.

        Raises:
            DataError: when a value is neither a class of this matrix nor 255.
        """
        check_label_values(labels, self.num_classes, "the ground truth")
        check_label_values(prediction, self.num_classes, "the prediction")
        is_scored = labels != IGNORE_VALUE
        predicted = torch.where(prediction == IGNORE_VALUE, BACKGROUND_VALUE, prediction)[is_scored].long()
        side = self.num_classes + 1
        pairs = labels[is_scored].long() * side + predicted
        self.counts += torch.bincount(pairs, minlength=side * side).view(side, side)

    def merge(self, other: "ConfusionMatrix") -> "ConfusionMatrix":
        """Add another matrix's counts to this one and return it.

        Raises:
            ArtifactError: when it was counted over another number of classes.
        """
        if other.num_classes != self.num_classes:
            raise ArtifactError(f"cannot add counts over {other.num_classes} classes to {self.num_classes}")
        self.counts += other.counts
        return self


def check_label_values(labels: UInt8[Tensor, "height width"], num_classes: int, what: str) -> None:
    """Refuse label values beyond the class list.

    Raises:
        DataError: names the value.
    """
    strange = (labels > label_value(num_classes - 1)) & (labels != IGNORE_VALUE)
    if bool(strange.any()):
        raise DataError(
            f"{what} holds label value {int(labels[strange][0])}, expected 0 to {num_classes} or {IGNORE_VALUE}: "
            "the masks belong to another class list"
        )


def _parts(
    counts: Int64[Tensor, "*threshold truth prediction"],
) -> tuple[
    Float64[Tensor, "*threshold label"], Float64[Tensor, "*threshold label"], Float64[Tensor, "*threshold label"]
]:
    """True positives, false positives and false negatives of each label value, background first."""
    true_positive = counts.diagonal(dim1=-2, dim2=-1)
    return true_positive.double(), (counts.sum(-2) - true_positive).double(), (counts.sum(-1) - true_positive).double()


def iou_per_label(counts: Int64[Tensor, "*threshold truth prediction"]) -> Float64[Tensor, "*threshold label"]:
    """Intersection over union of each label value, background first, as fractions.

    A label that neither the ground truth nor the prediction holds has no IoU: NaN.
    """
    true_positive, false_positive, false_negative = _parts(counts)
    return true_positive / (true_positive + false_positive + false_negative)


def mean_iou(
    iou: Float64[Tensor, "*threshold label"], averaged: Bool[Tensor, " label"]
) -> Float64[Tensor, "*threshold"]:
    """Mean over the same labels at every threshold; one of them without an IoU (NaN) counts as 0.

    Args:
        iou: of each label.
        averaged: which labels the mean is over (`scored_labels.ScoredLabels`).
    """
    # A sum with zeros in place of what is left out: bit for bit what a mean without NaN gives.
    return torch.where(averaged, iou.nan_to_num(nan=0.0), 0.0).sum(-1) / averaged.sum()


def dice_of(iou: float) -> float:
    """Return the Dice coefficient (F1) of a label from its IoU: 2 TP / (2 TP + FP + FN) = 2 IoU / (1 + IoU).

    Both are read from the sums over all images; a mean of the images' own coefficients is another figure.
    """
    return 2 * iou / (1 + iou)


def false_positive_rate(
    counts: Int64[Tensor, "*threshold truth prediction"], averaged: Bool[Tensor, " label"]
) -> Float64[Tensor, "*threshold"]:
    """Over-activation: mean over the foreground classes of FP / (TP + FP + FN), in [0, 1].

    IRN's definition: IoU, over- and under-activation of a class add up to 1, so they say where the IoU is lost.

    Args:
        counts: pixels.
        averaged: which label values means are over, the background's first, which is not read.
    """
    true_positive, false_positive, false_negative = _parts(counts)
    return _class_mean(false_positive / (true_positive + false_positive + false_negative), averaged, missing=0.0)


def false_negative_rate(
    counts: Int64[Tensor, "*threshold truth prediction"], averaged: Bool[Tensor, " label"]
) -> Float64[Tensor, "*threshold"]:
    """Under-activation: mean over the foreground classes of FN / (TP + FP + FN), in [0, 1] (IRN's definition).

    A class that images are labelled with, but neither truth nor prediction holds, is missed: 1, as its IoU is 0.

    Args:
        counts: pixels.
        averaged: as for `false_positive_rate`.
    """
    true_positive, false_positive, false_negative = _parts(counts)
    return _class_mean(false_negative / (true_positive + false_positive + false_negative), averaged, missing=1.0)


def _class_mean(
    rate: Float64[Tensor, "*threshold label"], averaged: Bool[Tensor, " label"], *, missing: float
) -> Float64[Tensor, "*threshold"]:
    """Mean over the averaged foreground classes, `missing` in place of NaN."""
    return mean_iou(rate[..., 1:].nan_to_num(nan=missing), averaged[1:])
