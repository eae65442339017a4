"""One file of annotations per image: LabelMe's and X-AnyLabeling's JSON, or PASCAL VOC's XML.

They lie beside the images, or in a folder of their own. Of LabelMe's form count the flags that are set, the tags and
the labels of shapes; of VOC's the names of objects.
"""

import json
from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from typing import Any

from qaclims_ray.data import storage
from qaclims_ray.data.image_ids import image_id_of
from qaclims_ray.data.json_fields import MISSING, flag, printable
from qaclims_ray.data.label_files import LabelTable, read_text
from qaclims_ray.data.label_words import is_nothing, quoted, tidy
from qaclims_ray.data.picture_files import file_name, find_folder, visible_files
from qaclims_ray.data.slices import in_threads
from qaclims_ray.data.validation import Fault
from qaclims_ray.data.voc_annotation import read_voc_annotation
from qaclims_ray.errors import DataError

ANNOTATION_SUFFIXES = (".json", ".xml")
_FOLDERS = ("Annotations", "labels", "annotation", "json", "xml")
"""Folders beside the images that may hold the files, in any case."""
_NO_CLASSES = ("__ignore__",)
"""Flags of LabelMe's own."""
_LABELME = ("flags", "shapes", "tags")
_NAMES = ("name", "label", "tag", "class")


def find_annotation_files(root: str, image_folder: str, image_ids: Collection[str]) -> dict[str, str]:
    """Return the annotation file of each image that has one, from the first place where any image has.

    Args:
        root: folder of the data set, or the one that holds the files.
        image_folder: where the images lie.
        image_ids: the images.

    Raises:
        DataError: when images have a JSON and an XML file in one place.
    """
    named = [find_folder(place, (name,)) for place in dict.fromkeys((root, image_folder)) for name in _FOLDERS]
    for place in dict.fromkeys([image_folder, root, *filter(None, named)]):
        kinds = {suffix: _by_image(place, suffix, image_ids) for suffix in ANNOTATION_SUFFIXES}
        found = {suffix: files for suffix, files in kinds.items() if files}
        if len(found) > 1:
            counts = " and ".join(f"{len(files)} {suffix}" for suffix, files in found.items())
            raise DataError(f"{place} has {counts} files called as images: leave the one sort that holds the labels")
        if found:
            return next(iter(found.values()))
    return {}


def _by_image(folder: str, suffix: str, image_ids: Collection[str]) -> dict[str, str]:
    files = {uri: file_name(uri) for uri in visible_files(folder) if uri.lower().endswith(suffix)}
    # 1.json, and 1.jpg.json as some programs call it.
    ids = {uri: image_id_of(name[: -len(suffix)]) for uri, name in files.items()}
    return {image_id: uri for uri, image_id in ids.items() if image_id in image_ids}


def read_annotation_files(files: Mapping[str, str], image_ids: Collection[str]) -> LabelTable:
    """Read one file per image.

    Args:
        files: image id -> its file, see `find_annotation_files`.
        image_ids: all images: those without a file are told.

    Raises:
        DataError: when no file of all is of a known form.
    """
    is_xml = next(iter(files.values())).lower().endswith(".xml")
    results = in_threads(read_voc_annotation if is_xml else _read_labelme, list(files.values()))
    read = dict(zip(files, results, strict=True))
    faults = [Fault(one.sort, image_id, one.detail) for image_id, one in read.items() if isinstance(one, Fault)]
    if len(faults) == len(files):
        raise DataError(f"none of {len(files)} files beside the images can be read as labels; {faults[0].detail}")
    labels, nothing = {}, Counter()
    for image_id, found in read.items():
        words = () if isinstance(found, Fault) else tuple(dict.fromkeys(map(tidy, found)))
        labels[image_id] = tuple(word for word in words if not is_nothing(word))
        nothing.update(word for word in words if is_nothing(word))
    form = "VOC's XML" if is_xml else "LabelMe's and X-AnyLabeling's JSON"
    notes = [f"{len(files)} images have a file in the form of {form}"]
    if counted := [f'{count} times "{word}"' for word, count in nothing.items()]:
        notes.append(f"read as no label: {', '.join(counted)}")
    if missing := [name for name in image_ids if name not in files]:
        faults += [Fault("missing labels", name, _missing(files)) for name in missing]
        # Told here, in the words of this form.
        labels |= {name: () for name in missing}
    return LabelTable(labels, None, (), tuple(faults), tuple(notes))


def _missing(files: Mapping[str, str]) -> str:
    example = file_name(next(iter(files.values())))
    return f"has no annotation file, as others have ({example}); open and save it in the labelling tool, or remove it"


def _read_labelme(uri: str) -> tuple[str, ...] | Fault:
    """Return the names of what an image shows: flags that are set, tags, and labels of shapes."""
    try:
        value = json.loads(read_text(uri))
        if not isinstance(value, dict) or not any(name in value for name in _LABELME):
            raise DataError(f"found {printable(value)}, expected an object with {quoted(_LABELME)}")
        shapes = [_name_in(shape) for shape in value.get("shapes") or ()]
        found = [*_flags_set(value.get("flags")), *_tags(value.get("tags")), *shapes]
    except (DataError, ValueError, TypeError) as error:
        detail = f"{file_name(uri)} is no file of LabelMe or X-AnyLabeling ({error}); save it there again"
        return Fault("unreadable annotation", uri, detail)
    return tuple(name for name in dict.fromkeys(found) if name not in _NO_CLASSES)


def _flags_set(flags: Any) -> list[str]:
    if not flags:
        return []
    if not isinstance(flags, dict):
        raise DataError(f"flags is {printable(flags)}, expected an object of names with true or false")
    return [name for name, value in flags.items() if flag(value)]


def _tags(tags: Any) -> Sequence[str]:
    if isinstance(tags, dict):
        return _flags_set(tags)
    if not isinstance(tags or [], list):
        raise DataError(f"tags is {printable(tags)}, expected a list of names")
    return [_name_in(tag) for tag in tags or ()]


def _name_in(entry: Any) -> str:
    """Return the name that an entry is, or has in a field."""
    named = entry if isinstance(entry, str) else MISSING
    if isinstance(entry, dict):
        named = next((entry[name] for name in _NAMES if isinstance(entry.get(name), str)), MISSING)
    if not isinstance(named, str):
        raise DataError(f"found {printable(entry)}, expected a name")
    return named


def is_annotation_folder(uri: str) -> bool:
    """Whether a place that a user named holds one file per image."""
    return any(name.lower().endswith(ANNOTATION_SUFFIXES) for name in storage.list_files(uri))
