"""Reader for COCO 2014 -> `Manifest`, and what its masks are drawn from.

``annotations/instances_train2014.json`` and ``instances_val2014.json`` describe the images in ``train2014`` and
``val2014``. Labels of an image are the classes of all its annotations, crowds included, as in the released code. Images
without any annotation are left out, which gives the papers' lists of 82081 and 40137 images (row E6).
"""

import dataclasses
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from qaclims_ray.data import storage
from qaclims_ray.data.classes import COCO_CLASSES
from qaclims_ray.data.coco_annotations import AnnotatedImage, read_annotations
from qaclims_ray.data.coco_masks import region_decoder
from qaclims_ray.data.config import DataConfig
from qaclims_ray.data.inspection import inspect_images
from qaclims_ray.data.manifest import ImageRecord, Manifest
from qaclims_ray.data.photographs import inspect_photograph
from qaclims_ray.data.validation import CheckLabels, Fault, OnProgress, RawImage, check_splits, fail_on
from qaclims_ray.errors import ConfigError, DataError

COCO_COUNTS: Mapping[str, tuple[int, int]] = {"train": (82783, 82081), "val": (40504, 40137)}
"""Images of each split as published, and those that have an annotation."""

ANNOTATIONS = "annotations"
"""Folder of the annotation files."""


@dataclass(frozen=True)
class CocoData:
    """A checked data set whose masks are not drawn yet."""

    manifest: Manifest
    """Its records name the masks that will be there."""
    images: Mapping[str, AnnotatedImage]
    """Image id -> what its mask is drawn from."""


def read_coco(
    config: DataConfig,
    masks_uri: str,
    *,
    on_progress: OnProgress | None = None,
    check_labels: CheckLabels | None = None,
) -> CocoData:
    """Read and check COCO 2014; the masks are still to be drawn.

    Args:
        config: the data set. ``root`` holds annotations, train2014 and val2014 (or images/train2014, ...). Splits are
            train and val; val may be absent as a whole where only the test split asks for it.
        masks_uri: folder, local or remote, where the masks will be: ``train/ID.png``, ``val/ID.png``.
        on_progress: told after each inspected image.
        check_labels: see `validation.CheckLabels`.

    Raises:
        DataError: all faults of the data set in one report.
        ConfigError: when settings contradict each other, or pycocotools is not installed.
    """
    root = find_coco(config)
    raw_images: list[RawImage] = []
    faults: list[Fault] = []
    images: dict[str, AnnotatedImage] = {}
    notes = [f"read {root}", "labels from all annotations, crowds included"]
    readable = []
    for split in _present_splits(root, config):
        annotated, found = read_annotations(_annotation_file(root, split))
        labelled = [image for image in annotated if image.regions]
        raw, missing = _raw_images(root, split, labelled[: config.limit])
        raw_images, faults = raw_images + raw, [*faults, *found, *missing]
        if raw or not (found or missing):  # otherwise it is told already why the split is empty
            readable.append(split)
        images |= {image.image_id: image for image in labelled[: config.limit]}
        notes.append(_count_note(split, len(annotated), len(labelled)))
    faults += [*_twice(raw_images), *check_splits(readable, raw_images)]
    if check_labels is not None and not faults:
        check_labels(COCO_CLASSES, raw_images)
    records, found, seen = inspect_images(
        raw_images, COCO_CLASSES, config, known=faults, masks_follow=True, on_progress=on_progress
    )
    faults += [*found, *_check_sizes(records, images)]
    fail_on(faults, root)
    records = tuple(_with_mask(record, masks_uri) for record in records)
    return CocoData(Manifest(COCO_CLASSES, records, (*notes, *seen)), images)


def find_coco(config: DataConfig) -> str:
    """Return the folder that holds the annotations.

    Raises:
        DataError: when there is none.
        ConfigError: when settings contradict each other, or pycocotools is not installed.
    """
    _check_settings(config)
    region_decoder()
    root = storage.absolute(config.root)
    if not storage.exists(storage.join(root, ANNOTATIONS)):
        raise DataError(
            f"there is no COCO at {root}: expected the folder {ANNOTATIONS} in it (data.root, --data-root); one file "
            "of annotations in COCO's form beside your own photographs is read by `qaclims start DIR`, or with "
            "--data.dataset folder"
        )
    return root


