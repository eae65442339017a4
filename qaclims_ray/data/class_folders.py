"""Labels that folders say: one sub-folder of images per class, by themselves or within one folder per split.

``ROOT/cat/*.jpg``, ``ROOT/images/cat/*.jpg``, ``ROOT/train/cat/*.jpg``. Label maps lie in ``masks/cat`` or ``masks``.
"""

import hashlib
from collections import defaultdict
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass

from qaclims_ray.data import storage
from qaclims_ray.data.image_ids import image_id_of
from qaclims_ray.data.label_files import LabelTable
from qaclims_ray.data.label_words import is_nothing, quoted, tidy
from qaclims_ray.data.mask_folders import MASK_FOLDERS, MaskFiles, find_masks
from qaclims_ray.data.picture_files import file_name, find_folder, pictures, visible_files
from qaclims_ray.data.validation import Fault, in_threads
from qaclims_ray.errors import DataError

SPLIT_FOLDERS: tuple[str, ...] = ("train", "training", "val", "valid", "validation", "test", "testing", "trainval")
"""Names of folders that are splits and no classes."""
_RESERVED = ("images", "masks", "annotations", "labels", "__macosx")


@dataclass(frozen=True)
class ClassFolders:
    """Images whose folders say what they show."""

    folder: str
    """Where the folders of classes or splits lie."""
    images: dict[str, list[str]]
    """Image id -> its file."""
    masks: MaskFiles
    """Masks by image id."""
    table: LabelTable
    """Labels and splits by image id."""


@dataclass(frozen=True)
class _Found:
    """One image file in its folders."""

    uri: str
    label: str
    split: str

    @property
    def stem(self) -> str:
        return image_id_of(self.uri)


def find_class_folders(root: str) -> ClassFolders | None:
    """Return the images of a data set by the folders of their classes; None where there are no such folders.

    A file name in several folders is one image where the files are the same, byte for byte; otherwise the class goes
    in front of the name.

    Raises:
        DataError: when folders of images lie deeper than that, or folders say the split alone.
    """
    for folder in (storage.join(root, "images"), root):
        found, notes, classes = _found_in(folder)
        if found:
            return _by_id(root, folder, found, notes, classes)
    return None


def _found_in(folder: str) -> tuple[list[_Found], list[str], set[str]]:
    """Return the files below the folders of classes, notes, and the classes with a folder."""
    inner = _sub_folders(folder)
    splits = [uri for uri in inner if file_name(uri).casefold() in SPLIT_FOLDERS]
    found = [(uri, "") for uri in inner if uri not in splits]
    for split in splits:
        classes = _sub_folders(split)
        if not classes and pictures(split):
            raise DataError(
                f"the images of {split} lie in no folder of a class: the folders say which split they belong to, but "
                "not what they show; add a label file with a split column, or one sub-folder per class"
            )
        found += [(uri, file_name(split)) for uri in classes]
    images, notes, names = [], [], set()
    for uri, split in found:
        files = pictures(uri)
        if deeper := [below for below in _sub_folders(uri) if pictures(below)]:
            raise DataError(
                f"images lie in {deeper[0]}, deeper than one sub-folder per class in {folder}: move them up, or give "
                "the folder above as data.root, or write a label file"
            )
        if not files:
            notes.append(f"the folder {uri} holds no image and is no class")
            continue
        names.add(tidy(file_name(uri)))
        images += [_Found(file, tidy(file_name(uri)), split) for file in files]
    return images, notes if images else [], names


