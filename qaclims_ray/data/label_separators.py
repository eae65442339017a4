"""What parts the names in the cells of a label column: found from all cells together, never from one.

A mark such as "/" parts names where its parts are seen on their own, or at another place of another list. "tumor,
malignant" beside "tumor, benign" is two names: no part is ever seen alone, and each keeps its place. Where the cells
allow both readings nothing is guessed: `choose_separator` refuses and names the setting.
"""

import re
from collections import Counter, defaultdict
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from qaclims_ray.data.label_words import quoted, tidy
from qaclims_ray.errors import DataError

WHOLE = "none"
"""Value of `data.label_separator` by which every cell is one name."""
WORDS: Mapping[str, str] = {"space": " ", "tab": "\t"}
"""Values of `data.label_separator` that name a mark which a command line spells badly."""

_LIST_MARKS = (";", "|", "\t", "\n", "\uff1b", "\uff0c", "\u3001")
"""Marks that names do not hold; the last three are those of East Asian lists."""
_OPEN_MARKS = (",", "/", "+", "&", "#", "\\", ":", "~", "^", "*")
"""Marks that part lists and also stand in names."""
_WORDS_BETWEEN = (" and ", " und ", " et ", " y ")
"""Words that stand between the names of a list, and within names ("black and white")."""
_JOINERS = (" ", "_", "-")
"""Marks that join words into a name; they part names only where nothing else explains the cells."""
_MARKS = (*_LIST_MARKS, *_OPEN_MARKS, *_WORDS_BETWEEN)
_ENOUGH = 0.6
"""Share of the parts that must be seen on their own, or at other places, for an open mark to part names."""


@dataclass(frozen=True)
class Separator:
    """How the cells of a column are parted."""

    mark: str
    """What parts the names; empty where every cell is one name."""
    atoms: frozenset[str] = frozenset()
    """Names that hold the mark themselves and stay whole."""
    note: str = ""
    """What was decided and how to say otherwise; empty where there was nothing to decide."""

    def split(self, cell: str) -> tuple[str, ...]:
        """Return the names in a cell."""
        return split_cell(cell, self.mark, self.atoms)


def split_cell(cell: str, mark: str, atoms: Collection[str] = ()) -> tuple[str, ...]:
    """Part a cell at a mark; the longest run of parts that is an atom stays one name.

    Args:
        cell: what stands in the file.
        mark: separator; empty leaves the cell whole.
        atoms: names that may hold the mark.
    """
    if not mark:
        return (tidy(cell),) if tidy(cell) else ()
    pieces = cell.split(mark)
    names: list[str] = []
    position = 0
    while position < len(pieces):
        ends = range(len(pieces), position + 1, -1) if atoms else ()
        end = next((end for end in ends if tidy(mark.join(pieces[position:end])) in atoms), position + 1)
        names.append(tidy(mark.join(pieces[position:end])))
        position = end
    return tuple(name for name in names if name)


def choose_separator(cells: Mapping[str, int], *, known: Collection[str] = (), setting: str = "") -> Separator:
    """Find what parts the names of a column.

    Args:
        cells: cell -> rows that hold it; empty cells and lists in brackets are left out.
        known: class names of the data set; they decide where there are any.
        setting: `data.label_separator`; empty finds it.

    Raises:
        DataError: when the cells allow two readings.
    """
    if setting:
        return _as_set(cells, known, setting)
    if known:
        return _by_known_names(cells, known)
    parted = {mark: lists for mark in _MARKS if (lists := _lists(cells, mark))}
    verdicts = {mark: _verdict(mark, lists, cells) for mark, lists in parted.items()}
    marks = [mark for mark, verdict in verdicts.items() if verdict == "list"]
    if any(mark in _LIST_MARKS for mark in marks):  # marks within the names of such lists are judged below
        marks = [mark for mark in marks if mark in _LIST_MARKS]
    if len(marks) > 1:
        raise DataError(_mixed(marks, parted))
    if marks:
        _check_names(cells, marks[0])
        whole = _names_with(marks[0], parted[marks[0]], cells) if marks[0] in _WORDS_BETWEEN else frozenset()
        lists = [cell for cell in parted[marks[0]] if tidy(cell) not in whole]
        return Separator(marks[0], whole, _parted_note(marks[0], lists))
    if unclear := [mark for mark, verdict in verdicts.items() if verdict == "unclear"]:
        raise DataError(_unclear(unclear[0], parted[unclear[0]]))
    joined = _joined(cells)
    if joined is not None:
        return joined
    notes = [_whole_note(mark, lists) for mark, lists in parted.items()]
    told = {cell for word in _WORDS_BETWEEN for cell in parted.get(word, ())}  # " " would make a class of "and"
    for mark in _JOINERS:
        if lists := [cell for cell in _with_common_words(cells, mark) if cell not in told]:
            notes.append(_whole_note(mark, lists))
    return Separator("", note="; ".join(notes))


