"""``qaclims export-masks``: a run's pseudo masks or predictions for the tools in which people correct them; no Ray."""

from collections.abc import Mapping, Sequence

from rich.console import Console

from qaclims_ray.data import artifacts, storage
from qaclims_ray.data.classes import Classes
from qaclims_ray.data.given_masks import find_given_masks
from qaclims_ray.data.handed_out import HANDED_OUT_NAME, HandedOut, write_handed_out
from qaclims_ray.data.image_ids import image_id_of
from qaclims_ray.data.image_names import names_below
from qaclims_ray.data.json_files import parse_json_file
from qaclims_ray.data.manifest import ImageRecord, Manifest, read_manifest
from qaclims_ray.data.mask_drafts import hash_of_mask
from qaclims_ray.data.mask_export import (
    ONE_FILE,
    OUTLINED,
    WITH_IMAGES,
    ExportForm,
    ExportSeen,
    MaskToExport,
    export_masks,
)
from qaclims_ray.data.mask_files import load_mask
from qaclims_ray.data.picture_files import ending_of, file_name, visible_files
from qaclims_ray.errors import ConfigError, DataError
from qaclims_ray.run_config import RunConfig
from qaclims_ray.stages.console import ConsoleProgress
from qaclims_ray.stages.layout import RunLayout
from qaclims_ray.stages.requests import ExportMasksArguments
from qaclims_ray.stages.run_folder import absolute_out, load_config
from qaclims_ray.systems.needs import (
    systems_with_cams,
    systems_with_given_masks,
    systems_with_masks,
    systems_with_networks,
)
from qaclims_ray.systems.table import LEAVE_OUT, system_config

_VERBS = {"masks": "refine", "predictions": "segment"}
_SHOWN = 5
_NEXT: Mapping[ExportForm, str] = {
    "coco": "annotations.json is read by pycocotools, FiftyOne, Detectron2 and CVAT (Actions > Upload annotations > "
    "COCO 1.0)",
    "coco-polygons": "annotations.json is read by what knows no run lengths: Roboflow (Upload Data, with the images), "
    "Label Studio, MMDetection",
    "labelme": "open the folder images in LabelMe (File > Open Dir) or X-AnyLabeling (File > Open Folder), correct and "
    "save; the polygon background cuts holes, __ignore__ is not learned from",
    "cvat": "in CVAT create a task of the same images, its labels by Raw out of labels.json; then Actions > Upload "
    "annotations > CVAT 1.1 takes annotations.xml. Corrected: Actions > Export task dataset > CVAT for images 1.1",
    "yolo": "train on it with `yolo segment train data=data.yaml`, or upload it to Roboflow",
    "voc": "zipped, CVAT takes the folder (Actions > Upload annotations > Segmentation mask 1.1); what reads VOC reads "
    "it as it is",
    "mmseg": "in MMSegmentation: BaseSegDataset with data_prefix img_dir and ann_dir, the names of classes.txt, "
    "reduce_zero_label=False and ignore_index=255",
}
"""What to do with each form."""


