"""The masks in a folder, by the images they belong to.

Names are read by `mask_names`; two masks of one image, and masks of which none belongs to any image, are faults. What
lies there and is not used is told.
"""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass

from qaclims_ray.data import storage
from qaclims_ray.data.mask_names import match_masks
from qaclims_ray.data.picture_files import ending_of, endings, file_name, visible_files
from qaclims_ray.data.validation import Fault

MASK_SUFFIXES: tuple[str, ...] = (".png", ".bmp", ".tif", ".tiff", ".gif", ".webp", ".pgm")
"""Endings, in lower case, of label maps: formats that can keep every value."""
_LOSSY_SUFFIXES = (".jpg", ".jpeg", ".jpe", ".jfif", ".avif", ".jp2")
_LIKELY_FOLDERS = (
    "mask", "masks", "label", "labels", "labelmaps", "label_maps", "annotation", "annotations", "seg", "segmentation",
    "segmentations", "gt", "gts", "groundtruth", "ground_truth", "truth", "target", "targets", "segmentationclass",
    "segmentationclassaug", "segmentationclasspng",
)  # fmt: skip
"""Names, in lower case, under which people keep masks."""
_MAX_SHOWN = 3

MASK_FOLDERS: tuple[str, ...] = ("masks", "mask")
"""Folders of masks beside images, in any case."""


@dataclass(frozen=True)
class MaskFiles:
    """The masks of a folder."""

    by_image: Mapping[str, str]
    """Image id -> URI of its mask."""
    faults: Sequence[Fault]
    notes: Sequence[str]
    """What was passed over, and how the masks are called where that is not by the image's id."""


def find_masks(folder: str, image_ids: Collection[str]) -> MaskFiles:
    """Return the masks in a folder by the images they belong to.

    Args:
        folder: path or URI.
        image_ids: of all images that lie there, in use or not.
    """
    files = visible_files(folder)
    sound = [uri for uri in files if uri.lower().endswith(MASK_SUFFIXES)]
    lossy = [uri for uri in files if uri.lower().endswith(_LOSSY_SUFFIXES)]
    if not sound and not lossy:
        faults = _nothing_to_read(folder, files)
        return MaskFiles({}, faults, [] if faults else [f"{folder} is there and empty: it gives no masks"])
    matched, patterns = match_masks(sound, image_ids, any_mark=True)
    lost = {name: found for name, found in match_masks(lossy, image_ids)[0].items() if name not in matched}
    faults = [
        Fault(
            "two masks",
            name,
            f"{folder} has {_listed(found)}: merge them into one file where each shows a part, else keep the one that "
            "belongs to the image",
        )
        for name, found in matched.items()
        if len(found) > 1
    ]
    faults += [
        Fault(
            "masks compressed with loss",
            name,
            f"{folder} has {file_name(found[0])}, but {ending_of(found[0]).lower()[1:]} changes label values; expected "
            "a PNG: make it again from the source, a converted copy keeps the damage",
        )
        for name, found in lost.items()
    ]
    if not matched and not lost:
        return MaskFiles({}, [_no_image(folder, [*sound, *lossy], image_ids)], [])
    by_image = {name: found[0] for name, found in matched.items()}
    used = {uri for found in (*matched.values(), *lost.values()) for uri in found}
    return MaskFiles(by_image, faults, _notes(folder, files, used, patterns))


def is_likely_mask_folder(folder: str) -> bool:
    """Whether a folder is called as people call folders of masks."""
    return file_name(folder).lower() in _LIKELY_FOLDERS


def likely_masks(
    root: str, taken: Collection[str], image_ids: Collection[str], *, wanted: str = "as the layout has it"
) -> list[str]:
    """Return notes of folders that hold masks of these images under another name, and are not read.

    Args:
        root: folder whose folders are looked at.
        taken: URIs of folders that are read.
        image_ids: of the images.
        wanted: how the folder must be called to be read.
    """
    notes = []
    for folder in storage.list_folders(root):
        if folder in taken or not is_likely_mask_folder(folder):
            continue
        files = [uri for uri in visible_files(folder) if uri.lower().endswith(MASK_SUFFIXES)]
        if found := [uris[0] for uris in match_masks(files, image_ids)[0].values()]:
            notes.append(likely_note(folder, found, wanted))
    return notes


def likely_note(folder: str, found: Sequence[str], wanted: str) -> str:
    """Return the note of a folder that is not read.

    Args:
        folder: path or URI.
        found: what looks like masks in it, one an image.
        wanted: how the folder must be called to be read.
    """
    return (
        f"{folder} is not read, though it holds what looks like masks of {len(found)} images ({file_name(found[0])}); "
        f"to use them, call the folder {wanted}"
    )


def masks_among(doubtful: Sequence[str], image_ids: Collection[str], *, wanted: str = "a folder masks") -> list[Fault]:
    """Return a fault where images are called as masks of other images: ``a_mask.png`` beside ``a.jpg``.

    Args:
        doubtful: URIs of the images that may be masks.
        image_ids: of the images that they may belong to.
        wanted: where masks of these images are read.
    """
    found = [uri for uris in match_masks(doubtful, image_ids, marked=True)[0].values() for uri in uris]
    if not found:
        return []
    detail = (
        f"{len(found)} files are called as masks of other images ({_listed(found)}); move them to {wanted}, or rename "
        "them if they are photographs"
    )
    return [Fault("masks among the images", found[0].rpartition("/")[0], detail)]


def _nothing_to_read(folder: str, files: Sequence[str]) -> list[Fault]:
    """Fault a folder that holds something, but no mask; an empty one is as good as none."""
    if files:
        detail = f"there are {len(files)} files ({endings(files)}), but no mask; expected {', '.join(MASK_SUFFIXES)}"
        return [Fault("no mask found", folder, detail)]
    if inside := storage.list_folders(folder):
        detail = f"it holds folders alone ({_listed(inside)}); put the masks directly inside"
        return [Fault("no mask found", folder, detail)]
    return []


def _no_image(folder: str, files: Sequence[str], image_ids: Collection[str]) -> Fault:
    detail = (
        f"none of the {len(files)} masks ({_listed(files)}) belongs to one of the {len(image_ids)} images "
        f"({_listed(sorted(image_ids))}); expected IMAGE.png, or IMAGE_mask.png and the like"
    )
    return Fault("masks of no image", folder, detail)


def _notes(folder: str, files: Sequence[str], used: Collection[str], patterns: Mapping[str, int]) -> list[str]:
    notes = [
        f"{count} masks in {folder} are called {pattern}" for pattern, count in patterns.items() if pattern != "IMAGE"
    ]
    if unused := [uri for uri in files if uri not in used]:
        notes.append(f"{len(unused)} files in {folder} belong to no image, and are not used: {_listed(unused)}")
    return notes


def _listed(names: Sequence[str]) -> str:
    shown = ", ".join(map(file_name, names[:_MAX_SHOWN]))
    return shown + (", ..." if len(names) > _MAX_SHOWN else "")
