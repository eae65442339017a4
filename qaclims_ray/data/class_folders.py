"""Labels that folders say: one sub-folder of images per class, by themselves or within one folder per split.

``ROOT/cat/*.jpg``, ``ROOT/images/cat/*.jpg``, ``ROOT/train/cat/*.jpg``. Label maps lie in ``masks/cat``, ``masks`` or
``cat/masks``.
"""

import dataclasses
import hashlib
from collections import defaultdict
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass

from qaclims_ray.data import storage
from qaclims_ray.data.folders_aside import aside_notes, is_derived_folder
from qaclims_ray.data.image_ids import image_id_of
from qaclims_ray.data.label_files import LabelTable
from qaclims_ray.data.label_words import is_nothing, quoted, tidy
from qaclims_ray.data.mask_folders import (
    MASK_FOLDERS,
    MaskFiles,
    find_masks,
    is_likely_mask_folder,
    likely_masks,
    masks_among,
)
from qaclims_ray.data.picture_files import file_name, find_folder, pictures, visible_files
from qaclims_ray.data.slices import in_threads
from qaclims_ray.data.validation import Fault
from qaclims_ray.errors import DataError

SPLIT_FOLDERS: tuple[str, ...] = ("train", "training", "val", "valid", "validation", "test", "testing", "trainval")
"""Names of folders that are splits and no classes."""
_SYSTEM = ("__macosx",)
_RESERVED = ("images", *_SYSTEM)


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

    @property
    def folder(self) -> str:
        return self.uri.rpartition("/")[0]


@dataclass(frozen=True)
class _Tree:
    """What lies below the folders of classes."""

    images: list[_Found]
    notes: list[str]
    classes: set[str]
    """Those with a folder of images."""
    aside: list[str]
    """Folders that are called as folders of masks are."""
    masks: dict[str, str]
    """Folder of a class -> the folder of masks inside it."""


def find_class_folders(root: str) -> ClassFolders | None:
    """Return the images of a data set by the folders of their classes; None where there are no such folders.

    A file name in several folders is one image where the files are the same, byte for byte; otherwise the class goes
    in front of the name.

    Raises:
        DataError: when folders of images lie deeper than that, folders say the split alone, or one may hold masks or a
            class.
    """
    masks = find_folder(root, MASK_FOLDERS)
    for folder in (storage.join(root, "images"), root):
        tree = _tree_in(folder, masks)
        if tree.images:
            notes = [*tree.notes, *aside_notes(root, tree.aside, _stems_by_folder(tree.images))]
            if folder != root:
                taken = [uri for uri in (folder, masks) if uri is not None]
                stems = {image.stem for image in tree.images}
                notes += likely_masks(root, taken, stems, wanted=storage.join(root, "masks"))
            return _by_id(root, folder, dataclasses.replace(tree, notes=notes))
    return None


def _tree_in(folder: str, masks: str | None) -> _Tree:
    """Return what lies below the folders of classes.

    Raises:
        DataError: see `find_class_folders`.
    """
    inner = [uri for uri in _sub_folders(folder, _RESERVED) if uri != masks]
    splits = [uri for uri in inner if file_name(uri).casefold() in SPLIT_FOLDERS]
    if len(splits) == 1 and _is_class_among(splits[0], [uri for uri in inner if uri not in splits]):
        splits = []
    found = [(uri, "") for uri in inner if uri not in splits]
    for split in splits:
        classes = _sub_folders(split, _RESERVED)
        if not classes and pictures(split):
            raise DataError(
                f"the images of {split} lie in no folder of a class: the folders say which split they belong to, but "
                "not what they show; add a label file with a split column, or one sub-folder per class"
            )
        found += [(uri, file_name(split)) for uri in classes]
    tree = _Tree([], [], set(), [], {})
    for uri, split in found:
        if is_likely_mask_folder(uri):
            tree.aside.append(uri)
        else:
            _add_class(tree, folder, uri, split)
    return _without_derived(tree)


def _is_class_among(folder: str, others: Sequence[str]) -> bool:
    """Whether a folder called train is the class of trains, as VOC has it: others hold images right inside, too."""
    if file_name(folder).casefold() != "train" or not pictures(folder) or _sub_folders(folder, _RESERVED):
        return False
    return any(not is_likely_mask_folder(uri) and pictures(uri) for uri in others)


def _add_class(tree: _Tree, folder: str, uri: str, split: str) -> None:
    files, below = pictures(uri), _sub_folders(uri, _SYSTEM)
    likely = [inner for inner in below if is_likely_mask_folder(inner)]
    if deeper := [inner for inner in below if inner not in likely and pictures(inner)]:
        raise DataError(
            f"images lie in {deeper[0]}, deeper than one sub-folder per class in {folder}: move them up, or give "
            "the folder above as data.root, or write a label file"
        )
    if not files:
        tree.notes.append(f"the folder {uri} holds no image and is no class")
        return
    label = tidy(file_name(uri))
    tree.classes.add(label)
    tree.images.extend(_Found(file, label, split) for file in files)
    for inner in likely:
        if file_name(inner).casefold() in MASK_FOLDERS and visible_files(inner):
            tree.masks.setdefault(uri, inner)
        else:
            tree.aside.append(inner)


