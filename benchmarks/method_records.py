"""Figures that commands of this repository recorded in docs/results, for `methods.py`: lines of JSON and tables."""

import argparse
import json
import re
import statistics
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

RESULTS = Path(__file__).parents[1] / "docs" / "results"


START, END = "<!-- tables -->", "<!-- /tables -->"
"""What stands around the tables of a page that a command writes."""


def lines_in(path: Path) -> list[dict[str, Any]]:
    """Return the records of a file, one line of JSON each; none where it is not there yet."""
    return [json.loads(line) for line in path.read_text().splitlines()] if path.is_file() else []


def show(body: str, page: Path | None) -> None:
    """Print tables, and put them between the marks of a page where one is given."""
    print(body)
    if page:
        text = page.read_text()
        page.write_text(f"{text.split(START)[0]}{START}\n{body}\n{END}{text.split(END)[1]}")


def seeds_parser(about: str | None) -> argparse.ArgumentParser:
    """Return the arguments of a command that measures seeds in the folder of `methods.py`, or writes their tables."""
    parser = argparse.ArgumentParser(description=about, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--work", type=Path, required=True, help="folder of networks, that of methods.py")
    parser.add_argument("--seeds", type=int, nargs="*", default=[20, 21, 22, 23, 24])
    parser.add_argument("--table", type=Path, help="write the tables between the markers of this file, train nothing")
    return parser


@dataclass(frozen=True)
class Figure:
    """A mean over seeds."""

    mean: float
    """In the unit of its column."""
    spread: float | None
    """Standard deviation over seeds; None of one seed."""
    num_seeds: int
    """How many stand behind it."""
    source: str
    """Page of docs/results, or "here" where this command measured it."""

    @property
    def cell(self) -> str:
        """As it stands in a table, the number of seeds in brackets."""
        spread = "" if self.spread is None else f" +- {self.spread:.1f}"
        return f"{self.mean:.1f}{spread} ({self.num_seeds})"


def figure_of(values: Sequence[float], source: str) -> Figure | None:
    """Return what values of some seeds are together; None where there are none."""
    if not values:
        return None
    spread = statistics.stdev(values) if len(values) > 1 else None
    return Figure(statistics.fmean(values), spread, len(values), source)


def more_seeds(found: Iterable[Figure | None]) -> Figure | None:
    """Return the figure with the most seeds, the first of those that have as many."""
    there = [figure for figure in found if figure is not None]
    return max(there, key=lambda figure: figure.num_seeds, default=None)


@dataclass(frozen=True)
class Record:
    """Where a page holds figures of a system, a row by the label of its first cell."""

    column: str
    """Of `methods.COLUMNS`."""
    page: str
    """File in docs/results."""
    row: str
    """Its first cell, or a system's name in lines of JSON."""
    heads: tuple[str, ...]
    """Heads of the columns: one with a mean over `num_seeds`, or one a seed. In lines of JSON a name of a figure."""
    num_seeds: int = 3
    """Seeds behind a mean; one where a column is a seed's."""
    minus: str = ""
    """First cell of a row of losses that are taken off."""

    def read(self) -> Figure | None:
        """Return the figure; None where the page does not hold it."""
        path = RESULTS / self.page
        if path.suffix == ".jsonl":
            rows = [json.loads(line) for line in path.read_text().splitlines()]
            return figure_of([100 * row[self.heads[0]] for row in rows if row["system"] == self.row], self.page)
        cells = [cell for head in self.heads if (cell := cell_of(path.read_text(), self.row, head)) is not None]
        if not cells:
            return None
        if len(self.heads) == 1:
            mean, _, spread = cells[0].partition(" +- ")
            return Figure(float(mean), float(spread) if spread else None, self.num_seeds, self.page)
        values = [_number(cell) for cell in cells]
        if self.minus:
            losses = [cell_of(path.read_text(), self.minus, head) or "0" for head in self.heads]
            values = [value - _number(loss) for value, loss in zip(values, losses, strict=True)]
        return figure_of(values, self.page)


def _number(cell: str) -> float:
    found = re.match(r"-?[\d.]+", cell)
    assert found is not None, f"{cell} is no figure"
    return float(found[0])


def cell_of(page: str, row: str, head: str) -> str | None:
    """Return a cell of the first table of a page that has the row and the column; None where none has, or for "-"."""
    heads: list[str] = []
    for line in page.splitlines():
        cells = [cell.strip() for cell in line.strip().strip("|").split("|")] if line.startswith("|") else []
        if not cells:
            heads = []
        elif not heads:
            heads = cells
        elif cells[0] == row and head in heads:
            cell = cells[heads.index(head)]
            return None if cell == "-" else cell
    return None
