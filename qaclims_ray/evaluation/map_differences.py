"""How the label maps of two runs differ, and what each says of itself without masks; plain values for `compare`."""

from collections.abc import Collection, Mapping
from dataclasses import dataclass

import numpy as np
from jaxtyping import Int64

from qaclims_ray.data.classes import BACKGROUND_VALUE, Classes, label_value
from qaclims_ray.evaluation.agreement import MAP_STAGES, MapStage
from qaclims_ray.evaluation.bootstrap import iou_of, mean_of
from qaclims_ray.evaluation.trust import MapFigures, TrustFigures

WORST = 12
"""So many images that differ most are named."""


@dataclass(frozen=True)
class MapsDifference:
    """The label maps of one stage of the first side beside those of another."""

    group: str
    """The compared system, or systems."""
    stage: MapStage
    """The stage."""
    first_letter: str
    """The first side."""
    other_letter: str
    """The other side."""
    num_images: int
    """Images that both have, or some of them, evenly chosen."""
    miou: float
    """Mean IoU of both maps over the background and the classes that these images are labelled with."""
    iou: dict[str, float | None]
    """Of the background and each class; None for one that no image is labelled with."""
    worst: tuple[tuple[str, float], ...]
    """The images that differ most, and how far their maps agree."""


@dataclass(frozen=True)
class LabelFreeFigure:
    """One figure that needs no mask, of all sides."""

    group: str
    """The compared system, or systems."""
    name: str
    """What it is."""
    values: dict[str, float]
    """Letter of a side -> the figure, a fraction unless it is a threshold; sides without it are left out."""
    is_threshold: bool = False
    """Whether it is a background score."""


def maps_difference(
    *,
    group: str,
    stage: MapStage,
    letters: tuple[str, str],
    table: Int64[np.ndarray, "image label 3"],
    agreements: Mapping[str, float],
    tagged: Collection[int],
    classes: Classes,
) -> MapsDifference:
    """Sum up the counts of two runs' maps.

    Args:
        group: the compared system, or systems.
        stage: of both.
        letters: names of the sides.
        table: counts of the images (`agreement.counts_table`).
        agreements: image id -> how far its maps agree.
        tagged: classes that any of the images is labelled with.
        classes: those of both runs.
    """
    iou = iou_of(table.sum(0))
    values = range(len(classes) + 1 - classes.num_labels, len(classes) + 1)
    averaged = [value == BACKGROUND_VALUE or value in {label_value(one) for one in tagged} for value in values]
    return MapsDifference(
        group=group,
        stage=stage,
        first_letter=letters[0],
        other_letter=letters[1],
        num_images=len(agreements),
        miou=float(mean_of(iou, np.array(averaged))),
        iou={
            name: float(np.nan_to_num(value)) if counts else None
            for name, value, counts in zip(classes.label_names, iou, averaged, strict=True)
        },
        worst=tuple(sorted(agreements.items(), key=lambda one: (one[1], one[0]))[:WORST]),
    )


def label_free_figures(group: str, sides: Mapping[str, tuple[str, TrustFigures]]) -> list[LabelFreeFigure]:
    """Return the figures of all sides, in the pipeline's order.

    Args:
        group: the compared system, or systems.
        sides: letter of a side -> its system and its run's figures.
    """
    found: dict[str, dict[str, float]] = {}
    thresholds = set()
    for letter, (system, trust) in sides.items():
        for name, value in _figures(system, trust).items():
            found.setdefault(name, {})[letter] = value
        if system in trust.thresholds:
            own = trust.thresholds[system]
            for name, value in (("threshold of the seed", own.fixed), ("label-free threshold", own.label_free)):
                thresholds.add(name)
                found.setdefault(name, {})[letter] = value
    return [LabelFreeFigure(group, name, values, name in thresholds) for name, values in found.items()]


def _figures(system: str, trust: TrustFigures) -> dict[str, float]:
    figures: dict[str, float] = {}
    classifier = trust.classifier
    if classifier is not None and classifier.mean_average_precision is not None:
        on = "held-out images" if classifier.is_held_out else "images it learned from"
        figures[f"classifier, mean average precision on {on}"] = classifier.mean_average_precision
    for stage, words in MAP_STAGES.items():
        own = trust.map_of(system, stage)
        if own is not None:
            figures |= _map_figures(own, words)
    for found in trust.agreements:
        pair = found.pair
        if pair.kind == "stages" and pair.first.system == system:
            figures[f"agreement of {MAP_STAGES[pair.first.stage]} and {MAP_STAGES[pair.other.stage]}"] = found.miou
        elif pair.kind == "threshold" and pair.first.system == system:
            figures["agreement of the seed at a lower and a higher threshold"] = found.miou
    return figures


def _map_figures(own: MapFigures, words: str) -> dict[str, float]:
    tags = sum(one.tagged for one in own.classes.values())
    shown = sum(one.shown for one in own.classes.values())
    figures = {f"{words}: painted": own.coverage}
    if own.num_tagged:
        figures[f"{words}: empty masks"] = own.num_empty / own.num_tagged
    if tags:
        figures[f"{words}: tags not found"] = (tags - shown) / tags
    return figures
