"""An ablation as a table: the paper's figures and ours side by side, as Markdown, a self-contained page, and JSON.

Ours are means over seeds with the standard deviation between them. Both columns are compared within themselves, by
differences to the first row and by rank: absolute figures of another data set say nothing about the paper's.
"""

import dataclasses
import json
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from qaclims_ray.data import storage
from qaclims_ray.report.page import render
from qaclims_ray.report.table import Column, Table, markdown_table, text_rows
from qaclims_ray.report.wording import PIXEL_LABELS

Figure = Literal["miou_fixed", "miou_best"]


@dataclass(frozen=True, kw_only=True)
class SeedFigures:
    """What one system scored with one seed; fractions."""

    miou_fixed: float
    """mIoU at the threshold given beforehand."""
    miou_label_free: float
    """mIoU at the threshold chosen from the scores alone."""
    miou_best: float
    """mIoU at the best threshold of the sweep, chosen with pixel labels."""
    threshold_best: float
    """That threshold."""


@dataclass(frozen=True, kw_only=True)
class ResultRow:
    """One row: the paper's figure and what each seed gave."""

    label: str
    """Name in the table."""
    system: str
    """Name of the system in the runs."""
    published: float | None
    """The paper's figure in percent; None where it prints none."""
    scores: Mapping[int, SeedFigures] = field(default_factory=dict)
    """Seed -> figures, for the trials that finished."""
    failures: Mapping[int, str] = field(default_factory=dict)
    """Seed -> reason, for the trials that failed."""


@dataclass(frozen=True, kw_only=True)
class AblationResult:
    """A whole table."""

    name: str
    """Name on the command line."""
    title: str
    """Where in which paper, and what is varied."""
    what: str
    """What the published figures are."""
    note: str
    """What a reader must know to compare."""
    rows: tuple[ResultRow, ...]
    """In the paper's order."""
    seeds: tuple[int, ...]
    """Seeds that were asked for."""
    conditions: Mapping[str, str]
    """Preset, date, machine, versions: what a reader needs to repeat it."""


def write_ablation(uri: str, result: AblationResult) -> dict[str, str]:
    """Write the three forms of a table into a folder.

    Returns:
        Extension (md, html, json) -> URI of the file.

    Raises:
        ResourceError: when the place cannot be written.
    """
    forms = {
        "md": ablation_markdown(result),
        "html": ablation_html(result),
        "json": json.dumps(ablation_json(result), indent=2, allow_nan=False) + "\n",
    }
    written = {}
    for extension, text in forms.items():
        written[extension] = storage.join(uri, f"ablation-{result.name}.{extension}")
        storage.write_bytes(written[extension], text.encode())
    return written


def ablation_rows_table(result: AblationResult) -> Table:
    """Return the table: figures of the paper and ours, each beside its difference to the first row."""
    columns = [Column(head="row")]
    for group, is_chosen in (
        (f"paper: {result.what}", False),
        ("ours, %: fixed threshold", False),
        ("ours, %: best threshold", True),
    ):
        columns.append(Column(head="mIoU", plain=group, group=group, is_chosen=is_chosen))
        columns.append(Column(head="to first row", group=group))
    return Table(tuple(columns), text_rows(table_cells(result)))


def ablation_markdown(result: AblationResult) -> str:
    """Return the table as a Markdown page."""
    lines = [f"# {result.title}", "", *markdown_table(ablation_rows_table(result))]
    lines += ["", *(f"{remark}\n" for remark in remarks(result))]
    if failed := failures(result):
        lines += ["Failed:", "", *(f"- {reason}" for reason in failed), ""]
    lines.append("; ".join(f"{name}: {value}" for name, value in result.conditions.items()))
    return "\n".join(lines) + "\n"


def ablation_html(result: AblationResult) -> str:
    """Return the table as one page that asks for nothing from outside."""
    return render(
        "ablation.html",
        title=result.title,
        table=ablation_rows_table(result),
        remarks=remarks(result),
        failures=failures(result),
        conditions=result.conditions,
    )


