"""Text of a label file -> rows under named columns: CSV with any common delimiter, with or without a header."""

import csv
import io
import re
from collections.abc import Collection, Sequence
from dataclasses import dataclass

from qaclims_ray.data.image_ids import image_id_of, is_image_name
from qaclims_ray.data.label_cells import LabelCell
from qaclims_ray.data.validation import Fault
from qaclims_ray.errors import DataError

IMAGE_COLUMNS: tuple[str, ...] = (
    *("image", "imagefile", "imagefilename", "imagename", "imagepath", "filename", "file", "filepath", "path"),
    *(
        "imageid",
        "imageindex",
        "img",
        "imgid",
        "imgname",
        "imgpath",
        "imgfile",
        "fname",
        "picture",
        "photo",
        "name",
        "id",
    ),
)
"""Names of the column that names images, without case, blanks and marks; the first of them that is there counts."""
LABEL_COLUMNS: tuple[str, ...] = (
    *("labels", "label", "classes", "class", "classname", "classnames", "labelname", "labelnames", "categories"),
    *("category", "categoryname", "tags", "tag", "annotations", "annotation", "target", "targets", "objects", "object"),
    *("findinglabels", "findings", "imagelabels", "groundtruth", "gt"),
)
"""Names of the column that names classes, in the same form."""
_DELIMITERS = (",", ";", "\t", "|")


@dataclass(frozen=True)
class LabelRows:
    """A table of labels, not yet understood."""

    columns: tuple[str, ...]
    """Names of the columns."""
    rows: tuple[tuple[LabelCell, ...], ...]
    """Cells, as many as columns."""
    faults: tuple[Fault, ...] = ()
    """Rows that are left out, and why."""
    notes: tuple[str, ...] = ()
    """What was decided, for the user."""
    may_repeat: bool = True
    """Whether the form lets an image have several rows."""


def squeezed(column: str) -> str:
    """Return a column's name without case, blanks and marks."""
    return re.sub(r"[\W_]", "", column.casefold())


def read_delimited(uri: str, text: str, image_ids: Collection[str] = ()) -> LabelRows:
    """Read the rows of a CSV or TSV file.

    Args:
        uri: the file, for messages.
        text: its content.
        image_ids: images of the data set; they tell a header from a first row.

    Raises:
        DataError: when it is no table with a column of images.
    """
    text = re.sub(r"\Asep=.(\r\n|\r|\n)", "", text)  # Excel's own first line
    rows = _best_rows(uri, text, image_ids)
    columns, notes = tuple(cell.strip() for cell in rows[0]), ()
    if not _has_image_column(columns, rows[1:], image_ids) or len(columns) < 2:
        if lists := _ragged(uri, rows, image_ids):
            return lists
        if not any(_is_image(cell, image_ids) for cell in columns) or len(columns) != 2:
            raise _unknown_columns(uri, columns, rows[1:])
        columns = ("image", "labels") if _is_image(columns[0], image_ids) else ("labels", "image")
        notes = (f"{uri} has no header: its columns are read as {' and '.join(columns)}",)
        rows = [list(columns), *rows]
    columns, rows = _without_margin(columns, rows)
    if doubles := sorted({name for name in columns if columns.count(name) > 1}):
        raise DataError(f"label file {uri} has columns of one name, {doubles}: expected each once")
    sound = [tuple(cell.strip() for cell in row) for row in rows[1:] if len(row) == len(columns)]
    faults = [
        Fault(
            "unreadable label entry",
            row[0],
            f"{len(row)} cells, {_expected(columns, bool(notes))}; {_advice(row, columns)}",
        )
        for row in rows[1:]
        if len(row) != len(columns)
    ]
    return LabelRows(columns, tuple(sound), tuple(faults), notes)


def _expected(columns: Collection[str], is_guessed: bool) -> str:
    return f"{'the first row' if is_guessed else 'the header'} has {len(columns)}"


def _advice(row: Collection[str], columns: Sequence[str]) -> str:
    if len(row) > len(columns):
        return "put a list that holds the delimiter in quotes"
    missing = " and ".join(columns[len(row) :])
    return f"the cell of {missing} is missing: where the image shows no class, write the delimiter and an empty cell"


