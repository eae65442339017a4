"""Label maps written for other programs: labelling tools to correct them in, toolkits to train on them.

Every form but COCO's and CVAT's, which are one file, is a folder with copies of the images beside their masks.
"""

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal

import numpy as np
from jaxtyping import UInt8
from torch import Tensor

from qaclims_ray.data import storage
from qaclims_ray.data.classes import BACKGROUND_VALUE, IGNORE_VALUE, Classes
from qaclims_ray.data.images import save_label_map
from qaclims_ray.data.label_colours import COLOURS_NAME, labelmap_text
from qaclims_ray.data.labelme import labelme_file
from qaclims_ray.data.mask_drafts import hash_of_mask
from qaclims_ray.data.mask_files import load_mask
from qaclims_ray.data.masks_in_coco import coco_file
from qaclims_ray.data.masks_in_cvat import cvat_file, cvat_labels
from qaclims_ray.data.masks_in_yolo import YOLO_INDEX, yolo_index, yolo_lines
from qaclims_ray.data.picture_files import file_name
from qaclims_ray.data.slices import in_threads

ExportForm = Literal["coco", "coco-polygons", "labelme", "cvat", "yolo", "voc", "mmseg"]
WITH_IMAGES: tuple[ExportForm, ...] = ("labelme", "yolo", "voc", "mmseg")
"""Forms whose programs look for the images beside the masks."""
OUTLINED: tuple[ExportForm, ...] = ("coco-polygons", "labelme", "yolo")
"""Forms that hold masks within one pixel."""
ONE_FILE: Mapping[ExportForm, str] = {
    "coco": "annotations.json", "coco-polygons": "annotations.json", "cvat": "annotations.xml",
}  # fmt: skip
"""Forms of one file, and its name."""


@dataclass(frozen=True)
class MaskToExport:
    """An image and its label map."""

    name: str
    """What the image is to be called, perhaps in folders: ``bird/1.jpg``."""
    image_uri: str
    """Where it lies."""
    mask_uri: str
    """Where its label map lies."""
    splits: tuple[str, ...]
    """Those it belongs to, the one that names its folder first."""

    @property
    def stem(self) -> str:
        """The name without the suffix."""
        return self.name.rpartition(".")[0] or self.name


@dataclass
class ExportSeen:
    """What was seen of the masks while they were written."""

    num_images: int = 0
    """Images."""
    empty: list[str] = field(default_factory=list)
    """Names of images whose mask shows no class."""
    with_ignored: list[str] = field(default_factory=list)
    """Names of images with ignored pixels."""
    hashes: dict[str, str] = field(default_factory=dict)
    """Image's name -> hash of its label map's pixels."""
    sizes: dict[str, tuple[int, int]] = field(default_factory=dict)
    """Image's name -> height and width, in pixels."""


def export_masks(
    out: str,
    form: ExportForm,
    masks: Sequence[MaskToExport],
    classes: Classes,
    *,
    with_images: bool = True,
    on_progress: Callable[[int, int], None] = lambda done, total: None,
) -> ExportSeen:
    """Write label maps into a folder.

    Args:
        out: folder, local or remote.
        form: of the files.
        masks: what is written.
        classes: those of the data set.
        with_images: copy the images too, in the forms that have them beside the masks.
        on_progress: told after each image.

    Raises:
        DataError: when a mask or image cannot be read.
    """
    seen = ExportSeen()

    def labelled() -> Iterator[tuple[MaskToExport, UInt8[Tensor, "_height _width"]]]:
        for mask in masks:
            labels = load_mask(mask.mask_uri)
            values = set(np.unique(labels.numpy()).tolist())
            seen.num_images += 1
            seen.hashes[mask.name], seen.sizes[mask.name] = hash_of_mask(labels), (labels.shape[0], labels.shape[1])
            if not values - {BACKGROUND_VALUE, IGNORE_VALUE}:
                seen.empty.append(mask.name)
            if IGNORE_VALUE in values:
                seen.with_ignored.append(mask.name)
            yield mask, labels
            on_progress(seen.num_images, len(masks))

    match form:
        case "coco" | "coco-polygons":
            named = ((mask.name, labels) for mask, labels in labelled())
            content = coco_file(named, classes, as_polygons=form == "coco-polygons")
            _write_json(out, ONE_FILE[form], content)
        case "cvat":
            xml = cvat_file(((mask.name, labels) for mask, labels in labelled()), classes)
            storage.write_bytes(storage.join(out, ONE_FILE[form]), xml)
            _write_json(out, "labels.json", cvat_labels(classes, with_ignored=bool(seen.with_ignored)))
        case _:
            for mask, labels in labelled():
                _write_mask(out, form, mask, labels, classes)
            _write_lists(out, form, masks, classes, seen)
    if with_images and form in WITH_IMAGES:
        in_threads(lambda mask: _copy(mask.image_uri, storage.join(out, image_place(form, mask))), masks)
    return seen


def image_place(form: ExportForm, mask: MaskToExport) -> str:
    """Return where the copy of an image goes, below the folder."""
    match form:
        case "yolo":
            return f"images/{mask.splits[0]}/{mask.name}"
        case "mmseg":
            return f"img_dir/{mask.splits[0]}/{mask.name}"
        case "voc":
            return f"JPEGImages/{mask.name}"
        case _:
            return f"images/{mask.name}"


def _write_mask(out: str, form: ExportForm, mask: MaskToExport, labels: Tensor, classes: Classes) -> None:
    match form:
        case "labelme":
            content = labelme_file(labels, file_name(mask.name), classes, speck_share=0.0)
            _write_json(out, f"images/{mask.stem}.json", content)
        case "yolo":
            uri = storage.join(out, f"labels/{mask.splits[0]}/{mask.stem}.txt")
            storage.write_bytes(uri, yolo_lines(labels).encode())
        case "voc":
            save_label_map(labels, storage.join(out, f"SegmentationClass/{mask.stem}.png"))
        case _:
            save_label_map(labels, storage.join(out, f"ann_dir/{mask.splits[0]}/{mask.stem}.png"))


def _write_lists(out: str, form: ExportForm, masks: Sequence[MaskToExport], classes: Classes, seen: ExportSeen) -> None:
    """Write what a form says of all images: names of classes, images of the splits."""
    names = "".join(f"{name}\n" for name in (classes.label_names if form in ("voc", "mmseg") else classes.names))
    storage.write_bytes(storage.join(out, "classes.txt"), names.encode())
    splits = dict.fromkeys(split for mask in masks for split in mask.splits)
    if form == "yolo":
        first = list(dict.fromkeys(mask.splits[0] for mask in masks))
        storage.write_bytes(storage.join(out, YOLO_INDEX), yolo_index(classes, first).encode())
    if form == "voc":
        shown = [IGNORE_VALUE] if seen.with_ignored else []
        storage.write_bytes(storage.join(out, COLOURS_NAME), labelmap_text(classes, shown).encode())
        for split in splits:
            stems = "".join(f"{mask.stem}\n" for mask in masks if split in mask.splits)
            storage.write_bytes(storage.join(out, f"ImageSets/Segmentation/{split}.txt"), stems.encode())


def _write_json(out: str, name: str, content: object) -> None:
    storage.write_bytes(storage.join(out, name), json.dumps(content, ensure_ascii=False).encode())


def _copy(source: str, target: str) -> None:
    storage.write_bytes(target, storage.read_bytes(source))
