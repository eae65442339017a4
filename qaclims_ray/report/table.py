"""One table for console, page and Markdown: a list of columns and a list of rows.

Pages show everything (`templates/parts.html`). The console (`console_text.py`) and Markdown show text alone, and there
the columns, heads and cells that say on a page with colour or small print what letters must say have a `plain` form.
"""

import itertools
import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

from qaclims_ray.report.wording import PIXEL_LABELS

_MANY_COLUMNS = 8


@dataclass(frozen=True, kw_only=True)
class Column:
    """A column."""

    head: str
    """Its head; may have several lines."""
    plain: str | None = None
    """The head where there is only text; None takes `head`, on one line."""
    note: str = ""
    """Small print under the head."""
    group: str = ""
    """Head above this column and its neighbours of the same group."""
    is_chosen: bool = False
    """Whether its figures have a threshold that was chosen with pixel labels."""
    is_words: bool = False
    """Whether it holds words, not numbers; the first column always does."""
    page_only: bool = False
    """Whether only a page has room for it."""

    @property
    def whole_head(self) -> str:
        """What it is called where it stands alone: group, head and small print."""
        chosen = PIXEL_LABELS if self.is_chosen else ""
        return ", ".join(words.replace("\n", " ") for words in (self.group, self.head, self.note, chosen) if words)


@dataclass(frozen=True, kw_only=True)
class Note:
    """Small print under a figure."""

    text: str = ""
    """Words."""
    change: float | None = None
    """A difference of fractions, coloured by its sign."""


@dataclass(frozen=True, kw_only=True)
class Cell:
    """What stands in one place."""

    text: str
    """The figure or the words."""
    plain: str | None = None
    """The same where there is only text; None takes `text`, with an asterisk if `is_chosen`."""
    notes: tuple[Note, ...] = ()
    """Small print, on a page."""
    colour: str = ""
    """Colour of the system that it names, on a page."""
    is_name: bool = False
    """Whether it names a system."""
    badge: str = ""
    """A word behind the text, on a page."""
    is_chosen: bool = False
    """Whether the figure that it names has a threshold that was chosen with pixel labels."""
    is_top: bool = False
    """Whether it stands out."""
    way: Literal["", "up", "down"] = ""
    """Whether it is a change for the better or for the worse."""
    bar: tuple[float, str] | None = None
    """Length from 0 to 1 and colour of a bar under the text, on a page."""
    rows: int = 1
    """Rows that it covers; their own cells are None."""
    columns: int = 1
    """Columns that it covers; they have no cells."""


@dataclass(frozen=True)
class Row:
    """A row."""

    cells: tuple[Cell | None, ...]
    """One for each column."""
    kind: Literal["", "winner", "bound"] = ""
    """What sets it apart on a page."""


@dataclass(frozen=True)
class Table:
    """A table."""

    columns: tuple[Column, ...]
    """In order."""
    rows: tuple[Row, ...]
    """In order."""

    @property
    def folds(self) -> bool:
        """Whether a narrow window shows a card for each row: there is no room for so many columns beside each other."""
        has_spans = any(cell is None or cell.rows > 1 for row in self.rows for cell in row.cells)
        return len(self.columns) >= _MANY_COLUMNS and not has_spans

    @property
    def has_groups(self) -> bool:
        """Whether some columns share a head."""
        return any(column.group for column in self.columns)

    def groups(self) -> Iterator[tuple[str, list[Column]]]:
        """Yield the columns by their shared heads, in order; those without one together, under an empty head."""
        for group, columns in itertools.groupby(self.columns, key=lambda column: column.group):
            yield group, list(columns)

    def plain_columns(self) -> list[tuple[int, Column]]:
        """Return position and column of those that are no page's alone."""
        return [(position, column) for position, column in enumerate(self.columns) if not column.page_only]

    def plain_rows(self) -> list[list[str]]:
        """Return the texts of these columns."""
        positions = [position for position, _ in self.plain_columns()]
        return [[_plain(row.cells[p] if p < len(row.cells) else None) for p in positions] for row in self.rows]


def text_rows(rows: list[list[str]]) -> tuple[Row, ...]:
    """Return rows of plain texts."""
    return tuple(Row(tuple(Cell(text=text) for text in row)) for row in rows)


def markdown_table(table: Table) -> list[str]:
    """Return the lines of a Markdown table."""
    columns = [column for _, column in table.plain_columns()]
    heads = [plain_head(column) + (f" ({PIXEL_LABELS})" if column.is_chosen else "") for column in columns]
    lines = [_line(heads), _line(["---", *("---" if column.is_words else "---:" for column in columns[1:])])]
    return lines + [_line(row) for row in table.plain_rows()]


def plain_head(column: Column) -> str:
    """Return a column's head where there is only text."""
    return column.head.replace("\n", " ") if column.plain is None else column.plain


def _plain(cell: Cell | None) -> str:
    if cell is None:
        return ""
    return cell.text + (" *" if cell.is_chosen else "") if cell.plain is None else cell.plain


def _line(cells: list[str]) -> str:
    return "| " + " | ".join(map(_escaped, cells)) + " |"


def _escaped(text: str) -> str:
    """Return a text as Markdown shows it word for word; an asterisk or underscore between blanks or letters is one."""
    text = re.sub(r"[\r\n]+", " ", text).replace("\\", "\\\\")
    text = re.sub(r"[|`<\[\]~]|&(?=#?\w+;)|\*(?=\S)|(?<=\S)\*", r"\\\g<0>", text)
    return re.sub(r"(?<!\w)_|_(?!\w)", r"\\_", text)
