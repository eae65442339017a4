"""Reader for the PASCAL VOC layout (VOC 2012, its augmented list, the miniature world) -> `Manifest`.

Images lie in ``JPEGImages``, split lists in ``ImageSets/Segmentation``, label maps in ``SegmentationClass`` or
``SegmentationClassAug``, stuff maps of the miniature in ``SegmentationContext``. Masks serve evaluation and the fully
supervised bound; the un-augmented one is preferred where both are there (row E4).
"""

import dataclasses
import xml.etree.ElementTree as ElementTree
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from qaclims_ray.data import storage
from qaclims_ray.data.classes import VOC_CLASSES, VOC_FILE_NAMES
from qaclims_ray.data.config import DataConfig
from qaclims_ray.data.images import IMAGE_SUFFIXES
from qaclims_ray.data.label_files import find_label_file, image_id_of, read_label_file, read_text
from qaclims_ray.data.manifest import Manifest
from qaclims_ray.data.mask_translation import translated_masks
from qaclims_ray.data.validation import (
    Fault,
    OnProgress,
    RawImage,
    check_class_names,
    check_splits,
    fail_on,
    in_threads,
    inspect_images,
    unknown_label,
)
from qaclims_ray.errors import ConfigError, DataError

VOC_COUNTS: Mapping[str, int] = {"train": 1464, "val": 1449, "trainval": 2913, "train_aug": 10582}
"""Images in VOC 2012's segmentation lists and in the augmented training list."""

_ROOTS = ("", "VOC2012", "VOCdevkit/VOC2012")
_LISTS = "ImageSets/Segmentation"
_MASK_FOLDERS = ("SegmentationClass", "SegmentationClassAug")
_CONTEXT_FOLDER = "SegmentationContext"


@dataclass(frozen=True)
class _ImageLabels:
    """Image id -> class names as the source spells them; None leaves them to the masks."""

    names: Mapping[str, tuple[str, ...]] | None
    faults: Sequence[Fault]
    note: str


def read_voc(
    config: DataConfig,
    *,
    class_names: Sequence[str] = VOC_CLASSES,
    file_names: Sequence[str] = VOC_FILE_NAMES,
    masks_uri: str = "",
    on_progress: OnProgress | None = None,
) -> Manifest:
    """Read and check a data set in VOC's layout.

    Args:
        config: the data set. ``root`` may hold JPEGImages itself, or VOC2012, or VOCdevkit/VOC2012. With labels =
            auto, a named label file counts first, then Annotations, then a label file in the folder, then masks.
        class_names: natural names in label order; they become the manifest's.
        file_names: the same classes as the data set's files spell them; both spellings are understood.
        masks_uri: folder, local or remote, for the masks that `data.mask_values` translates.
        on_progress: told after each inspected image.

    Raises:
        DataError: all faults of the data set in one report.
        ConfigError: when settings contradict each other.
    """
    check_class_names(class_names)
    _check_settings(config, class_names, file_names)
    root = _find_root(config.root)
    splits, faults = _read_splits(root, config)
    image_ids = list(dict.fromkeys(image_id for ids in splits.values() for image_id in ids))
    labels = _find_labels(root, config, image_ids)
    ids = {name: index for names in (class_names, file_names) for index, name in enumerate(names)}
    raw_images, raw_faults = _raw_images(root, splits, labels.names, ids)
    checked, mask_faults = translated_masks(raw_images, config, class_names, masks_uri)
    records, found, mask_notes = inspect_images(checked, class_names, config, on_progress=on_progress)
    faults += [
        *labels.faults,
        *raw_faults,
        *mask_faults,
        *found,
        *check_splits(splits, raw_images, scored=config.eval_split),
    ]
    fail_on(faults, root)
    notes = [f"read {root}", labels.note, *_count_notes(splits, class_names), *mask_notes]
    if not any(record.mask_uri for record in records if config.eval_split in record.splits):
        notes.append(f"no image of split {config.eval_split} has a mask: nothing can be scored")
    return Manifest(tuple(class_names), records, tuple(notes))


