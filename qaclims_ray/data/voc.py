"""Reader for the PASCAL VOC layout (VOC 2012, its augmented list, the miniature world) -> `Manifest`.

Images lie in ``JPEGImages``, split lists in ``ImageSets/Segmentation``, label maps in ``SegmentationClass`` or
``SegmentationClassAug``, stuff maps of the miniature in ``SegmentationContext``. Masks serve evaluation and the fully
supervised bound; the un-augmented one is preferred where both are there (row E4).
"""

import dataclasses
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass

from qaclims_ray.data import storage
from qaclims_ray.data.classes import VOC_CLASSES, VOC_FILE_NAMES
from qaclims_ray.data.config import DataConfig
from qaclims_ray.data.image_ids import image_id_of
from qaclims_ray.data.inspection import inspect_images
from qaclims_ray.data.label_files import DEFAULT_NAMES, find_label_file, read_label_file, read_text
from qaclims_ray.data.manifest import Manifest
from qaclims_ray.data.mask_translation import translated_masks
from qaclims_ray.data.picture_files import (
    endings,
    file_name,
    find_folder,
    pictures,
    unread_note,
    visible_files,
)
from qaclims_ray.data.slices import in_threads
from qaclims_ray.data.validation import (
    CheckLabels,
    Fault,
    OnProgress,
    RawImage,
    check_class_names,
    check_splits,
    fail_on,
    unknown_label,
    unscored_note,
)
from qaclims_ray.data.voc_annotation import read_voc_annotation
from qaclims_ray.data.voc_masks import VOC_MASK_FOLDERS, VocMasks, find_voc_masks
from qaclims_ray.errors import ConfigError, DataError

VOC_COUNTS: Mapping[str, int] = {"train": 1464, "val": 1449, "trainval": 2913, "train_aug": 10582}
"""Images in VOC 2012's segmentation lists and in the augmented training list."""

_ROOTS = ("", "VOC2012", "VOCdevkit/VOC2012")
_LISTS = "ImageSets/Segmentation"
_CONTEXT_FOLDER = "SegmentationContext"


@dataclass(frozen=True)
class _ImageLabels:
    """Image id -> class names as the source spells them; None leaves them to the masks."""

    names: Mapping[str, tuple[str, ...]] | None
    faults: Sequence[Fault]
    notes: Sequence[str]


def read_voc(
    config: DataConfig,
    *,
    class_names: Sequence[str] = VOC_CLASSES,
    file_names: Sequence[str] = VOC_FILE_NAMES,
    masks_uri: str = "",
    on_progress: OnProgress | None = None,
    check_labels: CheckLabels | None = None,
) -> Manifest:
    """Read and check a data set in VOC's layout.

    Args:
        config: the data set. ``root`` may hold JPEGImages itself, or VOC2012, or VOCdevkit/VOC2012. With labels =
            auto, a named label file counts first, then Annotations, then a label file in the folder; never masks.
        class_names: natural names in label order; they become the manifest's.
        file_names: the same classes as the data set's files spell them; both spellings are understood.
        masks_uri: folder, local or remote, for the masks that `data.mask_values` translates.
        on_progress: told after each inspected image.
        check_labels: see `validation.CheckLabels`.

    Raises:
        DataError: all faults of the data set in one report.
        ConfigError: when settings contradict each other.
    """
    check_class_names(class_names)
    _check_settings(config, class_names, file_names)
    root = find_voc_root(config.root)
    splits, faults = _read_splits(root, config)
    image_ids = list(dict.fromkeys(image_id for ids in splits.values() for image_id in ids))
    ids = {name: index for names in (class_names, file_names) for index, name in enumerate(names)}
    labels = _find_labels(root, config, image_ids, ids)
    image_files = pictures(storage.join(root, "JPEGImages"))
    masks = find_voc_masks(root, _by_id(image_files), image_ids)
    raw_images, raw_faults = _raw_images(root, splits, image_files, masks, labels.names, ids)
    faults += [*labels.faults, *masks.faults, *raw_faults]
    if check_labels is not None and not faults:
        check_labels(class_names, raw_images)
    checked, found = translated_masks(raw_images, config, class_names, masks_uri)
    faults += found
    records, found, seen = inspect_images(checked, class_names, config, known=faults, on_progress=on_progress)
    faults += [*found, *check_splits(splits, raw_images)]
    fail_on(faults, root)
    notes = [f"read {root}", *labels.notes, *_count_notes(splits, class_names), *masks.notes, *seen]
    notes += [*unread_note(storage.join(root, "JPEGImages")), *unscored_note(checked, config.eval_split)]
    return Manifest(tuple(class_names), records, tuple(notes))


def _check_settings(config: DataConfig, class_names: Sequence[str], file_names: Sequence[str]) -> None:
    if not config.root:
        raise ConfigError("data.root is empty: give the folder of the data set (--data-root)")
    if len(class_names) != len(file_names):
        raise ConfigError(f"{len(class_names)} class names but {len(file_names)} file names")
    if config.dataset == "voc12" and config.class_names:
        raise ConfigError("data.class_names is for the folder layout; VOC's classes are fixed: leave it empty")
    if config.labels == "folders":
        raise ConfigError("data.labels = folders is for the folder layout; VOC has annotations, file or masks")
    if config.label_file and config.labels in ("annotations", "masks"):
        raise ConfigError(f"data.label_file is named, but data.labels is {config.labels}: set it to file or auto")


