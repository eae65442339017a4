"""Reader for BCSS-WSSS and LUAD-HistoSeg (Han et al. 2022): patches of tissue, no background -> `Manifest`.

Training patches carry their labels at the end of their names: ``...+0[1101].png`` (BCSS), ``...-[1 0 0 1].png`` (LUAD).
Those of the other splits have label maps instead, whose values are class ids from 0 and, one further, white glass or
pixels to leave out. They are translated once into this package's own form, label values and 255, so that nothing else
knows of theirs.
"""

import re
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from qaclims_ray.data import storage
from qaclims_ray.data.classes import BCSS_CLASSES, IGNORE_VALUE, LUAD_CLASSES, has_background, label_value
from qaclims_ray.data.config import DataConfig
from qaclims_ray.data.image_ids import image_id_of
from qaclims_ray.data.inspection import inspect_images
from qaclims_ray.data.manifest import ImageRecord, Manifest
from qaclims_ray.data.mask_folders import MASK_SUFFIXES
from qaclims_ray.data.mask_translation import write_translated
from qaclims_ray.data.mask_values import Translation
from qaclims_ray.data.picture_files import file_name, pictures, visible_files
from qaclims_ray.data.slices import in_threads
from qaclims_ray.data.validation import (
    CheckLabels,
    Fault,
    OnProgress,
    RawImage,
    fail_on,
)
from qaclims_ray.errors import ConfigError, DataError


@dataclass(frozen=True)
class _Layout:
    """What tells the two data sets apart."""

    name: str
    """Name of the folder as published."""
    class_names: tuple[str, ...]
    """In the order of names and masks."""
    counts: Mapping[str, int]
    """Published number of images by split."""


_LAYOUTS: Mapping[str, _Layout] = {
    "bcss_wsss": _Layout("BCSS-WSSS", BCSS_CLASSES, {"train": 23422, "val": 3418, "test": 4986}),
    "luad_histoseg": _Layout("LUAD-HistoSeg", LUAD_CLASSES, {"train": 16678, "val": 300, "test": 307}),
}
_FOLDERS: Mapping[str, tuple[str, ...]] = {
    "train": ("train", "training"), "val": ("val", "valid", "validation"), "test": ("test",)
}  # fmt: skip
"""Split -> what its folder is called, in the published archives and in copies of them."""
_LABELS = re.compile(r"\[([^\[\]]*)\]$")
_DIGITS = re.compile(r"[01](?:[\s,]*[01])*")


def read_histology(
    config: DataConfig,
    masks_uri: str,
    *,
    on_progress: OnProgress | None = None,
    check_labels: CheckLabels | None = None,
) -> Manifest:
    """Read and check a data set in the layout of `config.dataset`; translate its masks.

    Args:
        config: the data set. ``root`` may hold the splits' folders itself, or the published folder.
        masks_uri: folder, local or remote, for the translated masks: ``val/ID.png``, ``test/ID.png``.
        on_progress: told after each inspected image.
        check_labels: see `validation.CheckLabels`.

    Raises:
        DataError: all faults of the data set in one report.
        ConfigError: when settings contradict each other.
    """
    layout, root = _LAYOUTS[config.dataset], find_histology(config)
    raw_images, faults = _training_images(root, layout, config) if "train" in _used(config) else ([], [])
    for split in ("val", "test"):
        if split in _used(config):
            images, found = _masked_images(root, split, layout, config, storage.join(masks_uri, split))
            raw_images, faults = raw_images + images, faults + found
    faults += _twice(raw_images)
    if check_labels is not None and not faults:
        check_labels(layout.class_names, raw_images)
    records, found, seen = inspect_images(
        raw_images, layout.class_names, config, known=faults, has_background=False, on_progress=on_progress
    )
    fail_on(faults + found, root)
    notes = [*_notes(root, layout, records), *seen]
    return Manifest(layout.class_names, records, tuple(notes), has_background(config.dataset))


