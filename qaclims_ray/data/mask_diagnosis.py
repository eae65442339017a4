"""What is probably wrong with masks, in words, and the setting that says how they are meant."""

import shlex
from collections import Counter
from collections.abc import Iterable, Sequence

from qaclims_ray.data.classes import BACKGROUND_VALUE, IGNORE_VALUE, Colour, hexadecimal, label_value, voc_colours
from qaclims_ray.data.config import DataConfig
from qaclims_ray.data.mask_evidence import (
    VOC_VOID,
    Evidence,
    Key,
    MaskFacts,
    Reading,
    are_instances,
    counts_up,
    covering,
    plain_reading,
    values_where,
    void_for_background,
)
from qaclims_ray.data.mask_files import MAX_VALUE, colours_complaint, large_numbers_complaint, listed_colours
from qaclims_ray.data.mask_values import BACKGROUND, BLACK, IGNORE, NONZERO, VOC_COLOURS, translation_of

_LISTED = 6
"""Classes, values or images that are spelled out."""
_MANY_VALUES = 5
"""More values beyond the classes in one mask than tools write on purpose."""
_WIDE_STEP = 10
"""Least distance of label values that were spread to be seen."""


def counts_by_class(evidence: Evidence, class_names: Sequence[str]) -> str:
    """Say for the classes that differ how often labels and masks name them, and which value stands there."""
    both = {*evidence.missing, *evidence.unlabelled}
    often = sorted(both, key=lambda one: (-len(evidence.missing.get(one, ())), -len(evidence.unlabelled.get(one, ()))))
    lines = []
    for one in often[:_LISTED]:
        missing, unlabelled = evidence.missing.get(one, []), evidence.unlabelled.get(one, [])
        found = []
        if missing:
            found.append(
                f"labelled in {evidence.labelled[one]} images with a mask, of which {evidence.hits[one]} hold it, "
                f"not {examples(missing)}{_standing_in(missing)}"
            )
        if unlabelled:
            found.append(f"held unlabelled by {len(unlabelled)} masks ({examples(unlabelled)})")
        lines.append(f"{class_names[one]} ({label_value(one)}): {', '.join(found)}")
    if len(often) > _LISTED:
        lines.append(f"{len(often) - _LISTED} more classes differ")
    return "; ".join(lines)


def _standing_in(facts: Sequence[MaskFacts]) -> str:
    """Say what masks hold in place of a class."""
    values = values_where(facts).most_common(3)
    if values:
        return " (there masks hold " + ", ".join(f"{value} in {count}" for value, count in values) + ")"
    return " (there masks hold 0 only)" if not any(IGNORE_VALUE in one.values for one in facts) else " (there: 0, 255)"


def examples(facts: Iterable[MaskFacts]) -> str:
    """Name the first images."""
    names = list(dict.fromkeys(one.image_id for one in facts))
    return ", ".join(names[:3]) + (f" and {len(names) - 3} more" if len(names) > 3 else "")


def explain(reading: Reading, class_names: Sequence[str], config: DataConfig) -> str:
    """Say what another reading means, how well it fits, and how to ask for it."""
    fit = reading.evidence.num_images - len(reading.evidence.wrong)
    match reading.kind:
        case "voc_colours":
            cause = "a program numbered the palette anew: its colours are VOC's, its numbers are not"
        case "colours":
            cause = "numbers differ from file to file or follow another order, the colours tell the classes"
        case "from_0" if len(class_names) == 1:
            cause = f"the masks are inverted: 0 is {class_names[0]}"
        case "from_0" if reading.background:
            cause = f"the masks count from 0, so 0 is {class_names[0]}"
        case "from_0":
            cause = f"the masks count from 0, so 0 is {class_names[0]} (if 255 is the background, add 255=background)"
        case "from_2":
            cause = f"all numbers are one too high: 1 is the background, 2 is {class_names[0]}"
        case _ if IGNORE_VALUE in reading.classes:
            cause = f"255 marks the object here ({class_names[reading.classes[IGNORE_VALUE]]}), but means ignored"
        case _:
            cause = "the numbers of the masks are in another order than the classes"
    if reading.kind != "from_2" and reading.background:
        cause += f", and {_shown(reading.background[0])} is the background"
    return (
        f"Probably {cause}. Read so, {fit} of {reading.evidence.num_images} masks agree with their labels:"
        f"{_typed(setting_line(reading, class_names, config))}"
    )


