"""Reader for a plain folder of images with a file of image-level labels, or one sub-folder per class -> `Manifest`.

Images lie in the folder itself or in its ``images`` folder; label maps, where there are any, in ``masks`` under
the image's name with the ending .png. `label_files` knows the forms of the label file, `class_folders` the folders of
classes.
"""

from collections import defaultdict
from collections.abc import Mapping, Sequence

from qaclims_ray.data import storage
from qaclims_ray.data.class_folders import ClassFolders, find_class_folders
from qaclims_ray.data.config import DataConfig
from qaclims_ray.data.image_ids import image_id_of
from qaclims_ray.data.images import IMAGE_SUFFIXES
from qaclims_ray.data.label_files import DEFAULT_NAMES, LABEL_SUFFIXES, LabelTable, find_label_file, read_label_file
from qaclims_ray.data.label_words import folded, quoted
from qaclims_ray.data.manifest import Manifest
from qaclims_ray.data.validation import (
    CheckLabels,
    Fault,
    OnProgress,
    RawImage,
    check_class_names,
    check_splits,
    fail_on,
    inspect_images,
    is_decoded,
    unknown_label,
)
from qaclims_ray.errors import ConfigError, DataError


def read_folder(
    config: DataConfig, *, on_progress: OnProgress | None = None, check_labels: CheckLabels | None = None
) -> Manifest:
    """Read and check a folder of images.

    Without a split column every image is in both the training and the scored split.

    Args:
        config: the data set; ``labels`` may be auto, file, folders or masks (which need ``class_names``).
        on_progress: told after each inspected image.
        check_labels: see `validation.CheckLabels`.

    Raises:
        DataError: all faults of the data set in one report.
        ConfigError: when settings contradict each other.
    """
    if not config.root:
        raise ConfigError("data.root is empty: give the folder of the data set (--data-root)")
    root = storage.absolute(config.root)
    label_file = _choose_label_file(root, config)
    if (by_class := _class_folders(root, config, label_file)) is not None:
        folder, by_id, masks, table = by_class.folder, by_class.images, by_class.masks, by_class.table
    else:
        folder, files = _image_files(root)
        by_id, masks = _by_id(files), _mask_files(root)
        table = None
        if label_file is not None:
            table = read_label_file(label_file, config.class_names, image_ids=by_id, separator=config.label_separator)
    class_names, faults = _class_names(config, table)
    check_class_names(class_names)
    raw_images, found = _raw_images(by_id, masks, table, class_names, config)
    faults += [*_unknown_splits(table, config), *found]
    if check_labels is not None and not faults:
        check_labels(class_names, raw_images)
    decode = config.check_images and is_decoded(raw_images, faults)
    records, found = inspect_images(raw_images, len(class_names), decode=decode, on_progress=on_progress)
    faults += found
    faults += check_splits((config.train_split, config.eval_split), raw_images, scored=config.eval_split)
    fail_on(faults, root)
    notes = _notes(folder, label_file, config, table, class_names)
    notes += _unread_label_files(root, label_file)
    if left_out := len(by_id) - len(raw_images):
        notes.append(f"{left_out} images belong to no split in use, or lie beyond data.limit, and are left out")
    if not any(record.mask_uri for record in records if config.eval_split in record.splits):
        notes.append(f"no image of split {config.eval_split} has a mask: nothing can be scored")
    return Manifest(tuple(class_names), records, tuple(notes))


def _choose_label_file(root: str, config: DataConfig) -> str | None:
    if config.labels == "annotations":
        raise ConfigError("data.labels = annotations is for VOC; a folder has labels = file or masks")
    if config.labels in ("masks", "folders"):
        if config.label_file:
            raise ConfigError(f"data.label_file is named, but data.labels is {config.labels}: set it to file or auto")
        return None
    if not storage.exists(root):
        raise DataError(f"there is no folder {root} (data.root, --data-root)")
    label_file = find_label_file(root, config.label_file)
    if label_file is None and config.labels == "file":
        raise DataError(
            f"there is no label file in {root}: expected one of {', '.join(DEFAULT_NAMES)}, or data.label_file"
        )
    return label_file