def _check_settings(config: DataConfig, class_names: Sequence[str], file_names: Sequence[str]) -> None:
    if not config.root:
        raise ConfigError("data.root is empty: give the folder of the data set (--data-root)")
    if len(class_names) != len(file_names):
        raise ConfigError(f"{len(class_names)} class names but {len(file_names)} file names")
    if config.dataset == "voc12" and config.class_names:
        raise ConfigError("data.class_names is for the folder layout; VOC's classes are fixed: leave it empty")
    if config.label_file and config.labels in ("annotations", "masks"):
        raise ConfigError(f"data.label_file is named, but data.labels is {config.labels}: set it to file or auto")


def _find_root(root: str) -> str:
    candidates = [storage.absolute(storage.join(root, *filter(None, [part]))) for part in _ROOTS]
    for candidate in candidates:
        if storage.exists(storage.join(candidate, "JPEGImages")):
            return candidate
    raise DataError(
        f"there is no VOC data set at {root}: expected the folder JPEGImages in one of {', '.join(candidates)} "
        "(data.root, --data-root)"
    )


def _read_splits(root: str, config: DataConfig) -> tuple[dict[str, list[str]], list[Fault]]:
    """Return the ids of the training, the scored and the test split; the test split may be absent if it is val."""
    folder = storage.join(root, _LISTS)
    known = {uri.rsplit("/", 1)[-1].removesuffix(".txt"): uri for uri in storage.list_files(folder, ".txt")}
    tested = [config.test_split] if config.test_split in known or config.test_split != "val" else []
    wanted = list(dict.fromkeys([config.train_split, config.eval_split, *tested]))
    if absent := [split for split in wanted if split not in known]:
        raise DataError(f"there is no list for split {' or '.join(absent)} in {folder}; it has {sorted(known)}")
    splits, faults = {}, []
    for split in wanted:
        try:
            ids, found = _read_list(split, read_text(known[split]))
        except DataError as error:
            ids, found = [], [Fault("unreadable split list", split, str(error))]
        splits[split] = ids[: config.limit]
        faults += found
    return splits, faults


def _read_list(split: str, text: str) -> tuple[list[str], list[Fault]]:
    """Read one image per line: an id, or (as augmented lists are often published) the paths of image and mask."""
    ids: dict[str, None] = {}
    faults = []
    for number, line in enumerate(text.splitlines(), start=1):
        words = line.split()
        if not words:
            continue
        if len(words) > 2 or (len(words) == 2 and "/" not in words[0]):
            faults.append(Fault("unreadable split list", f"{split}, line {number}", f"{line!r}, expected one image id"))
            continue
        image_id = image_id_of(words[0])
        if image_id in ids:
            faults.append(Fault("duplicate id", image_id, f"stands twice in split list {split}"))
        ids[image_id] = None
    return list(ids), faults


def _find_labels(root: str, config: DataConfig, image_ids: Sequence[str]) -> _ImageLabels:
    source: Literal["annotations", "file", "masks"] | None = None if config.labels == "auto" else config.labels
    annotations = {}
    if source == "annotations" or (source is None and not config.label_file):
        annotations = _by_stem(storage.list_files(storage.join(root, "Annotations"), ".xml"))
        if source == "annotations" and not annotations:
            raise DataError(f"data.labels is annotations, but there is no XML file in {root}/Annotations")
    if annotations:
        return _labels_from_annotations(annotations, image_ids)
    if source != "masks" and (label_file := find_label_file(root, config.label_file)):
        table = read_label_file(label_file)
        return _ImageLabels(table.labels, table.faults, f"labels from the file {label_file}")
    if source == "file":
        raise DataError(f"data.labels is file, but there is no label file in {root}; name one in data.label_file")
    if not any(storage.list_files(storage.join(root, folder)) for folder in _MASK_FOLDERS):
        raise DataError(
            f"{root} has no image-level labels: expected Annotations/*.xml, image_labels.json or .csv, or masks in "
            "SegmentationClass; a label file elsewhere is named in data.label_file"
        )
    return _ImageLabels(None, (), "labels from the masks: these are pixel labels, brought down to image level")


