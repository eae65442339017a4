"""What the systems of a run scored, from seeds to final networks, and the same figures in MLflow."""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from qaclims_ray.evaluation.scored_figures import ScoredStage, fixed_figure
from qaclims_ray.evaluation.sweep import SeedScores
from qaclims_ray.report.contents import ReportData, SystemReport
from qaclims_ray.report.scored_on import left_out_notes, num_images, scored_on
from qaclims_ray.run_config import RunConfig
from qaclims_ray.stages.evaluate import Evaluation
from qaclims_ray.stages.refine import PseudoMasks
from qaclims_ray.stages.segment import Segmentation
from qaclims_ray.stages.threshold import ThresholdChoice
from qaclims_ray.stages.trust import Trust
from qaclims_ray.tracking.metric_names import HEADLINES, THRESHOLD_LABEL_FREE, headline_metrics, stage_metrics
from qaclims_ray.tracking.tracker import Tracker

_NOTE_WORDS: dict[ScoredStage, str] = {"seed": "seed", "mask": "pseudo mask", "segmentation": "segmentation"}
"""Stages that a run's note names, and how."""


@dataclass(frozen=True)
class Results:
    """Scores by system, as far as the run went and as there are masks."""

    thresholds: dict[str, ThresholdChoice] = field(default_factory=dict)
    """Of seeds, chosen without masks."""
    scores: dict[str, Evaluation] = field(default_factory=dict)
    """Seeds."""
    masks: dict[str, PseudoMasks] = field(default_factory=dict)
    """Pseudo masks."""
    segmentations: dict[str, Segmentation] = field(default_factory=dict)
    """Final networks; the fully supervised one among them."""
    trust: Trust | None = None
    """What is known without a mask; None where the run did not come so far."""

    def names(self, config: RunConfig) -> list[str]:
        """Return the compared systems, and whatever else has a result: the fully supervised bound."""
        return list(dict.fromkeys([*config.systems, *self.segmentations]))

    def of(self, system: str) -> dict[ScoredStage, Any]:
        """Return what a system's stages scored (`SeedScores`), as far as they were: fields of a `SystemReport`."""
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


def splits_of(config: RunConfig) -> dict[str, str]:
    """Return the split on which each part of a run is scored (`ReportData.splits`)."""
    data = config.data
    return {"seed": data.eval_split, "mask": data.eval_split, "segmentation": data.test_split}


def log_threshold(stage: Tracker, figures: dict[str, float], system: str, choice: ThresholdChoice) -> None:
    """Log the threshold that was chosen of a system's seeds without masks, as `log_scores`."""
    metrics = {THRESHOLD_LABEL_FREE: choice.threshold}
    stage.log_metrics(metrics)
    figures |= headline_metrics(system, metrics)


def log_scores(stage: Tracker, figures: dict[str, float], system: str, evaluation: Evaluation) -> None:
    """Log a system's seed scores into its own run, and add the few that the pipeline's repeats (`log_figures`)."""
    _log(stage, figures, system, "seed", evaluation.seed)
    _log_table(stage, evaluation.seed, "iou_per_class")


def log_masks(stage: Tracker, figures: dict[str, float], system: str, masks: PseudoMasks) -> None:
    """Log what pseudo masks score, as `log_scores`."""
    stage.set_tags({f"masks.{name}": value for name, value in masks.summary.items()})
    if masks.scores is not None:
        _log(stage, figures, system, "mask", masks.scores)
        _log_table(stage, masks.scores, "mask_iou_per_class")


def log_segmentation(stage: Tracker, figures: dict[str, float], system: str, found: Segmentation) -> None:
    """Log what a final network scores, as `log_scores`."""
    if found.plain is not None:
        _log(stage, figures, system, "segmentation", found.plain)
    if found.crf is not None:
        _log(stage, figures, system, "segmentation_crf", found.crf)
    if found.plain is not None:
        _log_table(stage, found.plain, "segmentation_iou_per_class")


