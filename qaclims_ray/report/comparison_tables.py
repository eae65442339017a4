"""The tables of a comparison, for the page and the console: what differs, results, classes."""

import json
from collections.abc import Sequence
from typing import Any

from qaclims_ray.evaluation.comparison import (
    ClassDifference,
    Comparison,
    StageDifference,
    excludes_zero,
    interval_text,
    points,
)
from qaclims_ray.evaluation.scored_figures import FIGURES
from qaclims_ray.report.table import Cell, Column, Note, Row, Table
from qaclims_ray.report.wording import percent

_RESULT_COLUMNS = (
    Column(head="stage"),
    Column(head="split", is_words=True, page_only=True),
    *(Column(head=head) for head in ("images", "first", "other", "difference", "95 % interval")),
)


def runs_table(comparison: Comparison, colours: dict[str, str]) -> Table:
    """Return the compared runs and systems."""
    columns = (Column(head=""), Column(head="run", is_words=True), Column(head="system", is_words=True))
    rows = (
        Row(
            (
                Cell(text=side.letter, colour=colours[side.letter], is_name=True),
                Cell(text=side.run),
                Cell(text=side.system or "each of its systems"),
            )
        )
        for side in comparison.sides
    )
    return Table(columns, tuple(rows))


def differences_table(comparison: Comparison) -> Table:
    """Return settings and circumstances that differ; which systems they hold for, where it is not all the same."""
    groups = {system for difference in comparison.differences for system in difference.systems}
    has_groups = len(groups) > 1
    columns = (
        Column(head="name"),
        Column(head="kind", is_words=True, page_only=True),
        *(Column(head=side.letter, is_words=True) for side in comparison.sides),
        *((Column(head="for", is_words=True),) if has_groups else ()),
    )
    rows = []
    for found in comparison.differences:
        texts = [found.name, found.kind, *map(_value_text, found.values)]
        if has_groups:
            texts.append("all" if len(found.systems) == len(groups) else ", ".join(found.systems))
        rows.append(Row(tuple(Cell(text=text) for text in texts)))
    return Table(columns, tuple(rows))


def results_table(stages: Sequence[StageDifference]) -> Table:
    """Return a row for each figure and other side of one group."""
    return Table(_RESULT_COLUMNS, tuple(Row((*_stage_cells(stage), *_difference_cells(stage))) for stage in stages))


def _stage_cells(stage: StageDifference) -> list[Cell]:
    figure = FIGURES[stage.stage]
    name = Cell(
        text=figure.words,
        plain=f"{figure.words}{' *' if figure.is_chosen else ''} ({stage.split})",
        is_chosen=figure.is_chosen,
        notes=(Note(text=f"{stage.other_letter} against {stage.first_letter}"),),
    )
    sides = zip((stage.first_letter, stage.other_letter), (stage.first, stage.other), stage.thresholds, strict=True)
    figures = [
        Cell(text=percent(miou), plain=f"{letter} {percent(miou)}", notes=(Note(text=f"{letter}, at {threshold:g}"),))
        for letter, miou, threshold in sides
    ]
    images = Cell(text=" / ".join(str(count) for count in dict.fromkeys(stage.num_images)))
    return [name, Cell(text=stage.split), images, *figures]


def classes_table(stages: Sequence[StageDifference], head: str) -> Table:
    """Return a row for each class: both sides of a figure and their difference, for each of the other sides.

    Args:
        stages: one figure, for each of the other sides.
        head: of the column of classes.
    """
    columns = [Column(head=head), Column(head="images")]
    for stage in stages:
        heads = (stage.first_letter, stage.other_letter, "difference", "95 % interval")
        columns += [Column(head=head) for head in heads]
    rows = []
    for position, row in enumerate(stages[0].classes):
        cells = [Cell(text=row.name), Cell(text=str(row.num_images))]
        for found in (stage.classes[position] for stage in stages):
            cells += [Cell(text=percent(found.first)), Cell(text=percent(found.other)), *_difference_cells(found)]
        rows.append(Row(tuple(cells)))
    return Table(tuple(columns), tuple(rows))


def _difference_cells(found: StageDifference | ClassDifference) -> list[Cell]:
    """Return difference and interval; a page has bold type where the interval excludes 0, the console a mark."""
    is_top = excludes_zero(found.interval)
    instead = "not paired" if isinstance(found, StageDifference) and found.unpaired else ""
    interval = interval_text(found.interval) or instead
    way = "" if found.difference is None else "up" if found.difference >= 0 else "down"
    return [
        Cell(text=points(found.difference), is_top=is_top, way=way),
        Cell(text=interval or "-", plain=interval + (" !" if is_top else ""), is_top=is_top),
    ]


def _value_text(value: Any) -> str:
    if value is None:
        return "-"
    return value if isinstance(value, str) and value else json.dumps(value)
