"""Masks are held against image labels: what contradicts them is refused, a little disagreement is remarked.

Every mask that was looked at gives its `MaskFacts`. A set is refused with what was found, what it probably is, and the
setting that says otherwise. The limits below were chosen so that VOC passes, where an object that is hard to see is
labelled, but void (255) in the mask.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from qaclims_ray.data.classes import BACKGROUND_VALUE, IGNORE_VALUE, label_value
from qaclims_ray.data.config import DataConfig
from qaclims_ray.data.mask_diagnosis import (
    beyond_cause,
    binary_cause,
    bits_cause,
    colours_cause,
    counts_by_class,
    examples,
    explain,
    instances_cause,
    no_label_cause,
    palette_cause,
    void_cause,
)
from qaclims_ray.data.mask_evidence import (
    MaskFacts,
    Reading,
    are_instances,
    counts_up,
    other_readings,
    plain_reading,
)

MIN_AGREEMENT = 0.5
"""Dice of labelled and held (image, class) pairs below which masks and labels have nothing to do with each other."""
GOOD_AGREEMENT = 0.8
"""Dice above which a rare class may be absent, and share of right pairs that another reading must have."""
MIN_ABOVE_CHANCE = 0.3
"""How much better than masks of other images masks must fit (Cohen's kappa), where they hold unlabelled classes."""
NUM_PROVEN = 3
"""Labelled images whose masks all lack a class, without a pixel that is void: no accident."""
NUM_VOID = 8
"""The same, where the object may be void."""


@dataclass(frozen=True)
class Judgement:
    """What is wrong with masks."""

    refusals: tuple[tuple[str, str], ...] = ()
    """Heading, and what was found, what it probably is, and what to do."""
    notes: tuple[str, ...] = ()
    """What is remarked."""


def judge_masks(
    facts: Sequence[MaskFacts], class_names: Sequence[str], config: DataConfig, *, has_background: bool = True
) -> Judgement:
    """Hold masks against the labels of their images.

    Args:
        facts: of the masks that were looked at; either all have labels or none has.
        class_names: in label order.
        config: the data set; `mask_check` decides what becomes of contradictions.
        has_background: whether 0 is a value of its own; without it only the range of values is checked.
    """
    if not facts:
        return Judgement()
    labelled = [one for one in facts if one.labels is not None]
    better = _better_reading(labelled, class_names, config) if labelled else None
    coloured = [one for one in facts if one.colours]
    beyond = [one for one in facts if any(not 0 < value <= len(class_names) for value in one.objects)]
    refusals = []
    if coloured:
        refusals.append(("masks in colours", colours_cause(coloured, better, class_names, config)))
    if beyond:
        refusals.append(("mask values beyond the classes", beyond_cause(facts, beyond, better, class_names, config)))
    if refusals or not has_background:
        return Judgement(tuple(refusals))
    if labelled:
        contradiction, note = _held_against_labels(labelled, better, class_names, config)
        sort = "masks contradict the image labels"
    else:
        contradiction, note, sort = _alone(facts, class_names), "", "masks that cannot be right"
    contradiction = contradiction or void_cause(facts, class_names, config)
    if contradiction and config.mask_check == "warn":
        return Judgement(notes=(f"{sort} (data.mask_check is warn): {' '.join(contradiction.split())}",))
    if contradiction:
        return Judgement(((sort, f"{contradiction}\n    --data.mask-check warn goes on all the same."),))
    return Judgement(notes=(note,) if note else ())


def _better_reading(facts: Sequence[MaskFacts], class_names: Sequence[str], config: DataConfig) -> Reading | None:
    """Return another reading that fits the labels far better than the plain one, if there is one."""
    plain = plain_reading(facts, len(class_names)).evidence
    if not plain.errors:
        return None
    fitting = list[Reading]()
    for reading in other_readings(facts, len(class_names), palettes=not config.mask_values):
        evidence = reading.evidence
        mended = len(plain.wrong - evidence.wrong)
        # One image: any number would stand for any class, but not any colour of VOC's.
        enough = 1 if reading.kind == "voc_colours" and not evidence.errors else 2
        if 2 * evidence.errors <= plain.errors and mended >= enough and evidence.precision >= GOOD_AGREEMENT:
            fitting.append(reading)
    return min(fitting, key=lambda reading: reading.evidence.errors, default=None)


def _held_against_labels(
    facts: Sequence[MaskFacts], better: Reading | None, class_names: Sequence[str], config: DataConfig
) -> tuple[str, str]:
    """Return the contradiction, and what is remarked; either may be empty."""
    reading = plain_reading(facts, len(class_names))
    evidence = reading.evidence
    if not evidence.errors:
        return "", ""
    counted = counts_by_class(evidence, class_names)
    if not evidence.labelled:
        return f"{counted}. {no_label_cause(facts)}", ""
    if not {value for one in facts for value in one.objects}:
        if better is None or better.kind != "from_0":
            return f"{counted}. {binary_cause(facts, class_names, sorted(evidence.labelled))}", ""
    if better is not None:
        return f"{counted}. {explain(better, class_names, config)}", ""
    if are_instances(facts):
        return f"{counted}. {instances_cause(facts, class_names)}", ""
    absent = [one for one in evidence.labelled if not evidence.hits[one]]
    lacking = [one for label in absent for one in evidence.missing[label]]
    shallow = [one for label in absent for one in evidence.missing[label] if label_value(label) >= 2**one.bits]
    is_little = evidence.agreement < GOOD_AGREEMENT
    if shallow and len(shallow) == len(lacking) and (is_little or len(shallow) >= NUM_PROVEN):
        return f"{counted}. {bits_cause(shallow, class_names)}", ""
    is_many = evidence.num_images >= NUM_VOID
    is_random = evidence.above_chance < MIN_ABOVE_CHANCE or evidence.agreement < MIN_AGREEMENT
    if is_many and is_random and evidence.precision < GOOD_AGREEMENT:
        return f"{counted}. {_unrelated_cause(facts, config)}", ""
    if refused := [label for label in absent if _is_proven(reading, label)]:
        names = ", ".join(class_names[label] for label in refused)
        return f"no mask holds {names}, which {_are(refused)} labelled. {counted}. {_absent_cause(config)}", ""
    if evidence.agreement < MIN_AGREEMENT:
        return f"{counted}. {_unrelated_cause(facts, config)}", ""
    return "", _remark(reading, counted)


def _is_proven(reading: Reading, label: int) -> bool:
    """Whether it is no accident that no mask holds a labelled class."""
    evidence = reading.evidence
    missing = evidence.missing[label]
    excused = {one.image_id for one in evidence.excused(label)}
    strangers = {one.image_id for group in evidence.unlabelled.values() for one in group}
    if len(missing) - len(excused) >= NUM_PROVEN or len(missing) >= NUM_VOID:
        return True
    return evidence.agreement < GOOD_AGREEMENT and all(one.image_id in strangers for one in missing)


def _are(items: Sequence[object]) -> str:
    return "is" if len(items) == 1 else "are"


def _absent_cause(config: DataConfig) -> str:
    order = "the order of data.class_names" if config.dataset == "folder" else "the numbers of the masks"
    return (
        f"Probably the masks leave the class out or number it otherwise: check {order}, say which number or colour it "
        "is (data.mask_values), or take the class out of the labels"
    )


def _unrelated_cause(facts: Sequence[MaskFacts], config: DataConfig) -> str:
    empty = [one for one in facts if one.labels and not one.objects]
    if 2 * len(empty) >= sum(bool(one.labels) for one in facts):
        return (
            f"{len(empty)} of {len(facts)} masks hold no class though their images are labelled ({examples(empty)}): "
            "probably images that nobody annotated; remove these masks"
        )
    order = "data.class_names" if config.dataset == "folder" else "data.mask_values"
    return (
        "The masks fit the labels little better than masks of other images would: probably masks of other images, "
        f"numbers of single objects (instances), or classes in another order ({order})"
    )


def _remark(reading: Reading, counted: str) -> str:
    evidence = reading.evidence
    return (
        f"masks and image labels differ in {len(evidence.wrong)} of {evidence.num_images} images: "
        f"{evidence.num_missing} labelled classes are not in the mask, {evidence.num_unlabelled} classes of masks are "
        f"not labelled ({counted})"
    )


def _alone(facts: Sequence[MaskFacts], class_names: Sequence[str]) -> str:
    """Return what is wrong with masks that the labels are taken from."""
    values = {value for one in facts for value in one.values}
    if values <= {BACKGROUND_VALUE, IGNORE_VALUE}:
        return binary_cause(facts, class_names, range(len(class_names)))
    if cause := palette_cause(facts, class_names):
        return cause
    if len(class_names) >= max(2**one.bits for one in facts):
        return bits_cause(facts, class_names)
    with_objects = [one for one in facts if one.objects]
    # Of twenty classes or so, masks of classes have gaps.
    if (
        len(class_names) >= 10
        and len(with_objects) >= 5
        and all(counts_up(one.objects) for one in with_objects)
        and any(len(one.objects) > 1 for one in with_objects)
    ):
        return instances_cause(with_objects, class_names)
    return ""
