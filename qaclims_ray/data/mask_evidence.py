"""What masks and image labels say of each other, counted, and which other reading of the masks would fit better.

A reading says which class each key stands for; keys are the numbers that masks hold, or the colours that they show.
Nothing here decides anything: `mask_agreement` does.
"""

from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Literal

import numpy as np

from qaclims_ray.data.classes import BACKGROUND_VALUE, IGNORE_VALUE, Colour, class_id, label_value, voc_colours
from qaclims_ray.data.mask_values import BLACK

Key = int | Colour
"""A number that masks hold, or a colour that they show."""
MARKED = 255
"""What many tools write for the one object."""
VOC_VOID: Colour = (224, 224, 192)
"""Colour of 255 in VOC's palette."""
WHITE: Colour = (255, 255, 255)
"""Colour of 255 in a grey picture."""
_NEARLY_ALL = 0.9
"""Share of masks that hold their background, whatever it is called."""
_MUCH = 0.2
"""Least share of the pixels that a background covers; void covers 5% in VOC, 12% in Cityscapes."""
_FEW = 3
"""Of fewer masks a background must cover half."""


@dataclass(frozen=True)
class MaskFacts:
    """What one mask holds."""

    image_id: str
    labels: frozenset[int] | None
    """Class ids of its image; None where they are taken from the mask itself."""
    values: Mapping[int, int]
    """Number -> pixels; empty for a mask in colours."""
    colours: Mapping[Colour, int] = field(default_factory=dict)
    """Colour -> pixels, for a mask in colours."""
    palette: Mapping[int, Colour] = field(default_factory=dict)
    """Colour of each number, for a palette picture."""
    bits: int = 8
    """Bits of a pixel as stored."""

    @cached_property
    def objects(self) -> frozenset[int]:
        """Numbers that are neither background nor ignored."""
        return frozenset(self.values) - {BACKGROUND_VALUE, IGNORE_VALUE}

    def keys(self, by: Literal["numbers", "colours"]) -> Mapping[Key, int]:
        """Return the numbers it holds, or the colours it shows, and their pixels."""
        if by == "numbers":
            return {**self.values}
        if self.colours:
            return {**self.colours}
        shown = Counter[Key]()
        for value, pixels in self.values.items():
            shown[self.palette.get(value, (value, value, value))] += pixels
        return shown


@dataclass(frozen=True)
class Evidence:
    """How masks, read in one way, compare with the labels of their images."""

    num_images: int
    labelled: Counter[int]
    """Class -> images that are labelled with it and have a mask."""
    hits: Counter[int]
    """Class -> those of them whose mask holds it."""
    missing: Mapping[int, list[MaskFacts]]
    """Class -> masks that lack it though it is labelled."""
    unlabelled: Mapping[int, list[MaskFacts]]
    """Class -> masks that hold it though it is not labelled."""
    unread: Mapping[str, int]
    """Image id -> keys of its mask that stand for nothing."""

    @cached_property
    def num_hits(self) -> int:
        """(image, class) pairs that labels and masks share."""
        return self.hits.total()

    @cached_property
    def num_missing(self) -> int:
        """Pairs of the labels alone."""
        return sum(map(len, self.missing.values()))

    @cached_property
    def num_unlabelled(self) -> int:
        """Pairs of the masks alone."""
        return sum(map(len, self.unlabelled.values()))

    @property
    def errors(self) -> int:
        """Pairs of one side alone, and keys that stand for nothing."""
        return self.num_missing + self.num_unlabelled + sum(self.unread.values())

    @cached_property
    def wrong(self) -> set[str]:
        """Images whose mask and labels differ."""
        both = [*self.missing.values(), *self.unlabelled.values()]
        return {facts.image_id for group in both for facts in group} | set(self.unread)

    @property
    def precision(self) -> float:
        """Share of what masks hold that is labelled."""
        return self.num_hits / max(1, self.num_hits + self.num_unlabelled + sum(self.unread.values()))

    def excused(self, class_id: int) -> list[MaskFacts]:
        """Return the masks that lack a class and may show its object as void: they hold 255 and nothing unlabelled."""
        strangers = {facts.image_id for group in self.unlabelled.values() for facts in group}
        return [
            facts
            for facts in self.missing.get(class_id, ())
            if IGNORE_VALUE in facts.values and facts.image_id not in strangers
        ]

    @cached_property
    def agreement(self) -> float:
        """Dice of the pairs of labels and masks, 0 to 1; objects that may be void are left out."""
        missing = self.num_missing - sum(len(self.excused(one)) for one in self.missing)
        total = 2 * self.num_hits + missing + self.num_unlabelled
        return 2 * self.num_hits / total if total else 1.0

    @cached_property
    def above_chance(self) -> float:
        """1 for no error, 0 for as many as masks of random other images would give (Cohen's kappa over the pairs)."""
        expected = 0.0
        for one in set(self.labelled) | set(self.unlabelled):
            told = self.labelled[one]
            held = self.hits[one] + len(self.unlabelled.get(one, ()))
            expected += told + held - 2 * told * held / max(1, self.num_images)
        return 1 - self.errors / expected if expected else 1.0


