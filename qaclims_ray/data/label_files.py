"""Files of image-level labels, as people write and export them.

Known forms: CSV or TSV with a column of images and one of class names (one name, or several with any mark between
them), or with a 0/1 column per class; JSON ``{image: [class, ...]}`` or a list of records; JSON lines. A table may have
a ``split`` column. Exports of labelling tools in one file are read too (`exports`, `exported_cvat`). `label_rows` and
`label_json` make rows of them, `label_columns` finds what each column means, `label_cells` and `label_separators` what
a cell names, `label_marks` what 0/1 columns say.
"""

from collections import defaultdict
from collections.abc import Collection, Sequence
from dataclasses import dataclass

from qaclims_ray.data import storage
from qaclims_ray.data.exported_cvat import cvat_rows
from qaclims_ray.data.image_ids import image_id_of
from qaclims_ray.data.label_columns import ColumnReading, read_columns
from qaclims_ray.data.label_json import label_rows_of_json, label_rows_of_lines
from qaclims_ray.data.label_rows import read_delimited
from qaclims_ray.data.validation import Fault
from qaclims_ray.errors import DataError

_TABLES = (".json", ".csv", ".tsv", ".jsonl")
LABEL_SUFFIXES: tuple[str, ...] = (*_TABLES, ".xml")
"""Endings of label files; XML is CVAT's."""
DEFAULT_NAMES: tuple[str, ...] = tuple(f"{stem}{end}" for stem in ("image_labels", "labels") for end in _TABLES)
"""Label files that are looked for in a data set's folder, in this order."""


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
    notes: tuple[str, ...] = ()
    """How the file was understood, where it allowed a choice."""


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


def read_label_file(
    uri: str, known_names: Collection[str] = (), *, image_ids: Collection[str] = (), separator: str = ""
) -> LabelTable:
    """Read a label file.

    Args:
        uri: path or fsspec URI, ending in one of `LABEL_SUFFIXES`.
        known_names: class names; where there are any, they decide how cells are parted.
        image_ids: images of the data set, where they are known: they tell which column names images.
        separator: `data.label_separator`; empty finds it.

    Raises:
        DataError: when the file as a whole cannot be understood; single bad entries become faults.
    """
    suffix = next((suffix for suffix in LABEL_SUFFIXES if uri.lower().endswith(suffix)), None)
    if suffix is None:
        raise DataError(f"label file {uri} is of an unknown sort: expected {', '.join(LABEL_SUFFIXES)}")
    text = read_text(uri)
    if not text.strip():
        raise DataError(f"label file {uri} is empty")
    image_ids = frozenset(image_ids)
    match suffix:
        case ".json":
            rows = label_rows_of_json(uri, text, image_ids)
        case ".jsonl":
            rows = label_rows_of_lines(uri, text, image_ids)
        case ".xml":
            rows = cvat_rows(uri, text)
        case _:
            rows = read_delimited(uri, text, image_ids)
    read = read_columns(uri, rows, image_ids=image_ids, known=known_names, separator=separator)
    return _by_image(read)


def read_text(uri: str) -> str:
    """Return a UTF-8 file's text, without a byte order mark.

    Raises:
        DataError: when it is missing or not UTF-8.
    """
    content = storage.read_bytes(uri)
    try:
        if b"\0" in content[:1000]:
            raise DataError(f"{uri} is not UTF-8 text (UTF-16, or no text at all): save it as UTF-8")
        return content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise DataError(
            f"{uri} is not UTF-8 text ({error.reason} at byte {error.start}): save it as UTF-8 (Excel calls it "
            '"CSV UTF-8"; other programs of Windows write cp1252)'
        ) from None


def _by_image(read: ColumnReading) -> LabelTable:
    """Bring the rows of each image together."""
    rows_of: dict[str, list[int]] = defaultdict(list)
    faults, notes = list(read.faults), list(read.notes)
    for row, name in enumerate(read.images):
        if image_id := image_id_of(name):
            rows_of[image_id].append(row)
        else:
            faults.append(Fault("unreadable label entry", repr(name), "the image has no name"))
    # One class in each row: the file may spread an image's classes over rows, as lists of boxes do.
    is_long = read.may_repeat and all(len(names) <= 1 for names in read.names)
    labels, repeated, merged = {}, [], []
    for image_id, rows in rows_of.items():
        found = list(dict.fromkeys(name for row in rows for name in read.names[row]))
        labels[image_id] = tuple(found)
        if len(rows) == 1:
            continue
        if len({_path(read.images[row]) for row in rows}) > 1:
            spelled = ", ".join(dict.fromkeys(read.images[row] for row in rows))
            faults.append(Fault("duplicate id", image_id, f"has more than one entry in the label file: {spelled}"))
        elif all(set(read.names[row]) == set(found) for row in rows):
            repeated.append(image_id)
        elif is_long:
            merged.append(image_id)
        else:
            said = "; ".join(", ".join(read.names[row]) or "nothing" for row in rows)
            faults.append(
                Fault("duplicate id", image_id, f"has more than one entry in the label file, which disagree: {said}")
            )
    notes += _said(repeated, "several rows say the same of an image")
    notes += _said(merged, "rows with one class each are put together")
    return LabelTable(labels, _splits(read, rows_of), read.classes, tuple(faults), tuple(notes))


def _path(name: str) -> str:
    return name.strip().replace("\\", "/").removeprefix("./")


def _said(image_ids: Sequence[str], what: str) -> list[str]:
    return [f"{what}: {len(image_ids)} times, e.g. of {image_ids[0]}"] if image_ids else []


def _splits(read: ColumnReading, rows_of: dict[str, list[int]]) -> dict[str, tuple[str, ...]] | None:
    if read.splits is None:
        return None
    cells = {image_id: [read.splits[row] for row in rows] for image_id, rows in rows_of.items()}
    return {image_id: _words(" ".join(found)) for image_id, found in cells.items()}


def _words(cell: str) -> tuple[str, ...]:
    return tuple(dict.fromkeys(cell.replace(";", " ").replace(",", " ").split()))
