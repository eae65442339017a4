"""Which column of a label file holds what: images, names of classes, splits, 0/1 for a class, or none of these."""

import re
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field

from qaclims_ray.data.image_ids import image_id_of, is_image_name
from qaclims_ray.data.label_cells import LabelCell, names_in_brackets, read_cells
from qaclims_ray.data.label_marks import ColumnMarks, is_yes_or_no, read_marks
from qaclims_ray.data.label_rows import IMAGE_COLUMNS, LABEL_COLUMNS, LabelRows, squeezed
from qaclims_ray.data.label_words import FALSE, MARKS_READ, TRUE, is_nothing, mark_of, quoted
from qaclims_ray.data.validation import Fault
from qaclims_ray.errors import DataError

_SPLIT_COLUMNS = ("split", "splits", "subset", "partition")
_INDEX = re.compile(r"(unnamed(level)?\d*(level\d+)?|index|idx|rowid|rownumber|)")
_NUMBERED_LABEL = re.compile(r"(label|class|tag|category)_?\s?\d+", re.IGNORECASE)
_ABOUT_FILES = (
    *("width", "height", "w", "h", "size", "filesize", "imagewidth", "imageheight", "channels", "depth", "url"),
    *("imageurl", "folder", "dirname", "date", "time", "timestamp", "md5", "sha256", "checksum", "license", "source"),
    *("mask", "maskpath", "maskfile", "maskname"),
)
"""Columns that describe a file and no class, unless they hold 0 and 1 alone."""
_FLAG = re.compile(
    r"(is|was)?(training|valid|validation|val|test|testing|difficult|augmented|checked|reviewed|verified|truncated"
    r"|occluded|annotated|labell?ed)|(is|was)(train|crowd|used)"
)
"""Columns of 0 and 1 that say something about an image, and name no class."""
_MAYBE_FLAG = "train"
"""A part of a data set, and a class of VOC and COCO."""


@dataclass(frozen=True)
class ColumnReading:
    """What the rows of a label file say."""

    images: tuple[str, ...]
    """Name of each row's image, as the file spells it."""
    names: tuple[tuple[str, ...], ...]
    """Names of each row's classes."""
    splits: tuple[str, ...] | None
    """LabelCell of the split column; None where there is none."""
    classes: tuple[str, ...] = ()
    """Classes that have a column of their own; empty in the other forms."""
    may_repeat: bool = True
    """Whether the file may spread an image's classes over several rows."""
    faults: list[Fault] = field(default_factory=list)
    """What is wrong with single entries or columns."""
    notes: list[str] = field(default_factory=list)
    """What was decided, for the user."""


def read_columns(
    uri: str,
    rows: LabelRows,
    *,
    image_ids: Collection[str] = (),
    known: Collection[str] = (),
    separator: str = "",
) -> ColumnReading:
    """Find each column's meaning, and read it.

    Args:
        uri: the file, for messages.
        rows: its rows.
        image_ids: images of the data set, where they are known.
        known: class names of the data set, where they are given.
        separator: `data.label_separator`; empty finds it.

    Raises:
        DataError: when the file as a whole cannot be understood.
    """
    columns = {name: [row[place] for row in rows.rows] for place, name in enumerate(rows.columns)}
    image = _image_column(uri, columns, image_ids)
    split = next((name for name in columns if squeezed(name) in _SPLIT_COLUMNS), None)
    rest = {name: cells for name, cells in columns.items() if name not in (image, split)}
    try:
        found = _read_names(uri, rest, known, separator) or _read_class_columns(uri, rest, columns[image], known)
    except DataError as error:
        raise DataError(f"label file {uri}: {error}") from None
    return ColumnReading(
        images=tuple(map(str, columns[image])),
        splits=None if split is None else tuple(map(_text, columns[split])),
        names=found.names,
        classes=found.classes,
        may_repeat=rows.may_repeat and not found.classes,
        faults=[*rows.faults, *found.faults],
        notes=[*rows.notes, *found.notes],
    )


def _text(cell: LabelCell) -> str:
    return cell if isinstance(cell, str) else " ".join(cell)


