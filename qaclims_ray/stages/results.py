"""What the systems of a run scored, from seeds to final networks, and the same figures in MLflow."""

from dataclasses import dataclass, field

from qaclims_ray.evaluation.sweep import SeedScores
from qaclims_ray.run_config import RunConfig
from qaclims_ray.stages.evaluate import Evaluation
from qaclims_ray.stages.refine import PseudoMasks
from qaclims_ray.stages.segment import Segmentation
from qaclims_ray.tracking.metric_names import headline_metrics, mask_metrics, seed_metrics, segmentation_metrics
from qaclims_ray.tracking.tracker import Tracker


@dataclass(frozen=True)
class Results:
    """Scores by system, as far as the run went and as there are masks."""

    scores: dict[str, Evaluation] = field(default_factory=dict)
    """Seeds."""
    masks: dict[str, PseudoMasks] = field(default_factory=dict)
    """Pseudo masks."""
    segmentations: dict[str, Segmentation] = field(default_factory=dict)
    """Final networks."""

    def names(self, config: RunConfig) -> list[str]:
        """Return the compared systems, and whatever else has a result: the fully supervised bound."""
        return list(dict.fromkeys([*config.systems, *self.segmentations]))


def log_scores(stage: Tracker, parent: Tracker, system: str, evaluation: Evaluation) -> None:
    """Log a system's seed scores into its own run, and as its headline into the pipeline's."""
    scores = evaluation.seed
    _log(stage, parent, system, seed_metrics(scores, miou_label_free=scores.miou_label_free))
    _log_table(stage, scores, "iou_per_class")


def log_masks(stage: Tracker, parent: Tracker, system: str, masks: PseudoMasks) -> None:
    """Log what pseudo masks score, as `log_scores`."""
    stage.log_params({"masks": masks.summary})
    if masks.scores is not None:
        _log(stage, parent, system, mask_metrics(masks.scores))
        _log_table(stage, masks.scores, "mask_iou_per_class")


def log_segmentation(stage: Tracker, parent: Tracker, system: str, found: Segmentation) -> None:
    """Log what a final network scores, as `log_scores`."""
    for scores, has_crf in ((found.plain, False), (found.crf, True)):
        if scores is not None:
            _log(stage, parent, system, segmentation_metrics(scores, crf=has_crf))
    if found.plain is not None:
        _log_table(stage, found.plain, "segmentation_iou_per_class")


def _log(stage: Tracker, parent: Tracker, system: str, metrics: dict[str, float]) -> None:
    stage.log_metrics(metrics)
    parent.log_metrics(headline_metrics(system, metrics))


def _log_table(stage: Tracker, scores: SeedScores, name: str) -> None:
    columns = {
        "class": list(scores.iou),
        "iou_fixed": list(scores.iou.values()),
        "iou_best": [*scores.iou_best.values()],
        "dice_fixed": list(scores.dice.values()),
        "dice_best": list(scores.dice_best.values()),
    }
    stage.log_table(columns, name)


def note_figures(found: Results, system: str) -> dict[str, float]:
    """Return a system's figures by the words that a note says them with."""
    seed, masks, final = found.scores.get(system), found.masks.get(system), found.segmentations.get(system)
    figures = {}
    if seed is not None and seed.seed.has_background:
        figures["mIoU, fixed threshold"] = seed.seed.miou_fixed
        figures["mIoU, best threshold (chosen with pixel labels)"] = seed.seed.miou_best
    elif seed is not None:
        figures |= _both("seed", seed.seed)
    if masks is not None and masks.scores is not None:
        figures |= _both("pseudo mask", masks.scores)
    if final is not None and final.plain is not None:
        figures |= _both("segmentation", final.plain)
    return figures


def _both(stage: str, scores: SeedScores) -> dict[str, float]:
    """The figures of label maps as they are: mIoU, and Dice where there is no background, as papers on tissue do."""
    dice = {} if scores.has_background else {f"{stage} Dice": scores.mdice_fixed}
    return {f"{stage} mIoU": scores.miou_fixed, **dice}
