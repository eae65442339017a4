"""The masks of a data set in VOC's layout: ``SegmentationClass``, and ``SegmentationClassAug`` for what it lacks.

The augmented masks (SBD) are another annotation: drawn by others, borders without 255. Where an image has both, the
un-augmented one counts (row E4), and how many come from where is told.
"""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass

from qaclims_ray.data.mask_folders import MaskFiles, find_masks, likely_masks
from qaclims_ray.data.picture_files import find_folder
from qaclims_ray.data.validation import Fault

VOC_MASK_FOLDERS: tuple[str, str] = ("SegmentationClass", "SegmentationClassAug")
"""The clean masks, and the augmented ones."""


@dataclass(frozen=True)
class VocMasks:
    """The masks of the images."""

    by_image: Mapping[str, str]
    """Image id -> URI of its mask."""
    faults: Sequence[Fault]
    notes: Sequence[str]
    """Where the masks are from, and what was passed over."""


def find_voc_masks(root: str, image_ids: Collection[str], used: Collection[str]) -> VocMasks:
    """Return the masks of a data set, and where they are from.

    Args:
        root: folder of JPEGImages.
        image_ids: of all images that lie there.
        used: ids of the images in use; faults of others are left out.
    """
    folders = [find_folder(root, [name]) for name in VOC_MASK_FOLDERS]
    clean, augmented = (
        MaskFiles({}, [], []) if folder is None else find_masks(folder, image_ids) for folder in folders
    )
    by_image = {**augmented.by_image, **clean.by_image}
    wanted = set(used)
    faults = [
        fault
        for fault in (*clean.faults, *augmented.faults)
        if fault.subject in wanted or fault.subject not in image_ids
    ]
    if folders[0] is not None and augmented.by_image and not clean.by_image and not clean.faults:
        detail = (
            f"it is there, but empty, and {VOC_MASK_FOLDERS[1]} holds other masks of {len(augmented.by_image)} images; "
            "fill it, or remove it to be scored on those"
        )
        faults.append(Fault("no mask found", folders[0], detail))
    notes = [*clean.notes, *augmented.notes]
    taken = [folder for folder in folders if folder is not None]
    notes += likely_masks(root, taken, image_ids)
    return VocMasks(by_image, faults, [*_source_notes(clean, augmented, wanted), *notes])


def _source_notes(clean: MaskFiles, augmented: MaskFiles, used: Collection[str]) -> list[str]:
    counts = {
        VOC_MASK_FOLDERS[0]: sum(name in clean.by_image for name in used),
        VOC_MASK_FOLDERS[1]: sum(name in augmented.by_image and name not in clean.by_image for name in used),
    }
    parts = [f"{count} from {name}" for name, count in counts.items() if count]
    if not parts:
        return []
    lacking = len(used) - sum(counts.values())
    parts += [f"{lacking} images have none"] * bool(lacking)
    told = "; the augmented masks are another annotation (row E4)" * bool(counts[VOC_MASK_FOLDERS[1]])
    return [f"masks: {', '.join(parts)}{told}"]
