"""The tables of a comparison that need no mask: how far label maps agree, and figures side by side."""

from collections.abc import Sequence

from qaclims_ray.evaluation.agreement import MAP_STAGES
from qaclims_ray.evaluation.map_differences import LabelFreeFigure, MapsDifference
from qaclims_ray.report.table import Cell, Column, Row, Table, text_rows
from qaclims_ray.report.wording import gain, percent

MAPS_MEANING = (
    "Agreement of two runs' label maps is their mean IoU with one in the place of the truth. It says how much they "
    "differ, not which is better."
)
"""What a reader must know of agreement."""


def maps_table_of(maps: Sequence[MapsDifference]) -> Table:
    """Return a row for each stage and other side."""
    heads = ("label maps", "sides", "images", "agreement (mIoU), %", "classes that agree least")
    columns = tuple(Column(head=head, is_words=head in ("sides", heads[-1])) for head in heads)
    rows = []
    for one in maps:
        low = sorted((value, name) for name, value in one.iou.items() if value is not None)[:3]
        named = ", ".join(f"{name} {percent(value)}" for value, name in low)
        sides = f"{one.first_letter} and {one.other_letter}"
        rows.append([MAP_STAGES[one.stage], sides, str(one.num_images), percent(one.miou), named])
    return Table(columns, text_rows(rows))


def map_classes_table(maps: Sequence[MapsDifference]) -> Table:
    """Return a row for each class: IoU of the maps of each stage and other side."""
    columns = (
        Column(head="class"),
        *(Column(head=f"{MAP_STAGES[one.stage]}\n{one.first_letter} and {one.other_letter}") for one in maps),
    )
    rows = [[name, *(percent(one.iou.get(name)) for one in maps)] for name in maps[0].iou]
    return Table(columns, text_rows(rows))


def differing_images(maps: Sequence[MapsDifference]) -> list[str]:
    """Return a line for each stage and other side that names the images that differ most."""
    return [
        f"{MAP_STAGES[one.stage]}, {one.first_letter} and {one.other_letter}: "
        + ", ".join(f"{name} ({percent(value)} %)" for name, value in one.worst)
        for one in maps
    ]


def label_free_table(figures: Sequence[LabelFreeFigure]) -> Table:
    """Return a row for each figure, a column for each side, and the difference where there are two."""
    letters = sorted({letter for figure in figures for letter in figure.values})
    has_difference = len(letters) == 2
    columns = (
        Column(head="without masks"),
        *(Column(head=letter) for letter in letters),
        *((Column(head="difference"),) if has_difference else ()),
    )
    rows = []
    for figure in figures:
        cells = [Cell(text=figure.name)]
        cells += [Cell(text=_value(figure, figure.values.get(letter))) for letter in letters]
        if has_difference:
            both = [figure.values[letter] for letter in letters if letter in figure.values]
            cells.append(Cell(text=_difference(figure, both) if len(both) == 2 else "-"))
        rows.append(Row(tuple(cells)))
    return Table(columns, tuple(rows))


def _value(figure: LabelFreeFigure, value: float | None) -> str:
    if value is None:
        return "-"
    return f"{value:g}" if figure.is_threshold else f"{percent(value)} %"


def _difference(figure: LabelFreeFigure, both: Sequence[float]) -> str:
    difference = both[1] - both[0]
    return f"{difference:+.2g}" if figure.is_threshold else gain(difference)
