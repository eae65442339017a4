"""Label maps made elsewhere, found by image whatever form they are in: SAM's, a labelling tool's, last year's.

A place may be a folder of PNGs (also with ``labelmap.txt``), of LabelMe's or X-AnyLabeling's JSON, or of YOLO's text
files; drafts of `qaclims label-these` that were corrected; or a file, COCO's JSON or CVAT's XML. Pictures are opened
when a mask is loaded.
"""

import functools
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, replace

import torch
from jaxtyping import UInt8
from torch import Tensor

from qaclims_ray.data import artifacts, storage
from qaclims_ray.data.classes import Classes
from qaclims_ray.data.exported_coco import is_coco
from qaclims_ray.data.handed_out import HANDED_OUT_NAME
from qaclims_ray.data.image_names import ImageNames
from qaclims_ray.data.json_files import parse_json_file
from qaclims_ray.data.label_colours import COLOURS_NAME, read_labelmap
from qaclims_ray.data.labelme import labels_of, shapes_of
from qaclims_ray.data.mask_drafts import DRAFTS_NAME, Draft, corrected_draft, hash_of_mask, read_drafts
from qaclims_ray.data.mask_files import load_mask, read_mask
from qaclims_ray.data.mask_folders import MASK_SUFFIXES, find_masks
from qaclims_ray.data.mask_outlines import require_size
from qaclims_ray.data.mask_translation import translate
from qaclims_ray.data.mask_values import Translation
from qaclims_ray.data.masks_in_coco import coco_images, coco_label_map
from qaclims_ray.data.masks_in_cvat import cvat_images, cvat_label_map
from qaclims_ray.data.masks_in_yolo import YOLO_INDEX, yolo_label_map, yolo_values
from qaclims_ray.data.picture_files import contents, file_name, find_folder, visible_files
from qaclims_ray.data.slices import in_threads
from qaclims_ray.data.validation import Fault
from qaclims_ray.errors import DataError

_AGAIN = "Export it again from the tool that wrote it"
_CVAT_NAME = "annotations.xml"
_PICTURE_FOLDERS = ("SegmentationClass", "SegmentationClassPNG", "ann_dir", "masks", "mask")
_DEEPEST = 4
"""Folders in folders that are looked into."""
_EXPECTED = (
    "a folder of PNGs of label values, of LabelMe's JSON or of YOLO's text files, a folder of `qaclims label-these`, "
    "COCO's JSON, or CVAT's XML (CVAT for images 1.1)"
)

LoadGiven = Callable[[int, int], UInt8[Tensor, "_height _width"]]
"""From the image's height and width to its label map; picklable. Raises a DataError where there is none that fits."""


@dataclass(frozen=True)
class GivenMasks:
    """What a place holds of a run's images."""

    form: str
    """What it is, in words."""
    by_image: Mapping[str, LoadGiven]
    """Image id -> its mask."""
    empty: Sequence[str]
    """Images that are listed without any shape: nobody says whether they show nothing or were not looked at."""
    faults: Sequence[Fault]
    """What is wrong with entries and names."""
    notes: Sequence[str]
    """What was passed over."""
    unchanged: Sequence[str] = ()
    """Images whose mask came back as it was handed out: nobody corrected it."""


def find_given_masks(
    uri: str, places: Mapping[str, str], classes: Classes, *, takes_unchanged: bool = False
) -> GivenMasks:
    """Find the masks of a run's images.

    Args:
        uri: folder or file, local or remote.
        places: image id -> path or URI of the image.
        classes: those of the data set.
        takes_unchanged: drafts of `qaclims label-these` that were left as they are count as well.

    Raises:
        DataError: when there is nothing, or nothing of a known form.
    """
    if not storage.exists(uri):
        raise DataError(f"there is no file or folder {uri}; expected {_EXPECTED}")
    names = ImageNames(places)
    if not storage.is_folder(uri):
        return _of_file(uri, names, classes)
    if storage.exists(storage.join(uri, DRAFTS_NAME)):
        return _drafts(uri, places, classes, takes_unchanged=takes_unchanged)
    if storage.exists(index := storage.join(uri, YOLO_INDEX)):
        return _yolo(uri, index, names, classes)
    if storage.exists(found := storage.join(uri, _CVAT_NAME)):
        return _of_file(found, names, classes)
    files = _files_below(uri, (".json", *MASK_SUFFIXES))
    drawn = {name: file for name, file in files.items() if name.lower().endswith(".json")}
    if drawn and (meant := names.found(name[: -len(".json")] for name in drawn)):
        return _labelme(uri, drawn, meant, classes)
    if len(drawn) == 1 and not len(files) > 1:
        return _of_file(next(iter(drawn.values())), names, classes)
    return _pictures(uri, names, places, classes)