def _without_derived(tree: _Tree) -> _Tree:
    """Leave out folders of pictures that are made of the images, such as overlays, by their names and their files'."""
    notes = list(tree.notes)
    dropped: set[str] = set()
    for folder in sorted({image.folder for image in tree.images}):
        if not is_derived_folder(folder):
            continue
        own = {image.stem for image in tree.images if image.folder == folder}
        others = {image.stem for image in tree.images if not is_derived_folder(image.folder)}
        if own <= others:
            dropped.add(folder)
            notes.append(
                f"{folder} is not read: it is called as pictures made of images are, and all {len(own)} files are "
                "called as images of other folders; if it is a class, rename it"
            )
    images = [image for image in tree.images if image.folder not in dropped]
    return dataclasses.replace(tree, images=images, notes=notes, classes={image.label for image in images})


def _stems_by_folder(images: Sequence[_Found]) -> dict[str, set[str]]:
    stems: dict[str, set[str]] = defaultdict(set)
    for image in images:
        stems[image.folder].add(image.stem)
    return dict(stems)


def _by_id(root: str, folder: str, tree: _Tree) -> ClassFolders:
    found, notes, classes = tree.images, list(tree.notes), tree.classes
    by_stem: dict[str, list[_Found]] = defaultdict(list)
    for image in found:
        by_stem[image.stem].append(image)
    faults = _masks_among(found)
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
        notes += _shared_notes(splits)
    table = LabelTable(labels, splits, tuple(sorted(classes - set(nothing))), tuple(faults), tuple(notes))
    uris = {image_id: [images[0].uri] for image_id, images in members.items()}
    return ClassFolders(folder, uris, _masks(root, tree, members, renamed), table)


def _masks_among(found: Sequence[_Found]) -> list[Fault]:
    """Return faults where masks lie beside the images of a class: each would be a photograph with its label."""
    by_folder: dict[str, list[_Found]] = defaultdict(list)
    for image in found:
        by_folder[image.folder].append(image)
    faults = []
    for folder, images in by_folder.items():
        place = "/".join(filter(None, ("masks", images[0].split, file_name(folder))))
        faults += masks_among([image.uri for image in images], {image.stem for image in images}, wanted=place)
    return faults


def _shared_notes(splits: Mapping[str, tuple[str, ...]]) -> list[str]:
    """Return notes of images that lie in the folders of several splits."""
    shared: dict[tuple[str, ...], list[str]] = defaultdict(list)
    for image_id, names in splits.items():
        if len(names) > 1:
            shared[names].append(image_id)
    return [
        f"{len(ids)} images lie in {' and '.join(names)}, byte for byte the same (e.g. {ids[0]}), and belong to each: "
        "where one is trained on and another scored or tested, these images are trained on"
        for names, ids in shared.items()
    ]


def _masks(root: str, tree: _Tree, members: Mapping[str, Sequence[_Found]], renamed: Collection[str]) -> MaskFiles:
    """Return masks by image id: those in a folder of the image's class first, then those that lie all together."""
    own: dict[str, str] = {}
    faults: list[Fault] = []
    notes: list[str] = []
    top = find_folder(root, MASK_FOLDERS)
    places = [] if top is None else [(storage.join(top, *place), ids) for place, ids in _places(members).items()]
    for folder, ids in [*_inside(tree, members), *places]:
        if visible_files(folder):
            found = find_masks(folder, ids.keys())
            own |= {ids[stem]: uri for stem, uri in found.by_image.items()}
            faults, notes = [*faults, *found.faults], [*notes, *found.notes]
    if top is None:
        return MaskFiles(own, faults, notes)
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


def _inside(tree: _Tree, members: Mapping[str, Sequence[_Found]]) -> list[tuple[str, dict[str, str]]]:
    """Return the folders of masks inside those of classes, each with the file names of its images -> their ids."""
    ids: dict[str, dict[str, str]] = defaultdict(dict)
    for name, images in members.items():
        for image in images:
            ids[image.folder][image.stem] = name
    return [(masks, ids[folder]) for folder, masks in tree.masks.items() if folder in ids]


def _places(members: Mapping[str, Sequence[_Found]]) -> dict[tuple[str, ...], dict[str, str]]:
    """Return folders of masks, the least particular first -> file name of each of their images -> its id."""
    places: dict[tuple[str, ...], dict[str, str]] = defaultdict(dict)
    for parts in (lambda image: (image.label,), lambda image: (image.split, image.label)):
        for name, images in members.items():
            for image in images:
                places[tuple(filter(None, parts(image)))][image.stem] = name
    return places


def _sub_folders(folder: str, left_out: Collection[str]) -> list[str]:
    names = [uri for uri in storage.list_folders(folder) if not file_name(uri).startswith(".")]
    return [uri for uri in names if file_name(uri).casefold() not in left_out]


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
