"""What stands out of the figures that need no mask, in sentences, for the page and the console."""

from collections.abc import Mapping, Sequence

from qaclims_ray.evaluation.agreement import MAP_NOUNS
from qaclims_ray.evaluation.trust import TrustFigures
from qaclims_ray.report.trust_tables import class_agreement, missing, pair_words, tags
from qaclims_ray.report.wording import percent

LOW_AGREEMENT = 0.5
"""Classes on which stages agree less than this are named."""
MANY_MISSING = 0.2
"""Classes of whose images a map lacks more than this share are named."""
LOW_PRECISION = 0.5
"""Classes that the classifier tells less well than this are named."""
_NAMED = 8

TRUST_MEANING = (
    "Nothing here is an mIoU: no true mask was read. Agreement is the mean IoU of two label maps with one in the place "
    "of the truth. Maps that make the same mistake agree, so agreement is no proof; where maps disagree, at most one "
    "of them is right."
)
"""What a reader must know of all figures without masks."""


def trust_remarks(trust: TrustFigures, system: str, label: str) -> list[str]:
    """Return what a person should look at first.

    Args:
        trust: the figures.
        system: the one that is spoken of.
        label: its short name.
    """
    lines = [*_classifier_lines(trust), *_agreement_lines(trust, system, label), *_map_lines(trust, system, label)]
    together = [f"{pair.name} with {pair.companion} ({pair.together} of {pair.images})" for pair in trust.inseparable]
    if together:
        lines.append(
            f"Labels hardly tell apart what is nearly always seen together: {_some(together)}. Images that show one of "
            "them alone would help"
        )
    return lines


def _classifier_lines(trust: TrustFigures) -> list[str]:
    found = trust.classifier
    if found is None:
        return []
    where = f"{found.num_images} images of {found.split}"
    held = "that it did not learn from" if found.is_held_out else "that it learned from, so it looks better than it is"
    lines = [
        f"The classifier's mean average precision is {percent(found.mean_average_precision)} % on {where} {held}; "
        f"{percent(found.accuracy)} % of its answers are right"
    ]
    weak = [
        f"{name} ({percent(own.average_precision)} on {own.num_images} of the images)"
        for name, own in found.classes.items()
        if own.average_precision is not None and own.average_precision < LOW_PRECISION
    ]
    if weak:
        lines.append(f"It hardly knows {_some(weak)}: do not believe masks of these")
    return lines


def _agreement_lines(trust: TrustFigures, system: str, label: str) -> list[str]:
    few = trust.few.get(system)
    if few is None:
        return []
    words = pair_words(few.stand_in)
    last = trust.last_map(system)
    found = {name: class_agreement(trust, system, name) for name in (last.classes if last else ())}
    low = sorted((value, name) for name, value in found.items() if value is not None and value < LOW_AGREEMENT)
    lines = []
    if low:
        named = _some([f"{name} ({percent(value)})" for value, name in low])
        lines.append(f"{label}: {words} agree on less than half of {named}: look at these first")
    lines.append(
        f"{label}: an mIoU over {few.number} masks made by hand would be known to about +/- "
        f"{100 * (few.high - few.low) / 2:.1f} points (95 %). The estimate is a stand-in: how far the agreement of "
        f"{words} moves over {few.number} of the images; qaclims label-these chooses images and scores them"
    )
    return lines


def _map_lines(trust: TrustFigures, system: str, label: str) -> list[str]:
    last = trust.last_map(system)
    if last is None:
        return []
    words, lines = MAP_NOUNS[last.source.stage], []
    if last.num_empty:
        lines.append(
            f"{label}: the {words} of {last.num_empty} of {last.num_tagged} tagged images shows no class at all"
        )
    gaps = [
        (own.tagged - own.shown, own.tagged, name)
        for name, own in last.classes.items()
        if own.tagged and own.tagged - own.shown > MANY_MISSING * own.tagged
    ]
    if gaps:
        named = _some([f"{name} ({lacking} of {all_})" for lacking, all_, name in sorted(gaps, reverse=True)])
        lines.append(f"{label}: the {words} lacks the class on more than {MANY_MISSING:.0%} of the images of {named}")
    elif missing(last):
        lines.append(f"{label}: the {words} does not show {missing(last)} of {tags(last)} tags")
    extra = [(own.untagged, name) for name, own in last.classes.items() if own.untagged]
    if extra:
        named = _some([f"{name} ({count})" for count, name in sorted(extra, reverse=True)])
        lines.append(f"{label}: the final network finds classes that images are not tagged with: {named}")
    return lines


def _some(names: Sequence[str]) -> str:
    more = f" and {len(names) - _NAMED} more" if len(names) > _NAMED else ""
    return ", ".join(names[:_NAMED]) + more


def spoken_of(trust: TrustFigures, labels: Mapping[str, str]) -> str:
    """Return the system that remarks are about: the last one, which `predict` takes too."""
    systems = [name for name in labels if trust.last_map(name)]
    return systems[-1] if systems else ""
