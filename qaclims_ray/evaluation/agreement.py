"""How far label maps of one image agree: of the stages of a system, of systems, of thresholds; no mask is needed.

Where no image has a mask this is what can be counted. Agreement is not truth: maps that make the same mistake agree.
But where they disagree, at most one of them is right. Counts are those of an IoU with one map in the place of the
truth, which is symmetric, so that they add up over images and shards as those of scores do.
"""

import itertools
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from jaxtyping import Int64, UInt8
from torch import Tensor

from qaclims_ray.data.classes import BACKGROUND_VALUE, IGNORE_VALUE, Classes, label_value
from qaclims_ray.errors import DataError
from qaclims_ray.evaluation.confusion import check_label_values

MapStage = Literal["seed", "mask", "final"]
"""What drew a label map: CAMs at the fixed threshold, refinement, the final network."""

MAP_STAGES: Mapping[MapStage, str] = {"seed": "seed", "mask": "pseudo mask", "final": "final network"}
"""Their names in words, in the pipeline's order."""

MAP_NOUNS: Mapping[MapStage, str] = {**MAP_STAGES, "final": "final network's map"}
"""What one label map of theirs is called."""


@dataclass(frozen=True, order=True)
class MapSource:
    """What drew a label map."""

    system: str
    """The system's name in the run."""
    stage: MapStage
    """The stage."""

    @property
    def key(self) -> str:
        """Its name in files."""
        return f"{self.system}/{self.stage}"


@dataclass(frozen=True)
class MapPair:
    """Two label maps of an image that are held against each other."""

    kind: Literal["stages", "systems", "threshold"]
    """What differs: the stage of one system, the system at one stage, or the threshold of one system's seed."""
    first: MapSource
    """One of them."""
    other: MapSource
    """The other; for a threshold the same."""


PairCounts = dict[int, tuple[int, int, int]]
"""Label value -> pixels that both maps give it, that the first does, that the other does."""


@dataclass(frozen=True)
class ComparedImage:
    """One image's label maps, counted."""

    image_id: str
    """The manifest's image identifier."""
    tagged: tuple[int, ...]
    """Classes that it is labelled with."""
    num_pixels: int
    """Its pixels."""
    areas: dict[MapSource, dict[int, int]]
    """Label value -> pixels of each map; 255 is not among them."""
    pairs: dict[MapPair, PairCounts]
    """Counts of each pair of maps that the image has."""


def pairs_of(sources: Sequence[MapSource]) -> list[MapPair]:
    """Return which maps are held against each other: the stages of each system, and systems at each stage."""
    pairs = []
    for first, other in itertools.combinations(sources, 2):
        if first.system == other.system:
            pairs.append(MapPair("stages", first, other))
        elif first.stage == other.stage:
            pairs.append(MapPair("systems", first, other))
    return pairs


def compared_image(
    image_id: str,
    tagged: tuple[int, ...],
    maps: Mapping[MapSource, UInt8[Tensor, "height width"]],
    moved: Mapping[MapSource, tuple[Tensor, Tensor]],
    classes: Classes,
) -> ComparedImage:
    """Count one image's label maps.

    Args:
        image_id: the manifest's image identifier.
        tagged: classes that it is labelled with.
        maps: what drew each map, and the map.
        moved: seeds at a lower and at a higher threshold, by their source.
        classes: those of the data set.

    Raises:
        DataError: when maps have different sizes, or hold values beyond the classes.
    """
    everything = [*maps.values(), *itertools.chain.from_iterable(moved.values())]
    sizes = {tuple(labels.shape) for labels in everything}
    if len(sizes) > 1:
        raise DataError(
            f"the label maps of {image_id} have different sizes ({', '.join(f'{w}x{h}' for h, w in sorted(sizes))}): "
            "they belong to different versions of the image"
        )
    for labels in everything:
        check_label_values(labels, len(classes), f"a label map of {image_id}")
    pairs = {pair: joint_counts(maps[pair.first], maps[pair.other]) for pair in pairs_of(list(maps))}
    for source, (lower, higher) in moved.items():
        pairs[MapPair("threshold", source, source)] = joint_counts(lower, higher)
    return ComparedImage(
        image_id=image_id,
        tagged=tagged,
        num_pixels=everything[0].numel() if everything else 0,
        areas={source: _areas(labels) for source, labels in maps.items()},
        pairs=pairs,
    )


def joint_counts(first: UInt8[Tensor, "height width"], other: UInt8[Tensor, "height width"]) -> PairCounts:
    """Return the counts of two label maps, over the pixels that neither of them leaves out (255)."""
    decided = (first != IGNORE_VALUE) & (other != IGNORE_VALUE)
    one, two = first[decided].long(), other[decided].long()
    joint = torch.bincount(one * 256 + two, minlength=256 * 256).view(256, 256)
    both, ones, twos = joint.diagonal(), joint.sum(1), joint.sum(0)
    shown = ((ones + twos) > 0).nonzero().flatten().tolist()
    return {value: (int(both[value]), int(ones[value]), int(twos[value])) for value in shown}


def _areas(labels: UInt8[Tensor, "height width"]) -> dict[int, int]:
    counts = torch.bincount(labels.flatten().long(), minlength=256).tolist()
    return {value: count for value, count in enumerate(counts) if count and value != IGNORE_VALUE}


def counts_table(counts: Iterable[PairCounts], classes: Classes) -> Int64[np.ndarray, "image label 3"]:
    """Return the counts of one pair as a table, with a row for each of `Classes.label_names`."""
    listed = list(counts)
    table = np.zeros((len(listed), len(classes) + 1, 3), dtype=np.int64)
    for row, own in enumerate(listed):
        for value, three in own.items():
            table[row, value] = three
    return table[:, len(classes) + 1 - classes.num_labels :]


def image_agreement(image: ComparedImage) -> float | None:
    """Return how far an image's maps agree, from 0 to 1; None where there are not two of them.

    The mean over its pairs of stages and of systems, or else of thresholds; of each the mean IoU of the classes that it
    is labelled with or that either map shows. A class that it is labelled with and neither shows counts as 0: nothing
    was found. An image of which neither says anything agrees.
    """
    found = {pair: pair_agreement(counts, image.tagged) for pair, counts in image.pairs.items()}
    # Where there is one system and one stage, all that can disagree is its seed with itself.
    chosen = [value for pair, value in found.items() if pair.kind != "threshold"] or list(found.values())
    return sum(chosen) / len(chosen) if chosen else None


def pair_agreement(counts: PairCounts, tagged: Sequence[int]) -> float:
    """Return how far two maps of an image agree: the mean IoU of what it is labelled with or either shows.

    Args:
        counts: of the pair.
        tagged: classes that the image is labelled with; one that neither map shows counts as 0.
    """
    values = {value for value in counts if value != BACKGROUND_VALUE} | {label_value(one) for one in tagged}
    iou = []
    for value in sorted(values):
        both, one, two = counts.get(value, (0, 0, 0))
        union = one + two - both
        iou.append(both / union if union else 0.0)
    return sum(iou) / len(iou) if iou else 1.0
