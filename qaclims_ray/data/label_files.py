"""Files of image-level labels: CSV and JSON, as people write them.

Known forms: JSON ``{image: [label, ...]}``; CSV with the columns ``image, labels`` (names separated by ``;``, or
by commas, or by spaces); CSV with ``image`` and one 0/1 column per class. A CSV may have a ``split`` column.
"""

import csv
import io
import json
from collections.abc import Collection
from dataclasses import dataclass

from qaclims_ray.data import storage
from qaclims_ray.data.images import IMAGE_SUFFIXES
from qaclims_ray.data.validation import Fault
from qaclims_ray.errors import DataError

DEFAULT_NAMES: tuple[str, ...] = ("image_labels.json", "image_labels.csv", "labels.json", "labels.csv")
"""Label files that are looked for in a data set's folder, in this order."""

_IMAGE_COLUMNS = ("image", "image_id", "filename")
_LABEL_COLUMNS = ("labels", "label")
_SPLIT_COLUMN = "split"
_TRUTH = {"1": True, "0": False, "1.0": True, "0.0": False, "true": True, "false": False}


@dataclass(frozen=True)
class LabelTable:
    """What a label file says."""

    labels: dict[str, tuple[str, ...]]
    """Image id -> names of its classes, as the file spells them."""
    splits: dict[str, tuple[str, ...]] | None
    """Image id -> its splits; None when the file has no such column."""
    classes: tuple[str, ...]
    """Classes that have a column of their own; empty in the other forms."""
    faults: tuple[Fault, ...]
    """What is wrong with single entries."""


def image_id_of(name: str) -> str:
    """Return the image id of a file name: its last part, without an image suffix."""
    last = name.strip().replace("\\", "/").rsplit("/", 1)[-1]
    stem, dot, suffix = last.rpartition(".")
    return stem if dot and f".{suffix.lower()}" in IMAGE_SUFFIXES else last


def find_label_file(root: str, label_file: str) -> str | None:
    """Return the label file of a data set, or None where there is none.

    Args:
        root: folder of the data set.
        label_file: what the user named: a path inside the folder, or any other path or URI; empty looks for
            `DEFAULT_NAMES` in the folder.

    Raises:
        DataError: when the named file is not there.
    """
    if not label_file:
        candidates = [storage.join(root, name) for name in DEFAULT_NAMES]
        return next((uri for uri in candidates if storage.exists(uri)), None)
    is_anywhere = storage.is_remote(label_file) or label_file.startswith(("/", "~", "file://"))
    candidates = [label_file] if is_anywhere else [storage.join(root, label_file), label_file]
    for uri in candidates:
        if storage.exists(uri):
            return storage.absolute(uri)
    raise DataError(f"there is no label file {' or '.join(candidates)} (data.label_file)")


def read_label_file(uri: str, known_names: Collection[str] = ()) -> LabelTable:
    """Read a label file.

    Args:
        uri: path or fsspec URI, ending in .csv or .json.
        known_names: class names; one that holds spaces is recognised in a space separated list of its own.

    Raises:
        DataError: when the file as a whole cannot be understood; single bad entries become faults.
    """
    text = read_text(uri)
    if not text.strip():
        raise DataError(f"label file {uri} is empty")
    if uri.lower().endswith(".json"):
        return _read_json(uri, text)
    if uri.lower().endswith(".csv"):
        return _read_csv(uri, text, known_names)
    raise DataError(f"label file {uri} is of an unknown sort: expected .csv or .json")


def read_text(uri: str) -> str:
    """Return a UTF-8 file's text, without a byte order mark.

    Raises:
        DataError: when it is missing or not UTF-8.
    """
    try:
        return storage.read_bytes(uri).decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise DataError(f"{uri} is not UTF-8 text ({error.reason} at byte {error.start}): convert it") from None


