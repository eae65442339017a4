"""Labels in JSON and JSON lines -> rows under named columns."""

import json
from collections.abc import Collection, Sequence
from typing import Any

from qaclims_ray.data.exports import exported_rows
from qaclims_ray.data.image_ids import image_id_of, is_image_name
from qaclims_ray.data.label_cells import LabelCell, marked_names
from qaclims_ray.data.label_rows import IMAGE_COLUMNS, LABEL_COLUMNS, LabelRows, squeezed
from qaclims_ray.data.validation import Fault
from qaclims_ray.errors import DataError

_FORMS = (
    'one object {image: [class, ...]} or {image: class}, or a list of records [{"image": ..., "labels": [...]}, ...]'
)


class _Pairs(list[tuple[str, Any]]):
    """A JSON object as pairs: a dict would silently keep the last of two entries for an image."""


def label_rows_of_json(uri: str, text: str, image_ids: Collection[str] = ()) -> LabelRows:
    """Read a JSON file of labels; one that holds JSON lines is read as such.

    Args:
        uri: the file, for messages.
        text: its content.
        image_ids: images of the data set; they tell {image: classes} from {class: images}.

    Raises:
        DataError: when it is not JSON, or of no known form.
    """
    if (value := _value(text)) is None and isinstance(_value(text.strip().splitlines()[0]), _Pairs):
        return label_rows_of_lines(uri, text)
    value = _parsed(uri, text, "JSON")
    if (exported := exported_rows(uri, _plain(value), image_ids)) is not None:
        return exported
    if isinstance(value, _Pairs):
        return _from_object(uri, value, image_ids)
    if isinstance(value, list) and value and all(isinstance(record, _Pairs) for record in value):
        return _from_records(uri, value)
    if value == []:
        raise DataError(f"label file {uri} holds no entry; expected {_FORMS}")
    raise DataError(f"label file {uri} must hold {_FORMS}; found {_short(value)}")


def label_rows_of_lines(uri: str, text: str, image_ids: Collection[str] = ()) -> LabelRows:
    """Read one JSON record per line; a file that is one JSON value as a whole is read as such.

    Args:
        uri: the file, for messages.
        text: its content.
        image_ids: images of the data set, for files that are one value.

    Raises:
        DataError: when a line is no JSON object, or has no known form.
    """
    whole = _value(text)
    is_record = isinstance(whole, _Pairs) and any(squeezed(name) in IMAGE_COLUMNS for name, _ in whole)
    if whole is not None and not is_record:
        return label_rows_of_json(uri, text, image_ids)
    records = []
    for number, line in enumerate(text.splitlines(), start=1):
        if line.strip():
            record = _parsed(uri, line, f"JSON in line {number}")
            if not isinstance(record, _Pairs):
                raise DataError(f'label file {uri}, line {number}: found {_short(record)}, expected {{"image": ...}}')
            records.append(record)
    return _from_records(uri, records)


def _value(text: str) -> Any:
    """Return the value that a text is; None where it is none."""
    try:
        return json.loads(text, object_pairs_hook=_Pairs)
    except ValueError:
        return None


def _parsed(uri: str, text: str, what: str) -> Any:
    try:
        return json.loads(text, object_pairs_hook=_Pairs)
    except ValueError as error:
        raise DataError(f"label file {uri} is not {what}: {error}") from None


def _from_object(uri: str, pairs: _Pairs, image_ids: Collection[str]) -> LabelRows:
    names = {squeezed(name) for name, _ in pairs}
    if names & set(IMAGE_COLUMNS) and len(pairs) > 1 and (records := _transposed(pairs)):
        return _from_records(uri, records)
    if records := _records_in(pairs):
        return _from_records(uri, records)
    if len(pairs) > 1 and _is_by_class(pairs, image_ids):
        shown: dict[str, list[str]] = {}
        for name, images in pairs:
            for image in images:
                shown.setdefault(image, []).append(name)
        note = f"{uri} lists the images of each class"
        rows = tuple((image, tuple(classes)) for image, classes in shown.items())
        return LabelRows(("image", "labels"), rows, notes=(note,))
    rows, faults = [], []
    for name, value in pairs:
        cell, detail = _names(value)
        if detail:
            faults.append(Fault("unreadable label entry", name, detail))
        else:
            rows.append((name, cell))
    return LabelRows(("image", "labels"), tuple(rows), tuple(faults), may_repeat=False)