def _by_id(root: str, folder: str, found: Sequence[_Found], notes: list[str], classes: set[str]) -> ClassFolders:
    by_stem: dict[str, list[_Found]] = defaultdict(list)
    for image in found:
        by_stem[image.stem].append(image)
    faults: list[Fault] = []
    members: dict[str, list[_Found]] = {}
    renamed = []
    for stem, files in by_stem.items():
        images = _alike(files)
        if len(images) == 1:
            names = [stem]
        else:
            renamed.append(stem)
            names = [f"{prefix}_{stem}" for prefix in _prefixes(images)]
        for name, copies in zip(names, images, strict=True):
            if name in members:
                other = f"{members[name][0].uri} and {copies[0].uri} would both have this name"
                faults.append(Fault("duplicate id", name, other))
            members.setdefault(name, copies)
    if renamed:
        notes.append(
            f"{len(renamed)} file names stand in several folders for different images, e.g. {renamed[0]}: the class "
            "goes in front of the name"
        )
    nothing = sorted(name for name in classes if is_nothing(name))
    if nothing:
        notes.append(f"the folder {quoted(nothing)} is read as images without any class")
    labels = {
        image_id: tuple(dict.fromkeys(image.label for image in images if image.label not in nothing))
        for image_id, images in members.items()
    }
    splits = None
    if any(image.split for image in found):
        splits = {
            image_id: tuple(dict.fromkeys(image.split for image in images if image.split))
            for image_id, images in members.items()
        }
    table = LabelTable(labels, splits, tuple(sorted(classes - set(nothing))), tuple(faults), tuple(notes))
    uris = {image_id: [images[0].uri] for image_id, images in members.items()}
    return ClassFolders(folder, uris, _masks(root, members, renamed), table)


def _masks(root: str, members: Mapping[str, Sequence[_Found]], renamed: Collection[str]) -> MaskFiles:
    """Return masks by image id: those in a folder of the image's class first, then those that lie all together."""
    top = find_folder(root, MASK_FOLDERS)
    if top is None:
        return MaskFiles({}, [], [])
    own: dict[str, str] = {}
    faults: list[Fault] = []
    notes: list[str] = []
    for place, images in _places(members).items():
        folder = storage.join(top, *place)
        if visible_files(folder):
            found = find_masks(folder, images.keys())
            own |= {images[stem]: uri for stem, uri in found.by_image.items()}
            faults, notes = [*faults, *found.faults], [*notes, *found.notes]
    # Without its class in front, a name that several images have tells nothing.
    names = {name: name for name in members}
    names |= {images[0].stem: name for name, images in members.items() if images[0].stem not in renamed}
    if visible_files(top) or not own:
        together = find_masks(top, names.keys())
        if own and not together.by_image:
            notes += [fault.detail for fault in together.faults]
        else:
            faults += together.faults
        notes += together.notes
        own = {names[stem]: uri for stem, uri in together.by_image.items()} | own
    return MaskFiles(own, faults, notes)


def _places(members: Mapping[str, Sequence[_Found]]) -> dict[tuple[str, ...], dict[str, str]]:
    """Return folders of masks, the least particular first -> file name of each of their images -> its id."""
    places: dict[tuple[str, ...], dict[str, str]] = defaultdict(dict)
    for parts in (lambda image: (image.label,), lambda image: (image.split, image.label)):
        for name, images in members.items():
            for image in images:
                places[tuple(filter(None, parts(image)))][image.stem] = name
    return places


def _sub_folders(folder: str) -> list[str]:
    names = [uri for uri in storage.list_folders(folder) if not file_name(uri).startswith(".")]
    return [uri for uri in names if file_name(uri).casefold() not in _RESERVED]


def _prefixes(images: Sequence[Sequence[_Found]]) -> list[str]:
    """Return what goes in front of a name that different images have: their classes, and splits where they need it."""
    labels = ["_".join(dict.fromkeys(copy.label for copy in copies)) for copies in images]
    if len(set(labels)) == len(labels):
        return labels
    splits = ["_".join(dict.fromkeys(copy.split for copy in copies if copy.split)) for copies in images]
    return ["_".join(filter(None, parts)) for parts in zip(splits, labels, strict=True)]


def _alike(files: Sequence[_Found]) -> list[list[_Found]]:
    """Group files of one name by their content: copies of one image in several folders are that image."""
    if len(files) == 1:
        return [list(files)]
    groups: dict[bytes, list[_Found]] = defaultdict(list)
    for file, content in zip(files, in_threads(storage.read_bytes, [file.uri for file in files]), strict=True):
        groups[hashlib.sha256(content).digest()].append(file)
    return list(groups.values())
