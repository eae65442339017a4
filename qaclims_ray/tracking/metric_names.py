"""Names of everything that is logged. They never change, so runs of any age can be compared."""

import re
from collections.abc import Mapping

from qaclims_ray.evaluation.scored_figures import FIGURES, ScoredStage, fixed_figure
from qaclims_ray.evaluation.sweep import SeedScores

THRESHOLD_BEST = "cam/threshold_best"
"""The seeds' threshold with the highest mIoU of the sweep; the choice uses pixel labels."""
FALSE_POSITIVE_RATE = "cam/false_positive_rate"
"""Mean share of false positives over the classes, at the fixed threshold."""
MDICE_FIXED = "cam/mdice_fixed"
"""Mean Dice coefficient of the seed's labels at the fixed threshold, fraction."""
MDICE_BEST = "cam/mdice_best"
"""The same at `THRESHOLD_BEST`; the choice uses pixel labels."""

_HEADLINE = (
    *(figure.metric for figure in FIGURES.values() if figure.metric),
    FALSE_POSITIVE_RATE,
    MDICE_FIXED,
    "mask/mdice",
    "segmentation/mdice",
    "segmentation_crf/mdice",
)
_FORBIDDEN = re.compile(r"[^\w.\- :/]", re.ASCII)


def sanitise(name: str) -> str:
    """Return a metric name that every MLflow store takes; other characters become an underscore.

    Slashes group metrics in the UI; a class name must not bring its own, so pass class names through
    `class_metric`.
    """
    return _FORBIDDEN.sub("_", name)[:250]


def class_metric(class_name: str, *, prefix: str) -> str:
    """Return the metric name of one class's IoU; spaces stay."""
    return sanitise(prefix + class_name.strip().replace("/", "_").replace("..", "_"))


def stage_metrics(stage: ScoredStage, scores: SeedScores) -> dict[str, float]:
    """Return the figures of one system's stage under their names, as fractions; per class at the fixed threshold.

    Args:
        stage: a stage that is logged: the final network on the images of its own masks is not.
        scores: its scores.
    """
    group = fixed_figure(stage).metric.split("/")[0]
    metrics = {figure.metric: figure.of(scores) for figure in FIGURES.values() if figure.stage == stage}
    metrics |= {
        f"{group}/false_positive_rate": scores.false_positive_rate,
        f"{group}/false_negative_rate": scores.false_negative_rate,
    }
    if stage == "seed":
        metrics |= {THRESHOLD_BEST: scores.threshold_best}
        metrics |= {MDICE_FIXED: scores.mdice_fixed, MDICE_BEST: scores.mdice_best}
    else:  # label maps have one figure each: no threshold is left to choose
        metrics[f"{group}/mdice"] = scores.mdice_fixed
    return metrics | {class_metric(name, prefix=f"{group}/iou/"): value for name, value in scores.iou.items()}


def headline_metrics(system: str, metrics: Mapping[str, float]) -> dict[str, float]:
    """Return the few figures that the parent run repeats per system, e.g. ``qa_clims/cam/miou_best``.

    With them the list of pipeline runs already tells which run is better, and for which system. The metrics may be of
    any stage, e.g. ``qa_clims/segmentation/miou``, or of several together.
    """
    return {sanitise(f"{system}/{name}"): metrics[name] for name in _HEADLINE if name in metrics}