@dataclass(frozen=True)
class Reading:
    """One way to read masks."""

    kind: Literal["numbers", "voc_colours", "from_0", "from_2", "order", "colours"]
    classes: Mapping[Key, int]
    """Key -> class id."""
    evidence: Evidence
    background: tuple[Key, ...] = ()
    """Keys of the background beside 0 and black."""
    ignored: tuple[Colour, ...] = ()
    """Colours that masks show for ignored pixels."""

    @property
    def by(self) -> Literal["numbers", "colours"]:
        """What its keys are."""
        return "colours" if self.kind in ("colours", "voc_colours") else "numbers"


def plain_reading(facts: Sequence[MaskFacts], num_classes: int, background: tuple[Key, ...] = ()) -> Reading:
    """Read masks as this package does: a number is a label value."""
    return _reading("numbers", {value: class_id(value) for value in range(1, num_classes + 1)}, facts, background)


def covering(facts: Sequence[MaskFacts], by: Literal["numbers", "colours"]) -> list[Key]:
    """Return what nearly every mask holds and covers much with, as a background does; but for 0 and black."""
    masks, shares = Counter[Key](), Counter[Key]()
    for one in facts:
        pixels = one.keys(by)
        masks.update(pixels.keys())
        for key, count in pixels.items():
            shares[key] += count / sum(pixels.values())  # type: ignore[assignment]
    much = len(facts) * (_MUCH if len(facts) >= _FEW else 0.5)
    often = [key for key, count in masks.items() if count >= _NEARLY_ALL * len(facts) and shares[key] >= much]
    return sorted({*often} - {BACKGROUND_VALUE, BLACK}, key=lambda key: -shares[key])


def void_for_background(facts: Sequence[MaskFacts], by: Literal["numbers", "colours"] = "numbers") -> tuple[Key, ...]:
    """Return 255 (or its colour) where it stands for the background: it covers much, and no mask holds 0 (or black)."""
    background, void = (BACKGROUND_VALUE, {IGNORE_VALUE}) if by == "numbers" else (BLACK, {WHITE, VOC_VOID})
    if any(background in one.keys(by) for one in facts):
        return ()
    return tuple(key for key in covering(facts, by) if key in void)


def other_readings(facts: Sequence[MaskFacts], num_classes: int, *, palettes: bool) -> list[Reading]:
    """Return other ways to read masks, the most usual mistake first.

    Args:
        facts: masks of labelled images.
        num_classes: foreground classes.
        palettes: whether colours tell anything (translated masks all have the same).
    """
    readings = []
    has_colours = palettes and any(one.palette or one.colours for one in facts)
    if has_colours:
        own = {colour: class_id(value) for colour, value in voc_colours(num_classes).items()}
        classes: dict[Key, int] = {colour: number for colour, number in own.items() if 0 <= number < num_classes}
        readings.append(_reading("voc_colours", classes, facts))
    # With a background nearly every mask holds 0, which then goes with any class that nearly every image shows.
    without_0 = sum(BACKGROUND_VALUE not in one.values for one in facts)
    others = [key for key in covering(facts, "numbers") if key not in range(num_classes)][:1]
    if without_0 >= 2 and (others or num_classes > 1):
        readings.append(_reading("from_0", {number: number for number in range(num_classes)}, facts, (*others,)))
    void = void_for_background(facts)
    readings.append(_reading("from_2", {number + 2: number for number in range(num_classes)}, facts, (1, *void)))
    readings.append(
        _reading("order", best_order(facts, num_classes, "numbers", {BACKGROUND_VALUE, *void}), facts, void)
    )
    if without_0 >= max(2, _MUCH * len(facts)):
        readings += _with_background("order", facts, num_classes)
    if has_colours:
        white = void_for_background(facts, "colours")
        order = best_order(facts, num_classes, "colours", {BLACK, VOC_VOID, *white})
        readings.append(_reading("colours", order, facts, white))
        readings += _with_background("colours", facts, num_classes)
    return readings