def _check_settings(config: DataConfig) -> None:
    if not config.root:
        raise ConfigError("data.root is empty: give the folder of the data set (--data-root)")
    if config.class_names:
        raise ConfigError("data.class_names is for the folder layout; COCO's classes are fixed: leave it empty")
    if config.labels not in ("auto", "annotations") or config.label_file:
        raise ConfigError(
            "coco14 has its labels in the annotation files; set data.labels to auto and leave data.label_file empty"
        )
    wanted = (config.train_split, config.eval_split, config.test_split)
    if unknown := sorted({split for split in wanted if split not in COCO_COUNTS}):
        raise ConfigError(
            f"coco14 has no split {', '.join(unknown)}; set data.train_split, data.eval_split and data.test_split to "
            f"some of {', '.join(COCO_COUNTS)}"
        )


def _annotation_file(root: str, split: str) -> str:
    return storage.join(root, ANNOTATIONS, f"instances_{split}2014.json")


def _image_files(root: str, split: str) -> dict[str, str]:
    """Return name -> URI of the files of a split."""
    for folder in (f"{split}2014", f"images/{split}2014"):
        if files := storage.list_files(storage.join(root, folder)):
            return {uri.rsplit("/", 1)[-1]: uri for uri in files}
    return {}


def _present_splits(root: str, config: DataConfig) -> list[str]:
    """Return the splits to read: the test split is left out where neither its images nor its annotations are there."""
    needed = list(dict.fromkeys([config.train_split, config.eval_split]))
    test = config.test_split
    if test in needed or not (storage.exists(_annotation_file(root, test)) or _image_files(root, test)):
        return needed
    return [*needed, test]


def _raw_images(root: str, split: str, images: Sequence[AnnotatedImage]) -> tuple[list[RawImage], list[Fault]]:
    files = _image_files(root, split)
    if images and not files:
        return [], [Fault("absent folder", split, f"there is no file in {root}/{split}2014 (or images/{split}2014)")]
    in_any_case = _in_any_case(files)
    raw, faults = [], []
    for image in images:
        if uri := files.get(image.file_name) or in_any_case.get(image.file_name.casefold()):
            raw.append(RawImage(image.image_id, uri, image.labels(), None, None, (split,)))
        else:
            detail = f"annotated, but {split}2014 has no {image.file_name}"
            faults.append(Fault("missing image", image.image_id, detail))
    return raw, faults


def _in_any_case(files: Mapping[str, str]) -> dict[str, str]:
    """Return name in lower case -> URI, of the files that no other shares it with."""
    counts = Counter(name.casefold() for name in files)
    return {name.casefold(): uri for name, uri in files.items() if counts[name.casefold()] == 1}


def _twice(images: Sequence[RawImage]) -> list[Fault]:
    counts = Counter(image.image_id for image in images)
    return [Fault("duplicate id", name, f"{n} images have this name") for name, n in counts.items() if n > 1]


def _check_sizes(records: Sequence[ImageRecord], images: Mapping[str, AnnotatedImage]) -> list[Fault]:
    faults = []
    for record in records:
        told = images[record.image_id]
        if (record.width, record.height) != (told.width, told.height):
            detail = f"the file is {record.width} x {record.height}, its annotation says {told.width} x {told.height}"
            is_swapped = (record.height, record.width) == (told.width, told.height)
            if is_swapped and inspect_photograph(record.image_uri, decode=False).is_turned_sideways:
                detail += "; EXIF orientation turns the photograph, and the annotation is not turned: remove the tag"
            faults.append(Fault("size mismatch", record.image_id, detail))
    return faults


def _with_mask(record: ImageRecord, masks_uri: str) -> ImageRecord:
    uri = storage.absolute(storage.join(masks_uri, record.splits[0], f"{record.image_id}.png"))
    return dataclasses.replace(record, mask_uri=uri)


def _count_note(split: str, num_images: int, num_labelled: int) -> str:
    published = COCO_COUNTS[split]
    same = "as published" if (num_images, num_labelled) == published else f"published are {published[1]}"
    dropped = num_images - num_labelled
    return f"{split}: {num_labelled} images with an annotation, {same}; {dropped} without any are left out"
