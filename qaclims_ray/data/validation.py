"""Everything about a data set that can be wrong, found before work starts and reported at once.

The readers (``voc.py``, ``folder.py``) collect `Fault`s while they read lists and labels; `inspection` opens the images
and masks; `fail_on` turns all faults into one message.
"""

import difflib
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Protocol

from qaclims_ray.data.classes import BACKGROUND_VALUE, IGNORE_VALUE
from qaclims_ray.errors import ConfigError, DataError

MAX_LISTED_FAULTS = 50
"""Faults spelled out in one report; the rest are counted."""

OnProgress = Callable[[int, int], None]
"""Called with the number of images done and the number in all."""


class Labelled(Protocol):
    """An image with labels, opened or not."""

    @property
    def labels(self) -> tuple[int, ...] | None:
        """Class ids; None where only its mask will tell."""
        ...

    @property
    def splits(self) -> tuple[str, ...]:
        """Splits that it belongs to."""
        ...


CheckLabels = Callable[[Sequence[str], Sequence[Labelled]], None]
"""Called by readers with class names and images before any pixel is decoded; raises where nothing can be learned."""


@dataclass(frozen=True)
class Fault:
    """One thing that is wrong with a data set."""

    sort: str
    """Heading under which such faults are reported, e.g. "unknown label"."""
    subject: str
    """Image, file or split."""
    detail: str
    """What was found and what was expected."""


@dataclass(frozen=True)
class RawImage:
    """An image as the lists name it, not yet opened."""

    image_id: str
    image_uri: str
    labels: tuple[int, ...] | None
    """Class ids; None takes them from the mask."""
    mask_uri: str | None
    context_uri: str | None
    splits: tuple[str, ...]


def fail_on(faults: Sequence[Fault], place: str, *, what: str = "data set") -> None:
    """Report all faults in one error; without any, do nothing.

    Args:
        faults: what was found.
        place: the data set's folder, for the message.
        what: lies there.

    Raises:
        DataError: when there is a fault.
    """
    if not faults:
        return
    by_sort: dict[str, list[Fault]] = defaultdict(list)
    for fault in dict.fromkeys(faults):
        by_sort[fault.sort].append(fault)
    # The shortest groups come first in the sharing, so that a sort with thousands cannot hide the others.
    left, quota = MAX_LISTED_FAULTS, {}
    for position, sort in enumerate(sorted(by_sort, key=lambda name: len(by_sort[name]))):
        quota[sort] = min(len(by_sort[sort]), max(1, left // (len(by_sort) - position)))
        left -= quota[sort]
    lines = []
    for sort, group in by_sort.items():
        lines.append(f"{sort} ({len(group)}):")
        lines += [f"  {fault.subject}: {fault.detail}" for fault in group[: quota[sort]]]
        if len(group) > quota[sort]:
            lines.append(f"  ... and {len(group) - quota[sort]} more")
    total = sum(map(len, by_sort.values()))
    raise DataError(
        f"the {what} at {place} has {total} fault{'s' * (total != 1)}; mend all of them before a run:\n"
        + "\n".join(lines)
    )


def unknown_label(image_id: str, unknown: Sequence[str], known: Iterable[str]) -> Fault:
    """Return the fault of an image that carries names of no class, with the likely spelling of the first."""
    names = list(dict.fromkeys(known))
    close = difflib.get_close_matches(unknown[0], names, n=1)
    listed = ", ".join(names[:8]) + (", ..." if len(names) > 8 else "")
    hint = f"did you mean {close[0]!r}?" if close else f"the classes are {listed}"
    return Fault("unknown label", image_id, f"{', '.join(map(repr, unknown))}; {hint}")


def check_class_names(class_names: Sequence[str]) -> None:
    """Refuse class names that cannot label anything.

    Raises:
        ConfigError: for none, empty or repeated ones, for "background", and for more than a mask can hold.
    """
    if not class_names:
        raise ConfigError("there is no class: name at least one")
    if repeated := [name for name, count in Counter(class_names).items() if count > 1]:
        raise ConfigError(f"class names stand more than once: {repeated}")
    if any(not name.strip() for name in class_names):
        raise ConfigError("a class name is empty")
    if "background" in class_names:
        raise ConfigError(f'"background" is no class: it is implied as label value {BACKGROUND_VALUE}; leave it out')
    if len(class_names) >= IGNORE_VALUE:
        raise ConfigError(f"{len(class_names)} classes: an 8-bit mask can tell at most {IGNORE_VALUE - 1}")


def check_splits(splits: Iterable[str], images: Sequence[RawImage]) -> list[Fault]:
    """Return faults for splits without images."""
    return [
        Fault("empty split", split, "no image belongs to it")
        for split in dict.fromkeys(splits)
        if not any(split in image.splits for image in images)
    ]


def unscored_note(images: Sequence[RawImage], scored: str) -> list[str]:
    """Return a note where images of the scored split have no mask: scores are over the others."""
    to_score = [image for image in images if scored in image.splits]
    masked = sum(image.mask_uri is not None for image in to_score)
    if masked == len(to_score):
        return []
    if masked == 0:
        return [f"no image of split {scored} has a mask: nothing can be scored"]
    lacking = next(image.image_id for image in to_score if image.mask_uri is None)
    return [
        f"{masked} of {len(to_score)} images of the scored split {scored} have a mask: all scores are over these alone "
        f"(without one: {lacking}{', ...' * (len(to_score) - masked > 1)})"
    ]
