"""Image-level labels out of Label Studio's JSON exports: choices, taxonomies, and the labels of drawn regions.

JSON holds tasks with their annotations, JSON-MIN one record a task. An image is known by the end of its address;
Label Studio puts eight hex digits before the name of an uploaded file.
"""

import re
from collections.abc import Collection, Iterator, Mapping, Sequence
from typing import Any
from urllib.parse import unquote, urlsplit

from qaclims_ray.data.image_ids import image_id_of, is_image_name
from qaclims_ray.data.json_fields import printable
from qaclims_ray.data.label_rows import LabelRows
from qaclims_ray.data.validation import Fault
from qaclims_ray.errors import DataError

_UPLOADED = re.compile(r"[0-9a-f]{8}-(?=.)")
_REGION_LABELS = (
    "rectanglelabels", "polygonlabels", "brushlabels", "ellipselabels", "keypointlabels", "bitmasklabels", "labels",
)  # fmt: skip
"""Kinds of results that draw something and name it."""
_REST_OF_MIN = ("id", "annotator", "annotation_id", "created_at", "updated_at", "lead_time", "agreement")


def is_label_studio(value: Any) -> bool:
    """Whether a JSON value is a list of Label Studio's tasks, or of its JSON-MIN records."""
    if not isinstance(value, list) or not value or not all(isinstance(task, Mapping) for task in value):
        return False
    first = value[0]
    has_results = isinstance(first.get("annotations", first.get("completions")), list)
    return (isinstance(first.get("data"), Mapping) and has_results) or {"annotation_id", "annotator"} <= first.keys()


def label_studio_rows(uri: str, tasks: Sequence[Mapping[str, Any]], image_ids: Collection[str]) -> LabelRows:
    """Return the labels of every annotated task.

    Args:
        uri: the file, for messages.
        tasks: see `is_label_studio`.
        image_ids: images of the data set: they tell what stands before a name from the name.

    Raises:
        DataError: when no task names an image.
    """
    rows, faults, waiting = [], [], []
    for number, task in enumerate(tasks, start=1):
        name = f"task {task.get('id', number)}"
        image = _image_of(task, image_ids)
        if image is None:
            faults.append(Fault("unreadable label entry", name, "its data name no image file"))
            continue
        try:
            shown = _shown(task)
        except DataError as error:
            faults.append(Fault("unreadable label entry", f"{name} ({image})", str(error)))
            continue
        if shown is None:
            waiting.append(image)
        else:
            rows.append((image, shown))
    if not rows and waiting:
        raise DataError(f"label file {uri}: none of its {len(waiting)} tasks is annotated: annotate some, and export")
    notes = [f"{uri} is an export of Label Studio: an image shows its choices and the labels of its regions"]
    if waiting:
        notes.append(f"{len(waiting)} tasks are not annotated, e.g. {waiting[0]}")
    return LabelRows(("image", "labels"), tuple(rows), tuple(faults), tuple(notes), may_repeat=False)


def _image_of(task: Mapping[str, Any], image_ids: Collection[str]) -> str | None:
    """Return the file name of a task's image; None where it names none."""
    data = task["data"] if isinstance(task.get("data"), Mapping) else task
    for value in data.values():
        if not isinstance(value, str):
            continue
        place = _place_of(value)
        if not is_image_name(place):
            continue
        name = place.rsplit("/", 1)[-1]
        is_known = image_id_of(name) in image_ids
        return name if is_known else _UPLOADED.sub("", name, count=1)
    return None


def _place_of(address: str) -> str:
    """Return the path within an address."""
    try:
        parts = urlsplit(address)
    except ValueError:  # such as a host of one bracket
        return address
    # Local files are served as /data/local-files/?d=folder/1.jpg.
    return unquote(parts.query.partition("d=")[2] if "local-files" in parts.path else parts.path)


def _shown(task: Mapping[str, Any]) -> tuple[str, ...] | None:
    """Return the names of what a task's image shows; None where nobody has said it.

    Raises:
        DataError: when annotators disagree and none of them is marked as the truth.
    """
    if not isinstance(task.get("data"), Mapping):
        skipped = {*_REST_OF_MIN, *(name for name, value in task.items() if _is_address(value))}
        return tuple(dict.fromkeys(n for key, value in task.items() if key not in skipped for n in _names_in(value)))
    found = _entries(task.get("annotations", task.get("completions")), "annotations")
    valid = [one for one in found if not one.get("was_cancelled")]
    said = [tuple(dict.fromkeys(_names_of(one))) for one in [o for o in valid if o.get("ground_truth")] or valid]
    if len({frozenset(names) for names in said}) > 1:
        listed = "; ".join(", ".join(names) or "nothing" for names in said)
        raise DataError(f"its annotations disagree ({listed}): keep one, or mark one as ground truth")
    return said[0] if said else None


def _names_of(annotation: Mapping[str, Any]) -> Iterator[str]:
    for result in _entries(annotation.get("result"), "results"):
        kind, value = result.get("type"), result.get("value", {})
        if not isinstance(value, Mapping):
            raise DataError(f"found {printable(value)} as the value of a result, expected an object")
        if kind == "choices":
            yield from _texts(value.get("choices"))
        elif kind == "taxonomy":
            yield from _ends(value.get("taxonomy"))
        elif kind in _REGION_LABELS:
            yield from _texts(value.get(kind))


def _names_in(value: Any) -> Iterator[str]:
    """Yield the names in a field of a JSON-MIN record."""
    if isinstance(value, str) and value.strip():
        yield value
    elif isinstance(value, Mapping):
        for kind in ("choices", *_REGION_LABELS):
            yield from _texts(value.get(kind))
        yield from _ends(value.get("taxonomy"))
    elif isinstance(value, list):
        for part in value:
            if isinstance(part, list) and part:
                yield str(part[-1])
            elif isinstance(part, Mapping):
                yield from _names_in(part)


def _ends(value: Any) -> Iterator[str]:
    """Yield the ends of a taxonomy's paths, which say what is seen; each path begins at the root."""
    paths = () if value is None else value
    if not isinstance(paths, list | tuple) or not all(isinstance(path, list | tuple) for path in paths):
        raise DataError(f"found {printable(value)}, expected a list of paths in a taxonomy")
    yield from _texts([path[-1] for path in paths if path])


def _entries(value: Any, what: str) -> list[Mapping[str, Any]]:
    """Return the objects of a list that may not be there; others in it say nothing."""
    if value is None:
        return []
    if not isinstance(value, list):
        raise DataError(f"found {printable(value)}, expected a list of {what}")
    return [one for one in value if isinstance(one, Mapping)]


def _texts(value: Any) -> tuple[str, ...]:
    if value is None:
        return ()
    words = (value,) if isinstance(value, str) else value
    if not isinstance(words, list | tuple) or not all(isinstance(word, str) for word in words):
        raise DataError(f"found {printable(value)}, expected a list of names")
    return tuple(words)


def _is_address(value: Any) -> bool:
    return isinstance(value, str) and is_image_name(_place_of(value) or value)