def _ragged(uri: str, rows: Sequence[Sequence[str]], image_ids: Collection[str]) -> LabelRows | None:
    """Read rows of an image and any number of classes, without a header; None where they are not of that form.

    Rows of one length may as well be columns of something else, and so may numbers. And the delimiter stands between
    names, not in them, only where each name behind the second cell is seen in the second cell too.
    """
    trimmed = [[cell.strip() for cell in row] for row in rows]
    named = [row[:1] + [cell for cell in row[1:] if cell] for row in trimmed]
    lengths = {len(row) for row in named}
    cells = [cell for row in named for cell in row[1:]]
    if max(lengths) < 3 or len(lengths) < 2 or not all(_is_image(row[0], image_ids) for row in named):
        return None
    if any(_is_image(cell, image_ids) or re.fullmatch(r"[-+\d.,e]+", cell) for cell in cells):
        return None
    if not {cell for row in named for cell in row[2:]} <= {row[1] for row in named if len(row) > 1}:
        return None
    note = f"{uri} has no header, and rows of {min(lengths)} to {max(lengths)} cells: read as an image and its classes"
    bare = [row[0] for row in trimmed if len(row) == 1]
    faults = [Fault("unreadable label entry", name, f"1 cell; {_advice([name], ('image', 'labels'))}") for name in bare]
    found = tuple((row[0], tuple(row[1:])) for row in named if row[0] not in bare)
    return LabelRows(("image", "labels"), found, tuple(faults), (note,))


def _best_rows(uri: str, text: str, image_ids: Collection[str]) -> list[list[str]]:
    """Return the rows by the delimiter that gives the header a column of images, and most columns."""
    best, best_score, broken = [], (False, 0), None
    for delimiter in _DELIMITERS:
        try:
            reader = csv.reader(
                io.StringIO(text, newline=None), delimiter=delimiter, strict=True, skipinitialspace=True
            )
            rows = [row for row in reader if any(map(str.strip, row))]
        except csv.Error as error:
            broken = broken or error
            continue
        if not rows:
            continue
        is_known = _has_image_column(rows[0], rows[1:], image_ids) or any(
            _is_image(cell, image_ids) for cell in rows[0]
        )
        score = (is_known and len(rows[0]) > 1, len(rows[0]))
        if not best or score > best_score:
            best, best_score = rows, score
    if broken is not None and not best_score[0]:
        raise DataError(f"label file {uri} is not CSV: {broken}")
    if not best:
        raise _unknown_columns(uri, (), [])
    return best


def _without_margin(columns: tuple[str, ...], rows: list[list[str]]) -> tuple[tuple[str, ...], list[list[str]]]:
    """Leave out the empty columns at the right that spreadsheets add, of the whole table or of single rows."""
    width = len(columns)
    while width > 2 and not any("".join(row[width - 1 : width]).strip() for row in rows):
        width -= 1
    trimmed = [row if any(map(str.strip, row[width:])) else row[:width] for row in rows]
    return columns[:width], trimmed


def _is_image(cell: str, image_ids: Collection[str]) -> bool:
    return is_image_name(cell) or image_id_of(cell) in image_ids


def _has_image_column(columns: Collection[str], rows: list[list[str]], image_ids: Collection[str]) -> bool:
    if any(_is_image(cell, image_ids) for cell in columns):
        return False  # a row of data
    return any(squeezed(name) in IMAGE_COLUMNS for name in columns) or any(
        rows and all(len(row) > place and _is_image(row[place], image_ids) for row in rows[:20])
        for place in range(len(columns))
    )


def _unknown_columns(uri: str, columns: Collection[str], rows: list[list[str]]) -> DataError:
    examples = "; ".join(" | ".join(row) for row in rows[:3])
    return DataError(
        f"label file {uri} has the columns {list(columns)}{f', and rows such as {examples}' if examples else ''}: "
        "expected a column image (or file_name, image_id, path, ...), then labels (or class, category, ...) or one 0/1 "
        "column per class, each once"
    )