def _image_column(uri: str, columns: Mapping[str, Sequence[LabelCell]], image_ids: Collection[str]) -> str:
    """Return the column that names images: by what it holds where the images are known, else by its name."""
    named = sorted(
        (name for name in columns if squeezed(name) in IMAGE_COLUMNS),
        key=lambda name: IMAGE_COLUMNS.index(squeezed(name)),
    )
    known = {
        name: sum(isinstance(cell, str) and image_id_of(cell) in image_ids for cell in columns[name])
        for name in columns
    }
    best = max(named or columns, key=known.__getitem__, default=None)
    if best is not None and (named or known[best]):
        return best if known[best] or not named else named[0]
    looks = [name for name, cells in columns.items() if cells and all(is_image_name(_text(cell)) for cell in cells)]
    if len(looks) == 1:
        return looks[0]
    raise DataError(f"label file {uri} has the columns {list(columns)}: none of them names the images")


def _read_names(
    uri: str, columns: Mapping[str, Sequence[LabelCell]], known: Collection[str], separator: str
) -> ColumnReading | None:
    """Read the column of class names; None where there is none."""
    if any(name in known and is_yes_or_no(cells, with_signs=True) for name, cells in columns.items()):
        return None  # a column per class, one of them with a name such as "object"
    named = [name for name in columns if squeezed(name) in LABEL_COLUMNS]
    numbered = [name for name in columns if _NUMBERED_LABEL.fullmatch(name)]
    if len(numbered) > 1 and not named and any(not is_yes_or_no(columns[name]) for name in numbered):
        cells: list[LabelCell] = [
            tuple(_text(cell) for cell in row) for row in zip(*(columns[name] for name in numbered), strict=True)
        ]
        return _names_of(cells, numbered, columns, known, separator)
    if len(named) > 1:
        words = [name for name in named if not all(re.fullmatch(r"-?[\d.]*", _text(cell)) for cell in columns[name])]
        if len(words) != 1:
            raise DataError(
                f"it has several columns of labels, {named}: keep the one that names the classes and rename or remove "
                "the others"
            )
        named = words
    if not named:
        # Without the usual name: one column of words that recur is what names the classes.
        named = [
            name for name, cells in columns.items() if squeezed(name) not in IMAGE_COLUMNS and _recurring_words(cells)
        ]
        flags = _flags(columns, known)
        if len(named) != 1 or any(is_yes_or_no(cells) for name, cells in columns.items() if name not in flags):
            return None
    return _names_of(columns[named[0]], named, columns, known, separator)


def _recurring_words(cells: Sequence[LabelCell]) -> bool:
    """Whether cells are words, most of them seen more than once."""
    texts = [_text(cell) for cell in cells if not is_nothing(_text(cell))]
    if any(re.fullmatch(r"[-+]?[\d.,:/\sTZ-]+", text) for text in texts) or is_yes_or_no(cells):
        return False
    has_lists = any(names_in_brackets(cell) is not None for cell in cells)
    return bool(texts) and (has_lists or len(set(texts)) <= 0.7 * len(texts))


def _names_of(
    cells: Sequence[LabelCell],
    used: Sequence[str],
    columns: Mapping[str, object],
    known: Collection[str],
    separator: str,
) -> ColumnReading:
    words = {_text(cell).casefold() for cell in cells if not is_nothing(_text(cell))}
    says_yes_or_no = words and {mark_of(word) for word in words} <= {*TRUE, *FALSE}
    if says_yes_or_no and not words & {name.casefold() for name in known}:
        return _yes_or_no(cells, used[0], known)
    read = read_cells(cells, known=known, separator=separator)
    notes = list(read.notes)
    if squeezed(used[0]) not in LABEL_COLUMNS:
        notes.append(f"classes are read from the column{'s' * (len(used) > 1)} {quoted(used)}")
    if unused := [name for name in columns if name not in used]:
        notes.append(f"columns that are not read: {quoted(unused, 8)}")
    names = {name for found in read.names for name in found}
    if names and not known and all(re.fullmatch(r"[\d.]+", name) for name in names):
        notes.append("the classes are numbers: data.class_names can give the names that stand in the file alone")
    return ColumnReading((), read.names, None, notes=notes)


