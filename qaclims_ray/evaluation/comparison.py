"""What differs between runs: in settings, and in mIoU and IoU of each class with paired bootstrap intervals.

Plain values that a driver gathers, `report.comparison` shows and ``comparison.json`` keeps. All figures are fractions.
"""

import dataclasses
import json
import math
from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Float64

from qaclims_ray.errors import DataError
from qaclims_ray.evaluation.bootstrap import BootstrapDifference, Interval, iou_of, mean_of, paired_bootstrap
from qaclims_ray.evaluation.image_counts import ScoredImages
from qaclims_ray.evaluation.map_differences import LabelFreeFigure, MapsDifference
from qaclims_ray.evaluation.scored_figures import FIGURES
from qaclims_ray.evaluation.scored_labels import ScoredLabels

MEANING = (
    "Intervals are 95 % percentile intervals of a paired bootstrap over images: as many images as there are, drawn "
    "with replacement, the same for both runs, their pixel counts added up and the figures computed anew. They say how "
    "far the difference would move on other images of the same kind.",
    "The bootstrap says nothing about training variance: both networks stay as they were trained once. Another seed "
    "can move the difference by more than the interval is wide; `qaclims ablate` repeats over seeds.",
    "Thresholds stay those that were chosen on all images, also where pixel labels chose them.",
    "Means are over the classes (and the background) that true masks or image labels of both runs' scored images hold, "
    "the same for both and in every resample. A resample without a class counts it as 0 on both sides.",
    "With many classes, about one in twenty intervals misses 0 where nothing differs: read those of single classes as "
    "a pattern, not as tests.",
)
"""What a reader must know of the intervals."""


@dataclass(frozen=True)
class Side:
    """One compared run."""

    letter: str
    """Short name in tables: A, B, ..."""
    run: str
    """Its output folder."""
    system: str
    """The system that was named; empty where systems meet their namesakes."""


@dataclass(frozen=True)
class Difference:
    """A setting or circumstance that is not the same on all sides."""

    kind: str
    """settings, data, code or versions."""
    name: str
    """Dotted name."""
    values: tuple[Any, ...]
    """One for each side, as plain JSON types; None where a side has none."""
    systems: tuple[str, ...]
    """The compared systems it holds for."""


@dataclass(frozen=True)
class ClassDifference:
    """IoU of the background or a class on both sides."""

    name: str
    """Class."""
    num_images: int
    """Images that show it, on the first side."""
    first: float | None
    """IoU on the first side; None where neither masks nor labels of its images hold the class."""
    other: float | None
    """IoU on the other."""
    difference: float | None
    """Other minus first."""
    interval: Interval | None
    """Of the difference, over the resamples whose truth holds the class; None without any, or without pairs."""


@dataclass(frozen=True)
class StageDifference:
    """One figure of the first side beside that of another."""

    group: str
    """The compared system, or systems."""
    stage: str
    """Key of `scored_figures.FIGURES`."""
    split: str
    """Split on which the first side is scored."""
    first_letter: str
    """The first side."""
    other_letter: str
    """The other side."""
    thresholds: tuple[float, float]
    """Background scores of both."""
    num_images: tuple[int, int]
    """Scored images of both."""
    first: float
    """Mean IoU over the classes, and the background where there is one, but for those left out."""
    other: float
    """Of the other."""
    difference: float
    """Other minus first."""
    interval: Interval | None
    """Of the difference; None where the images are no pairs."""
    unpaired: str
    """Why they are no pairs; empty where they are."""
    classes: tuple[ClassDifference, ...]
    """The background, where there is one, and the classes."""
    left_out: tuple[str, ...] = ()
    """Labels that no mean is over, because masks and labels of one side's images do not hold them."""
    in_no_mask: tuple[str, ...] = ()
    """Labels of the means that no mask of the first side holds: they count as 0."""


@dataclass(frozen=True)
class Comparison:
    """Everything that a comparison shows."""

    sides: tuple[Side, ...]
    """The runs; the first is what the others are compared with."""
    differences: tuple[Difference, ...]
    """Settings and circumstances that differ."""
    stages: tuple[StageDifference, ...]
    """Results: by group, stage, other side."""
    notes: tuple[str, ...]
    """What a reader must know of these runs."""
    num_resamples: int
    """Resamples behind each interval."""
    seed: int
    """Seed of the resampling."""
    created: str = ""
    """UTC time, ISO 8601."""
    maps: tuple[MapsDifference, ...] = ()
    """How far the sides' label maps agree: by group, other side, stage."""
    label_free: tuple[LabelFreeFigure, ...] = ()
    """Figures that need no mask, by group."""


def difference_note(differences: tuple[Difference, ...]) -> str:
    """Say so when nothing differs in the settings, or the seed alone; empty otherwise."""
    changed = {d.name for d in differences if d.kind == "settings" and not d.name.startswith(("cluster.", "tracking."))}
    if not changed:
        return "The runs have the same settings."
    if changed == {"seed"}:
        return (
            "The runs differ in seed only: their difference is training variance (of the miniature also another world "
            "of images), not the effect of a setting. `qaclims ablate` gives means over seeds."
        )
    return ""