def _records_in(pairs: _Pairs) -> list[_Pairs]:
    """Return the records of {"images": [{...}, ...]} and of {image: {"labels": [...], ...}}; none in other forms."""

    def has(record: Any, columns: Collection[str]) -> bool:
        return isinstance(record, _Pairs) and any(squeezed(name) in columns for name, _ in record)

    if len(pairs) == 1 and isinstance(pairs[0][1], list) and pairs[0][1]:
        found = pairs[0][1]
        return found if all(has(record, IMAGE_COLUMNS) for record in found) else []
    if not all(has(value, LABEL_COLUMNS) for _, value in pairs):
        return []
    is_mark = [isinstance(cell, bool | int | float) for _, value in pairs for _, cell in value]
    return [] if all(is_mark) else [_Pairs([("image", name), *value]) for name, value in pairs]


def _is_by_class(pairs: _Pairs, image_ids: Collection[str]) -> bool:
    """Whether an object says {class: [image, ...]}: its values name images, and its keys do not."""

    def is_image(word: Any) -> bool:
        return isinstance(word, str) and (is_image_name(word) or image_id_of(word) in image_ids)

    values = [value for _, value in pairs if isinstance(value, list)]
    words = [word for value in values for word in value]
    return (
        len(values) == len(pairs)
        and bool(words)
        and all(map(is_image, words))
        and not any(is_image(k) for k, _ in pairs)
    )


def _transposed(pairs: _Pairs) -> list[_Pairs]:
    """Return the records of an object of columns, as a data frame writes it; none where it is none."""
    columns = {name: [cell for _, cell in value] if isinstance(value, _Pairs) else value for name, value in pairs}
    if not all(isinstance(cells, list) for cells in columns.values()) or len(set(map(len, columns.values()))) != 1:
        return []
    if not any(squeezed(name) in LABEL_COLUMNS for name in columns):
        return []
    return [_Pairs(zip(columns, row, strict=True)) for row in zip(*columns.values(), strict=True)]


def _from_records(uri: str, records: Sequence[_Pairs]) -> LabelRows:
    columns = tuple(dict.fromkeys(name for record in records for name, _ in record))
    if not any(squeezed(name) in IMAGE_COLUMNS for name in columns):
        raise DataError(f"the records of label file {uri} have the fields {list(columns)}; expected {_FORMS}")
    rows, faults = [], []
    for number, record in enumerate(records, start=1):
        cells = {name: _field(value, name) for name, value in record}
        if details := [f"{name}: {detail}" for name, (_, detail) in cells.items() if detail]:
            faults.append(Fault("unreadable label entry", f"record {number}", "; ".join(details)))
        else:
            rows.append(tuple(cells[name][0] if name in cells else "" for name in columns))
    return LabelRows(columns, tuple(rows), tuple(faults))


def _field(value: Any, name: str) -> tuple[LabelCell, str]:
    if squeezed(name) in LABEL_COLUMNS:
        return _names(value)
    if isinstance(value, list):
        return (tuple(map(str, value)), "") if all(isinstance(part, str) for part in value) else ("", "")
    if isinstance(value, bool):
        return str(int(value)), ""
    return ("" if value is None else str(value)), ""


def _names(value: Any) -> tuple[LabelCell, str]:
    """Return the cell that a value is, and what is wrong with it."""
    if value is None:
        return "", ""
    if isinstance(value, str):
        return value, ""
    if isinstance(value, _Pairs):
        try:
            return marked_names(dict(value)), ""
        except DataError as error:
            return "", str(error)
    if isinstance(value, list):
        names = [name for name in map(_name_of, value) if name is not None]
        if len(names) == len(value):
            return tuple(names), ""
    return "", f"found {_short(value)}, expected a list of class names; numbers do not say which class they mean"


def _name_of(label: Any) -> str | None:
    """Return the name in an entry of a list: text, or an object that has one field such as name or class."""
    if isinstance(label, str):
        return label
    fields = label if isinstance(label, _Pairs) else []
    named = [cell for name, cell in fields if squeezed(name) in ("name", *LABEL_COLUMNS)]
    return named[0] if len(named) == 1 and isinstance(named[0], str) else None


def _short(value: Any) -> str:
    text = json.dumps(_plain(value))
    return text if len(text) <= 80 else f"{text[:80]}..."


def _plain(value: Any) -> Any:
    if isinstance(value, _Pairs):
        return {name: _plain(part) for name, part in value}
    return [_plain(part) for part in value] if isinstance(value, list) else value
