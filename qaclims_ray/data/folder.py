"""Reader for a plain folder of images with a file of image-level labels -> `Manifest`.

Images lie in the folder itself or in its ``images`` folder; label maps, where there are any, in ``masks``.
`mask_names` knows how they may be called, `label_files` the forms of the label file.
"""

from collections import defaultdict
from collections.abc import Mapping, Sequence

from qaclims_ray.data import storage
from qaclims_ray.data.config import DataConfig
from qaclims_ray.data.images import IMAGE_SUFFIXES
from qaclims_ray.data.label_files import DEFAULT_NAMES, LabelTable, find_label_file, image_id_of, read_label_file
from qaclims_ray.data.manifest import ImageRecord, Manifest
from qaclims_ray.data.mask_folders import MASK_FOLDERS, MaskFiles, find_masks, likely_masks, masks_among
from qaclims_ray.data.picture_files import (
    contents,
    endings,
    find_folder,
    pictures,
    unread_note,
    unread_pictures,
    visible_files,
)
from qaclims_ray.data.validation import (
    Fault,
    OnProgress,
    RawImage,
    check_class_names,
    check_splits,
    fail_on,
    inspect_images,
    unknown_label,
)
from qaclims_ray.errors import ConfigError, DataError

_IMAGE_FOLDERS = ("images", "image", "imgs", "img", "JPEGImages")
"""Folders of images inside the data set's, in any case."""


def read_folder(config: DataConfig, *, on_progress: OnProgress | None = None) -> Manifest:
    """Read and check a folder of images.

    Without a split column every image is in both the training and the scored split.

    Args:
        config: the data set; ``labels`` may be auto, file or masks (which need ``class_names``).
        on_progress: told after each inspected image.

    Raises:
        DataError: all faults of the data set in one report.
        ConfigError: when settings contradict each other.
    """
    if not config.root:
        raise ConfigError("data.root is empty: give the folder of the data set (--data-root)")
    root = storage.absolute(config.root)
    label_file = _choose_label_file(root, config)
    folder, files = _image_files(root)
    table = None if label_file is None else read_label_file(label_file, config.class_names)
    class_names, faults = _class_names(config, table)
    check_class_names(class_names)
    masks = _mask_files(root, folder, files)
    raw_images, found = _raw_images(files, masks.by_image, table, class_names, config)
    faults += [*found, *masks.faults]
    if any(fault.sort == "missing image" for fault in faults):
        faults += _unread_pictures(folder)
    faults += masks_among(files, {fault.subject for fault in faults if fault.sort == "missing labels"})
    records, found, seen = inspect_images(
        raw_images, len(class_names), decode=config.check_images, on_progress=on_progress
    )
    faults += found
    faults += check_splits((config.train_split, config.eval_split), raw_images, scored=config.eval_split)
    fail_on(faults, root)
    notes = _notes(folder, label_file, config, table, class_names)
    notes += [*masks.notes, *_passed_over(root, folder), *seen]
    if left_out := len(files) - len(raw_images):
        notes.append(f"{left_out} images belong to no split in use, or lie beyond data.limit, and are left out")
    notes += _mask_notes(records, config.eval_split)
    return Manifest(tuple(class_names), records, tuple(notes))


def _choose_label_file(root: str, config: DataConfig) -> str | None:
    if config.labels == "annotations":
        raise ConfigError("data.labels = annotations is for VOC; a folder has labels = file or masks")
    if config.labels == "masks":
        if config.label_file:
            raise ConfigError("data.label_file is named, but data.labels is masks: set it to file or auto")
        if find_folder(root, MASK_FOLDERS) is None:
            raise DataError(f"data.labels is masks, but there is no folder masks in {root} (it has {contents(root)})")
        return None
    if not storage.exists(root):
        raise DataError(f"there is no folder {root} (data.root, --data-root)")
    label_file = find_label_file(root, config.label_file)
    if label_file is None and config.labels == "file":
        raise DataError(f"there is no label file in {root}: expected labels.csv or labels.json, or data.label_file")
    if label_file is None:
        masks = find_folder(root, MASK_FOLDERS)
        if masks is not None and visible_files(masks):
            # Pixel labels are another supervision than image labels: nobody should train on them unawares.
            raise DataError(
                f"{root} has no label file (looked for {', '.join(DEFAULT_NAMES)}), only pixel labels in {masks}; set "
                "data.labels to masks to bring these down to image level, or name a label file in data.label_file"
            )
        raise DataError(
            f"{root} has no image-level labels: expected {', '.join(DEFAULT_NAMES)}, or another file named in "
            "data.label_file"
        )
    return label_file


def _image_files(root: str) -> tuple[str, list[str]]:
    """Return the folder that holds the images, and their URIs."""
    named = find_folder(root, _IMAGE_FOLDERS)
    places = [root] if named is None else [named, root]
    for folder in places:
        if files := pictures(folder):
            return folder, files
    found = ", ".join(f"{folder} has {contents(folder)}" for folder in places)
    raise DataError(
        f"there is no image in {' or '.join(places)}; expected files ending in {', '.join(IMAGE_SUFFIXES)} directly "
        f"inside (data.root, --data-root), but {found}"
    )