def ablation_json(result: AblationResult) -> dict[str, Any]:
    """Return what the JSON file holds: per-seed figures as fractions, means and differences in points."""
    rows = []
    for row in result.rows:
        values: dict[str, Any] = dataclasses.asdict(row)
        values["scores"] = {str(seed): dataclasses.asdict(figures) for seed, figures in row.scores.items()}
        values["failures"] = {str(seed): reason for seed, reason in row.failures.items()}
        for figure in ("miou_fixed", "miou_best"):
            values[f"{figure}_mean"], values[f"{figure}_deviation"] = mean_and_deviation(row, figure)
            values[f"{figure}_to_first"] = difference_to(row, result.rows[0], figure)
        values["published_to_first"] = _published_difference(row, result.rows[0])
        rows.append(values)
    return {
        "name": result.name,
        "title": result.title,
        "what": result.what,
        "note": result.note,
        "seeds": list(result.seeds),
        "chosen_by_pixel_labels": ["miou_best", "threshold_best"],
        "rows": rows,
        "rank_agreement": {figure: rank_agreement(result, figure) for figure in ("miou_fixed", "miou_best")},
        "conditions": dict(result.conditions),
    }


def table_cells(result: AblationResult) -> list[list[str]]:
    """Return the cells: the label, then a figure and its difference to the first row, thrice."""
    rows = []
    for row in result.rows:
        first = result.rows[0]
        cells = [row.label, "-" if row.published is None else f"{row.published:.1f}"]
        cells.append(_signed(_published_difference(row, first), is_first=row is first))
        for figure in ("miou_fixed", "miou_best"):
            cells.append(_points(row, figure, len(result.seeds)))
            cells.append(_signed(difference_to(row, first, figure), is_first=row is first))
        rows.append(cells)
    return rows


def remarks(result: AblationResult) -> list[str]:
    """Return the sentences under the table; the last one is the rank agreement, where every row has both figures."""
    lines = [
        f"Ours: seed mIoU as mean +- standard deviation over seeds (n = {len(result.seeds)}); differences are means "
        f"over the seeds that both rows have. The best threshold is {PIXEL_LABELS}, as the paper's is."
    ]
    if result.note:
        lines.append(result.note)
    agreements = {words: rank_agreement(result, figure) for words, figure in _RANKED.items()}
    found = [f"{value:+.2f} at the {words}" for words, value in agreements.items() if value is not None]
    if found:
        lines.append(f"Rank agreement of paper and ours (Spearman, n = {len(result.rows)} rows): {'; '.join(found)}.")
    return lines


_RANKED: dict[str, Figure] = {"fixed threshold": "miou_fixed", "best threshold": "miou_best"}


def failures(result: AblationResult) -> list[str]:
    """Return one line for each failed trial."""
    return [f"{row.label}, seed {seed}: {reason}" for row in result.rows for seed, reason in row.failures.items()]


def mean_and_deviation(row: ResultRow, figure: Figure) -> tuple[float | None, float | None]:
    """Return mean and sample standard deviation over seeds, in points; None where too few seeds finished."""
    values = [100 * getattr(figures, figure) for figures in row.scores.values()]
    return statistics.fmean(values) if values else None, statistics.stdev(values) if len(values) > 1 else None


def difference_to(row: ResultRow, first: ResultRow, figure: Figure) -> float | None:
    """Return the mean difference to another row over the seeds that both have, in points; None without any."""
    differences = [
        100 * (getattr(row.scores[seed], figure) - getattr(first.scores[seed], figure))
        for seed in row.scores
        if seed in first.scores
    ]
    return statistics.fmean(differences) if differences else None


def rank_agreement(result: AblationResult, figure: Figure) -> float | None:
    """Return Spearman's rank correlation of the paper's column with ours.

    None where a row lacks a figure, or all rows of a column are equal.
    """
    published = [row.published for row in result.rows if row.published is not None]
    ours = [mean for row in result.rows if (mean := mean_and_deviation(row, figure)[0]) is not None]
    if not len(published) == len(ours) == len(result.rows) or min(len(set(published)), len(set(ours))) < 2:
        return None
    return statistics.correlation(_ranks(published), _ranks(ours))


def _ranks(values: Sequence[float]) -> list[float]:
    """Rank from 1; equal values share the mean of their ranks."""
    ordered = sorted(values)
    return [ordered.index(value) + (ordered.count(value) + 1) / 2 for value in values]


def _published_difference(row: ResultRow, first: ResultRow) -> float | None:
    return None if row.published is None or first.published is None else row.published - first.published


def _points(row: ResultRow, figure: Figure, num_seeds: int) -> str:
    mean, deviation = mean_and_deviation(row, figure)
    if mean is None:
        return "failed" if row.failures else "not scored"
    spread = "" if deviation is None else f" +- {deviation:.1f}"
    count = "" if len(row.scores) == num_seeds else f" ({len(row.scores)} of {num_seeds} seeds)"
    return f"{mean:.1f}{spread}{count}"


def _signed(value: float | None, *, is_first: bool) -> str:
    return "" if value is None or is_first else f"{value:+.1f}"
