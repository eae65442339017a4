"""A plain folder's images with their labels, masks and splits, before any picture is opened.

Images lie in the folder itself or in its ``images`` folder; label maps, where there are any, in ``masks``.
`folder_files` finds them and what says the labels, `mask_names` knows how masks may be called, `label_files` the forms
of label files, `annotation_files` those of one file per image.
"""

from collections import defaultdict
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass

from qaclims_ray.data import storage
from qaclims_ray.data.config import DataConfig
from qaclims_ray.data.folder_files import FolderFiles, find_folder_files
from qaclims_ray.data.folder_splits import named_splits, splits_of_images, unknown_splits
from qaclims_ray.data.label_files import LabelTable
from qaclims_ray.data.label_words import folded
from qaclims_ray.data.mask_folders import masks_among
from qaclims_ray.data.picture_files import endings, unread_pictures
from qaclims_ray.data.validation import Fault, RawImage, check_class_names, fail_on, unknown_label
from qaclims_ray.errors import ConfigError, DataError


@dataclass(frozen=True)
class GatheredFolder:
    """What files, names and labels say; no picture was opened."""

    root: str
    """The data set's folder, absolute."""
    source: str
    """What says the labels, in words."""
    class_names: Sequence[str]
    """In label order."""
    images: Sequence[RawImage]
    """Those of the splits in use."""
    named_splits: frozenset[str]
    """Splits that files or folders name; empty where they name none."""
    faults: Sequence[Fault]
    """What is wrong with entries and names."""
    notes: Sequence[str]
    """What a person should know of how they were read."""


def gather_folder(config: DataConfig) -> GatheredFolder:
    """Bring images, labels, masks and splits together.

    Raises:
        DataError: when the folder as a whole cannot be understood; what is wrong with single entries becomes faults.
        ConfigError: when settings contradict each other.
    """
    if not config.root:
        raise ConfigError("data.root is empty: give the folder of the data set (--data-root)")
    root = storage.absolute(config.root)
    files = find_folder_files(root, config)
    class_names, faults = _class_names(config, files.table)
    check_class_names(class_names)
    own_splits, split_notes = splits_of_images(files.images.keys(), files.table, config)
    images, found = _raw_images(files, class_names, config, own_splits)
    faults += [*unknown_splits(files.table, config), *found, *files.masks.faults, *_hints(files, found)]
    notes = [*_notes(files, config, class_names), *split_notes, *files.masks.notes, *files.notes]
    if left_out := len(files.images) - len(images):
        notes.append(f"{left_out} images belong to no split in use, or lie beyond data.limit, and are left out")
    return GatheredFolder(root, files.source, class_names, images, named_splits(files.table), faults, notes)


def _hints(files: FolderFiles, faults: Sequence[Fault]) -> list[Fault]:
    """Return faults that say where images or labels that are missed may be."""
    hints = []
    if any(fault.sort == "missing image" for fault in faults) and (unread := unread_pictures(files.folder)):
        detail = f"{len(unread)} files are pictures that are not read ({endings(unread)}): convert them to JPEG or PNG"
        hints.append(Fault("unread pictures", files.folder, detail))
    unlabelled = {fault.subject for fault in faults if fault.sort == "missing labels"}
    labelled = files.images.keys() - unlabelled
    folded_ids = {image_id.casefold(): image_id for image_id in labelled}
    for image_id in sorted(unlabelled):
        if (other := folded_ids.get(image_id.casefold())) is not None:
            detail = "two images differ in case only, and the label file names one; rename or remove the other"
            hints.append(Fault("alike names", f"{other} / {image_id}", detail))
    return hints + masks_among([files.images[name][0] for name in files.images if name in unlabelled], labelled)


def _class_names(config: DataConfig, table: LabelTable | None) -> tuple[Sequence[str], list[Fault]]:
    if config.class_names:
        return config.class_names, []
    if table is None:
        raise ConfigError("data.class_names is empty, and there is no label file to take the classes from")
    names = sorted({name for labels in table.labels.values() for name in labels} | set(table.classes))
    if not names:
        fail_on(table.faults, config.root)  # what is wrong with the entries says more than that none names a class
        raise DataError("no image has any label: the label file names no class at all; expected at least one label")
    by_folded = defaultdict(list)
    for name in names:
        by_folded[folded(name)].append(name)
    faults = [
        Fault(
            "ambiguous class",
            " / ".join(group),
            "differ in case only, or in blanks and marks; spell them alike or give data.class_names",
        )
        for group in by_folded.values()
        if len(group) > 1
    ]
    return names, faults