def _read_json(uri: str, text: str) -> LabelTable:
    try:
        # Pairs rather than a dict: a dict would silently keep the last of two entries for an image.
        pairs = json.loads(text, object_pairs_hook=list)
    except ValueError as error:
        raise DataError(f"label file {uri} is not JSON: {error}") from None
    if not isinstance(pairs, list) or not all(isinstance(pair, tuple) for pair in pairs):
        raise DataError(f"label file {uri} must hold one object {{image: [label, ...]}}")
    entries, faults = [], []
    for name, labels in pairs:
        if isinstance(labels, list) and all(isinstance(label, str) for label in labels):
            entries.append((name, tuple(labels)))
        else:
            faults.append(Fault("unreadable label entry", name, f"found {labels!r}, expected a list of class names"))
    labels, repeated = _by_id(entries)
    return LabelTable(labels, None, (), (*faults, *repeated))


def _read_csv(uri: str, text: str, known_names: Collection[str]) -> LabelTable:
    try:
        lines = [row for row in csv.reader(io.StringIO(text), strict=True) if any(map(str.strip, row))]
    except csv.Error as error:
        raise DataError(f"label file {uri} is not CSV: {error}") from None
    header, rows = (lines[0], lines[1:]) if lines else ([], [])
    columns = [name.strip() for name in header]
    image_column = next((columns.index(name) for name in _IMAGE_COLUMNS if name in columns), None)
    if image_column is None or len(set(columns)) < len(columns) or len(columns) < 2:
        raise DataError(
            f"label file {uri} has the columns {columns}: expected {' or '.join(_IMAGE_COLUMNS)}, then "
            f"{' or '.join(_LABEL_COLUMNS)} or one column per class, each once"
        )
    sound = [[cell.strip() for cell in row] for row in rows if len(row) == len(columns)]
    faults = [
        Fault("unreadable label entry", row[0], f"{len(row)} cells, the header has {len(columns)}")
        for row in rows
        if len(row) != len(columns)
    ]
    label_column = next((columns.index(name) for name in _LABEL_COLUMNS if name in columns), None)
    split_column = columns.index(_SPLIT_COLUMN) if _SPLIT_COLUMN in columns else None
    used = (image_column, split_column)
    classes = [name for column, name in enumerate(columns) if column not in used] if label_column is None else []
    if label_column is not None:
        names = _split_cells([row[label_column] for row in sound], known_names)
    else:
        names, bad = _read_indicators(
            classes, [dict(zip(columns, row, strict=True)) for row in sound], columns[image_column]
        )
        faults += bad
    labels, repeated = _by_id([(row[image_column], cell) for row, cell in zip(sound, names, strict=True)])
    splits = None
    if split_column is not None:
        splits = {image_id_of(row[image_column]): _words(row[split_column]) for row in sound}
    return LabelTable(labels, splits, tuple(classes), (*faults, *repeated))


def _split_cells(cells: list[str], known_names: Collection[str]) -> list[tuple[str, ...]]:
    """One separator for the whole file: the first of ; and , that occurs, else white space."""
    separator = next((mark for mark in ";," if any(mark in cell for cell in cells)), None)
    if separator is None:
        return [(cell,) if cell in known_names else tuple(cell.split()) for cell in cells]
    return [tuple(part.strip() for part in cell.split(separator) if part.strip()) for cell in cells]


def _read_indicators(
    classes: list[str], rows: list[dict[str, str]], image_column: str
) -> tuple[list[tuple[str, ...]], list[Fault]]:
    """Read one 0/1 column per class."""
    names, faults = [], []
    for row in rows:
        if bad := {name: row[name] for name in classes if row[name].lower() not in _TRUTH}:
            faults.append(Fault("unreadable label entry", row[image_column], f"found {bad}, expected 0 or 1"))
        names.append(tuple(name for name in classes if _TRUTH.get(row[name].lower(), False)))
    return names, faults


def _words(cell: str) -> tuple[str, ...]:
    return tuple(dict.fromkeys(cell.replace(";", " ").replace(",", " ").split()))


def _by_id(entries: list[tuple[str, tuple[str, ...]]]) -> tuple[dict[str, tuple[str, ...]], list[Fault]]:
    labels: dict[str, tuple[str, ...]] = {}
    faults = []
    for name, names in entries:
        image_id = image_id_of(name)
        if not image_id:
            faults.append(Fault("unreadable label entry", repr(name), "the image has no name"))
        elif image_id in labels:
            faults.append(Fault("duplicate id", image_id, "has more than one entry in the label file"))
        else:
            labels[image_id] = names
    return labels, faults
