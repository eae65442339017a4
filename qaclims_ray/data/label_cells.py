"""The cells of a label column -> names of classes: lists in brackets, words for nothing, and parted names."""

import ast
import io
import json
import re
import tokenize
from collections import Counter
from collections.abc import Collection, Sequence
from dataclasses import dataclass

from qaclims_ray.data.label_separators import choose_separator, split_cell
from qaclims_ray.data.label_words import FALSE, TRUE, is_nothing, mark_of, quoted, tidy
from qaclims_ray.errors import DataError

LabelCell = str | tuple[str, ...]
"""What stands in a cell: text, or names that the file's own form parts (a JSON list)."""

_BRACKETS = {"[": "]", "(": ")", "{": "}"}
_EMPTY_NAMES = ("None", "null", "nan", "NaN")
_SCORED = re.compile(r".*\D\s*[:=]\s*\d*\.\d+$")


@dataclass(frozen=True)
class CellNames:
    """What the cells of a column say."""

    names: tuple[tuple[str, ...], ...]
    """Names of each cell; none where it names nothing."""
    notes: tuple[str, ...]
    """What was decided, for the user."""


def read_cells(cells: Sequence[LabelCell], *, known: Collection[str] = (), separator: str = "") -> CellNames:
    """Read a label column.

    Args:
        cells: of the column, in the file's order.
        known: class names of the data set, where they are given.
        separator: `data.label_separator`; empty finds it.

    Raises:
        DataError: when the column as a whole has no one meaning.
    """
    lists = {cell: found for cell in set(cells) if (found := names_in_brackets(cell)) is not None}
    texts = Counter(cell for cell in cells if isinstance(cell, str) and cell not in lists)
    plain = Counter({cell: count for cell, count in texts.items() if not is_nothing(tidy(cell), known)})
    _refuse_scores(plain)
    notes = []
    bare = _bare_lists(plain, known, separator)
    if bare:
        lists |= bare
        notes.append(
            f"labels stand in brackets, as in {quoted(list(bare), 1)}, and are read as lists (data.label_separator "
            "none would keep them as names)"
        )
        plain = Counter()
    decided = choose_separator(plain, known=known, setting=separator)
    notes += [decided.note] if decided.note else []
    names, nothing = {}, Counter()
    for cell in set(cells):
        parts = lists[cell] if cell in lists else decided.split(str(cell))
        names[cell] = tuple(dict.fromkeys(part for part in map(tidy, parts) if not is_nothing(part, known)))
    for cell in cells:
        words = map(tidy, lists[cell] if cell in lists else (str(cell),))
        nothing.update({word for word in words if is_nothing(word, known)})
    if counted := [f'{count} times "{word}"' for word, count in nothing.items() if word]:
        notes.append(f"read as no label: {', '.join(counted)}")
    return CellNames(tuple(names[cell] for cell in cells), tuple(notes))


def names_in_brackets(cell: LabelCell) -> tuple[str, ...] | None:
    """Return the names of a JSON list, a Python list, set or tuple, a NumPy array, or a table of 0 and 1; else None.

    Raises:
        DataError: when a table of names holds other than 0 and 1.
    """
    if isinstance(cell, tuple):
        return cell
    text = cell.strip()
    if len(text) < 2 or _BRACKETS.get(text[0]) != text[-1]:
        return None
    try:
        tokens = list(tokenize.generate_tokens(io.StringIO(text).readline))
    except (tokenize.TokenError, SyntaxError):
        return None
    inner = [token for token in tokens[1:] if token.type not in (tokenize.NEWLINE, tokenize.NL, tokenize.ENDMARKER)][
        :-1
    ]
    if any(token.string == ":" for token in inner):
        return _table(text)
    # Token by token rather than as a literal: Python would glue together the strings of a printed NumPy array.
    is_empty = [token.type == tokenize.NAME and token.string in _EMPTY_NAMES for token in inner]
    is_word = [token.type == tokenize.STRING for token in inner]
    if not all(
        word or empty or token.string == "," for token, word, empty in zip(inner, is_word, is_empty, strict=True)
    ):
        return None
    words = [ast.literal_eval(token.string) for token, word in zip(inner, is_word, strict=True) if word]
    return tuple(words) if all(isinstance(word, str) for word in words) else None


def _table(text: str) -> tuple[str, ...] | None:
    """Return the names that a table such as {"cat": 1, "dog": 0} marks as seen."""
    try:
        values = json.loads(text)
    except ValueError:
        try:
            values = ast.literal_eval(text)
        except (ValueError, SyntaxError):
            return None
    if not isinstance(values, dict) or not all(isinstance(name, str) for name in values):
        return None
    return marked_names(values)


def marked_names(values: dict[str, object]) -> tuple[str, ...]:
    """Return the names that are marked 1 (or true, yes) in a table of names.

    Raises:
        DataError: when a value is neither yes nor no.
    """
    words = {name: mark_of(value) for name, value in values.items()}
    if strange := {name: values[name] for name, word in words.items() if word not in (*TRUE, *FALSE)}:
        raise DataError(f"found {strange}, expected 0 or 1 for each class")
    return tuple(name for name, word in words.items() if word in TRUE)


def _bare_lists(texts: Collection[str], known: Collection[str], separator: str) -> dict[str, tuple[str, ...]]:
    """Return the names of cells such as [cat, dog], without quotes, where all cells are of this form.

    Raises:
        DataError: when the brackets hold numbers.
    """
    stripped = {text: text.strip() for text in texts}
    if separator or not texts or any(tidy(text) in known for text in texts):
        return {}
    bracketed = [text for text in stripped.values() if len(text) > 1 and _BRACKETS.get(text[0]) == text[-1]]
    if len(bracketed) < len(stripped):
        if lists := [text for text in bracketed if "," in text]:
            raise DataError(
                f"cells such as {quoted(lists, 1)} look like lists in brackets, but others have none, such as "
                f"{quoted([text for text in stripped.values() if text not in bracketed], 1)}; write all alike"
            )
        return {}
    inner = {cell: text[1:-1] for cell, text in stripped.items()}
    if all(re.fullmatch(r"[\s\d.,+-]*", text) for text in inner.values()):
        raise DataError(
            f"labels such as {quoted(list(texts), 1)} are numbers in brackets: a list of 0 and 1 does not say which "
            "class is which; write names of classes, or one 0/1 column per class"
        )
    mark = "," if any("," in text for text in inner.values()) else ""
    return {cell: split_cell(text, mark) for cell, text in inner.items()}


def _refuse_scores(texts: Collection[str]) -> None:
    scored = [text for text in texts if _SCORED.fullmatch(tidy(text))]
    if scored and len(scored) == len(texts):
        raise DataError(
            f"labels such as {quoted(scored, 1)} are names with scores; a label says only that a class is seen: "
            "choose the classes by a threshold and leave out the numbers"
        )