def _raw_images(
    files: FolderFiles, class_names: Sequence[str], config: DataConfig, own_splits: Mapping[str, Collection[str]]
) -> tuple[list[RawImage], list[Fault]]:
    """Bring images, labels, masks and splits together."""
    by_id, table = files.images, files.table
    class_ids = {name: index for index, name in enumerate(class_names)}
    faults = [] if table is None else list(table.faults)
    if table is not None:
        faults += _entries_without_image(table, by_id)
    taken: dict[str, int] = defaultdict(int)
    raw_images = []
    for image_id in _order(by_id, table):
        splits = _in_use(own_splits[image_id], config, taken)
        if not splits:
            continue
        faults += _faults_of(image_id, by_id[image_id], table, class_ids)
        labels = None if table is None else _known_ids(table.labels.get(image_id, ()), class_ids)
        mask = files.masks.by_image.get(image_id)
        raw_images.append(RawImage(image_id, by_id[image_id][0], labels, mask, None, splits))
    return raw_images, faults


def _known_ids(names: Sequence[str], class_ids: Mapping[str, int]) -> tuple[int, ...]:
    """Return class ids; unknown names are reported elsewhere and left out, so that the image is still inspected."""
    return tuple(sorted({class_ids[name] for name in names if name in class_ids}))


def _entries_without_image(table: LabelTable, by_id: Mapping[str, object]) -> list[Fault]:
    folded_ids = {image_id.casefold(): image_id for image_id in by_id}
    numbers: dict[str, list[str]] = defaultdict(list)
    for image_id in by_id:
        if image_id.isdecimal():
            numbers[image_id.lstrip("0")].append(image_id)
    faults = []
    for image_id in table.labels:
        if image_id in by_id:
            continue
        detail = "has an entry in the label file, but no image file"
        number = image_id.removesuffix(".0")
        if number.isdecimal() and len(same := numbers[number.lstrip("0")]) == 1:
            detail += (
                f"; there is {same[0]}: the file lost its leading zeros (spreadsheets do that), write names as text"
            )
        elif image_id.casefold() in folded_ids:
            detail += f"; there is {folded_ids[image_id.casefold()]}, in another case"
        faults.append(Fault("missing image", image_id, detail))
    return faults


def _order(by_id: Mapping[str, object], table: LabelTable | None) -> list[str]:
    """The label file's order, then images it does not name."""
    listed = [] if table is None else [image_id for image_id in table.labels if image_id in by_id]
    return list(dict.fromkeys([*listed, *by_id]))


def _in_use(own: Collection[str], config: DataConfig, taken: dict[str, int]) -> tuple[str, ...]:
    """Return an image's splits among those in use, up to the limit of each."""
    wanted = dict.fromkeys([config.train_split, config.eval_split, config.test_split])
    chosen = [name for name in wanted if name in own and (config.limit is None or taken[name] < config.limit)]
    for name in chosen:
        taken[name] += 1
    return tuple(chosen)


def _faults_of(
    image_id: str, files: Sequence[str], table: LabelTable | None, class_ids: Mapping[str, int]
) -> list[Fault]:
    faults = []
    if len(files) > 1:
        names = ", ".join(uri.rsplit("/", 1)[-1] for uri in files)
        faults.append(Fault("duplicate id", image_id, f"there are {names}"))
    if table is None:
        return faults
    if image_id not in table.labels:
        detail = "the label file has no entry; add one (its label list may be empty) or remove the image"
        return [*faults, Fault("missing labels", image_id, detail)]
    if unknown := [name for name in table.labels[image_id] if name not in class_ids]:
        faults.append(unknown_label(image_id, unknown, class_ids))
    return faults


def _notes(files: FolderFiles, config: DataConfig, class_names: Sequence[str]) -> list[str]:
    table = files.table
    notes = [f"read {files.folder}", f"labels from {files.source}", *(table.notes if table is not None else ())]
    if not config.class_names:
        numbered = ", ".join(f"{value} {name}" for value, name in enumerate(class_names, start=1))
        notes.append(f"classes taken from the labels, sorted; label values in masks must be: {numbered}")
    return notes
