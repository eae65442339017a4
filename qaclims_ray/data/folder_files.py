"""What lies in a plain folder: its images, their masks, and what says the labels."""

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from qaclims_ray.data import storage
from qaclims_ray.data.annotation_files import find_annotation_files, is_annotation_folder, read_annotation_files
from qaclims_ray.data.class_folders import ClassFolders, find_class_folders
from qaclims_ray.data.config import DataConfig
from qaclims_ray.data.exports import find_export
from qaclims_ray.data.image_ids import IMAGE_SUFFIXES, image_id_of
from qaclims_ray.data.label_files import DEFAULT_NAMES, LABEL_SUFFIXES, LabelTable, find_label_file, read_label_file
from qaclims_ray.data.label_words import quoted
from qaclims_ray.data.mask_folders import MASK_FOLDERS, MaskFiles, find_masks, likely_masks
from qaclims_ray.data.picture_files import contents, file_name, find_folder, pictures, unread_note, visible_files
from qaclims_ray.errors import ConfigError, DataError

_IMAGE_FOLDERS = ("images", "image", "imgs", "img", "JPEGImages")
"""Folders of images inside the data set's, in any case."""


@dataclass(frozen=True)
class FolderFiles:
    """The files of a data set, not yet opened."""

    folder: str
    """Where the images, or the folders of their classes, lie."""
    images: Mapping[str, Sequence[str]]
    """Image id -> its file; several files of one id are a fault."""
    masks: MaskFiles
    """Masks by image id."""
    table: LabelTable | None
    """Labels by image id; None where the masks say them."""
    source: str
    """What says the labels, in words."""
    notes: Sequence[str]
    """What lies there and is not read."""


def find_folder_files(root: str, config: DataConfig) -> FolderFiles:
    """Find a data set's files and the source of its labels.

    Args:
        root: absolute path or URI.
        config: the data set.

    Raises:
        DataError: when there is no image, nothing says the labels, or two sources do.
        ConfigError: when settings contradict each other.
    """
    label_file = _choose_label_file(root, config)
    if (by_class := _class_folders(root, config, label_file)) is not None:
        notes = _unread_label_files(root, None)
        source = "the names of the images' folders"
        return FolderFiles(by_class.folder, by_class.images, by_class.masks, by_class.table, source, notes)
    folder, files = _image_files(root)
    by_id = _by_id(files)
    table, source = None, "the masks: these are pixel labels, brought down to image level"
    if annotated := _annotation_files(root, folder, by_id, config, label_file):
        table = read_annotation_files(annotated, by_id)
        source = f"the files of annotations in {next(iter(annotated.values())).rpartition('/')[0]}"
        label_file = None
    elif config.labels != "masks":
        label_file = label_file or _found_export(root, by_id, config)
        _refuse_without_labels(root, config, label_file)
    if label_file is not None:
        table = read_label_file(label_file, config.class_names, image_ids=by_id, separator=config.label_separator)
        source = label_file
    notes = [*_passed_over(root, folder), *_unread_label_files(root, label_file)]
    return FolderFiles(folder, by_id, _mask_files(root, folder, by_id), table, source, notes)


def _choose_label_file(root: str, config: DataConfig) -> str | None:
    if config.labels in ("masks", "folders"):
        if config.label_file:
            raise ConfigError(f"data.label_file is named, but data.labels is {config.labels}: set it to file or auto")
        if config.labels == "masks" and find_folder(root, MASK_FOLDERS) is None:
            raise DataError(f"data.labels is masks, but there is no folder masks in {root} (it has {contents(root)})")
        return None
    if not storage.exists(root):
        raise DataError(f"there is no folder {root} (data.root, --data-root)")
    if config.labels == "annotations" and not config.label_file:
        return None
    label_file = find_label_file(root, config.label_file)
    if label_file is None and config.labels == "file":
        raise DataError(
            f"there is no label file in {root}: expected one of {', '.join(DEFAULT_NAMES)}, or data.label_file"
        )
    return label_file


def _class_folders(root: str, config: DataConfig, label_file: str | None) -> ClassFolders | None:
    """Return the folders of classes, where they are what says the labels.

    Raises:
        DataError: when there are none though they are asked for, or a label file says the labels too.
    """
    if config.labels in ("masks", "annotations"):
        return None
    is_flat = any(pictures(place) for place in _image_places(root))
    try:
        found = None if is_flat and config.labels != "folders" else find_class_folders(root)
    except DataError:
        if label_file is None:
            raise
        return None  # the file says the labels; that the images lie elsewhere is told with them
    if label_file is not None and found is not None:
        raise DataError(
            f"there is a label file {label_file}, but the images lie in sub-folders ({quoted(found.table.classes)}): "
            "move all images into one folder, or set data.labels to folders, which takes the folders' names for labels"
        )
    if found is None and config.labels == "folders":
        raise DataError(f"data.labels is folders, but {root} has no sub-folder of images: expected one per class")
    return found