def _with_background(
    kind: Literal["order", "colours"], facts: Sequence[MaskFacts], num_classes: int
) -> Iterable[Reading]:
    """Yield readings by which 0 or black is a class like others, and another key is the background."""
    by = "colours" if kind == "colours" else "numbers"
    for key in covering(facts, by):
        none: set[Key] = {key, IGNORE_VALUE} if by == "numbers" else {key, VOC_VOID}
        yield _reading(kind, best_order(facts, num_classes, by, none), facts, (key,))


def best_order(
    facts: Sequence[MaskFacts], num_classes: int, by: Literal["numbers", "colours"], none: set[Key]
) -> dict[Key, int]:
    """Give each key the class that makes masks and labels agree most often, each class at most one key.

    Args:
        facts: masks of labelled images.
        num_classes: foreground classes.
        by: what keys are.
        none: keys of no class.
    """
    keys = sorted({key for one in facts for key in one.keys(by)} - none)  # type: ignore[type-var]
    position = {key: index for index, key in enumerate(keys)}
    together = np.zeros((len(keys), num_classes))
    for one in facts:
        for key in {*one.keys(by)} - none:
            for label in one.labels or ():
                together[position[key], label] += 1
    # Only masks that look wrong are brought into order, and every process that reads masks would import scipy.
    from scipy.optimize import linear_sum_assignment

    # Of equally good orders the one that is expected.
    favour = [[0.01 * (key in (label + 1, MARKED)) for label in range(num_classes)] for key in keys]
    rows, columns = linear_sum_assignment(together + np.reshape(favour, together.shape), maximize=True)
    return {keys[row]: int(column) for row, column in zip(rows, columns, strict=True) if together[row, column]}


def values_where(facts: Iterable[MaskFacts]) -> Counter[int]:
    """Return number -> how many of some masks hold it; background and ignored pixels are left out."""
    return Counter(value for one in facts for value in one.objects)


def counts_up(values: Iterable[int]) -> bool:
    """Whether numbers are 1, 2, 3 ... without a gap."""
    found = set(values)
    return found == set(range(1, len(found) + 1))


def are_instances(facts: Sequence[MaskFacts]) -> bool:
    """Whether masks count 1, 2, 3 ... where the labels would have gaps."""
    with_objects = [one for one in facts if one.objects]
    gaps = [one for one in with_objects if not counts_up(label_value(label) for label in one.labels or ())]
    filled = [one for one in gaps if counts_up(one.objects)]
    counting = sum(counts_up(one.objects) for one in with_objects)
    # Masks that hold all that is labelled, and more, only tell more than the labels.
    lacking = [one for one in filled if {label_value(label) for label in one.labels or ()} - one.objects]
    return (
        len(filled) >= 2
        and len(lacking) >= 0.2 * len(filled)
        and len(filled) >= 0.9 * len(gaps)
        and counting >= 0.9 * len(with_objects)
    )


def _reading(kind: Literal["numbers", "voc_colours", "from_0", "from_2", "order", "colours"],
             classes: Mapping[Key, int], facts: Sequence[MaskFacts],
             background: tuple[Key, ...] = ()) -> Reading:  # fmt: skip
    by = "colours" if kind in ("colours", "voc_colours") else "numbers"
    ignored: set[Key] = {IGNORE_VALUE} if by == "numbers" else {VOC_VOID, WHITE}
    nothing = {BACKGROUND_VALUE if by == "numbers" else BLACK, *ignored, *background}
    unread = {}
    labelled, hits = Counter[int](), Counter[int]()
    missing: dict[int, list[MaskFacts]] = defaultdict(list)
    unlabelled: dict[int, list[MaskFacts]] = defaultdict(list)
    for one in facts:
        held = {classes[key] for key in one.keys(by) if key in classes}
        told = one.labels or frozenset()
        if strangers := set(one.keys(by)) - set(classes) - nothing:
            unread[one.image_id] = len(strangers)
        labelled.update(told)
        hits.update(told & held)
        for label in sorted(told - held):
            missing[label].append(one)
        for label in sorted(held - told):
            unlabelled[label].append(one)
    seen = {key for one in facts for key in one.keys(by)} if by == "colours" else set()
    return Reading(
        kind,
        classes,
        Evidence(len(facts), labelled, hits, dict(missing), dict(unlabelled), unread),
        background,
        tuple(key for key in sorted(seen & ignored - {*classes, *background}) if isinstance(key, tuple)),  # type: ignore[type-var]
    )
