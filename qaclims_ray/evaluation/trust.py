"""What can be known of a run's label maps without a mask: coverage, agreement, tags that are not found, and the like.

Plain values that a stage gathers, ``trust.json`` keeps and the report shows. All figures are fractions.
"""

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from qaclims_ray.data.classes import BACKGROUND_VALUE, Classes, class_id, label_value
from qaclims_ray.data.tag_pairs import TagPair
from qaclims_ray.evaluation.agreement import (
    MAP_STAGES,
    ComparedImage,
    MapPair,
    MapSource,
    counts_table,
    image_agreement,
)
from qaclims_ray.evaluation.average_precision import ClassifierFigures
from qaclims_ray.evaluation.bootstrap import iou_of, mean_of
from qaclims_ray.evaluation.few_masks import NUMBER, interval_of_few

FOUND_SHARE = 0.01
"""Share of an image's pixels from which a class that it is not labelled with counts as found: less is a speck."""


@dataclass(frozen=True)
class MapThreshold:
    """At which background scores a system's seeds are cut."""

    fixed: float
    """The one in use."""
    label_free: float
    """The one that is chosen without masks."""


@dataclass(frozen=True)
class MapClass:
    """One class in the maps of one source."""

    tagged: int
    """Images that are labelled with it."""
    shown: int
    """Those of them whose map shows it."""
    mean_area: float | None
    """Mean share of the pixels of the images that are labelled with it; None without any."""
    untagged: int
    """Images that are not labelled with it and whose map shows it on at least `FOUND_SHARE` of the pixels."""


@dataclass(frozen=True)
class MapFigures:
    """The label maps of one source."""

    source: MapSource
    """What drew them."""
    num_images: int
    """How many there are."""
    coverage: float
    """Share of all pixels that show a class."""
    num_tagged: int
    """Images that are labelled with a class."""
    num_empty: int
    """Those of them whose map shows none."""
    classes: dict[str, MapClass]
    """By class."""


@dataclass(frozen=True)
class AgreementFigures:
    """How far the maps of two sources agree."""

    pair: MapPair
    """Which ones."""
    num_images: int
    """Images that have both."""
    miou: float
    """Mean IoU over the background and the classes that these images are labelled with."""
    iou: dict[str, float | None]
    """Of the background and each class; None for one that the images are not labelled with."""


@dataclass(frozen=True)
class FewMasks:
    """What a few masks made by hand would tell of a system."""

    number: int
    """How many."""
    stand_in: MapPair
    """Whose agreement stands in for the mIoU that is not known."""
    low: float
    """Lower end of the interval of that agreement over so many images."""
    high: float
    """Upper end."""


@dataclass(frozen=True)
class ImageTrust:
    """What is known of one image's maps."""

    image_id: str
    """The manifest's image identifier."""
    tagged: tuple[str, ...]
    """Classes that it is labelled with."""
    agreement: float | None
    """How far its maps agree (`agreement.image_agreement`)."""
    shares: dict[str, dict[str, float]]
    """`MapSource.key` -> class -> share of the pixels that the map gives it."""


@dataclass(frozen=True)
class TrustFigures:
    """All of it, for a run."""

    num_images: int
    """Images with maps."""
    thresholds: dict[str, MapThreshold] = field(default_factory=dict)
    """By system; empty where there is no background."""
    maps: tuple[MapFigures, ...] = ()
    """By system and stage."""
    agreements: tuple[AgreementFigures, ...] = ()
    """By pair."""
    few: dict[str, FewMasks] = field(default_factory=dict)
    """By system."""
    classifier: ClassifierFigures | None = None
    """How well the image-level classifier tells the classes; None where the run has none."""
    inseparable: tuple[TagPair, ...] = ()
    """Classes that cannot be told apart by the labels."""

    def map_of(self, system: str, stage: str) -> MapFigures | None:
        """Return the figures of one source."""
        return next((m for m in self.maps if (m.source.system, m.source.stage) == (system, stage)), None)

    def last_map(self, system: str) -> MapFigures | None:
        """Return the figures of a system's last stage that has maps."""
        return next((found for stage in reversed(list(MAP_STAGES)) if (found := self.map_of(system, stage))), None)


def trust_figures(
    images: Sequence[ComparedImage],
    classes: Classes,
    *,
    thresholds: Mapping[str, MapThreshold],
    classifier: ClassifierFigures | None,
    inseparable: Sequence[TagPair],
) -> TrustFigures:
    """Sum up what was counted image by image.

    Args:
        images: all of them.
        classes: those of the data set.
        thresholds: see `TrustFigures`.
        classifier: see `TrustFigures`.
        inseparable: see `TrustFigures`.
    """
    sources = sorted({source for image in images for source in image.areas}, key=_in_order)
    pairs = sorted({pair for image in images for pair in image.pairs}, key=_pair_in_order)
    few = {
        system: found
        for system in dict.fromkeys(s.system for s in sources)
        if (found := _few(images, system, pairs, classes))
    }
    return TrustFigures(
        num_images=len(images),
        thresholds=dict(thresholds),
        maps=tuple(_map_figures(images, source, classes) for source in sources),
        agreements=tuple(_agreement(images, pair, classes) for pair in pairs),
        few=few,
        classifier=classifier,
        inseparable=tuple(inseparable),
    )