def setting_line(reading: Reading, class_names: Sequence[str], config: DataConfig) -> str:
    """Return the option that asks for a reading, ready to be typed."""
    if config.mask_values:
        return _changed_line(reading, class_names, config)
    if reading.kind == "voc_colours":
        return f"--data.mask-values {VOC_COLOURS}"
    keys = sorted(reading.classes.items())  # type: ignore[type-var]
    seen = reading.evidence.labelled
    pairs = [(key, class_names[number]) for key, number in keys if reading.kind == "order" or number in seen]
    if reading.kind in ("numbers", "from_0", "from_2"):
        pairs = [(key, class_names[number]) for key, number in keys]
    pairs += [*((key, BACKGROUND) for key in reading.background), *((key, IGNORE) for key in reading.ignored)]
    line = mapping_line([(_shown(key), name) for key, name in pairs])
    in_order = [class_names[number] for _, number in sorted(reading.classes.items())] if reading.kind == "order" else []
    is_plain = in_order and not reading.background and set(reading.classes) == set(range(1, len(class_names) + 1))
    if config.dataset == "folder" and is_plain:
        line += _typed(f"--data.class-names {shlex.join(in_order)}") + "    (the classes in the masks' order)"
    return line


def _changed_line(reading: Reading, class_names: Sequence[str], config: DataConfig) -> str:
    """Return `data.mask_values` with other classes, where it is set already."""
    values = {BACKGROUND: BACKGROUND_VALUE, IGNORE: IGNORE_VALUE}
    values |= {name: label_value(index) for index, name in enumerate(class_names)}
    entries = [*config.mask_values]
    for position, entry in enumerate([*entries, *_unsaid(config, class_names)]):
        what, _, name = entry.partition("=")
        value = values.get(name.strip())
        if value is None or not (value in reading.classes or value in reading.background):
            continue
        meant = class_names[reading.classes[value]] if value in reading.classes else BACKGROUND
        entries[position : position + 1] = [f"{what}={meant}"]
    if reading.by == "colours" or entries == [*config.mask_values]:
        return f"(mend data.mask_values, which says {shlex.join(config.mask_values)})"
    return f"--data.mask-values {shlex.join(entries)}"


def _unsaid(config: DataConfig, class_names: Sequence[str]) -> list[str]:
    """Return the entries that hold though `data.mask_values` leaves them out."""
    known, said = (
        translation_of(config.mask_values, class_names),
        {one.partition("=")[0].strip() for one in config.mask_values},
    )
    if known.colours is None:
        own = {"0": BACKGROUND, "255": IGNORE} if IGNORE_VALUE in known.numbers else {"0": BACKGROUND}
    else:
        own = {hexadecimal(BLACK): BACKGROUND, hexadecimal(VOC_VOID): IGNORE}
        own = {key: what for key, what in own.items() if what == BACKGROUND or VOC_COLOURS in said}
    return [f"{key}={what}" for key, what in own.items() if key not in said]


def void_cause(facts: Sequence[MaskFacts], class_names: Sequence[str], config: DataConfig) -> str:
    """Explain masks in which 255, which means ignored, stands for the background; empty where it does not."""
    void = void_for_background(facts)
    # An entry that says what is ignored has thought of it.
    if not void or any(entry.partition("=")[2].strip() == IGNORE for entry in config.mask_values):
        return ""
    line = setting_line(plain_reading(facts, len(class_names), void), class_names, config)
    beginning, _, end = line.rpartition(f"={BACKGROUND}")
    share = sum(one.values.get(IGNORE_VALUE, 0) / sum(one.values.values()) for one in facts) / len(facts)
    return (
        f"No mask holds 0, the background, and 255, which means ignored, covers {100 * share:.0f}% of the pixels: a "
        "prediction of objects everywhere would be right. Probably 255 is your background:"
        f"{_typed(line)}\n    If every pixel shows a class, or is to be ignored:{_typed(f'{beginning}={IGNORE}{end}')}"
    )