def _annotation_files(
    root: str, folder: str, image_ids: Mapping[str, object], config: DataConfig, label_file: str | None
) -> dict[str, str]:
    """Return the files of annotations, one an image, where these are what says the labels.

    Raises:
        DataError: when they are asked for and not there.
    """
    if label_file is not None and not is_annotation_folder(label_file):
        return {}
    if config.labels in ("masks", "folders"):
        return {}
    places = (root, folder) if label_file is None else (label_file, label_file)
    found = find_annotation_files(*places, image_ids.keys())
    if not found and (label_file is not None or config.labels == "annotations"):
        raise DataError(
            f"there is no file of annotations called as an image in {label_file or folder}: expected one a photograph, "
            "1.json or 1.xml for 1.jpg, beside them or in a folder Annotations; another folder is named in "
            "data.label_file"
        )
    return found


def _found_export(root: str, image_ids: Mapping[str, object], config: DataConfig) -> str | None:
    return find_export(root, image_ids.keys()) if config.labels == "auto" else None


def _refuse_without_labels(root: str, config: DataConfig, label_file: str | None) -> None:
    if label_file is not None:
        return
    others = [file_name(uri) for uri in storage.list_files(root) if uri.lower().endswith(LABEL_SUFFIXES)]
    hint = f"; {quoted(others)} may be one: name it in data.label_file (--data.label-file)" if others else ""
    masks = find_folder(root, MASK_FOLDERS)
    if masks is not None and visible_files(masks):
        # Pixel labels are another supervision than image labels: nobody should train on them unawares.
        raise DataError(
            f"{root} has no label file (looked for {', '.join(DEFAULT_NAMES)}), only pixel labels in {masks}{hint}; "
            "set data.labels to masks to bring these down to image level, or name a label file in data.label_file"
        )
    raise DataError(
        f"{root} has no image-level labels: expected {', '.join(DEFAULT_NAMES)}, another file named in "
        "data.label_file (also an export of Label Studio, CVAT or in COCO's form), one sub-folder per class, or a file "
        f"of LabelMe's or VOC's form for each image{hint}"
    )


def _image_places(root: str) -> list[str]:
    named = find_folder(root, _IMAGE_FOLDERS)
    return [root] if named is None else [named, root]


def _image_files(root: str) -> tuple[str, list[str]]:
    """Return the folder that holds the images, and their URIs."""
    places = _image_places(root)
    for folder in places:
        if files := pictures(folder):
            return folder, files
    found = ", ".join(f"{folder} has {contents(folder)}" for folder in places)
    raise DataError(
        f"there is no image in {' or '.join(places)}; expected files ending in {', '.join(IMAGE_SUFFIXES)} directly "
        f"inside (data.root, --data-root), but {found}"
    )


def _by_id(files: Iterable[str]) -> dict[str, list[str]]:
    by_id: dict[str, list[str]] = defaultdict(list)
    for uri in files:
        by_id[image_id_of(uri)].append(uri)
    return dict(by_id)


def _mask_files(root: str, image_folder: str, image_ids: Mapping[str, object]) -> MaskFiles:
    folder = find_folder(root, MASK_FOLDERS)
    found = MaskFiles({}, [], []) if folder is None else find_masks(folder, image_ids.keys())
    taken = [uri for uri in (folder, image_folder) if uri is not None]
    return MaskFiles(found.by_image, found.faults, [*found.notes, *likely_masks(root, taken, image_ids.keys())])


def _passed_over(root: str, folder: str) -> list[str]:
    """Return notes of images that lie there and are not read."""
    notes = unread_note(folder)
    if folder != root and (beside := pictures(root)):
        notes.append(f"{len(beside)} images directly in {root} are not read: images are taken from {folder}")
    return notes


def _unread_label_files(root: str, label_file: str | None) -> list[str]:
    there = [name for name in DEFAULT_NAMES if storage.exists(storage.join(root, name))]
    unread = [name for name in there if storage.join(root, name) != label_file]
    if not unread:
        return []
    return [f"not read, because the labels come from elsewhere: {', '.join(unread)} (data.label_file)"]
