"""Names of everything that is logged. They never change, so runs of any age can be compared."""

import re
from collections.abc import Mapping
from typing import Protocol

MIOU_FIXED = "cam/miou_fixed"
"""mIoU of the seed at the fixed threshold, fraction."""
MIOU_BEST = "cam/miou_best"
"""mIoU at the best threshold of the sweep, fraction; the choice uses pixel labels."""
THRESHOLD_BEST = "cam/threshold_best"
"""The threshold of `MIOU_BEST`."""
FALSE_POSITIVE_RATE = "cam/false_positive_rate"
"""Mean share of false positives over the classes, at the fixed threshold."""
FALSE_NEGATIVE_RATE = "cam/false_negative_rate"
"""Mean share of false negatives over the classes, at the fixed threshold."""
MIOU_LABEL_FREE = "cam/miou_label_free"
"""mIoU at the threshold that was chosen without pixel labels, fraction."""
CLASS_IOU = "cam/iou/"
"""Prefix of the IoU of one class, fraction."""
MDICE_FIXED = "cam/mdice_fixed"
"""Mean Dice coefficient of the seed's labels at the fixed threshold, fraction."""
MDICE_BEST = "cam/mdice_best"
"""The same at the threshold of `MIOU_BEST`; the choice uses pixel labels."""
MASK_MIOU = "mask/miou"
"""mIoU of the pseudo masks as they are, fraction."""
MASK_MDICE = "mask/mdice"
"""Mean Dice coefficient of the pseudo masks as they are, fraction."""
SEGMENTATION_MIOU = "segmentation/miou"
"""mIoU of the final network's label maps without CRF, fraction."""
SEGMENTATION_CRF_MIOU = "segmentation_crf/miou"
"""The same with the CRF, fraction."""
SEGMENTATION_MDICE = "segmentation/mdice"
"""Mean Dice coefficient of the final network's label maps without CRF, fraction."""
SEGMENTATION_CRF_MDICE = "segmentation_crf/mdice"
"""The same with the CRF, fraction."""

TRAIN_LOSS = "train/loss"
"""Total loss of a step; its terms are ``train/loss/<term>``."""
LEARNING_RATE = "train/lr"
"""Learning rate of the backbone."""
IMAGES_PER_SECOND = "train/images_per_s"
"""Training throughput over all workers."""

_HEADLINE = (
    MIOU_FIXED,
    MIOU_BEST,
    MIOU_LABEL_FREE,
    FALSE_POSITIVE_RATE,
    MASK_MIOU,
    SEGMENTATION_MIOU,
    SEGMENTATION_CRF_MIOU,
    MDICE_FIXED,
    MASK_MDICE,
    SEGMENTATION_MDICE,
    SEGMENTATION_CRF_MDICE,
)
_FORBIDDEN = re.compile(r"[^\w.\- :/]", re.ASCII)


class SeedFigures(Protocol):
    """The part of `evaluation.sweep.SeedScores` that is logged."""

    @property
    def miou_fixed(self) -> float:
        """See `MIOU_FIXED`."""
        ...

    @property
    def miou_best(self) -> float:
        """See `MIOU_BEST`."""
        ...

    @property
    def threshold_best(self) -> float:
        """See `THRESHOLD_BEST`."""
        ...

    @property
    def false_positive_rate(self) -> float:
        """See `FALSE_POSITIVE_RATE`."""
        ...

    @property
    def false_negative_rate(self) -> float:
        """See `FALSE_NEGATIVE_RATE`."""
        ...

    @property
    def mdice_fixed(self) -> float:
        """See `MDICE_FIXED`."""
        ...

    @property
    def mdice_best(self) -> float:
        """See `MDICE_BEST`."""
        ...

    @property
    def iou(self) -> Mapping[str, float]:
        """Class name -> IoU, background included where there is one."""
        ...


def sanitise(name: str) -> str:
    """Return a metric name that every MLflow store takes; other characters become an underscore.

    Slashes group metrics in the UI; a class name must not bring its own, so pass class names through
    `class_metric`.
    """
    return _FORBIDDEN.sub("_", name)[:250]


def class_metric(class_name: str, *, prefix: str = CLASS_IOU) -> str:
    """Return the metric name of one class's IoU; spaces stay."""
    return sanitise(prefix + class_name.strip().replace("/", "_").replace("..", "_"))


def seed_metrics(scores: SeedFigures, *, miou_label_free: float | None = None) -> dict[str, float]:
    """Return the figures of one system's seeds under their names.

    Args:
        scores: the scores, as fractions.
        miou_label_free: mIoU at the label-free threshold, where one was chosen.
    """
    metrics = {
        MIOU_FIXED: scores.miou_fixed,
        MIOU_BEST: scores.miou_best,
        THRESHOLD_BEST: scores.threshold_best,
        FALSE_POSITIVE_RATE: scores.false_positive_rate,
        FALSE_NEGATIVE_RATE: scores.false_negative_rate,
        MDICE_FIXED: scores.mdice_fixed,
        MDICE_BEST: scores.mdice_best,
    }
    if miou_label_free is not None:
        metrics[MIOU_LABEL_FREE] = miou_label_free
    return metrics | {class_metric(name): value for name, value in scores.iou.items()}


def mask_metrics(scores: SeedFigures) -> dict[str, float]:
    """Return the figures of one system's pseudo masks under their names, all of the label maps as they are."""
    return _stage_metrics("mask", scores)


def segmentation_metrics(scores: SeedFigures, *, crf: bool = False) -> dict[str, float]:
    """Return the figures of one system's final network under their names.

    Args:
        scores: the scores, as fractions.
        crf: whether they are of the label maps after the CRF (row D4); both are logged.
    """
    return _stage_metrics("segmentation_crf" if crf else "segmentation", scores)


def headline_metrics(system: str, metrics: Mapping[str, float]) -> dict[str, float]:
    """Return the few figures that the parent run repeats per system, e.g. ``qa_clims/cam/miou_best``.

    With them the list of pipeline runs already tells which run is better, and for which system. The metrics may be of
    any stage, e.g. ``qa_clims/segmentation/miou``, or of several together.
    """
    return {sanitise(f"{system}/{name}"): metrics[name] for name in _HEADLINE if name in metrics}


def _stage_metrics(stage: str, scores: SeedFigures) -> dict[str, float]:
    """Label maps have one figure each: no threshold is left to choose."""
    metrics = {
        f"{stage}/miou": scores.miou_fixed,
        f"{stage}/mdice": scores.mdice_fixed,
        f"{stage}/false_positive_rate": scores.false_positive_rate,
        f"{stage}/false_negative_rate": scores.false_negative_rate,
    }
    return metrics | {class_metric(name, prefix=f"{stage}/iou/"): value for name, value in scores.iou.items()}