def _mask_files(root: str, image_folder: str, files: Sequence[str]) -> MaskFiles:
    image_ids = {image_id_of(uri) for uri in files}
    folder = find_folder(root, MASK_FOLDERS)
    found = MaskFiles({}, [], []) if folder is None else find_masks(folder, image_ids)
    taken = [uri for uri in (folder, image_folder) if uri is not None]
    return MaskFiles(found.by_image, found.faults, [*found.notes, *likely_masks(root, taken, image_ids)])


def _unread_pictures(folder: str) -> list[Fault]:
    if not (unread := unread_pictures(folder)):
        return []
    detail = f"{len(unread)} files are pictures that are not read ({endings(unread)}): convert them to JPEG or PNG"
    return [Fault("unread pictures", folder, detail)]


def _passed_over(root: str, folder: str) -> list[str]:
    """Return notes of images that lie there and are not read."""
    notes = unread_note(folder)
    if folder != root and (beside := pictures(root)):
        notes.append(f"{len(beside)} images directly in {root} are not read: images are taken from {folder}")
    return notes


def _mask_notes(records: Sequence[ImageRecord], scored: str) -> list[str]:
    masked = sum(record.mask_uri is not None for record in records)
    notes = [f"masks: {masked} of {len(records)} images have one"] if masked else []
    if not any(record.mask_uri for record in records if scored in record.splits):
        notes.append(f"no image of split {scored} has a mask: nothing can be scored")
    return notes


def _class_names(config: DataConfig, table: LabelTable | None) -> tuple[Sequence[str], list[Fault]]:
    if config.class_names:
        return config.class_names, []
    if table is None:
        raise ConfigError("data.class_names is empty, and there is no label file to take the classes from")
    names = sorted({name for labels in table.labels.values() for name in labels} | set(table.classes))
    if not names:
        raise DataError("the label file names no class at all; expected at least one label")
    by_folded = defaultdict(list)
    for name in names:
        by_folded[name.casefold()].append(name)
    faults = [
        Fault("ambiguous class", " / ".join(group), "differ in case only; spell them alike or give data.class_names")
        for group in by_folded.values()
        if len(group) > 1
    ]
    return names, faults


def _raw_images(
    files: Sequence[str],
    masks: Mapping[str, str],
    table: LabelTable | None,
    class_names: Sequence[str],
    config: DataConfig,
) -> tuple[list[RawImage], list[Fault]]:
    """Bring images, labels, masks and splits together."""
    by_id: dict[str, list[str]] = defaultdict(list)
    for uri in files:
        by_id[image_id_of(uri)].append(uri)
    class_ids = {name: index for index, name in enumerate(class_names)}
    faults = [] if table is None else list(table.faults)
    if table is not None:
        faults += _entries_without_image(table, by_id)
    taken: dict[str, int] = defaultdict(int)
    raw_images = []
    for image_id in _order(by_id, table):
        splits = _splits_of(image_id, table, config, taken)
        if not splits:
            continue
        faults += _faults_of(image_id, by_id[image_id], table, class_ids)
        labels = None if table is None else _known_ids(table.labels.get(image_id, ()), class_ids)
        raw_images.append(RawImage(image_id, by_id[image_id][0], labels, masks.get(image_id), None, splits))
    return raw_images, faults


def _known_ids(names: Sequence[str], class_ids: Mapping[str, int]) -> tuple[int, ...]:
    """Return class ids; unknown names are reported elsewhere and left out, so that the image is still inspected."""
    return tuple(sorted({class_ids[name] for name in names if name in class_ids}))


def _entries_without_image(table: LabelTable, by_id: Mapping[str, object]) -> list[Fault]:
    return [
        Fault("missing image", image_id, "has an entry in the label file, but no image file")
        for image_id in table.labels
        if image_id not in by_id
    ]


def _order(by_id: Mapping[str, object], table: LabelTable | None) -> list[str]:
    """The label file's order, then images it does not name."""
    listed = [] if table is None else [image_id for image_id in table.labels if image_id in by_id]
    return list(dict.fromkeys([*listed, *by_id]))


def _splits_of(image_id: str, table: LabelTable | None, config: DataConfig, taken: dict[str, int]) -> tuple[str, ...]:
    """Return an image's splits among those in use, up to the limit of each."""
    everywhere = (config.train_split, config.eval_split)
    own = everywhere if table is None or table.splits is None else table.splits.get(image_id, ())
    wanted = dict.fromkeys([*everywhere, config.test_split])
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


def _notes(
    folder: str, label_file: str | None, config: DataConfig, table: LabelTable | None, class_names: Sequence[str]
) -> list[str]:
    source = "the masks: these are pixel labels, brought down to image level" if label_file is None else label_file
    notes = [f"read {folder}", f"labels from {source}"]
    if not config.class_names:
        numbered = ", ".join(f"{value} {name}" for value, name in enumerate(class_names, start=1))
        notes.append(f"classes taken from the label file, sorted; label values in masks must be: {numbered}")
    if table is None or table.splits is None:
        notes.append(f"no split column: every image is in {config.train_split} and {config.eval_split}")
    return notes