def without_unchanged(
    found: GivenMasks, drafts: Mapping[str, Collection[str]], sizes: Mapping[str, tuple[int, int]], uri: str
) -> GivenMasks:
    """Leave out the masks that are, pixel for pixel, what was handed out: nobody corrected them.

    Args:
        found: what came back.
        drafts: image id -> hashes of what was handed out, see `handed_out.drafts_by_image`.
        sizes: image id -> height and width, in pixels.
        uri: the place, for the message.

    Raises:
        DataError: when nothing else came back.
    """

    def is_as_it_was(image_id: str) -> bool:
        try:
            return hash_of_mask(found.by_image[image_id](*sizes[image_id])) in drafts[image_id]
        except DataError:
            return False  # whoever looks at all masks tells it

    known = [image_id for image_id in found.by_image if image_id in drafts and image_id in sizes]
    same = {image_id for image_id, is_same in zip(known, in_threads(is_as_it_was, known), strict=True) if is_same}
    by_image = {image_id: load for image_id, load in found.by_image.items() if image_id not in same}
    if same and not by_image and not found.faults:
        raise _nothing_corrected(uri, len(same))
    return replace(found, by_image=by_image, unchanged=[*found.unchanged, *sorted(same)])


def _nothing_corrected(uri: str, number: int) -> DataError:
    return DataError(
        f"no mask in {uri} was corrected: all {number} are, pixel for pixel, what was handed out. Correct some, or say "
        "--masks.given-unchanged True if all of them are right"
    )


def _of_file(uri: str, names: ImageNames, classes: Classes) -> GivenMasks:
    lower = uri.lower()
    if lower.endswith(".xml"):
        images, faults = cvat_images(uri, storage.read_bytes(uri), classes)
        loads = {
            name: functools.partial(cvat_label_map, image=image, classes=classes, where=f"{file_name(uri)}, {name}")
            for name, image in images.items()
        }
        empty = {name for name, image in images.items() if not image.shapes}
        return _chosen("CVAT's XML", uri, names, loads, empty, faults)
    if lower.endswith(".json"):
        value = parse_json_file(uri, remedy=_AGAIN, error=DataError)
        if is_coco(value):
            images, faults = coco_images(value, classes)
            loads = {
                name: functools.partial(coco_label_map, image=image, classes=classes, where=f"{file_name(uri)}, {name}")
                for name, image in images.items()
            }
            empty = {name for name, image in images.items() if not image.regions}
            return _chosen("COCO's JSON", uri, names, loads, empty, faults)
    hint = "; unpack it first" if lower.endswith((".zip", ".tar", ".gz", ".tgz")) else ""
    raise DataError(f"{uri} is of no form that is read{hint}; expected {_EXPECTED}")


def _chosen(
    form: str,
    uri: str,
    names: ImageNames,
    loads: Mapping[str, LoadGiven],
    empty: set[str],
    faults: Sequence[Fault],
    found: Mapping[str, Sequence[str]] | None = None,
) -> GivenMasks:
    """Keep what belongs to the run's images; two masks of one image are a fault.

    Args:
        form: what the place holds, in words.
        uri: the place.
        names: of the run's images.
        loads: name in the file -> its mask.
        empty: names without any shape.
        faults: those known.
        found: image id -> names in the file, where they are known already.
    """
    found = names.found(loads) if found is None else found
    used = {own[0]: image_id for image_id, own in found.items()}
    unused = [name for name in loads if name not in {one for own in found.values() for one in own}]
    notes = []
    if unused:
        notes = [f"{len(unused)} of {len(loads)} names in {uri} belong to no image of the run, e.g. {unused[0]}"]
    # What is told of an image that the run does not have would be no fault of it.
    own_faults = [one for one in faults if one.subject in used or one.subject not in loads]
    if not used and not own_faults:
        first = next(iter(loads), "not there")
        raise DataError(f"{uri} ({form}) holds masks of none of the run's images; the first name in it is {first}")
    by_image = {image_id: loads[name] for name, image_id in used.items() if name not in empty}
    left = [image_id for name, image_id in used.items() if name in empty]
    return GivenMasks(form, by_image, left, [*own_faults, *_twice(found, uri)], notes)


def _twice(found: Mapping[str, Sequence[str]], uri: str) -> list[Fault]:
    return [
        Fault("two masks", image_id, f"{', '.join(own[:3])} in {uri}: leave one")
        for image_id, own in found.items()
        if len(own) > 1
    ]


def _drafts(uri: str, places: Mapping[str, str], classes: Classes, *, takes_unchanged: bool) -> GivenMasks:
    """Take the drafts that were corrected; what came back as it was is the run's own."""
    faults, by_image, unchanged = [], {}, []
    for name, draft in read_drafts(uri).drafts.items():
        if name not in places:
            faults.append(Fault("drafts of other images", name, "is no image of this run"))
            continue
        try:
            corrected = corrected_draft(uri, name, draft, classes, accepts=takes_unchanged)
        except DataError as error:
            faults.append(Fault("masks that cannot be read", name, str(error)))
            continue
        if corrected is None:
            unchanged.append(name)
        else:
            by_image[name] = functools.partial(_load_draft, uri=uri, name=name, draft=draft, classes=classes)
    if not by_image and not faults:
        raise _nothing_corrected(uri, len(unchanged))
    return GivenMasks("corrected drafts", by_image, (), faults, (), unchanged)