def _labels_from_annotations(annotations: Mapping[str, str], image_ids: Sequence[str]) -> _ImageLabels:
    known = [image_id for image_id in image_ids if image_id in annotations]
    names, faults = {}, []
    for image_id, result in zip(known, in_threads(_read_annotation, [annotations[key] for key in known]), strict=True):
        if isinstance(result, Fault):
            faults.append(dataclasses.replace(result, subject=image_id))
            result = ()  # the fault is reported already, as what it is
        names[image_id] = result
    return _ImageLabels(names, faults, "labels from Annotations, objects marked difficult included")


def _read_annotation(uri: str) -> tuple[str, ...] | Fault:
    """Return the names of the annotated objects; body parts, which VOC also names, are no objects."""
    try:
        tree = ElementTree.fromstring(storage.read_bytes(uri))
    except (ElementTree.ParseError, DataError, ValueError) as error:
        return Fault("unreadable annotation", uri, f"{uri}: {error}")
    names = [(element.findtext("name") or "").strip() for element in tree.findall("object")]
    return tuple(dict.fromkeys(names))


def _raw_images(
    root: str,
    splits: Mapping[str, Sequence[str]],
    names: Mapping[str, tuple[str, ...]] | None,
    class_ids: Mapping[str, int],
) -> tuple[list[RawImage], list[Fault]]:
    """Bring lists, files and labels together."""
    image_files = [
        uri for uri in storage.list_files(storage.join(root, "JPEGImages")) if uri.lower().endswith(IMAGE_SUFFIXES)
    ]
    images = _by_stem(image_files)
    clean, augmented, context = (
        _by_stem(storage.list_files(storage.join(root, folder), ".png")) for folder in (*_MASK_FOLDERS, _CONTEXT_FOLDER)
    )
    # The un-augmented mask where both are there (E4).
    masks = {**augmented, **clean}
    members: dict[str, list[str]] = {}
    for split, ids in splits.items():
        for image_id in ids:
            members.setdefault(image_id, []).append(split)
    raw_images, faults = [], _twice(image_files, members)
    for image_id, image_splits in members.items():
        if image_id not in images:
            detail = f"listed in {', '.join(image_splits)}, but JPEGImages has no such file"
            faults.append(Fault("missing image", image_id, detail))
            continue
        labels, found = _labels_of(image_id, names, class_ids)
        faults += found
        mask, stuff = masks.get(image_id), context.get(image_id)
        raw_images.append(RawImage(image_id, images[image_id], labels, mask, stuff, tuple(image_splits)))
    return raw_images, faults


def _labels_of(
    image_id: str, names: Mapping[str, tuple[str, ...]] | None, class_ids: Mapping[str, int]
) -> tuple[tuple[int, ...] | None, list[Fault]]:
    """Return an image's class ids (none where a fault is reported, so that its files are inspected all the same)."""
    if names is None:
        return None, []
    if image_id not in names:
        return (), [Fault("missing labels", image_id, "the label source has no entry (an empty list is allowed)")]
    unknown = [name for name in names[image_id] if name not in class_ids]
    if unknown:
        return (), [unknown_label(image_id, unknown, class_ids)]
    return tuple(sorted({class_ids[name] for name in names[image_id]})), []


def _by_stem(uris: Sequence[str]) -> dict[str, str]:
    return {uri.rsplit("/", 1)[-1].rpartition(".")[0]: uri for uri in uris}


def _twice(image_files: Sequence[str], wanted: Mapping[str, object]) -> list[Fault]:
    """Fault the wanted ids that more than one image file answers to."""
    by_id: dict[str, list[str]] = {}
    for uri in image_files:
        by_id.setdefault(uri.rsplit("/", 1)[-1].rpartition(".")[0], []).append(uri.rsplit("/", 1)[-1])
    return [
        Fault("duplicate id", image_id, f"there are {', '.join(files)}")
        for image_id, files in by_id.items()
        if len(files) > 1 and image_id in wanted
    ]


def _count_notes(splits: Mapping[str, Sequence[str]], class_names: Sequence[str]) -> list[str]:
    notes = []
    for split, ids in splits.items():
        official = VOC_COUNTS.get(split) if tuple(class_names) == VOC_CLASSES else None
        if official is None:
            notes.append(f"{split}: {len(ids)} images")
        elif official == len(ids):
            notes.append(f"{split}: the official {official} images")
        else:
            notes.append(f"{split}: {len(ids)} images, the official list has {official}")
    return notes