def log_figures(parent: Tracker, config: RunConfig, found: Results, figures: dict[str, float]) -> None:
    """Log the figures of the run's last system, its best by design, under names that all runs share; then all others.

    At once and in this order: MLflow opens a comparison of runs on the figure that came first.
    """
    scored = found.of(config.systems[-1])
    headlines = {name: fixed_figure(stage).of(scored[stage]) for name, stage in HEADLINES.items() if stage in scored}
    if headlines or figures:
        parent.log_metrics({**headlines, **figures})
    figures.clear()  # they are there: a run that fails later logs what it has, and nothing twice


def log_trust(tracker: Tracker, trust: Trust | None) -> None:
    """Log what is known without a mask."""
    if trust is None:
        return
    metrics = {f"trust/coverage/{one.source.key}": one.coverage for one in trust.figures.maps}
    metrics |= {f"trust/empty/{one.source.key}": float(one.num_empty) for one in trust.figures.maps}
    for found in trust.figures.agreements:
        if found.pair.kind == "stages":
            first, other = found.pair.first, found.pair.other
            metrics[f"trust/agreement/{first.system}/{first.stage}-{other.stage}"] = found.miou
    classifier = trust.figures.classifier
    if classifier is not None and classifier.mean_average_precision is not None:
        metrics["trust/classifier_map"] = classifier.mean_average_precision
    tracker.log_metrics({name: value for name, value in metrics.items() if math.isfinite(value)})


def _log(tracker: Tracker, figures: dict[str, float], system: str, stage: ScoredStage, scores: SeedScores) -> None:
    metrics = stage_metrics(stage, scores)
    tracker.log_metrics(metrics)
    figures |= headline_metrics(system, metrics)


def _log_table(stage: Tracker, scores: SeedScores, name: str) -> None:
    columns = {
        "class": list(scores.iou),
        "iou_fixed": list(scores.iou.values()),
        "iou_best": [*scores.iou_best.values()],
        "dice_fixed": list(scores.dice.values()),
        "dice_best": list(scores.dice_best.values()),
        "in_means": [_in_means(scores, name) for name in scores.iou],
    }
    stage.log_table(columns, name)


def _in_means(scores: SeedScores, name: str) -> str:
    """Say whether means are over a label, and why not."""
    if name in scores.left_out:
        return "left out: in no mask and no image label"
    return "as 0: labelled, but in no mask" if name in scores.in_no_mask else "yes"


def note_figures(found: Results, system: str, splits: Mapping[str, str]) -> dict[str, float]:
    """Return a system's figures by the words that a note says them with, the split among them.

    Args:
        found: of the whole run.
        system: one of its systems.
        splits: see `splits_of`.
    """
    figures = {}
    scored = found.of(system)
    for stage, words in _NOTE_WORDS.items():
        if stage not in scored:
            continue
        scores, on = scored[stage], f", {splits[stage]}"
        if stage == "seed" and scores.has_background:
            figures[f"seed mIoU{on}, fixed threshold"] = scores.miou_fixed
            figures[f"seed mIoU{on}, best threshold (chosen with pixel labels)"] = scores.miou_best
            continue
        figures[f"{words} mIoU{on}"] = fixed_figure(stage).of(scores)
        if not scores.has_background:  # as papers on tissue do
            figures[f"{words} Dice{on}"] = scores.mdice_fixed
    return figures


def note_remarks(found: Results, config: RunConfig) -> list[str]:
    """Say on how many images a run is scored, and name the labels that means leave out."""
    systems = {name: SystemReport(label=name, **found.of(name)) for name in found.names(config)}
    data = ReportData(title="", systems=systems, splits=splits_of(config))
    places = dict.fromkeys(scored_on(data, stage) for stage in _NOTE_WORDS if num_images(data, stage))
    return [*([f"Scored on {' and '.join(places)}"] if places else []), *left_out_notes(data, _NOTE_WORDS)]