def _shown(key: Key) -> int | str:
    return key if isinstance(key, int) else hexadecimal(key)


def mapping_line(pairs: Iterable[tuple[int | str, str]]) -> str:
    """Return `data.mask_values` as it is typed."""
    return "--data.mask-values " + shlex.join(f"{key}={name}" for key, name in pairs)


def _typed(line: str) -> str:
    """Put an option on a line of its own, to be copied whole."""
    return f"\n      {line}"


def binary_cause(facts: Sequence[MaskFacts], class_names: Sequence[str], shown: Sequence[int]) -> str:
    """Explain masks that hold nothing but 0 and 255, or one of them.

    Args:
        facts: of all masks.
        class_names: in label order.
        shown: class ids that the images may show.
    """
    values = {value for one in facts for value in one.values}
    if IGNORE_VALUE not in values:
        return "Every pixel of every mask is 0: the masks are empty, or were written as colours that became black"
    found = "Every pixel of every mask is 255" if values == {IGNORE_VALUE} else "The masks hold 0 and 255 only"
    text = f"{found}, and 255 means ignored here, so no mask holds any class. Probably 255 marks the object"
    line = _typed(mapping_line([(IGNORE_VALUE, class_names[shown[0]] if len(shown) == 1 else "CLASS")]))
    if len(shown) == 1:
        inverted = _typed(mapping_line([(BACKGROUND_VALUE, class_names[shown[0]]), (IGNORE_VALUE, BACKGROUND)]))
        covered = [one.values.get(IGNORE_VALUE, 0) / sum(one.values.values()) for one in facts]
        is_most = len(values) == 2 and sum(covered) > len(covered) / 2
        return f"{text}:{line}" + f"\n    It covers most, so the masks may be inverted:{inverted}" * is_most
    return (
        f"{text}. Such masks do not tell {len(class_names)} classes apart: give masks with the values "
        f"{_numbered(class_names)}, or name the one class that they show:{line}"
    )


def _numbered(class_names: Sequence[str]) -> str:
    listed = [f"{label_value(index)} {name}" for index, name in enumerate(class_names[:_LISTED])]
    return ", ".join(listed) + (", ..." if len(class_names) > _LISTED else "")


def colours_cause(coloured: Sequence[MaskFacts], better: Reading | None, class_names: Sequence[str],
                  config: DataConfig) -> str:  # fmt: skip
    """Explain masks that are pictures in colours."""
    pixels = Counter[Colour]()
    for one in coloured:
        pixels.update(one.colours)
    # Many colours over all masks may be a few in each.
    shown = dict(pixels if len(pixels) <= MAX_VALUE else coloured[0].colours)
    if better is None or better.kind != "colours":
        # Black, where there is any, is the background.
        none = [key for key in covering(coloured, "colours")[:1] if isinstance(key, tuple) and BLACK not in pixels]
        return f"{examples(coloured)}: each {colours_complaint(shown, *none)}"
    fit = better.evidence.num_images - len(better.evidence.wrong)
    line = setting_line(better, class_names, config)
    return (
        f"{examples(coloured)}: each {listed_colours(shown)}. {fit} of {better.evidence.num_images} masks agree with "
        f"their labels by{_typed(line)}"
    )