def _class_folders(root: str, config: DataConfig, label_file: str | None) -> ClassFolders | None:
    """Return the folders of classes, where they are what says the labels.

    Raises:
        DataError: when nothing says the labels, or two sources do.
    """
    if config.labels == "masks":
        return None
    is_flat = any(
        uri.lower().endswith(IMAGE_SUFFIXES)
        for place in (storage.join(root, "images"), root)
        for uri in storage.list_files(place)
    )
    found = None if is_flat and config.labels != "folders" else find_class_folders(root)
    if label_file is not None:
        if found is not None:
            raise DataError(
                f"there is a label file {label_file}, but the images lie in sub-folders ("
                f"{quoted(found.table.classes)}): move all images into one folder, or set data.labels to folders, "
                "which takes the folders' names for labels"
            )
        return None
    if found is not None:
        return found
    if config.labels == "folders":
        raise DataError(f"data.labels is folders, but {root} has no sub-folder of images: expected one per class")
    if not storage.list_files(storage.join(root, "masks"), ".png"):
        others = [uri.rsplit("/", 1)[-1] for uri in storage.list_files(root) if uri.lower().endswith(LABEL_SUFFIXES)]
        hint = f"; {quoted(others)} may be one: name it in data.label_file" if others else ""
        raise DataError(
            f"{root} has no image-level labels: expected labels.csv, labels.json, one sub-folder per class, or "
            f"masks/*.png{hint}"
        )
    return None


def _image_files(root: str) -> tuple[str, list[str]]:
    """Return the folder that holds the images, and their URIs."""
    for folder in (storage.join(root, "images"), root):
        files = [uri for uri in storage.list_files(folder) if uri.lower().endswith(IMAGE_SUFFIXES)]
        if files:
            return folder, files
    raise DataError(
        f"there is no image in {root} or {root}/images; expected files ending in {', '.join(IMAGE_SUFFIXES)} "
        "directly inside (data.root, --data-root)"
    )


def _class_names(config: DataConfig, table: LabelTable | None) -> tuple[Sequence[str], list[Fault]]:
    if config.class_names:
        return config.class_names, []
    if table is None:
        raise ConfigError("data.class_names is empty, and there is no label file to take the classes from")
    names = sorted({name for labels in table.labels.values() for name in labels} | set(table.classes))
    if not names:
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


def _by_id(files: Sequence[str]) -> dict[str, list[str]]:
    by_id: dict[str, list[str]] = defaultdict(list)
    for uri in files:
        by_id[image_id_of(uri)].append(uri)
    return dict(by_id)


def _mask_files(root: str) -> dict[str, str]:
    return {image_id_of(uri): uri for uri in storage.list_files(storage.join(root, "masks"), ".png")}


def _raw_images(
    by_id: Mapping[str, Sequence[str]],
    masks: Mapping[str, str],
    table: LabelTable | None,
    class_names: Sequence[str],
    config: DataConfig,
) -> tuple[list[RawImage], list[Fault]]:
    """Bring images, labels, masks and splits together."""
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


def _unknown_splits(table: LabelTable | None, config: DataConfig) -> list[Fault]:
    if table is None or table.splits is None:
        return []
    known = sorted({split for splits in table.splits.values() for split in splits})
    named = {"data.train_split": config.train_split, "data.eval_split": config.eval_split}
    return [
        Fault(
            "unknown split", split, f"{name}; the data set has {', '.join(known) or 'none'}: set {name} to one of them"
        )
        for name, split in named.items()
        if split not in known
    ]


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
    source = "the masks: these are pixel labels, brought down to image level"
    if table is not None:
        source = label_file or "the names of the images' folders"
    notes = [f"read {folder}", f"labels from {source}", *(table.notes if table is not None else ())]
    if not config.class_names:
        numbered = ", ".join(f"{value} {name}" for value, name in enumerate(class_names, start=1))
        taken = "label file" if label_file else "folders"
        notes.append(f"classes taken from the {taken}, sorted; label values in masks must be: {numbered}")
    if table is None or table.splits is None:
        both = " and ".join(dict.fromkeys((config.train_split, config.eval_split)))
        notes.append(f"no split is named: every image is in {both}")
    return notes


def _unread_label_files(root: str, label_file: str | None) -> list[str]:
    there = [name for name in DEFAULT_NAMES if storage.exists(storage.join(root, name))]
    unread = [name for name in there if storage.join(root, name) != label_file]
    return (
        [f"not read, because the labels come from elsewhere: {', '.join(unread)} (data.label_file)"] if unread else []
    )