def _load_draft(height: int, width: int, *, uri: str, name: str, draft: Draft, classes: Classes) -> Tensor:
    labels = corrected_draft(uri, name, draft, classes, accepts=True)
    assert labels is not None
    return _sized(labels, height, width, f"the draft of {name}")


def _labelme(uri: str, files: Mapping[str, str], found: Mapping[str, Sequence[str]], classes: Classes) -> GivenMasks:
    faults, loads, empty = [], {}, set()
    by_name = {own[: -len(".json")]: file for own, file in files.items()}  # the suffix may be in capitals
    for name in [name for own in found.values() for name in own]:
        file = by_name[name]
        try:
            content = parse_json_file(file, remedy="Save it again in the tool", error=DataError)
            shapes = shapes_of(content, file)
        except DataError as error:
            faults.append(Fault("masks that cannot be read", name, str(error)))
            shapes = ()
        if not shapes:
            empty.add(name)
        loads[name] = functools.partial(_load_labelme, file=file, classes=classes)
    form = "LabelMe's JSON"
    return _chosen(form, uri, ImageNames({}), loads, empty, faults, found)


def _load_labelme(height: int, width: int, *, file: str, classes: Classes) -> Tensor:
    content = parse_json_file(file, remedy="Save it again in the tool", error=DataError)
    told = content.get("imageWidth"), content.get("imageHeight")
    if all(isinstance(side, int) for side in told):
        require_size(file, told, height, width)
    return labels_of(content, height, width, classes, file)


def _yolo(uri: str, index: str, names: ImageNames, classes: Classes) -> GivenMasks:
    values = yolo_values(storage.read_bytes(index).decode("utf-8", "replace"), classes, index)
    files = _files_below(find_folder(uri, ("labels",)) or uri, (".txt",))
    loads: dict[str, LoadGiven] = {}
    empty = set()
    for name, file in files.items():
        text = storage.read_bytes(file).decode("utf-8", "replace")
        stem = name[: -len(".txt")]
        loads[stem] = functools.partial(yolo_label_map, text=text, values=values, classes=classes, where=file)
        if not text.strip():
            empty.add(stem)
    return _chosen("YOLO's text files", uri, names, loads, empty, ())


def _pictures(uri: str, names: ImageNames, places: Mapping[str, str], classes: Classes) -> GivenMasks:
    folder = find_folder(uri, _PICTURE_FOLDERS) or uri
    colours = next((place for one in (folder, uri) if storage.exists(place := storage.join(one, COLOURS_NAME))), None)
    translation = None if colours is None else read_labelmap(colours, classes)
    files = _files_below(folder, MASK_SUFFIXES)
    if not files:
        raise DataError(f"there is no mask in {folder} (it has {contents(folder)}); expected {_EXPECTED}")
    faults: list[Fault] = []
    if any("/" in name for name in files):
        found, notes = names.found(files), []
        by_image = {image_id: files[own[0]] for image_id, own in found.items()}
        faults = _twice(found, folder)
    else:
        flat = find_masks(folder, places.keys())
        # A run's own masks lie beside their tables, which nobody takes for masks.
        notes = [] if artifacts.readable_meta(folder) is not None else [*flat.notes]
        by_image, faults = dict(flat.by_image), [*flat.faults]
    if not by_image and not faults:
        raise DataError(f"{folder} holds masks of none of the run's images; the first is {next(iter(files))}")
    loads = {
        image_id: functools.partial(_load_picture, file=file, translation=translation)
        for image_id, file in by_image.items()
    }
    return GivenMasks("pictures of label values", loads, (), faults, notes)


def _load_picture(height: int, width: int, *, file: str, translation: Translation | None) -> Tensor:
    if translation is None:
        return _sized(load_mask(file), height, width, file)
    picture = read_mask(file)
    labels, unlisted = translate(picture, translation)
    if unlisted and picture.numbers is not None and picture.palette is None:
        return _sized(load_mask(file), height, width, file)  # grey pictures hold the values themselves
    if unlisted:
        raise DataError(f"{file} holds {', '.join([*unlisted][:5])}, which {COLOURS_NAME} does not list")
    return _sized(torch.from_numpy(labels), height, width, file)


def _sized(labels: Tensor, height: int, width: int, what: str) -> Tensor:
    require_size(what, (labels.shape[1], labels.shape[0]), height, width)
    return labels


def _files_below(folder: str, suffixes: tuple[str, ...]) -> dict[str, str]:
    """Return the files in a folder and in its folders: path below it -> URI."""
    found: dict[str, str] = {}
    waiting = [("", folder, 0)]
    while waiting:
        before, here, depth = waiting.pop(0)
        for uri in visible_files(here):
            if uri.lower().endswith(suffixes) and file_name(uri) != HANDED_OUT_NAME:
                found[before + file_name(uri)] = uri
        if depth < _DEEPEST:
            waiting += [(f"{before}{file_name(one)}/", one, depth + 1) for one in storage.list_folders(here)]
    return found
