"""Exports of labelling tools in one file: which form a file has, and where one lies that nobody named.

The form is told by what a file holds, never by its name: COCO JSON, Label Studio's JSON and JSON-MIN, CVAT's XML.
"""

import json
import re
from collections.abc import Collection, Mapping
from typing import Any

from qaclims_ray.data import storage
from qaclims_ray.data.exported_coco import coco_rows, is_coco
from qaclims_ray.data.exported_label_studio import is_label_studio, label_studio_rows
from qaclims_ray.data.image_ids import image_id_of
from qaclims_ray.data.label_rows import LabelRows
from qaclims_ray.data.label_words import quoted
from qaclims_ray.data.picture_files import file_name, find_folder, visible_files
from qaclims_ray.errors import DataError

_FOLDERS = ("annotations",)
_CVAT = re.compile(rb"<annotations[\s>]")
_HEAD = 2000


def exported_rows(uri: str, value: Any, image_ids: Collection[str]) -> LabelRows | None:
    """Return the labels of an export in JSON; None where it is none.

    Args:
        uri: the file, for messages.
        value: its content.
        image_ids: images of the data set, where they are known.

    Raises:
        DataError: when it is one, and holds no labels.
    """
    if is_coco(value):
        return coco_rows(uri, value)
    return label_studio_rows(uri, value, image_ids) if is_label_studio(value) else None


def find_export(root: str, image_ids: Collection[str]) -> str | None:
    """Return the one export in a data set's folder, or in its folder ``annotations``; None where there is none.

    Raises:
        DataError: when there are several.
    """
    places = [root, find_folder(root, _FOLDERS)]
    files = [uri for place in places if place is not None for uri in visible_files(place)]
    found = [uri for uri in files if image_id_of(_stem(uri)) not in image_ids and _is_export(uri)]
    if len(found) > 1:
        raise DataError(
            f"{root} has several files of annotations, {quoted([file_name(uri) for uri in found])}: name the one that "
            "holds the labels in data.label_file (--data.label-file)"
        )
    return found[0] if found else None


def _stem(uri: str) -> str:
    return file_name(uri).rpartition(".")[0]


def _is_export(uri: str) -> bool:
    lower = uri.lower()
    if lower.endswith(".xml"):
        return bool(_CVAT.search(storage.read_bytes(uri)[:_HEAD]))
    if not lower.endswith(".json"):
        return False
    try:
        value = json.loads(storage.read_bytes(uri))
    except (ValueError, RecursionError):
        return False
    return is_coco(value) or (isinstance(value, list | Mapping) and is_label_studio(value))