def run_export_masks(arguments: ExportMasksArguments, console: Console) -> list[str]:
    """Write a run's label maps into a folder; return the lines that say what was done and what comes next.

    Raises:
        ConfigError: when the folder holds something, or the run has no such system.
        ArtifactError: when the run has no such masks yet.
        DataError: when no image is left, or a mask cannot be read.
    """
    run, out = storage.absolute(arguments.run), absolute_out(arguments.out)
    config, layout = load_config(run, can_begin=False), RunLayout(run)
    if storage.exists(out) and (visible_files(out) or storage.list_folders(out)):
        raise ConfigError(f"{out} holds files already, perhaps masks that were corrected: give another --out")
    manifest = read_manifest(layout.manifest)
    system = "" if arguments.predicted else _system(arguments, config)
    if arguments.predicted:
        masks = _predicted(storage.absolute(arguments.predicted), manifest)
        source = f"predictions in {arguments.predicted}"
    else:
        masks = _of_run(arguments, layout, system, manifest, config)
        source = f"{arguments.what} of {system}"
    storage.check_writable(out)
    progress = ConsoleProgress(console)
    progress.start(f"export {source}")
    with_images = arguments.to in WITH_IMAGES and not arguments.without_images
    seen = export_masks(
        out, arguments.to, masks, manifest.classes, with_images=with_images, on_progress=progress.advance
    )
    drafts = _drafts(out, arguments.to, seen, manifest.classes)
    for name in _by_hand(masks, seen, layout, system, config) if system and arguments.what == "masks" else ():
        del drafts[name]
    is_remembered = write_handed_out(HandedOut(run, source, arguments.to, drafts), out, layout.handed_out)
    progress.finish(f"{seen.num_images} images in the form {arguments.to} -> {out}")
    lines = _lines(arguments, seen, manifest, with_images=with_images)
    where = "if another run learns from them" if is_remembered else f"(nothing can be written in {run})"
    lines.insert(-1, f"{HANDED_OUT_NAME} tells what nobody corrected: keep it with what comes back {where}")
    return lines if arguments.predicted or arguments.what != "masks" else [*lines, _back(arguments, config, system)]


def _drafts(out: str, form: ExportForm, seen: ExportSeen, classes: Classes) -> dict[str, list[str]]:
    """Return by image's name what its mask is known by when it comes back."""
    drafts = {name: [own] for name, own in seen.hashes.items()}
    if form in OUTLINED and len(seen.empty) < seen.num_images:
        place = storage.join(out, ONE_FILE[form]) if form in ONE_FILE else out
        for name, load in find_given_masks(place, {name: name for name in drafts}, classes).by_image.items():
            drafts[name].append(hash_of_mask(load(*seen.sizes[name])))
    return drafts


def _by_hand(
    masks: Sequence[MaskToExport], seen: ExportSeen, layout: RunLayout, system: str, config: RunConfig
) -> set[str]:
    """Return the names of images whose exported mask was given: somebody's work, and not a draft of the run."""
    if system not in systems_with_given_masks(config):
        return set()
    rest = system_config(config, system).masks.given_rest
    if rest in ("", LEAVE_OUT):
        return {mask.name for mask in masks}

    def is_of_rest(mask: MaskToExport) -> bool:
        uri = storage.join(layout.masks(rest), file_name(mask.mask_uri))
        return storage.exists(uri) and hash_of_mask(load_mask(uri)) == seen.hashes[mask.name]

    return {mask.name for mask in masks if not is_of_rest(mask)}


def _system(arguments: ExportMasksArguments, config: RunConfig) -> str:
    known = systems_with_masks(config) if arguments.what == "masks" else systems_with_networks(config)
    if arguments.system and arguments.system not in known:
        listed = ", ".join(known) or "none"
        raise ConfigError(f"the run has no system {arguments.system!r} with {arguments.what}; it has {listed}")
    if not known:
        raise ConfigError(f"the run ends with its {config.goal}s and has no {arguments.what}: set --goal segmentation")
    return arguments.system or known[-1]


def _of_run(
    arguments: ExportMasksArguments, layout: RunLayout, system: str, manifest: Manifest, config: RunConfig
) -> list[MaskToExport]:
    """Return the images of which a system's artefact has label maps."""
    what = arguments.what
    folder = layout.masks(system) if what == "masks" else layout.predictions(system)
    artifacts.require_artifact(folder, what, verb=_VERBS[what])
    there = {uri.rsplit("/", 1)[-1] for uri in storage.list_files(folder, ".png")}
    # Of all images: names must not depend on which of them are written, or they mean others when they come back.
    every = _names([one.image_uri for one in manifest.records], [one.image_id for one in manifest.records])
    name_of = {record.image_id: name for record, name in zip(manifest.records, every, strict=True)}
    records = [record for record in manifest.records if f"{record.image_id}.png" in there]
    if arguments.split:
        records = [record for record in records if arguments.split in record.splits]
        if not records:
            known = sorted({split for record in manifest.records for split in record.splits})
            raise DataError(
                f"no image of split {arguments.split!r} has {what} of {system}; the run's splits are {', '.join(known)}"
            )
    order = (config.data.train_split, config.data.eval_split, config.data.test_split)
    return [
        MaskToExport(
            name_of[record.image_id],
            record.image_uri,
            storage.join(folder, f"{record.image_id}.png"),
            _ordered(record, order),
        )
        for record in records
    ]


