"""Columns of yes and no, one per class: 0/1, true/false, present/absent, x or nothing, 1/-1."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from qaclims_ray.data.label_cells import LabelCell
from qaclims_ray.data.label_words import FALSE, MARKS_READ, NOTHING, SIGNS, TRUE, mark_of, quoted
from qaclims_ray.data.validation import Fault

_MINUS = "-1"
_MOSTLY = 0.9
"""Share of the cells that make a column one of yes and no; the others are faults of their rows."""


@dataclass(frozen=True)
class ColumnMarks:
    """What columns of yes and no say."""

    names: tuple[tuple[str, ...], ...]
    """Classes that each row marks."""
    classes: tuple[str, ...]
    """Columns that are read."""
    faults: tuple[Fault, ...]
    """Columns that hold something else, and single cells."""
    notes: tuple[str, ...]
    """What was decided, for the user."""


def is_yes_or_no(cells: Sequence[LabelCell], *, with_signs: bool = False) -> bool:
    """Whether all cells that are not empty say yes or no, `with_signs` also as positive and negative, on and off."""
    words = [SIGNS.get(word, word) if with_signs else word for word in map(_word, cells)]
    return any(words) and all(word in (*TRUE, *FALSE, "") for word in words)


def read_marks(columns: Mapping[str, Sequence[LabelCell]], images: Sequence[str]) -> ColumnMarks:
    """Read columns of yes and no.

    An empty cell is a "no" only where no column writes "no" in any other way.

    Args:
        columns: class -> its cells.
        images: name of each row's image, for faults.
    """
    words = {name: [SIGNS.get(word, word) for word in map(_word, cells)] for name, cells in columns.items()}
    classes, faults = [], []
    for name, found in words.items():
        fits = sum(word in (*TRUE, *FALSE, "") for word in found)
        if found and any(found) and fits >= _MOSTLY * len(found):
            classes.append(name)
        else:
            faults.append(_no_class(name, columns[name]))
    seen = {word for name in classes for word in words[name]}
    if _MINUS in seen and seen & (set(FALSE) - {_MINUS}):
        nothing = tuple(() for _ in images)
        return ColumnMarks(nothing, tuple(classes), (*faults, _three_values(classes)), ())
    blanks_are_no = not seen & set(FALSE)
    allowed = {*TRUE, *FALSE, *([""] if blanks_are_no else [])}
    names = []
    for row, image in enumerate(images):
        bad = {name: str(columns[name][row]) for name in classes if words[name][row] not in allowed}
        if bad:
            faults.append(
                Fault("unreadable label entry", image or f"row {row + 1}", f"found {bad}, expected {MARKS_READ}")
            )
        names.append(tuple(name for name in classes if words[name][row] in TRUE))
    notes = []
    if blanks_are_no and "" in seen:
        notes.append("empty cells of the class columns mean that the class is not seen")
    if _MINUS in seen:
        notes.append("-1 in the class columns means that the class is not seen")
    return ColumnMarks(tuple(names), tuple(classes), tuple(faults), tuple(notes))


def _word(cell: LabelCell) -> str:
    word = mark_of(cell)
    return "" if word in NOTHING else word


def _no_class(name: str, cells: Sequence[LabelCell]) -> Fault:
    shown = quoted(list(dict.fromkeys(map(str, cells))))
    return Fault(
        "column that is no class",
        name,
        f"holds {shown}, expected {MARKS_READ}; remove the column, or name the columns that are "
        "classes in data.class_names",
    )


def _three_values(classes: Sequence[str]) -> Fault:
    return Fault(
        "column that is no class",
        quoted(classes),
        "hold 1, 0 and -1: -1 stands for no in some lists and for unsure in others; write 0 and 1",
    )
