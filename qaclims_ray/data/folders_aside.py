"""Folders beside those of classes that are called as folders of masks, or of pictures made of images, are.

Taken for a class, each of their files would be a photograph with its label.
"""

from collections import Counter
from collections.abc import Collection, Mapping, Sequence

from qaclims_ray.data import storage
from qaclims_ray.data.mask_folders import likely_note
from qaclims_ray.data.mask_names import match_masks
from qaclims_ray.data.picture_files import file_name, pictures
from qaclims_ray.errors import DataError

_DERIVED_FOLDERS = (
    "overlay", "overlays", "blend", "blends", "depth", "depths", "edge", "edges", "contour", "contours", "boundary",
    "boundaries", "heatmap", "heatmaps", "vis", "visualization", "visualizations", "visualisation", "visualisations",
    "thumb", "thumbs", "thumbnail", "thumbnails", "preview", "previews",
)  # fmt: skip
"""Names, in lower case, of folders of pictures that are made of the images."""


def is_derived_folder(folder: str) -> bool:
    """Whether a folder is called as those of pictures that are made of images."""
    return file_name(folder).lower() in _DERIVED_FOLDERS


def aside_notes(root: str, folders: Sequence[str], by_class: Mapping[str, Collection[str]]) -> list[str]:
    """Return notes of folders that are called as folders of masks, and are not read.

    Args:
        root: the data set's folder.
        folders: path or URI of each.
        by_class: folder of a class -> ids of its images, from the names of their files alone.

    Raises:
        DataError: when most images of one belong to no other image: it may be a class.
    """
    counts = Counter(stem for _, stem in {(file_name(place), stem) for place, own in by_class.items() for stem in own})
    notes = []
    for folder in folders:
        direct, files = pictures(folder), _pictures_below(folder)
        if not files:
            notes.append(f"the folder {folder} holds no image and is no class")
            continue
        # A name such as 001 that stands in every class says nothing of another folder with it.
        telling = [stem for stem, count in counts.items() if count == 1 or not direct]
        plain = match_masks(files, by_class.get(folder.rpartition("/")[0], telling))[0]
        marked = match_masks(files, counts, marked=True)[0]
        fitting = {uri for found in (plain, marked) for uris in found.values() for uri in uris}
        if 2 * len(fitting) < len(files):
            raise DataError(
                f"{folder} is called as folders of masks are, but {len(files) - len(fitting)} of its {len(files)} "
                f"images are not called as any image of the classes ({_shown(files, fitting)}): if it is a class, "
                "rename the folder or write a label file; otherwise move it out of the data set"
            )
        notes.append(likely_note(folder, sorted(fitting), storage.join(root, "masks")))
    return notes


def _shown(files: Sequence[str], fitting: Collection[str]) -> str:
    return next(file_name(uri) for uri in files if uri not in fitting)


def _pictures_below(folder: str) -> list[str]:
    """Return the images in a folder, in its folders (of classes, or of splits) and in those inside them."""
    found, level = [], [folder]
    for _ in range(3):
        found += [uri for place in level for uri in pictures(place)]
        level = [uri for place in level for uri in storage.list_folders(place)]
    return found
