"""Scoring of seeds at every background threshold in one pass over the maps (row E3).

A pixel's foremost class and that class's score decide its label at every threshold: background while the threshold
is at least the score, the class below. So one histogram over (true label, foremost class, score bin) holds the
confusion matrices of the whole sweep, and cumulative sums read them off. No map is visited twice, none is kept.
Beside it images are counted by label: what they are labelled with and what the truth holds says over which labels the
means are (`scored_labels.py`), for all thresholds the same.
Without a background the sweep has one threshold, `NO_BACKGROUND`, and figures are over the classes alone.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Int64, Shaped, UInt8
from torch import Tensor

from qaclims_ray.data.classes import IGNORE_VALUE, NO_BACKGROUND, Classes, label_value
from qaclims_ray.errors import ArtifactError, ConfigError, DataError
from qaclims_ray.evaluation.config import EvaluationConfig
from qaclims_ray.evaluation.confusion import (
    check_label_values,
    dice_of,
    false_negative_rate,
    false_positive_rate,
    iou_per_label,
    mean_iou,
)
from qaclims_ray.evaluation.foremost import ClassMaps, Foremost, foremost_of
from qaclims_ray.evaluation.scored_labels import ScoredLabels


@dataclass(frozen=True, kw_only=True)
class SweepCurve:
    """Figures at each threshold of the sweep; all but the thresholds use pixel labels."""

    thresholds: tuple[float, ...]
    """Background scores, rising."""
    miou: tuple[float, ...]
    """Mean IoU over background and classes, fractions; over the same labels at every threshold."""
    false_positive_rate: tuple[float, ...]
    """Over-activation."""
    false_negative_rate: tuple[float, ...]
    """Under-activation."""


@dataclass(frozen=True, kw_only=True)
class SeedScores:
    """How good seeds are. Every figure compares with masks; only the fields marked (*) also *choose* by them."""

    threshold_fixed: float
    """Background score given beforehand; without a background all thresholds are `NO_BACKGROUND`."""
    miou_fixed: float
    """Mean IoU over background and classes at the fixed threshold, a fraction."""
    false_positive_rate: float
    """Over-activation at the fixed threshold: mean over classes of FP / (TP + FP + FN)."""
    false_negative_rate: float
    """Under-activation at the fixed threshold: mean over classes of FN / (TP + FP + FN)."""
    iou: dict[str, float]
    """IoU of the background and each class at the fixed threshold; NaN for those that are left out of means."""
    threshold_label_free: float
    """Background score chosen without pixel labels (`threshold.py`); of label maps the fixed one."""
    miou_label_free: float
    """Mean IoU at the label-free threshold."""
    threshold_best: float
    """(*) Background score with the highest mean IoU of the sweep, found with pixel labels."""
    miou_best: float
    """(*) Highest mean IoU of the sweep; what papers usually call the seed's mIoU."""
    false_positive_rate_best: float
    """(*) Over-activation at the best threshold."""
    false_negative_rate_best: float
    """(*) Under-activation at the best threshold."""
    iou_best: dict[str, float]
    """(*) IoU of the background and each class at the best threshold."""
    curve: SweepCurve
    """The whole sweep."""
    num_images: int
    """Scored images."""
    in_no_mask: tuple[str, ...] = ()
    """Labels that images are labelled with though no mask holds them: they count as 0."""

    @property
    def has_background(self) -> bool:
        """Whether the background was a label."""
        return self.threshold_fixed != NO_BACKGROUND

    @property
    def left_out(self) -> tuple[str, ...]:
        """Labels that no mean is over, at no threshold: neither truth nor labels of the scored images hold them."""
        return tuple(name for name, iou in self.iou.items() if math.isnan(iou))

    @property
    def dice(self) -> dict[str, float]:
        """Dice coefficient of each label of `iou`."""
        return {name: dice_of(iou) for name, iou in self.iou.items()}

    @property
    def dice_best(self) -> dict[str, float]:
        """(*) Dice coefficient of each label of `iou_best`."""
        return {name: dice_of(iou) for name, iou in self.iou_best.items()}

    @property
    def mdice_fixed(self) -> float:
        """Mean of `dice` over the labels that `miou_fixed` is over, a fraction."""
        return self._mean(self.dice)

    @property
    def mdice_best(self) -> float:
        """(*) Mean of `dice_best`."""
        return self._mean(self.dice_best)

    def _mean(self, figures: Mapping[str, float]) -> float:
        return float(np.mean([value for name, value in figures.items() if name not in self.left_out]))


def sweep_thresholds(config: EvaluationConfig, classes: Classes) -> tuple[float, ...]:
    """Return the thresholds of the sweep, rising, the fixed one among them where it is set.

    Args:
        config: of a run's `scoring`, where the fixed threshold is set.
        classes: without a background `NO_BACKGROUND` is the only threshold.
    """
    if not classes.has_background:
        return (NO_BACKGROUND,)
    num_steps = round((config.sweep_max - config.sweep_min) / config.sweep_step)
    steps = [round(config.sweep_min + step * config.sweep_step, 6) for step in range(num_steps + 1)]
    fixed = [] if config.fixed_threshold is None else [round(config.fixed_threshold, 6)]
    return tuple(sorted({*(t for t in steps if t <= config.sweep_max), *fixed}))