def _with_common_words(cells: Collection[str], mark: str) -> list[str]:
    """Return the cells of several words of which another cell has one too.

    They are names more often than lists, but worth a line: "hot dog" beside "dog", and "cat dog" beside "dog cat".
    Words of one cell alone are one name.
    """
    words = {cell: set(split_cell(cell, mark)) for cell in cells}
    seen = Counter(word for found in words.values() for word in found)
    return [cell for cell, found in words.items() if len(found) > 1 and any(seen[word] > 1 for word in found)]


def _as_set(cells: Mapping[str, int], known: Collection[str], setting: str) -> Separator:
    """Take the mark that the user names; one that no cell holds must not hide another that parts them."""
    mark = "" if setting == WHOLE else WORDS.get(setting, setting)
    if mark and not any(mark in cell for cell in cells):
        found = choose_separator(cells, known=known).mark
        if found:
            raise DataError(
                f"data.label_separator is {_setting(mark)}, which no cell holds; they seem to be parted by "
                f"{_named(found)}, as in {_first(_lists(cells, found))}"
            )
    return Separator(mark, frozenset(known))


def _by_known_names(cells: Collection[str], known: Collection[str]) -> Separator:
    """Take the mark by which cells hold most known names, none before any other."""
    atoms = frozenset(known)
    marks = ["", *(mark for mark in (*_MARKS, *_JOINERS) if any(mark in cell for cell in cells))]

    def explained(mark: str) -> float:
        shares = []
        for cell in cells:
            parts = split_cell(cell, mark, atoms)
            shares.append(sum(part in atoms for part in parts) / max(len(parts), 1))
            if mark in _JOINERS and shares[-1] < 1:  # part of a name is no name: a "hot dog" shows no dog
                shares[-1] = 0.0
        return sum(shares, start=0.0)

    mark = max(marks, key=explained)
    return Separator(mark, atoms, f"{_parted(mark)}, as data.class_names has it (data.label_separator)" if mark else "")


def _lists(cells: Collection[str], mark: str) -> dict[str, tuple[str, ...]]:
    """Return the cells that a mark parts into several names, with their parts."""
    found = {cell: split_cell(cell, mark) for cell in cells if mark in cell}
    return {cell: parts for cell, parts in found.items() if len(parts) > 1}


def _alone(cells: Collection[str], mark: str) -> set[str]:
    return {parts[0] for cell in cells if len(parts := split_cell(cell, mark)) == 1}


def _verdict(
    mark: str, lists: Mapping[str, tuple[str, ...]], cells: Mapping[str, int]
) -> Literal["list", "names", "unclear"]:
    if mark in _LIST_MARKS:
        return "list"
    if mark in _WORDS_BETWEEN:
        return "list" if len(_names_with(mark, lists, cells)) < len(lists) else "names"
    share = _seen_elsewhere(lists.values(), _alone(cells, mark))
    if share >= _ENOUGH:
        return "list"
    if share > 0:
        return "unclear"
    if mark != ",":
        return "names"
    # Names have a blank behind their comma, lists written by programs often none; and something must recur.
    is_spaced = all(re.search(r",(?!\s)", cell) is None for cell in lists)
    counts: dict[str, int] = defaultdict(int)
    for cell, parts in lists.items():
        for part in parts:
            counts[part] += cells[cell]
    return "names" if is_spaced and max(counts.values()) > 1 else "unclear"


def _names_with(word: str, lists: Mapping[str, tuple[str, ...]], cells: Collection[str]) -> frozenset[str]:
    """Return the cells that a word between names does not part: a part of them is never seen alone."""
    alone = _alone(cells, word)
    return frozenset(tidy(cell) for cell, parts in lists.items() if not alone.issuperset(parts))


def _seen_elsewhere(lists: Collection[Sequence[str]], alone: Collection[str]) -> float:
    """Return the share of parts that are a cell of their own, or stand at several places of the lists."""
    places: dict[str, set[int]] = defaultdict(set)
    for parts in lists:
        for place, part in enumerate(parts):
            places[part].add(place)
    return sum(part in alone or len(found) > 1 for part, found in places.items()) / len(places)


