"""The figures that a run is judged by, in the pipeline's order: the one list behind MLflow, report and comparison.

Each is a mean IoU of one stage's scores (`sweep.SeedScores`). Seeds have one at each choice of the threshold; what
comes after them are label maps, which have no threshold left to choose, and one figure each.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from qaclims_ray.evaluation.sweep import SeedScores

ScoredStage = Literal[
    "seed", "mask", "segmentation_on_seeds", "segmentation_crf_on_seeds", "segmentation", "segmentation_crf"
]
"""What is scored; keys of each system in ``report.json``."""


@dataclass(frozen=True, kw_only=True)
class ScoredFigure:
    """A mean IoU of a run, and where everything about it lies."""

    stage: ScoredStage
    """What is scored."""
    words: str
    """Its name in charts and comparisons."""
    metric: str
    """Its name in MLflow; empty where it is not logged."""
    artefact: Literal["evaluations", "masks", "predictions"]
    """Folder of the run that holds its scores and its counts by image."""
    counts: str
    """Its name in the artefact's table of counts."""
    threshold: Literal["fixed", "label_free", "best"] = "fixed"
    """How the seeds' threshold was chosen; label maps as they are count as fixed."""
    split: Literal["eval", "test"] = "eval"
    """Which split of the data settings it is scored on."""

    @property
    def is_chosen(self) -> bool:
        """Whether its threshold was chosen with pixel labels."""
        return self.threshold == "best"

    def of(self, scores: SeedScores) -> float:
        """Return the figure, a fraction."""
        return getattr(scores, f"miou_{self.threshold}")


FIGURES: Mapping[str, ScoredFigure] = {
    "seed_fixed": ScoredFigure(
        stage="seed",
        words="seed, fixed threshold",
        metric="cam/miou_fixed",
        artefact="evaluations",
        counts="fixed",
    ),
    "seed_label_free": ScoredFigure(
        stage="seed",
        words="seed, label-free threshold",
        metric="cam/miou_label_free",
        artefact="evaluations",
        counts="label_free",
        threshold="label_free",
    ),
    "seed_best": ScoredFigure(
        stage="seed",
        words="seed, best threshold",
        metric="cam/miou_best",
        artefact="evaluations",
        counts="best",
        threshold="best",
    ),
    "mask": ScoredFigure(stage="mask", words="pseudo mask", metric="mask/miou", artefact="masks", counts="fixed"),
    "segmentation_on_seeds": ScoredFigure(
        stage="segmentation_on_seeds",
        words="final network, images of the seeds",
        metric="",  # a look at what the network made of its own masks, not a result
        artefact="predictions",
        counts="seed_plain",
    ),
    "segmentation_crf_on_seeds": ScoredFigure(
        stage="segmentation_crf_on_seeds",
        words="final network + CRF, images of the seeds",
        metric="",
        artefact="predictions",
        counts="seed_crf",
    ),
    "segmentation": ScoredFigure(
        stage="segmentation",
        words="final network",
        metric="segmentation/miou",
        artefact="predictions",
        counts="plain",
        split="test",
    ),
    "segmentation_crf": ScoredFigure(
        stage="segmentation_crf",
        words="final network + CRF",
        metric="segmentation_crf/miou",
        artefact="predictions",
        counts="crf",
        split="test",
    ),
}
"""Key, as in ``comparison.json`` -> figure."""

STAGES: tuple[ScoredStage, ...] = tuple(dict.fromkeys(figure.stage for figure in FIGURES.values()))
"""Stages that have scores, in the pipeline's order."""


def fixed_figure(stage: ScoredStage) -> ScoredFigure:
    """Return the one figure of a stage whose threshold, where it has one, was given beforehand."""
    return next(found for found in FIGURES.values() if found.stage == stage and found.threshold == "fixed")