def beyond_cause(facts: Sequence[MaskFacts], strange: Sequence[MaskFacts], better: Reading | None,
                 class_names: Sequence[str], config: DataConfig) -> str:  # fmt: skip
    """Explain values that no class has."""
    num_classes = len(class_names)
    masks = Counter(value for one in strange for value in one.objects if not 0 < value <= num_classes)
    first = {value: one.image_id for one in reversed(strange) for value in one.objects}
    values = sorted(masks)
    found = ", ".join(f"{value} in {masks[value]} (e.g. {first[value]})" for value in values[:_LISTED])
    more = f" and {len(values) - _LISTED} more values" if len(values) > _LISTED else ""
    text = (
        f"{len(strange)} of {len(facts)} masks hold numbers of no class: {found}{more}; expected 0 to {num_classes} "
        f"({_numbered(class_names)}) and 255. "
    )
    if better is not None:
        return text + explain(better, class_names, config)
    if any(not 0 <= value <= MAX_VALUE for value in values):
        return f"{text}The first {large_numbers_complaint(list(strange[0].values))}"
    return text + _beyond_guess(facts, strange, class_names)


def _beyond_guess(facts: Sequence[MaskFacts], strange: Sequence[MaskFacts], class_names: Sequence[str]) -> str:
    num_classes, only = len(class_names), class_names[0] if len(class_names) == 1 else "CLASS"
    most = max(_MANY_VALUES, num_classes)
    held = sorted({value for one in facts for value in one.values} - {BACKGROUND_VALUE})
    counting = all(counts_up(one.objects) for one in facts)
    strangers = [sum(value > num_classes for value in one.objects) for one in strange]
    if not counting and (max(strangers) > most or len(held) > 3 * most):
        text = "Probably the masks were resized with smoothing or saved with loss, which makes values in between"
        nonzero = f", or take all that is not 0:{_typed(mapping_line([(NONZERO, only)]))}" if num_classes == 1 else ""
        return f"{text}; export them anew{nonzero}"
    is_rare = len(strange) < len(facts) / 10
    # One class counts up by itself, and so do two now and then.
    if (counting and (num_classes > 2 or not is_rare)) or are_instances([one for one in facts if one.labels]):
        one_class = f":{_option(facts, [(NONZERO, only)])}" if num_classes == 1 else "; give masks of classes"
        return (
            "Each mask counts 1, 2, 3 ... without a gap: probably the numbers of single objects (instances, VOC's "
            f"SegmentationObject), not of classes{one_class}"
        )
    if is_rare:
        own = [(label_value(index), name) for index, name in enumerate(class_names)]
        odd = [(v, IGNORE) for v in sorted({v for one in strange for v in one.objects if v > num_classes})[:_LISTED]]
        return f"Few masks have them: mend these, or say what they are:{_option(facts, [*own, *odd])}"
    step, beyond = held[0], max(value for one in strange for value in one.objects)
    if (
        step >= _WIDE_STEP
        and len(held) <= num_classes
        and held in (spread(step, len(held)), spread(step + 1, len(held), first=step))
    ):
        pairs = zip(held, class_names, strict=False)
        return f"Probably label values spread to be seen:{_option(facts, pairs)}"
    if num_classes == 1:
        # 127 and 128 are the middle of grey: unsure, or the object of a 7-bit mask.
        pairs = [(v, only if v == max(held) else IGNORE) for v in held[-3:]]
        return f"Probably other numbers for the one class (or nonzero={only}):{_option(facts, pairs)}"
    if held[-1] == num_classes + 1 and not any(BACKGROUND_VALUE in one.values for one in facts):
        pairs = [(1, BACKGROUND), *((index + 2, name) for index, name in enumerate(class_names))]
        return f"Probably all numbers are one too high, that of the background as well:{_option(facts, pairs)}"
    example = _typed(mapping_line([(beyond, "CLASS")]))
    return (
        "Probably the masks tell more classes than are named, or number them otherwise: name all classes in the order "
        f"of their numbers (data.class_names), or say what each number is, as in{example}"
    )


def _option(facts: Sequence[MaskFacts], pairs: Iterable[tuple[int | str, str]]) -> str:
    """Return `data.mask_values` on a line of its own, with 255 where that stands for the background."""
    given = [*pairs]
    void = [(_shown(key), BACKGROUND) for key in void_for_background(facts) if key not in dict(given)]
    return _typed(mapping_line([*given, *void]))


