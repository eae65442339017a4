"""The tables of what is known without a mask, for the page and the console."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import replace

from qaclims_ray.evaluation.agreement import MAP_NOUNS, MAP_STAGES, MapPair, MapStage
from qaclims_ray.evaluation.trust import AgreementFigures, MapFigures, TrustFigures
from qaclims_ray.report.contents import TrustLists
from qaclims_ray.report.table import Cell, Column, Note, Row, Table
from qaclims_ray.report.wording import percent

_STAGE_PAIRS: tuple[tuple[MapStage, MapStage], ...] = (("seed", "mask"), ("mask", "final"), ("seed", "final"))
_LISTED = 12
"""So many images of a class are named on the page; ``images.json`` has all."""


def maps_table(trust: TrustFigures, labels: Mapping[str, str], colours: Mapping[str, str]) -> Table:
    """Return a row for each system and stage: what its label maps cover, and what they lack.

    Args:
        trust: the figures.
        labels: system -> its short name.
        colours: short name -> colour.
    """
    has_thresholds = bool(trust.thresholds)
    columns = (
        Column(head="system"),
        Column(head="label maps", is_words=True),
        Column(head="images"),
        *(
            (Column(head="threshold", plain="cut at"), Column(head="label-free\nthreshold", plain="label-free"))
            if has_thresholds
            else ()
        ),
        Column(head="painted"),
        Column(head="empty masks", plain="empty"),
        Column(head="tags not found", plain="not found"),
        Column(head="found, not tagged", plain="not tagged"),
    )
    rows, num_stages = [], Counter(one.source.system for one in trust.maps)
    for position, one in enumerate(trust.maps):
        system = one.source.system
        is_first = not position or trust.maps[position - 1].source.system != system
        at = trust.thresholds.get(system) if one.source.stage == "seed" else None
        label_free = "-" if at is None else f"{at.label_free:g}"
        rows.append(
            Row(
                (
                    replace(_name(labels, colours, system), rows=num_stages[system]) if is_first else None,
                    Cell(text=MAP_STAGES[one.source.stage]),
                    Cell(text=str(one.num_images)),
                    *(
                        (Cell(text="-" if at is None else f"{at.fixed:g}"), Cell(text=label_free))
                        if has_thresholds
                        else ()
                    ),
                    Cell(text=f"{percent(one.coverage)} %"),
                    Cell(text=_of(one.num_empty, one.num_tagged)),
                    Cell(text=_of(missing(one), tags(one))),
                    Cell(text=_untagged(one)),
                )
            )
        )
    return Table(columns, tuple(rows))


def agreement_table(trust: TrustFigures, labels: Mapping[str, str], colours: Mapping[str, str]) -> Table:
    """Return a row for each system: how far its stages, its thresholds and other systems agree with it."""
    used = [pair for pair in _STAGE_PAIRS if any(_stages(trust, m.source.system, *pair) for m in trust.maps)]
    has_thresholds = any(found.pair.kind == "threshold" for found in trust.agreements)
    has_others = any(found.pair.kind == "systems" for found in trust.agreements)
    columns = (
        Column(head="system"),
        *(Column(head=f"{MAP_STAGES[first]},\n{MAP_STAGES[other]}") for first, other in used),
        *(
            (Column(head="seed, a fifth lower\nand higher threshold", plain="seed, threshold moved"),)
            if has_thresholds
            else ()
        ),
        *((Column(head="other systems"),) if has_others else ()),
        Column(head="what 20 masks\nwould tell", plain="with 20 masks"),
    )
    rows = []
    for system in dict.fromkeys(one.source.system for one in trust.maps):
        cells = [_name(labels, colours, system)]
        cells += [
            _agreement_cell(_stages(trust, system, *pair), colours.get(labels.get(system, ""), "")) for pair in used
        ]
        if has_thresholds:
            own = [f for f in trust.agreements if f.pair.kind == "threshold" and f.pair.first.system == system]
            cells.append(_agreement_cell(own[0] if own else None, ""))
        if has_others:
            cells.append(Cell(text=percent(with_others(trust, system))))
        few = trust.few.get(system)
        width = (
            Cell(text="-")
            if few is None
            else Cell(
                text=f"+/- {100 * (few.high - few.low) / 2:.1f}",
                notes=(Note(text=f"points, by {pair_words(few.stand_in)}"),),
            )
        )
        rows.append(Row((*cells, width)))
    return Table(columns, tuple(rows))


def trust_classes_table(trust: TrustFigures, system: str) -> Table:
    """Return a row for each class of a system: how well it is told, painted, and agreed on; the least agreed first."""
    stages: list[MapStage] = [stage for stage in MAP_STAGES if trust.map_of(system, stage)]
    used = [pair for pair in _STAGE_PAIRS if _stages(trust, system, *pair)]
    has_others = any(_is_with(found.pair, system) for found in trust.agreements)
    last = trust.last_map(system)
    assert last is not None
    stage, by = last.source.stage, f"by the {MAP_STAGES[last.source.stage]}"
    shown = trust.few[system].stand_in if system in trust.few else None
    columns = (
        Column(head="class"),
        Column(head="images"),
        *((Column(head="average\nprecision", plain="AP", group="classifier"),) if trust.classifier else ()),
        *(
            Column(head=MAP_STAGES[one], plain="area", group="mean area on its images", page_only=one != stage)
            for one in stages
        ),
        *(
            Column(
                head=f"{MAP_STAGES[first]},\n{MAP_STAGES[other]}",
                plain="agreement",
                group="agreement (IoU)",
                page_only=shown is None or (first, other) != (shown.first.stage, shown.other.stage),
            )
            for first, other in used
        ),
        *((Column(head="other systems", plain="others", group="agreement (IoU)"),) if has_others else ()),
        Column(head="tags not found", plain="not found", group=by),
        *((Column(head="found, not tagged", plain="not tagged", group=by),) if stage == "final" else ()),
    )
    rows = []
    for name in sorted(last.classes, key=lambda name: _class_order(trust, system, name)):
        own = last.classes[name]
        cells = [Cell(text=name), Cell(text=str(own.tagged))]
        if trust.classifier:
            cells.append(Cell(text=percent(trust.classifier.classes[name].average_precision)))
        for one in stages:
            found = trust.map_of(system, one)
            area = None if found is None else found.classes[name].mean_area
            cells.append(Cell(text="-" if area is None else percent(area)))
        cells += [_class_cell(_stages(trust, system, *pair), name) for pair in used]
        if has_others:
            cells.append(Cell(text=percent(with_others(trust, system, name))))
        cells.append(Cell(text=_of(own.tagged - own.shown, own.tagged)))
        if stage == "final":
            cells.append(Cell(text=str(own.untagged)))
        rows.append(Row(tuple(cells)))
    return Table(columns, tuple(rows))


def _class_order(trust: TrustFigures, system: str, name: str) -> tuple[float, str]:
    found = class_agreement(trust, system, name)
    return (2.0 if found is None else found), name


def class_agreement(trust: TrustFigures, system: str, name: str) -> float | None:
    """Return how far the stages of a system, or else the systems, agree on a class; None where it is on no image."""
    last = trust.few.get(system)
    pair = last.stand_in if last else None
    return next((found.iou.get(name) for found in trust.agreements if found.pair == pair), None)


def inseparable_table(trust: TrustFigures) -> Table | None:
    """Return a row for each pair of classes that the labels cannot tell apart; None without any."""
    if not trust.inseparable:
        return None
    columns = (
        Column(head="class"),
        Column(head="nearly always with", is_words=True),
        *(Column(head=head) for head in ("images of both", "images of the class")),
    )
    rows = (
        Row(tuple(Cell(text=str(v)) for v in (p.name, p.companion, p.together, p.images))) for p in trust.inseparable
    )
    return Table(columns, tuple(rows))


def listed_images(lists: TrustLists) -> list[tuple[str, list[str]]]:
    """Return title and lines of the lists of images of one system, for the page."""
    missing_lines = [f"{name} ({len(ids)}): {_some(ids)}" for name, ids in lists.not_found.items()]
    extra = [
        f"{name} ({len(found)}): {_some([f'{image} ({percent(share)} %)' for image, share in found])}"
        for name, found in lists.not_tagged.items()
    ]
    titles = (
        f"Tagged, but not in the {MAP_NOUNS[lists.stage]}",
        "Found by the final network, but not tagged: a tag may be missing",
    )
    return [(title, lines) for title, lines in zip(titles, (missing_lines, extra), strict=True) if lines]


def _some(names: Sequence[str]) -> str:
    more = f" and {len(names) - _LISTED} more" if len(names) > _LISTED else ""
    return ", ".join(names[:_LISTED]) + more


def pair_words(pair: MapPair) -> str:
    """Return what is held against what, in words."""
    if pair.kind == "systems":
        return f"{MAP_STAGES[pair.first.stage]}s of {pair.first.system} and {pair.other.system}"
    return f"{MAP_STAGES[pair.first.stage]} and {MAP_STAGES[pair.other.stage]}"


def tags(one: MapFigures) -> int:
    """Return how many tags the images of a source have."""
    return sum(own.tagged for own in one.classes.values())


def missing(one: MapFigures) -> int:
    """Return how many of their tags its maps do not show."""
    return sum(own.tagged - own.shown for own in one.classes.values())


def _untagged(one: MapFigures) -> str:
    # Seeds and pseudo masks cannot show a class that is not tagged: that they do not is no finding.
    return str(sum(own.untagged for own in one.classes.values())) if one.source.stage == "final" else "-"


def _stages(trust: TrustFigures, system: str, first: MapStage, other: MapStage) -> AgreementFigures | None:
    for found in trust.agreements:
        pair = found.pair
        if (
            pair.kind == "stages"
            and pair.first.system == system
            and (pair.first.stage, pair.other.stage) == (first, other)
        ):
            return found
    return None


def with_others(trust: TrustFigures, system: str, name: str = "") -> float | None:
    """Return the mean agreement of a system's last stage with that of the others, of all classes or one."""
    own = [found for found in trust.agreements if _is_with(found.pair, system)]
    if not own:
        return None
    order: list[MapStage] = list(MAP_STAGES)
    last: MapStage = max((found.pair.first.stage for found in own), key=order.index)
    values = [found.iou.get(name) if name else found.miou for found in own if found.pair.first.stage == last]
    known = [value for value in values if value is not None]
    return sum(known) / len(known) if known else None


def _is_with(pair: MapPair, system: str) -> bool:
    return pair.kind == "systems" and system in (pair.first.system, pair.other.system)


def _name(labels: Mapping[str, str], colours: Mapping[str, str], system: str) -> Cell:
    label = labels.get(system, system)
    return Cell(text=label, colour=colours.get(label, ""), is_name=True)


def _agreement_cell(found: AgreementFigures | None, colour: str) -> Cell:
    if found is None:
        return Cell(text="-")
    return Cell(text=percent(found.miou), bar=(found.miou, colour) if colour else None)


def _class_cell(found: AgreementFigures | None, name: str) -> Cell:
    return Cell(text=percent(None if found is None else found.iou.get(name)))


def _of(part: int, whole: int) -> str:
    return f"{part} / {whole}"