class ThresholdSweep:
    """Mergeable pixel counts that hold the confusion matrix at every threshold."""

    def __init__(self, thresholds: Sequence[float], num_classes: int) -> None:
        self.thresholds = tuple(float(threshold) for threshold in thresholds)
        self.num_classes = num_classes
        edges = torch.tensor(self.thresholds, dtype=torch.float32)
        if not self.thresholds or bool((edges.diff() <= 0).any()):
            raise ConfigError("the thresholds of a sweep must rise, and differ in float32")
        num_bins = len(self.thresholds) + 1
        self.counts = torch.zeros((num_classes + 1, num_classes, num_bins), dtype=torch.int64)
        """Scored pixels by true label value, foremost class and score bin."""
        self.images = torch.zeros(1 + num_classes, dtype=torch.int64)
        """Scored images: all of them, then those labelled with each class."""

    def update(
        self, cam: ClassMaps, label_map: UInt8[Tensor, "height width"], labels: Sequence[int] | None = None
    ) -> Int64[Tensor, "truth map bin"]:
        """Add one image.

        Args:
            cam: its maps.
            label_map: true label values, 255 where nothing is scored.
            labels: classes that the image is labelled with; None takes those that have a map, as seeds have one for
                each label. Final networks have maps of all classes: without its labels every class would count.

        Returns:
            The image's own counts, by true label value, position of the foremost map (one position for an image
            without maps) and score bin.

        Raises:
            ArtifactError: when the full-resolution maps are missing, or not finite.
            DataError: when the mask has another size or unknown label values.
        """
        _require_finite(cam)
        return self.add(foremost_of(cam, self.thresholds), label_map, labels)

    def add(
        self, image: Foremost, label_map: UInt8[Tensor, "_height _width"], labels: Sequence[int] | None = None
    ) -> Int64[Tensor, "truth map bin"]:
        """Add one image of which the foremost maps are known at these thresholds; see `update`.

        Args:
            image: on the CPU.
            label_map: as of `update`.
            labels: as of `update`.

        Raises:
            DataError: when the mask has another size or unknown label values.
        """
        num_maps, num_bins = len(image.class_ids), len(self.thresholds) + 1
        bins = image.bins.long()
        check_same_size(image.image_id, image.bins[None], label_map)
        check_label_values(label_map, self.num_classes, f"the mask of {image.image_id}")
        is_scored = label_map != IGNORE_VALUE
        # Without maps every pixel is background at every threshold: bin 0, and it does not matter of which class.
        side = max(num_maps, 1)
        cells = (label_map[is_scored].long() * side + image.position[is_scored]) * num_bins + bins[is_scored]
        counts = torch.bincount(cells, minlength=(self.num_classes + 1) * side * num_bins).view(-1, side, num_bins)
        self.counts.index_add_(1, torch.tensor(image.class_ids or (0,)), counts)
        labelled = image.class_ids if labels is None else labels
        self.images[[0, *sorted({label_value(class_id) for class_id in labelled})]] += 1
        return counts

    def merge(self, other: "ThresholdSweep") -> "ThresholdSweep":
        """Add another sweep's counts to this one and return it.

        Raises:
            ArtifactError: when it was made with other thresholds or classes.
        """
        if (other.thresholds, other.num_classes) != (self.thresholds, self.num_classes):
            raise ArtifactError("cannot merge sweeps over different thresholds or classes; score all shards again")
        self.counts += other.counts
        self.images += other.images
        return self

    def to_array(self) -> Int64[np.ndarray, " count"]:
        """Return all counts as one flat array, to send or to store."""
        return torch.cat([self.counts.flatten(), self.images]).numpy()

    @classmethod
    def from_array(
        cls, array: Int64[np.ndarray, " count"], thresholds: Sequence[float], num_classes: int
    ) -> "ThresholdSweep":
        """Return the sweep whose `to_array` this is.

        Raises:
            ArtifactError: when the array does not fit the thresholds and classes.
        """
        sweep = cls(thresholds, num_classes)
        sizes = [sweep.counts.numel(), sweep.images.numel()]
        expected = sum(sizes)
        if array.size != expected:
            raise ArtifactError(
                f"a stored sweep holds {array.size} counts, expected {expected}; score all shards again"
            )
        counts, sweep.images = torch.from_numpy(array.copy()).split(sizes)
        sweep.counts = counts.view_as(sweep.counts)
        return sweep

    def confusion(self) -> Int64[Tensor, "threshold truth prediction"]:
        """Return the confusion matrix at every threshold (see `ConfusionMatrix` for rows and columns)."""
        above = self.counts.flip(2).cumsum(2).flip(2)[:, :, 1:]  # (truth, class, threshold): score > threshold
        background = self.counts.sum((1, 2))[:, None] - above.sum(1)  # (truth, threshold)
        return torch.cat([background[:, None], above], 1).permute(2, 0, 1)

    def labels(self, classes: Classes) -> ScoredLabels:
        """Return what the scored images hold of each label: it decides which ones means are over.

        Args:
            classes: those of the sweep.
        """
        in_truth = (self.counts.sum((1, 2)) > 0).tolist()
        in_labels = [False, *(self.images[1:] > 0).tolist()]
        first = len(in_truth) - classes.num_labels
        return ScoredLabels(classes.label_names, tuple(in_truth[first:]), tuple(in_labels[first:]))


