"""What the systems of a run scored, from seeds to final networks, and the same figures in MLflow."""

from dataclasses import dataclass, field

from qaclims_ray.evaluation.scored_figures import ScoredStage, fixed_figure
from qaclims_ray.evaluation.sweep import SeedScores
from qaclims_ray.run_config import RunConfig
from qaclims_ray.stages.evaluate import Evaluation
from qaclims_ray.stages.refine import PseudoMasks
from qaclims_ray.stages.segment import Segmentation
from qaclims_ray.tracking.metric_names import headline_metrics, stage_metrics
from qaclims_ray.tracking.tracker import Tracker

_NOTE_WORDS: dict[ScoredStage, str] = {"seed": "seed", "mask": "pseudo mask", "segmentation": "segmentation"}
"""Stages that a run's note names, and how."""


@dataclass(frozen=True)
class Results:
    """Scores by system, as far as the run went and as there are masks."""

    scores: dict[str, Evaluation] = field(default_factory=dict)
    """Seeds."""
    masks: dict[str, PseudoMasks] = field(default_factory=dict)
    """Pseudo masks."""
    segmentations: dict[str, Segmentation] = field(default_factory=dict)
    """Final networks; the fully supervised one among them."""

    def names(self, config: RunConfig) -> list[str]:
        """Return the compared systems, and whatever else has a result: the fully supervised bound."""
        return list(dict.fromkeys([*config.systems, *self.segmentations]))

    def of(self, system: str) -> dict[ScoredStage, SeedScores]:
        """Return what a system's stages scored, as far as they were."""
        seed, masks, final = self.scores.get(system), self.masks.get(system), self.segmentations.get(system)
        found: dict[ScoredStage, SeedScores | None] = {
            "seed": seed.seed if seed else None,
            "mask": masks.scores if masks else None,
            "segmentation_on_seeds": final.seed_plain if final else None,
            "segmentation_crf_on_seeds": final.seed_crf if final else None,
            "segmentation": final.plain if final else None,
            "segmentation_crf": final.crf if final else None,
        }
        return {stage: scores for stage, scores in found.items() if scores is not None}


def log_scores(stage: Tracker, parent: Tracker, system: str, evaluation: Evaluation) -> None:
    """Log a system's seed scores into its own run, and as its headline into the pipeline's."""
    _log(stage, parent, system, "seed", evaluation.seed)
    _log_table(stage, evaluation.seed, "iou_per_class")


def log_masks(stage: Tracker, parent: Tracker, system: str, masks: PseudoMasks) -> None:
    """Log what pseudo masks score, as `log_scores`."""
    stage.log_params({"masks": masks.summary})
    if masks.scores is not None:
        _log(stage, parent, system, "mask", masks.scores)
        _log_table(stage, masks.scores, "mask_iou_per_class")


def log_segmentation(stage: Tracker, parent: Tracker, system: str, found: Segmentation) -> None:
    """Log what a final network scores, as `log_scores`."""
    if found.plain is not None:
        _log(stage, parent, system, "segmentation", found.plain)
    if found.crf is not None:
        _log(stage, parent, system, "segmentation_crf", found.crf)
    if found.plain is not None:
        _log_table(stage, found.plain, "segmentation_iou_per_class")


def _log(tracker: Tracker, parent: Tracker, system: str, stage: ScoredStage, scores: SeedScores) -> None:
    metrics = stage_metrics(stage, scores)
    tracker.log_metrics(metrics)
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
    figures = {}
    scored = found.of(system)
    for stage, words in _NOTE_WORDS.items():
        if stage not in scored:
            continue
        scores = scored[stage]
        if stage == "seed" and scores.has_background:
            figures["mIoU, fixed threshold"] = scores.miou_fixed
            figures["mIoU, best threshold (chosen with pixel labels)"] = scores.miou_best
            continue
        figures[f"{words} mIoU"] = fixed_figure(stage).of(scores)
        if not scores.has_background:  # as papers on tissue do
            figures[f"{words} Dice"] = scores.mdice_fixed
    return figures