def _check_names(cells: Mapping[str, int], mark: str) -> None:
    """Refuse a column in which a second mark parts the names that the first one leaves."""
    counts: dict[str, int] = defaultdict(int)
    for cell, count in cells.items():
        for name in split_cell(cell, mark):
            counts[name] += count
    for other in _MARKS:
        lists = _lists(counts, other)
        if lists and _verdict(other, lists, counts) == "list":
            raise DataError(_mixed([mark, other], {mark: _lists(cells, mark), other: lists}))


def _joined(cells: Mapping[str, int]) -> Separator | None:
    """Judge the marks that join words: they part names where cells are made of other cells throughout."""
    for mark in _JOINERS:
        lists = _lists(cells, mark)
        if not lists:
            continue
        atoms = _atoms(lists, {tidy(cell) for cell in cells}, mark)
        made = [cell for cell in lists if tidy(cell) not in atoms]
        if made:
            inner = [name for name in atoms if _holds_another(name, atoms, mark)]
            if inner or (len(made) == 1 and len(lists) > 1):
                raise DataError(_unclear(mark, {cell: lists[cell] for cell in made}))
            own = frozenset(name for name in atoms if mark in name)
            return Separator(mark, own, note=_parted_note(mark, {cell: lists[cell] for cell in made}))
        share = _seen_elsewhere(lists.values(), _alone(cells, mark)) if len(lists) > 2 else 0.0
        if share == 1 and _mixes(lists.values()):
            return Separator(mark, note=_parted_note(mark, lists))
        if share >= 0.75:
            raise DataError(_unclear(mark, lists))
    return None


def _atoms(lists: Mapping[str, tuple[str, ...]], cells: Collection[str], mark: str) -> set[str]:
    """Return the cells that are not made of other cells."""
    atoms = set(cells)
    for cell, parts in sorted(lists.items(), key=lambda item: len(item[1])):
        reached = {0}
        for start in range(len(parts)):
            for end in range(start + 1, len(parts) + 1):
                if start in reached and end - start < len(parts) and tidy(mark.join(parts[start:end])) in atoms:
                    reached.add(end)
        if len(parts) in reached:
            atoms.discard(tidy(cell))
    return atoms


def _holds_another(name: str, atoms: Collection[str], mark: str) -> bool:
    parts = name.split(mark)
    return any(
        mark.join(parts[start:end]) in atoms
        for start in range(len(parts))
        for end in range(start + 1, len(parts) + 1)
        if end - start < len(parts)
    )


def _mixes(lists: Collection[Sequence[str]]) -> bool:
    """Whether every part has several partners, so that no two make a phrase."""
    partners: dict[str, set[str]] = defaultdict(set)
    for parts in lists:
        for part in parts:
            partners[part] |= set(parts) - {part}
    return all(len(found) > 1 for found in partners.values())


def _named(mark: str) -> str:
    names = {" ": "blanks", "\t": "tabs", "\n": "line ends"}
    return names.get(mark, f'"{mark}"')


def _setting(mark: str) -> str:
    return next((f'"{word}"' for word, meant in WORDS.items() if meant == mark), f'"{mark}"')


def _parted(mark: str) -> str:
    return f"labels of an image are parted by {_named(mark)}"


def _first(lists: Collection[str]) -> str:
    return f'"{next(iter(lists))}"'


def _parted_note(mark: str, lists: Collection[str]) -> str:
    note = f"{_parted(mark)}, as in {_first(lists)}"
    return note if mark in _LIST_MARKS else f"{note}; if these are names, set data.label_separator to {WHOLE}"


def _whole_note(mark: str, lists: Collection[str]) -> str:
    return f"{quoted(lists)}: read as one name each; if these are lists, set data.label_separator to {_setting(mark)}"


def _unclear(mark: str, lists: Collection[str]) -> str:
    return (
        f"cells such as {quoted(lists)} may be one name each, or lists parted by {_named(mark)}; the other cells do "
        f"not tell. Set data.label_separator to {_setting(mark)} for lists or to {WHOLE} for names, or name the "
        "classes in data.class_names"
    )


def _mixed(marks: Sequence[str], lists: Mapping[str, Collection[str]]) -> str:
    seen = " and by ".join(f"{_named(mark)} ({_first(lists[mark])})" for mark in marks)
    return f"lists are parted by {seen}; write all with one mark, or name it in data.label_separator"
