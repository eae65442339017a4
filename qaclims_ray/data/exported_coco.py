"""Image-level labels out of a COCO file: the categories of an image's annotations.

CVAT, Roboflow, Label Studio and FiftyOne write such files. Boxes and outlines are not read: an image shows the classes
of its annotations, and an image without any shows none. The data set COCO 2014 itself has a reader of its own.
"""

from collections import Counter
from collections.abc import Mapping
from typing import Any

from qaclims_ray.data.json_fields import field, positive_number, printable, text, whole_number
from qaclims_ray.data.label_rows import LabelRows
from qaclims_ray.data.label_words import quoted
from qaclims_ray.data.validation import Fault
from qaclims_ray.errors import DataError

_PARTS = ("images", "annotations", "categories")


def is_coco(value: Any) -> bool:
    """Whether a JSON value is a COCO file."""
    return isinstance(value, Mapping) and all(isinstance(value.get(part), list) for part in _PARTS)


def coco_rows(uri: str, value: Mapping[str, Any]) -> LabelRows:
    """Return the labels of every image of a COCO file.

    Args:
        uri: the file, for messages.
        value: its content, see `is_coco`.

    Raises:
        DataError: when it names no image or no category.
    """
    for part in ("images", "categories"):
        if not value[part]:
            raise DataError(f"label file {uri} is in COCO's form, but its list of {part} is empty: export it again")
    faults: list[Fault] = []
    names = _named(value["categories"], "category", "name", faults)
    images = _named(value["images"], "image", "file_name", faults)
    shown: dict[int, list[str]] = {image: [] for image in images}
    for number, entry in enumerate(value["annotations"], start=1):
        try:
            image, category = (field(_object(entry), name, whole_number) for name in ("image_id", "category_id"))
            if image not in images or category not in names:
                what, found = ("image", image) if image not in images else ("category", category)
                raise DataError(f"belongs to {what} {found}, which the file does not list")
        except DataError as error:
            faults.append(Fault("unreadable annotation", f"annotation {number}", str(error)))
        else:
            shown[image].append(names[category])
    used = Counter(name for found in shown.values() for name in set(found))
    notes = [f"{uri} is in COCO's form: an image shows the categories of its annotations"]
    if unused := [name for name in names.values() if name not in used]:
        notes.append(f"categories without any annotation are left out: {quoted(unused, 8)}")
    rows = tuple((images[image], tuple(dict.fromkeys(found))) for image, found in shown.items())
    return LabelRows(("image", "labels"), rows, tuple(faults), tuple(notes), may_repeat=False)


def _named(entries: list[Any], what: str, name: str, faults: list[Fault]) -> dict[int, str]:
    """Return the names of entries by their ids; what cannot be read becomes a fault."""
    found: dict[int, str] = {}
    for number, entry in enumerate(entries, start=1):
        try:
            key = field(_object(entry), "id", whole_number if what == "category" else _image_number)
            if key in found:
                raise DataError(f"has the id {key}, which an earlier one has too")
            found[key] = field(entry, name, text)
        except DataError as error:
            faults.append(Fault(f"unreadable {what}", f"{what} {number}", str(error)))
    return found


def _image_number(value: Any) -> int:
    # Some programs count images from 0.
    return 0 if value in (0, "0") and not isinstance(value, bool) else positive_number(value)


def _object(entry: Any) -> dict[str, Any]:
    if not isinstance(entry, dict):
        raise DataError(f"is {printable(entry)}, expected an object")
    return entry