def _ordered(record: ImageRecord, order: Sequence[str]) -> tuple[str, ...]:
    """Return an image's splits, those of the run first."""
    return tuple(dict.fromkeys([*(name for name in order if name in record.splits), *record.splits])) or ("all",)


def _predicted(folder: str, manifest: Manifest) -> list[MaskToExport]:
    """Return what `qaclims predict` wrote into a folder.

    Raises:
        ConfigError: when it holds no predictions, or those of other classes.
    """
    uri = storage.join(folder, "predictions.json")
    if not storage.exists(uri):
        raise ConfigError(f"{folder} holds no predictions.json: give the --out of `qaclims predict`")
    content = parse_json_file(uri, remedy="Predict again", error=ConfigError)
    if tuple(content.get("classes", ())) != manifest.class_names:
        raise ConfigError(f"{folder} was predicted by a run of other classes: {', '.join(content.get('classes', ()))}")
    images = [row["image"] for row in content["images"] if "error" not in row]
    if not images:
        raise DataError(f"none of the images in {folder} has a mask")
    ids = [image_id_of(image) for image in images]
    names = _names(images, ids)
    places = [storage.join(folder, "masks", f"{image_id}.png") for image_id in ids]
    return [MaskToExport(*one, ("all",)) for one in zip(names, images, places, strict=True)]


def _names(uris: Sequence[str], image_ids: Sequence[str]) -> list[str]:
    """Return what the images are to be called: by their places, or by their ids where two would share one file."""
    names = names_below(uris)
    if len({name.rpartition(".")[0].casefold() for name in names}) == len(names):
        return names
    return [f"{image_id}{ending_of(uri)}" for image_id, uri in zip(image_ids, uris, strict=True)]


def _lines(arguments: ExportMasksArguments, seen: ExportSeen, manifest: Manifest, *, with_images: bool) -> list[str]:
    lines = []
    if seen.empty:
        shown = ", ".join(seen.empty[:_SHOWN]) + (", ..." if len(seen.empty) > _SHOWN else "")
        lines.append(f"{len(seen.empty)} of {seen.num_images} show none of the classes: {shown}")
    if seen.with_ignored:
        how = {
            "coco": "a crowd (iscrowd 1)", "coco-polygons": "a crowd (iscrowd 1)",
            "yolo": "background: YOLO knows no ignored ones", "voc": "255", "mmseg": "255",
        }.get(arguments.to, "__ignore__")  # fmt: skip
        lines.append(f"{len(seen.with_ignored)} have ignored pixels, written as {how}")
    if arguments.to == "yolo" and not manifest.has_background:
        lines.append("YOLO trains on single objects; these classes fill whole pictures")
    if with_images:
        lines.append("the images are copied beside them")
    return [*lines, f"next: {_NEXT[arguments.to]}"]


def _back(arguments: ExportMasksArguments, config: RunConfig, system: str) -> str:
    """Return the command that learns from the masks once they are corrected."""
    systems = " ".join(dict.fromkeys([*config.systems, "given_masks"]))
    rest = f" --masks.given-rest {system}" if system in systems_with_cams(config) else ""
    goal = "" if config.goal == "segmentation" else " --goal segmentation"
    place = f"--masks.given PLACE{rest}{goal}"
    return f"corrected, learn from them: qaclims run {arguments.run} --systems {systems} {place}"