def why_unpaired(first: ScoredImages, other: ScoredImages) -> str:
    """Say why images of two runs are no pairs: others, or with other true masks; empty where they are pairs."""
    one, two = set(first.image_ids), set(other.image_ids)
    if one != two:
        return (
            f"scored on different images ({len(one)} and {len(two)}, {len(one & two)} of them in common): "
            "a paired interval is impossible"
        )
    differs = (first.counts[..., 2] != other.counts[..., 2]).any(1)
    if differs.any():
        example = first.image_ids[int(differs.argmax())]
        return (
            f"scored against different true masks (those of {int(differs.sum())} of {len(one)} images count other "
            f"pixels, e.g. {example}): a paired interval is impossible"
        )
    return ""


def compare_stage(
    first: ScoredImages,
    other: ScoredImages,
    *,
    group: str,
    stage: str,
    split: str,
    letters: tuple[str, str],
    num_resamples: int,
    seed: int,
) -> StageDifference:
    """Compare one figure of two runs.

    Args:
        first: counts of the first side.
        other: counts of the other.
        group: the compared system, or systems.
        stage: key of `scored_figures.FIGURES`.
        split: where the first side is scored.
        letters: names of the sides.
        num_resamples: how often images are drawn.
        seed: of the draws.

    Raises:
        DataError: when the runs have different classes.
    """
    if first.labels != other.labels:
        beyond = sorted(set(first.labels) ^ set(other.labels))
        raise DataError(
            f"{letters[0]} and {letters[1]} have different classes or another order of them (not in both: "
            f"{', '.join(beyond) or 'none'}); only runs over the same class list can be compared"
        )
    unpaired = why_unpaired(first, other)
    held = first.scored_labels(), other.scored_labels()
    averaged = held[0].averaged & held[1].averaged
    drawn = None
    if not unpaired:
        drawn = paired_bootstrap(first.counts, other.counts, averaged, num_resamples=num_resamples, seed=seed)
    one, two = (_iou(side, own) for side, own in zip((first, other), held, strict=True))
    means = float(mean_of(one, averaged)), float(mean_of(two, averaged))
    return StageDifference(
        group=group,
        stage=stage,
        split=split,
        first_letter=letters[0],
        other_letter=letters[1],
        thresholds=(first.threshold, other.threshold),
        num_images=(len(first.image_ids), len(other.image_ids)),
        first=means[0],
        other=means[1],
        difference=means[1] - means[0],
        interval=drawn.miou if drawn else None,
        unpaired=unpaired,
        classes=_classes(first, one, two, drawn),
        left_out=tuple(name for name, counts in zip(first.labels, averaged, strict=True) if not counts),
        in_no_mask=tuple(name for name in held[0].in_no_mask if averaged[first.labels.index(name)]),
    )


def _iou(side: ScoredImages, held: ScoredLabels) -> Float64[np.ndarray, " label"]:
    """Return a side's IoU of each label as its own scores have it: NaN for those that its means leave out."""
    return np.where(held.averaged, np.nan_to_num(iou_of(side.counts.sum(0)), nan=0.0), np.nan)


def _classes(
    first: ScoredImages,
    one: Float64[np.ndarray, " label"],
    two: Float64[np.ndarray, " label"],
    drawn: BootstrapDifference | None,
) -> tuple[ClassDifference, ...]:
    return tuple(
        ClassDifference(
            name=name,
            num_images=int((first.counts[:, position, 2] > 0).sum()),
            first=_present(one[position]),
            other=_present(two[position]),
            difference=_present(two[position] - one[position]),
            interval=drawn.labels[position] if drawn else None,
        )
        for position, name in enumerate(first.labels)
    )


def _present(value: np.floating | float) -> float | None:
    return float(value) if math.isfinite(value) else None


def comparison_json(comparison: Comparison) -> str:
    """Return what ``comparison.json`` holds: fractions, null where a figure does not exist."""
    content: dict[str, Any] = dataclasses.asdict(comparison)
    content["chosen_by_pixel_labels"] = [name for name, figure in FIGURES.items() if figure.is_chosen]
    content["meaning"] = list(MEANING)
    return json.dumps(content, indent=2, allow_nan=False) + "\n"


def points(value: float | None) -> str:
    """Return a difference in points with its sign."""
    return "n/a" if value is None else f"{100 * value:+.1f}"


def interval_text(interval: Interval | None) -> str:
    """Return an interval in points; empty where there is none."""
    return "" if interval is None else f"[{100 * interval.low:+.1f}, {100 * interval.high:+.1f}]"


def excludes_zero(interval: Interval | None) -> bool:
    """Whether all of an interval lies on one side of 0."""
    return interval is not None and (interval.low > 0 or interval.high < 0)