def spread(step: int, count: int, first: int | None = None) -> list[int]:
    """Return ``count`` numbers in equal steps, the last capped at 255 as grey levels are."""
    start = step if first is None else first
    return [min(MAX_VALUE, start + index * step) for index in range(count)]


def no_label_cause(facts: Sequence[MaskFacts]) -> str:
    """Explain labels that name nothing at all where masks hold classes."""
    held = sum(bool(one.objects) for one in facts)
    return (
        f"None of the {len(facts)} images with a mask has a label, but {held} of their masks hold classes: probably "
        "the labels were left empty, or stand in another place than was read. Mend the label file, or leave the labels "
        "out, so that they are taken from the masks"
    )


def instances_cause(facts: Sequence[MaskFacts], class_names: Sequence[str]) -> str:
    """Explain masks whose numbers count objects."""
    if all(one.objects <= {1} for one in facts):
        what = "Every mask holds 1 for whatever is labelled: probably masks of object and no object"
    else:
        what = "Each mask counts 1, 2, 3 ..., whatever is labelled: probably classes numbered anew in each image"
    return (
        f"{what}, or numbers of single objects (instances, VOC's SegmentationObject). Masks of classes are needed, "
        f"with the values {_numbered(class_names)}"
    )


def bits_cause(facts: Sequence[MaskFacts], class_names: Sequence[str]) -> str:
    """Explain masks whose pixels have too few bits."""
    bits = max(one.bits for one in facts)
    return (
        f"{len(facts)} masks have {bits} bit{'s' * (bits > 1)} a pixel ({examples(facts)}) and hold 0 to "
        f"{2**bits - 1} only, but the classes need up to {len(class_names)}: probably a program reduced their depth, "
        "or they tell object from background only; export them with 8 bits, or say what each number is "
        "(data.mask_values)"
    )


def palette_cause(facts: Sequence[MaskFacts], class_names: Sequence[str]) -> str | None:
    """Explain palettes that contradict the numbers, for masks that no labels can be held against; None without one."""
    own = voc_colours(len(class_names))
    colours: dict[int, dict[Colour, MaskFacts]] = {}
    for one in facts:
        for value, colour in one.palette.items():
            colours.setdefault(value, {}).setdefault(colour, one)
    differing = {value: seen for value, seen in colours.items() if len(seen) > 1 and value in range(1, MAX_VALUE)}
    used = {colour for seen in colours.values() for colour in seen}
    moved = {
        value: next(iter(seen)) for value, seen in colours.items() if any(own.get(c, value) != value for c in seen)
    }
    if not differing and not moved:
        return None
    shows_voc = used <= set(own)
    if differing:
        value, seen = next(iter(differing.items()))
        listed = ", ".join(f"{hexadecimal(colour)} in {one.image_id}" for colour, one in list(seen.items())[:3])
        text = f"Number {value} has another colour from file to file ({listed})"
    elif shows_voc:
        value, colour = next(iter(moved.items()))
        text = f"Number {value} has the colour {hexadecimal(colour)}, which in VOC's palette belongs to {own[colour]}"
    else:
        return None
    black = any(BLACK in one.keys("colours") for one in facts)
    none = [key for key in covering(facts, "colours")[:1] if isinstance(key, tuple) and not black]
    others = sorted(used - {BLACK, *none})
    line = (
        f"--data.mask-values {VOC_COLOURS}"
        if shows_voc
        else mapping_line([(hexadecimal(one), BACKGROUND if one in none else "CLASS") for one in (*none, *others[:3])])
    )
    numbers = mapping_line((label_value(index), name) for index, name in enumerate(class_names[:3]))
    return (
        f"{text}: probably a program numbered the palette anew. If the colours tell the classes:{_typed(line)}"
        f"\n    If the numbers do:{_typed(numbers)}{' ...' if len(class_names) > 3 else ''}"
    )