def _yes_or_no(cells: Sequence[LabelCell], column: str, known: Collection[str]) -> ColumnReading:
    """Read a label column of 0 and 1, which says which class it means only where there is one."""
    if len(known) != 1:
        raise DataError(
            f"the column {column!r} holds {quoted(sorted({_text(cell) for cell in cells}))} alone: are these classes, "
            "or does it say whether one class is seen? In the second case call the column as the class, e.g. "
            '"image,polyp", or name the class in data.class_names; in the first write names'
        )
    name = next(iter(known))
    marks = read_marks({name: cells}, [""] * len(cells))
    note = f"the column {column!r} says where {name!r} is seen"
    return ColumnReading((), marks.names, None, (name,), faults=list(marks.faults), notes=[note, *marks.notes])


def _read_class_columns(
    uri: str, columns: Mapping[str, Sequence[LabelCell]], images: Sequence[LabelCell], known: Collection[str]
) -> ColumnReading:
    """Read one 0/1 column per class; columns that are plainly none are left out with a note, others are refused."""
    unused = [name for name in columns if _INDEX.fullmatch(squeezed(name)) or squeezed(name) in IMAGE_COLUMNS]
    unused += [
        name
        for name, cells in columns.items()
        if (squeezed(name) in _ABOUT_FILES and not is_yes_or_no(cells)) or all(is_image_name(_text(c)) for c in cells)
    ]
    if named := [name for name in columns if name in known]:
        unused = [name for name in columns if name not in named]
    background = [name for name in columns if is_nothing(name, known) and name not in unused and name]
    flags = [name for name in _flags(columns, known) if name not in unused]
    classes = {name: cells for name, cells in columns.items() if name not in (*unused, *background, *flags)}
    if not classes:
        raise DataError(
            f"it has no column of classes beside {list(columns)}: expected a column labels, or one 0/1 column per "
            "class; data.class_names makes a class of any column"
        )
    _refuse_train(classes, known)
    marks: ColumnMarks = read_marks(classes, [_text(cell) for cell in images])
    if not marks.classes:
        shown = "; ".join(f"{name}: {quoted([_text(cell) for cell in cells])}" for name, cells in classes.items())
        raise DataError(
            f"no column holds labels ({shown}): expected a column labels, or one column per class of {MARKS_READ}"
        )
    notes = list(marks.notes)
    if unused:
        notes.append(f"columns that are no classes and are not read: {quoted(unused, 8)}")
    if flags:
        notes.append(
            f"by their names these columns are remarks on images and no classes, and are not read: {quoted(flags, 8)}; "
            "data.class_names, with all classes in it, makes classes of them"
        )
    if background:
        notes.append(f"the background is no class: the column {quoted(background)} is not read")
    return ColumnReading((), marks.names, None, marks.classes, faults=list(marks.faults), notes=notes)


def _flags(columns: Mapping[str, Sequence[LabelCell]], known: Collection[str]) -> list[str]:
    """Return the columns of 0 and 1 that remark on images, by their names; "train" is one beside "val" or "test"."""
    marked = [name for name, cells in columns.items() if name not in known and is_yes_or_no(cells)]
    flags = [name for name in marked if _FLAG.fullmatch(squeezed(name))]
    has_parts = any(re.fullmatch(r"(is)?(val|valid|validation|test|testing)", squeezed(name)) for name in flags)
    return [name for name in marked if name in flags or (has_parts and squeezed(name) == _MAYBE_FLAG)]


def _refuse_train(classes: Collection[str], known: Collection[str]) -> None:
    """Refuse a column "train" that may be a class, or say which images train."""
    if found := [name for name in classes if squeezed(name) == _MAYBE_FLAG and name not in known]:
        others = [name for name in classes if name not in found]
        raise DataError(
            f"the column {quoted(found)} may be a class, or say which images to train on: name the classes in "
            f"data.class_names ({', '.join([*others, *found])}, or {', '.join(others) or 'others'}); splits are read "
            "from a column split"
        )