def labels_of_name(name: str, num_classes: int) -> tuple[int, ...]:
    """Return the class ids that a training patch's name tells: ``[1101]`` or ``[1 1 0 1]`` at its end.

    Args:
        name: of the file, without its suffix.
        num_classes: expected digits.

    Raises:
        ValueError: says what was found and expected, where the name tells no labels, or labels of no class.
    """
    example = f"[{'1' + '0' * (num_classes - 1)}] or [{' '.join('1' + '0' * (num_classes - 1))}]"
    match = _LABELS.search(name.strip())
    if match is None:
        raise ValueError(f"the name ends without labels, expected {example} before the suffix")
    text = match[1].strip()
    if not _DIGITS.fullmatch(text):
        raise ValueError(f"the name ends with [{match[1]}], expected 0 and 1 as in {example}")
    digits = re.findall("[01]", text)
    if len(digits) != num_classes:
        raise ValueError(f"the name ends with {len(digits)} labels, [{match[1]}], expected {num_classes}")
    if "1" not in digits:
        raise ValueError(f"the name ends with [{match[1]}]: no class, but every pixel of tissue belongs to one")
    return tuple(index for index, digit in enumerate(digits) if digit == "1")


def _check_settings(config: DataConfig) -> None:
    if not config.root:
        raise ConfigError("data.root is empty: give the folder of the data set (--data-root)")
    if config.class_names:
        raise ConfigError(f"data.class_names is for the folder layout; {config.dataset} has its own: leave it empty")
    if config.labels != "auto" or config.label_file:
        raise ConfigError(
            f"{config.dataset} has its labels in file names and masks; set data.labels to auto and leave "
            "data.label_file empty"
        )
    wanted = (config.train_split, config.eval_split, config.test_split)
    if unknown := sorted({split for split in wanted if split not in _FOLDERS}):
        raise ConfigError(
            f"{config.dataset} has no split {', '.join(unknown)}; set data.train_split, data.eval_split and "
            f"data.test_split to some of {', '.join(_FOLDERS)}"
        )


def _used(config: DataConfig) -> set[str]:
    return {config.train_split, config.eval_split, config.test_split}


def find_histology(config: DataConfig) -> str:
    """Return the folder that holds those of the splits; archives unpack into one of the data set's name, or two.

    Raises:
        DataError: when there is none.
        ConfigError: when settings contradict each other.
    """
    _check_settings(config)
    root, layout = config.root, _LAYOUTS[config.dataset]
    places = [storage.absolute(storage.join(root, *parts)) for parts in ([], [layout.name], [layout.name] * 2)]
    for place in places:
        names = {uri.rsplit("/", 1)[-1] for uri in storage.list_folders(place)}
        if names & {name for folders in _FOLDERS.values() for name in folders}:
            return place
    raise DataError(
        f"there is no {layout.name} at {root}: expected the folders train, val and test in one of "
        f"{', '.join(places)} (data.root, --data-root)"
    )


def _images_at(*folders: str) -> list[str]:
    """Return the images in the first of some folders that has any."""
    for folder in folders:
        if found := pictures(folder):
            return found
    return []


def _training_images(root: str, layout: _Layout, config: DataConfig) -> tuple[list[RawImage], list[Fault]]:
    folders = [storage.join(root, name) for name in _FOLDERS["train"]]
    uris = _images_at(*folders, *(storage.join(folder, "img") for folder in folders))[: config.limit]
    if not uris:
        return [], [Fault("absent folder", "train", f"there is no image in {' or '.join(folders)}, or in img inside")]
    images, faults = [], []
    for uri in uris:
        name = image_id_of(uri)
        labels: tuple[int, ...] = ()
        try:
            labels = labels_of_name(name, len(layout.class_names))
        except ValueError as error:
            faults.append(Fault("unreadable labels", name, str(error)))
        images.append(RawImage(name, uri, labels, None, None, ("train",)))
    return images, faults + _contradictions(images)


def _contradictions(images: Sequence[RawImage]) -> list[Fault]:
    """Fault a patch that lies there twice, with other labels."""
    names = defaultdict(list)
    for image in images:
        names[_LABELS.sub("", image.image_id)].append(image.image_id)
    return [
        Fault("contradicting labels", patch, f"there are {', '.join(group)}; keep the right one")
        for patch, group in names.items()
        if len(group) > 1
    ]