def find_voc_root(root: str) -> str:
    """Return the folder that holds JPEGImages: the given one, or VOC2012 or VOCdevkit/VOC2012 in it.

    Raises:
        DataError: when there is none.
    """
    candidates = [storage.absolute(storage.join(root, *filter(None, [part]))) for part in _ROOTS]
    for candidate in candidates:
        if storage.exists(storage.join(candidate, "JPEGImages")):
            return candidate
    raise DataError(
        f"there is no VOC data set at {root}: expected the folder JPEGImages in one of {', '.join(candidates)} "
        "(data.root, --data-root); a folder of your own photographs is read by `qaclims start DIR`, or with "
        "--data.dataset folder"
    )


def _read_splits(root: str, config: DataConfig) -> tuple[dict[str, list[str]], list[Fault]]:
    """Return the ids of the training, the scored and the test split; the test split may be absent if it is val."""
    folder = storage.join(root, _LISTS)
    known = {file_name(uri)[: -len(".txt")]: uri for uri in storage.list_files(folder, ".txt")}
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


def _find_labels(root: str, config: DataConfig, image_ids: Sequence[str], known: Collection[str]) -> _ImageLabels:
    if config.labels == "masks":
        if not any(visible_files(folder) for name in VOC_MASK_FOLDERS if (folder := find_folder(root, [name]))):
            raise DataError(
                f"data.labels is masks, but there is no file in {root}/{f' or {root}/'.join(VOC_MASK_FOLDERS)}"
            )
        return _ImageLabels(None, (), ["labels from the masks: these are pixel labels, brought down to image level"])
    passed_over: list[str] = []
    if config.labels == "annotations" or (config.labels == "auto" and not config.label_file):
        folder = find_folder(root, ["Annotations"])
        files = [] if folder is None else visible_files(folder)
        xml = [uri for uri in files if uri.lower().endswith(".xml")]
        if annotations := {image_id_of(file_name(uri)[: -len(".xml")]): uri for uri in xml}:
            return _labels_from_annotations(annotations, image_ids)
        if config.labels == "annotations":
            raise DataError(
                f"data.labels is annotations, but there is no XML file in {root}/Annotations{_found(files)}"
            )
        if folder is not None:
            passed_over.append(f"{folder} is there, but holds no XML file{_found(files)}: it gives no labels")
    if label_file := find_label_file(root, config.label_file):
        table = read_label_file(label_file, known, image_ids=image_ids, separator=config.label_separator)
        notes = [*passed_over, f"labels from the file {label_file}", *table.notes]
        return _ImageLabels(table.labels, table.faults, notes)
    if config.labels == "file":
        raise DataError(f"data.labels is file, but there is no label file in {root}; name one in data.label_file")
    # Pixel labels are another supervision than image labels: nobody should train on them unawares.
    raise DataError(
        f"{root} has no image-level labels: expected Annotations/*.xml, or {', '.join(DEFAULT_NAMES)}, or a label file "
        "elsewhere that data.label_file names"
        + "".join(f"; {note}" for note in passed_over)
        + "; to take image labels from the masks, which are pixel labels, set data.labels to masks"
    )


def _found(files: Sequence[str]) -> str:
    return f" (it has {endings(files)})" if files else ""


def _labels_from_annotations(annotations: Mapping[str, str], image_ids: Sequence[str]) -> _ImageLabels:
    known = [image_id for image_id in image_ids if image_id in annotations]
    names, faults = {}, []
    for image_id, result in zip(
        known, in_threads(read_voc_annotation, [annotations[key] for key in known]), strict=True
    ):
        if isinstance(result, Fault):
            faults.append(dataclasses.replace(result, subject=image_id))
            result = ()  # the fault is reported already, as what it is
        names[image_id] = result
    notes = ["labels from Annotations, objects marked difficult included"]
    broken = {fault.subject for fault in faults}
    if empty := [image_id for image_id in known if not names[image_id] and image_id not in broken]:
        notes.append(f"{len(empty)} of {len(known)} annotation files hold no object, e.g. that of {empty[0]}")
    return _ImageLabels(names, faults, notes)


def _raw_images(
    root: str,
    splits: Mapping[str, Sequence[str]],
    image_files: Sequence[str],
    masks: VocMasks,
    names: Mapping[str, tuple[str, ...]] | None,
    class_ids: Mapping[str, int],
) -> tuple[list[RawImage], list[Fault]]:
    """Bring lists, files and labels together."""
    images = _by_id(image_files)
    context = _by_id(storage.list_files(storage.join(root, _CONTEXT_FOLDER), ".png"))
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
        mask, stuff = masks.by_image.get(image_id), context.get(image_id)
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


def _by_id(uris: Iterable[str]) -> dict[str, str]:
    return {image_id_of(uri): uri for uri in uris}


def _twice(image_files: Sequence[str], wanted: Mapping[str, object]) -> list[Fault]:
    """Fault the wanted ids that more than one image file answers to."""
    by_id: dict[str, list[str]] = {}
    for uri in image_files:
        by_id.setdefault(image_id_of(uri), []).append(file_name(uri))
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