def _in_order(source: MapSource) -> tuple[str, int]:
    return source.system, list(MAP_STAGES).index(source.stage)


def _pair_in_order(pair: MapPair) -> tuple[str, tuple[str, int], tuple[str, int]]:
    return pair.kind, _in_order(pair.first), _in_order(pair.other)


def _map_figures(images: Sequence[ComparedImage], source: MapSource, classes: Classes) -> MapFigures:
    own = [image for image in images if source in image.areas]
    painted = [sum(n for value, n in i.areas[source].items() if value != BACKGROUND_VALUE) for i in own]
    tagged = [bool(image.tagged) for image in own]
    return MapFigures(
        source=source,
        num_images=len(own),
        coverage=sum(painted) / max(1, sum(image.num_pixels for image in own)),
        num_tagged=sum(tagged),
        num_empty=sum(is_tagged and not count for is_tagged, count in zip(tagged, painted, strict=True)),
        classes={name: _map_class(own, source, label_value(number)) for number, name in enumerate(classes.names)},
    )


def _map_class(images: Sequence[ComparedImage], source: MapSource, value: int) -> MapClass:
    shares = [image.areas[source].get(value, 0) / image.num_pixels for image in images]
    with_tag = [s for image, s in zip(images, shares, strict=True) if class_id(value) in image.tagged]
    without = [s for image, s in zip(images, shares, strict=True) if class_id(value) not in image.tagged]
    return MapClass(
        tagged=len(with_tag),
        shown=sum(share > 0 for share in with_tag),
        mean_area=sum(with_tag) / len(with_tag) if with_tag else None,
        untagged=sum(share >= FOUND_SHARE for share in without),
    )


def _agreement(images: Iterable[ComparedImage], pair: MapPair, classes: Classes) -> AgreementFigures:
    own = [image for image in images if pair in image.pairs]
    sums = counts_table([image.pairs[pair] for image in own], classes).sum(0)
    tagged = {label_value(one) for image in own for one in image.tagged}
    first = len(classes) + 1 - classes.num_labels
    # The background always; a class that no image is labelled with is no part of the mean, whoever paints it.
    averaged = [value == BACKGROUND_VALUE or value in tagged for value in range(first, len(classes) + 1)]
    iou = iou_of(sums)
    known = {
        name: (float(value) if value == value else 0.0) if counts else None
        for name, value, counts in zip(classes.label_names, iou, averaged, strict=True)
    }
    return AgreementFigures(pair, len(own), float(mean_of(iou, np.array(averaged))), known)


def stand_in(system: str, pairs: Iterable[MapPair]) -> MapPair | None:
    """Return the pair whose agreement says most of a system: its last two stages, else its seed and another's."""
    own = [pair for pair in pairs if system in (pair.first.system, pair.other.system)]
    stages = [pair for pair in own if pair.kind == "stages"]
    if stages:
        return max(stages, key=lambda pair: (_in_order(pair.other), _in_order(pair.first)))
    return next((pair for pair in own if pair.kind == "systems"), None)


def _few(images: Sequence[ComparedImage], system: str, pairs: Sequence[MapPair], classes: Classes) -> FewMasks | None:
    pair = stand_in(system, pairs)
    if pair is None:
        return None
    found = interval_of_few(counts_table([i.pairs[pair] for i in images if pair in i.pairs], classes))
    return None if found is None else FewMasks(NUMBER, pair, found.low, found.high)


def image_trust(image: ComparedImage, classes: Classes) -> ImageTrust:
    """Return what is kept of one image."""
    shares = {
        source.key: {
            classes.names[class_id(value)]: round(count / image.num_pixels, 6)
            for value, count in areas.items()
            if value != BACKGROUND_VALUE
        }
        for source, areas in image.areas.items()
    }
    tagged = tuple(classes.names[one] for one in image.tagged)
    return ImageTrust(image.image_id, tagged, image_agreement(image), shares)


def not_found(images: Iterable[ImageTrust], source: MapSource) -> dict[str, list[str]]:
    """Return class -> images that are labelled with it and whose map does not show it."""
    found: dict[str, list[str]] = defaultdict(list)
    for image in images:
        if source.key in image.shares:
            for name in image.tagged:
                if not image.shares[source.key].get(name):
                    found[name].append(image.image_id)
    return {name: sorted(listed) for name, listed in sorted(found.items())}


def not_tagged(images: Iterable[ImageTrust], source: MapSource) -> dict[str, list[tuple[str, float]]]:
    """Return class -> images whose map shows it though they are not labelled with it, and its share, the largest first.

    Only where it covers `FOUND_SHARE` of the image.
    """
    found: dict[str, list[tuple[str, float]]] = defaultdict(list)
    for image in images:
        for name, share in image.shares.get(source.key, {}).items():
            if name not in image.tagged and share >= FOUND_SHARE:
                found[name].append((image.image_id, share))
    return {name: sorted(listed, key=lambda one: (-one[1], one[0])) for name, listed in sorted(found.items())}
