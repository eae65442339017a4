"""`data.mask_values`: which class each number or colour of a data set's masks stands for.

An entry is ``WHAT=CLASS``. WHAT is a number (``255=polyp``), a colour (``'#800000=cat'``, ``128,0,0=cat``, ``red=cat``)
or ``nonzero``, which is all that is listed nowhere and is not 0. CLASS is a class name, ``background`` or ``ignore``.
The entry ``voc-colours`` stands for all colours of VOC's palette. 0 and black are background and 255 is ignored unless
an entry says otherwise; anything else that no entry names is refused where it is met.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from PIL import ImageColor

from qaclims_ray.data.classes import (
    BACKGROUND_VALUE,
    IGNORE_VALUE,
    VOC_CLASSES,
    VOC_FILE_NAMES,
    Colour,
    label_value,
    voc_colours,
)
from qaclims_ray.errors import ConfigError

VOC_COLOURS = "voc-colours"
"""Entry for masks that show VOC's palette, as RGB pictures or under other indices."""
NONZERO = "nonzero"
"""Left side of an entry for every number but 0, every colour but black."""
BACKGROUND, IGNORE = "background", "ignore"
"""Right sides that are no class."""
BLACK: Colour = (0, 0, 0)
"""Colour of the background, unless an entry says otherwise."""

_NUMBER = re.compile(r"\d+")
_TRIPLE = re.compile(r"\(?\s*(\d+)\s*,\s*(\d+)\s*,\s*(\d+)\s*\)?")


@dataclass(frozen=True)
class Translation:
    """What masks hold -> label values."""

    numbers: Mapping[int, int] = field(default_factory=dict)
    """Label value of a number."""
    colours: Mapping[Colour, int] | None = None
    """Label value of a colour; None where masks are read by their numbers."""
    nonzero: int | None = None
    """Label value of what stands in neither and is not 0."""


@dataclass(frozen=True)
class _Said:
    """One entry, taken apart."""

    number: int | None = None
    colour: Colour | None = None
    is_nonzero: bool = False
    is_palette: bool = False
    target: str = ""


def check_entries(entries: Sequence[str]) -> None:
    """Refuse entries of another form, and those that contradict each other.

    Raises:
        ConfigError: says which.
    """
    parsed = [_parse(entry) for entry in entries]
    keys = [(entry.number, entry.colour, entry.is_nonzero, entry.is_palette) for entry in parsed]
    for position, key in enumerate(keys):
        if key in keys[:position]:
            raise ConfigError(f"data.mask_values says twice what {entries[position]!r} says: leave one of them out")
    has_colours = any(entry.colour is not None or entry.is_palette for entry in parsed)
    if has_colours and any(entry.number is not None for entry in parsed):
        raise ConfigError(
            "data.mask_values has numbers and colours: masks are read either by the numbers that they hold or by the "
            "colours that they show (grey 255 is #ffffff); write all entries in one way"
        )


def translation_of(entries: Sequence[str], class_names: Sequence[str]) -> Translation:
    """Return the translation that entries describe.

    Args:
        entries: `data.mask_values`, checked.
        class_names: in label order; VOC's classes are also known as its files spell them.

    Raises:
        ConfigError: when an entry names no class.
    """
    targets = _targets(class_names)
    numbers = {BACKGROUND_VALUE: BACKGROUND_VALUE, IGNORE_VALUE: IGNORE_VALUE}
    colours = {BLACK: BACKGROUND_VALUE}
    nonzero, given = None, []
    for entry in (_parse(text) for text in entries):
        if entry.is_palette:
            colours = {**voc_colours(len(class_names)), **{colour: colours[colour] for colour in given}}
            continue
        if entry.target not in targets:
            raise ConfigError(
                f"data.mask_values names {entry.target!r}; expected a class ({', '.join(class_names)}), {BACKGROUND} "
                f"or {IGNORE}; entries are separated by blanks"
            )
        value = targets[entry.target]
        if entry.is_nonzero:
            nonzero = value
        elif entry.number is not None:
            numbers[entry.number] = value
            given.append(entry.number)
        elif entry.colour is not None:
            colours[entry.colour] = value
            given.append(entry.colour)
    if nonzero is not None and IGNORE_VALUE not in given:
        del numbers[IGNORE_VALUE]
    by_colour = any(_parse(text).colour is not None or _parse(text).is_palette for text in entries)
    return Translation(numbers, colours if by_colour else None, nonzero)


def _targets(class_names: Sequence[str]) -> dict[str, int]:
    targets = {BACKGROUND: BACKGROUND_VALUE, IGNORE: IGNORE_VALUE}
    if tuple(class_names) == VOC_CLASSES:
        targets |= {name: label_value(index) for index, name in enumerate(VOC_FILE_NAMES)}
    # A class that is called "ignore" comes first.
    return targets | {name: label_value(index) for index, name in enumerate(class_names)}


def _parse(text: str) -> _Said:
    if text.strip() == VOC_COLOURS:
        return _Said(is_palette=True)
    what, has_target, target = (part.strip() for part in text.partition("="))
    if not what or not has_target or not target:
        raise ConfigError(
            f"data.mask_values holds {text!r}; expected WHAT=CLASS, as in 255=polyp, '#800000=cat', 128,0,0=cat, "
            f"{NONZERO}=polyp, 7={IGNORE}, or {VOC_COLOURS}"
        )
    if what == NONZERO:
        return _Said(is_nonzero=True, target=target)
    if _NUMBER.fullmatch(what):
        return _Said(number=int(what), target=target)
    triple = _TRIPLE.fullmatch(what)
    try:
        # "rgb()" caps channels above 255 instead of refusing them.
        channels = [int(channel) for channel in triple.groups()] if triple else [*ImageColor.getrgb(what)]
    except ValueError:
        channels = []
    if len(channels) != 3 or max(channels) > 255:
        raise ConfigError(
            f"data.mask_values: {what!r} is no number, no colour (#rrggbb, R,G,B from 0 to 255, or a name such as red) "
            f"and not {NONZERO}"
        )
    red, green, blue = channels
    return _Said(colour=(red, green, blue), target=target)
