"""The table of systems and what their seeds score, for the page and the console."""

from qaclims_ray.evaluation.sweep import SeedScores
from qaclims_ray.report.contents import ReportData, SystemReport, bound, data_colours, scores_background, winner
from qaclims_ray.report.table import Cell, Column, Note, Row, Table
from qaclims_ray.report.wording import percent

_COLUMNS = (
    Column(head="system"),
    Column(head="mIoU\nfixed threshold", plain="fixed"),
    Column(head="mIoU\nlabel-free threshold", plain="label-free"),
    Column(head="mIoU\nbest threshold", plain="best", is_chosen=True),
    Column(head="FP", group="at the fixed threshold"),
    Column(head="FN", group="at the fixed threshold"),
    Column(head="FP", group="at the best threshold", page_only=True),
    Column(head="FN", group="at the best threshold", page_only=True),
)
_ERRORS = ("false_positive_rate", "false_negative_rate", "false_positive_rate_best", "false_negative_rate_best")
# Without a background a pixel takes the foremost class: there is no threshold to choose.
_PLAIN_COLUMNS = tuple(Column(head=head) for head in ("system", "mIoU", "Dice", "FP", "FN"))
_PLAIN_ERRORS = _ERRORS[:2]


def seeds_table(data: ReportData) -> Table:
    """Return a row for each system, with the differences to the first."""
    columns = _COLUMNS if scores_background(data) else _PLAIN_COLUMNS
    best, colours = winner(data), data_colours(data)
    rows = []
    for name, system in data.systems.items():
        is_best = name == best
        title = Cell(
            text=system.label,
            colour=colours[system.label],
            is_name=True,
            badge="best" if is_best and len(data.systems) > 1 else "",
            notes=(Note(text=system.description),) if system.description else (),
        )
        if system.seed is None:
            rows.append(Row((title, Cell(text=_why_unscored(data, system), columns=len(columns) - 1))))
            continue
        cells = _swept(data, system) if scores_background(data) else _plain(data, system.seed, is_best)
        rows.append(Row((title, *cells), "winner" if is_best else ""))
    return Table(columns, tuple(rows))


def _swept(data: ReportData, system: SystemReport) -> list[Cell]:
    assert system.seed is not None
    seed, first = system.seed, next(iter(data.systems.values())).seed
    cells = []
    for choice in ("fixed", "label_free", "best"):
        figure = f"miou_{choice}"
        value = getattr(seed, figure)
        note = Note(text=f"at {getattr(seed, f'threshold_{choice}'):g}", change=_change(seed, first, figure))
        bar = (value, data_colours(data)[system.label])
        cells.append(Cell(text=percent(value), bar=bar, is_top=seed == _top(data, figure), notes=(note,)))
    return cells + [Cell(text=percent(getattr(seed, name))) for name in _ERRORS]


def _plain(data: ReportData, seed: SeedScores, is_best: bool) -> list[Cell]:
    first = next(iter(data.systems.values())).seed
    cells = []
    for figure in ("miou_fixed", "mdice_fixed"):
        change = _change(seed, first, figure)
        notes = () if change is None else (Note(change=change),)
        cells.append(Cell(text=percent(getattr(seed, figure)), is_top=is_best, notes=notes))
    return cells + [Cell(text=percent(getattr(seed, name))) for name in _PLAIN_ERRORS]


def _change(seed: SeedScores, first: SeedScores | None, figure: str) -> float | None:
    return None if first is None or seed is first else getattr(seed, figure) - getattr(first, figure)


def _top(data: ReportData, figure: str) -> SeedScores | None:
    scored = [system.seed for system in data.systems.values() if system.seed]
    return max(scored, key=lambda seed: getattr(seed, figure), default=None)


def _why_unscored(data: ReportData, system: SystemReport) -> str:
    if not scores_background(data):
        return "no seeds were scored"
    if system is bound(data):
        return "no seeds: its final network learns from the true masks"
    if "given_masks" in system.mask_summary:
        return "no seeds: its masks were made elsewhere"
    return "not scored: no image has a mask"