def seed_scores(
    sweep: ThresholdSweep, fixed_threshold: float, classes: Classes, label_free: float | None = None
) -> SeedScores:
    """Read all figures off a finished sweep.

    Without a background nothing is truly it: a pixel that shows no class is a miss of its class, and no further label.
    Means are over the labels that truth or image labels hold, at every threshold the same (`ThresholdSweep.labels`).

    Args:
        sweep: merged over all images.
        fixed_threshold: one of the sweep's thresholds (`sweep_thresholds` sees to that); not read without a background.
        classes: those of the sweep.
        label_free: the threshold that was chosen without masks, one of the sweep's; None takes the fixed one.

    Raises:
        ConfigError: when one of the two is not one of the sweep's, or the class list has another length.
        DataError: when no pixel was scored.
    """
    if len(classes) != sweep.num_classes:
        raise ConfigError(f"got {len(classes)} class names for a sweep over {sweep.num_classes} classes")
    if int(sweep.counts.sum()) == 0:
        raise DataError("no image of the evaluated split has a mask: give masks, or skip the evaluate stage")
    fixed = _place(sweep, classes.border(fixed_threshold), "fixed")
    free = fixed if label_free is None else _place(sweep, classes.border(label_free), "label-free")
    confusion, labels = sweep.confusion(), sweep.labels(classes)
    names, averaged = classes.label_names, torch.from_numpy(labels.averaged)
    # Rows and columns of the matrices are label values: where there is no background, its place is never averaged.
    values = torch.cat([torch.zeros(len(sweep.images) - len(averaged), dtype=torch.bool), averaged])
    over, under = false_positive_rate(confusion, values), false_negative_rate(confusion, values)
    own = iou_per_label(confusion)[:, -classes.num_labels :]
    miou, iou = mean_iou(own, averaged), torch.where(averaged, own.nan_to_num(nan=0.0), math.nan)
    best = int(miou.argmax())
    return SeedScores(
        threshold_fixed=sweep.thresholds[fixed],
        miou_fixed=float(miou[fixed]),
        false_positive_rate=float(over[fixed]),
        false_negative_rate=float(under[fixed]),
        iou=dict(zip(names, iou[fixed].tolist(), strict=True)),
        threshold_label_free=sweep.thresholds[free],
        miou_label_free=float(miou[free]),
        threshold_best=sweep.thresholds[best],
        miou_best=float(miou[best]),
        false_positive_rate_best=float(over[best]),
        false_negative_rate_best=float(under[best]),
        iou_best=dict(zip(names, iou[best].tolist(), strict=True)),
        curve=SweepCurve(
            thresholds=sweep.thresholds,
            miou=tuple(miou.tolist()),
            false_positive_rate=tuple(over.tolist()),
            false_negative_rate=tuple(under.tolist()),
        ),
        num_images=int(sweep.images[0]),
        in_no_mask=labels.in_no_mask,
    )


def _place(sweep: ThresholdSweep, threshold: float, name: str) -> int:
    """Return where a threshold stands among the sweep's."""
    place = int(np.abs(np.array(sweep.thresholds) - threshold).argmin())
    if abs(sweep.thresholds[place] - threshold) > 1e-6:
        raise ConfigError(f"the {name} threshold {threshold} is not among the thresholds of the sweep")
    return place


def check_same_size(
    image_id: str, maps: Shaped[Tensor, "class _height _width"], label_map: UInt8[Tensor, "_height _width"]
) -> None:
    """Refuse a mask of another size than its image's maps.

    Raises:
        DataError: gives both sizes.
    """
    if tuple(maps.shape[1:]) != tuple(label_map.shape):
        raise DataError(
            f"the mask of {image_id} has {label_map.shape[1]}x{label_map.shape[0]} pixels, "
            f"its CAM {maps.shape[2]}x{maps.shape[1]}: they belong to different versions of the image"
        )


def _require_finite(cam: ClassMaps) -> None:
    if cam.full is not None and not bool(torch.isfinite(cam.full).all()):
        raise ArtifactError(f"the CAM of {cam.image_id} holds NaN or infinity; run `qaclims cams` again")