def _masked_images(
    root: str, split: str, layout: _Layout, config: DataConfig, masks_uri: str
) -> tuple[list[RawImage], list[Fault]]:
    """Bring images and masks of a split together; its labels are those of the masks."""
    folders = [storage.join(root, name) for name in _FOLDERS[split]]
    all_images = _images_at(*(storage.join(folder, "img") for folder in folders))
    all_masks = [
        uri
        for folder in folders
        for uri in visible_files(storage.join(folder, "mask"))
        if uri.lower().endswith(MASK_SUFFIXES)
    ]
    is_needed = split in (config.train_split, config.eval_split)
    if not all_images and not all_masks and not is_needed:
        return [], []
    if not all_images or not all_masks:
        absent = "img" if not all_images else "mask"
        places = " or ".join(storage.join(folder, absent) for folder in folders)
        return [], [Fault("absent folder", split, f"there is no file in {places}")]
    masks, known = {image_id_of(uri): uri for uri in all_masks}, {image_id_of(uri) for uri in all_images}
    faults = [
        Fault("missing image", name, f"{split}/mask has {file_name(masks[name])}, but {split}/img has no such image")
        for name in masks
        if name not in known
    ]
    named = {image_id_of(uri): uri for uri in all_images[: config.limit]}
    faults += [Fault("missing mask", name, f"{split}/mask has none") for name in named if name not in masks]
    counts = Counter(map(image_id_of, all_masks))
    faults += [Fault("two masks", name, f"{split}/mask has {counts[name]}") for name in named if counts[name] > 1]
    complete = [name for name in named if name in masks]
    targets = [storage.join(masks_uri, f"{name}.png") for name in complete]
    translation = _translation(len(layout.class_names))
    tasks = [(name, masks[name], target, translation) for name, target in zip(complete, targets, strict=True)]
    images = []
    for name, target, fault in zip(complete, targets, in_threads(_translate, tasks), strict=True):
        if fault is None:
            images.append(RawImage(name, named[name], None, target, None, (split,)))
        else:  # the image is inspected all the same
            faults.append(fault)
            images.append(RawImage(name, named[name], (), None, None, (split,)))
    return images, faults


def _translation(num_classes: int) -> Translation:
    """Values are class ids from 0; one further is white glass, and 255 is left out."""
    classes = {index: label_value(index) for index in range(num_classes)}
    return Translation({**classes, num_classes: IGNORE_VALUE, IGNORE_VALUE: IGNORE_VALUE})


def _translate(task: tuple[str, str, str, Translation]) -> Fault | None:
    """Write a mask in this package's form, or return its fault."""
    name, uri, target, translation = task
    try:
        strange = write_translated(uri, target, translation)
    except DataError as error:
        return Fault("unreadable mask", name, str(error))
    if not strange:
        return None
    white = len(translation.numbers) - 2
    detail = f"{uri} holds {', '.join([*strange][:8])}; expected 0 to {white - 1} for the classes, {white} for white"
    return Fault("mask values beyond the classes", name, detail)


def _twice(images: Sequence[RawImage]) -> list[Fault]:
    counts = Counter(image.image_id for image in images)
    return [
        Fault("duplicate id", name, f"{count} images of the splits have this name")
        for name, count in counts.items()
        if count > 1
    ]


def _notes(root: str, layout: _Layout, records: Sequence[ImageRecord]) -> list[str]:
    notes = [f"read {root}"]
    counts = Counter(split for record in records for split in record.splits)
    for split, count in counts.items():
        official = layout.counts[split]
        same = "the published number" if count == official else f"published are {official}"
        notes.append(f"{split}: {count} images, {same}")
    if "train" in counts:
        notes.append("labels of train from the file names")
    if masked := [split for split in counts if split != "train"]:
        notes.append(
            f"labels of {', '.join(masked)} from the masks: these are pixel labels, brought down to image level"
        )
    if blank := sum(not record.labels for record in records):
        notes.append(f"{blank} masks hold white pixels only: nothing of these images is scored")
    return notes
