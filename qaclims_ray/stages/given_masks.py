"""Masks made elsewhere (`masks.given`) as a system's pseudo masks: checked before any work, then written and scored."""

import dataclasses
import functools
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from jaxtyping import UInt8
from torch import Tensor

from qaclims_ray.cams.inference import ImageCam
from qaclims_ray.data import artifacts, storage
from qaclims_ray.data.artifacts import Artifact, ArtifactMeta, plain
from qaclims_ray.data.classes import IGNORE_VALUE, NO_BACKGROUND, Classes, class_id, label_value
from qaclims_ray.data.config import DataConfig
from qaclims_ray.data.given_masks import GivenMasks, LoadGiven, find_given_masks, without_unchanged
from qaclims_ray.data.handed_out import drafts_by_image, find_handed_out
from qaclims_ray.data.images import save_label_map
from qaclims_ray.data.manifest import ImageRecord, Manifest
from qaclims_ray.data.mask_files import load_mask
from qaclims_ray.data.shards import plan_fingerprint
from qaclims_ray.data.slices import in_threads
from qaclims_ray.data.splits import images_with_cams, scored_images
from qaclims_ray.data.validation import Fault, fail_on
from qaclims_ray.data.value_names import value_names
from qaclims_ray.errors import DataError
from qaclims_ray.evaluation.image_counts import FORM, image_sweep
from qaclims_ray.evaluation.sweep import ThresholdSweep, sweep_thresholds
from qaclims_ray.refine.config import MaskConfig
from qaclims_ray.refine.mask_index import MaskRow, failed_row, mask_row
from qaclims_ray.refine.shares import HALF
from qaclims_ray.stages.image_stage import ReadShard, run_image_stage, write_part
from qaclims_ray.stages.layout import RunLayout
from qaclims_ray.stages.mask_images import mask_rows
from qaclims_ray.stages.refine import (
    PseudoMasks,
    content_fingerprint,
    describe_masks,
    read_pseudo_masks,
    write_mask_tables,
)
from qaclims_ray.stages.stage import Stage
from qaclims_ray.systems.needs import systems_with_given_masks
from qaclims_ray.systems.table import LEAVE_OUT, system_config

_SHOWN = 5
_FEWEST_FOREIGN = 5
"""So many masks without any class of their image's tags are no chance, where they are most of all."""


def given_masks_fingerprint(place: str) -> str:
    """Return what tells given masks apart: the content of a file, or names, sizes and times of a folder's files."""
    return storage.listing_fingerprint(place) if storage.is_folder(place) else storage.sha256(place)[:16]


def check_given_masks(stage: Stage, manifest: Manifest) -> None:
    """Open every given mask of a run before any work starts, and tell what was found; once for the same masks.

    Raises:
        DataError: all that is wrong with them in one message.
    """
    for name in systems_with_given_masks(stage.config):
        masks = system_config(stage.config, name).masks
        images = images_with_cams(manifest, stage.config.data, with_training=True)
        meta = artifacts.readable_meta(stage.layout.masks(name))
        if meta is None or not _is_of(meta, masks, images):
            stage.progress.note(f"{name}: looking at the masks in {masks.given}")
            for line in _checked(masks, manifest, images, stage):
                stage.progress.note(f"  {line}")


def _is_of(meta: ArtifactMeta, masks: MaskConfig, images: Manifest) -> bool:
    """Whether masks were made of what is given now, and so were looked at before."""
    return (
        meta.settings.get("masks") == _settings(masks) and _given_inputs(masks, images).items() <= meta.inputs.items()
    )


def _settings(masks: MaskConfig) -> dict[str, Any]:
    return {"given_rest": masks.given_rest} | ({"given_unchanged": True} if masks.given_unchanged else {})


def _given_inputs(masks: MaskConfig, images: Manifest) -> dict[str, str]:
    return {
        "given": given_masks_fingerprint(masks.given),
        "manifest": plan_fingerprint(images, images.images_fingerprint()),
    }


def _checked(masks: MaskConfig, manifest: Manifest, images: Manifest, stage: Stage) -> list[str]:
    """Open every mask; return what a person should know of them.

    Raises:
        DataError: all that is wrong with them.
    """
    split, found = stage.config.data.train_split, _found(masks, manifest, images, stage.layout)
    records = [record for record in images.records if record.image_id in found.by_image]
    looked = in_threads(lambda record: _look(record, found.by_image[record.image_id], images.classes), records)
    faults = [*found.faults, *(one for one in looked if isinstance(one, Fault)), *_missing(masks, images, found, split)]
    faults += _foreign(
        images, [one.image_id for one, how in zip(records, looked, strict=True) if how == "other"], looked
    )
    fail_on(faults, masks.given, what="folder of given masks" if storage.is_folder(masks.given) else "given file")
    extra = [record.image_id for record, one in zip(records, looked, strict=True) if one in ("more", "other")]
    return _notes(masks, images, found, extra, split)


def _found(masks: MaskConfig, manifest: Manifest, images: Manifest, layout: RunLayout) -> GivenMasks:
    """Return the given masks of some images; names are looked up among all, or those of others would seem theirs."""
    places = {record.image_id: record.image_uri for record in manifest.records}
    found = find_given_masks(masks.given, places, manifest.classes, takes_unchanged=masks.given_unchanged)
    wanted = {record.image_id: (record.height, record.width) for record in images.records}
    by_image = {image_id: load for image_id, load in found.by_image.items() if image_id in wanted}
    empty, unchanged = ([name for name in names if name in wanted] for names in (found.empty, found.unchanged))
    found = dataclasses.replace(found, by_image=by_image, empty=empty, unchanged=unchanged)
    lists = [] if masks.given_unchanged else find_handed_out(masks.given, layout.handed_out)
    return without_unchanged(found, drafts_by_image(lists, places), wanted, masks.given) if lists else found


def _look(record: ImageRecord, load: LoadGiven, classes: Classes) -> "Fault | str":
    """Return what is wrong with a mask; else how it fits the image's tags.

    Returns:
        A fault; "other" where it shows classes and none of the tags, "more" where some are not tagged; or nothing.
    """
    try:
        labels = load(record.height, record.width)
    except DataError as error:
        return Fault("masks that do not fit", record.image_id, str(error))
    shown = set(torch.unique(labels).tolist())
    if unknown := sorted(shown - value_names(classes).keys()):
        known = f"0 to {len(classes)}" if classes.has_background else f"1 to {len(classes)}"
        detail = f"{unknown[:5]}, expected {known}, or {IGNORE_VALUE}: values count the run's classes"
        return Fault("values that are no class", record.image_id, detail)
    tagged = {label_value(label) for label in record.labels}
    drawn = _classes_in(shown)
    if tagged and drawn and not drawn & tagged:
        return "other"
    return "more" if drawn - tagged else ""


def _foreign(images: Manifest, others: list[str], looked: Sequence["Fault | str"]) -> list[Fault]:
    """Return a fault where most masks show none of their images' tags: then values count other classes."""
    if len(others) < _FEWEST_FOREIGN or 2 * len(others) <= len(looked):
        return []
    order = ", ".join(f"{label_value(number)} {name}" for number, name in enumerate(images.class_names[:8]))
    detail = (
        f"{len(others)} of {len(looked)} masks show none of the classes that their images are tagged with "
        f"({_listed(others)}): their values count other classes. Here they are {order}"
        + ", ..."
        * (len(images.class_names) > 8)
    )
    return [Fault("masks of other classes", "all", detail)]


def _classes_in(values: set[int]) -> set[int]:
    return values - {0, IGNORE_VALUE}


def _missing(masks: MaskConfig, images: Manifest, found: GivenMasks, split: str) -> list[Fault]:
    """Return the faults of training images without a mask, where nothing says what they are to learn from."""
    lacking = _lacking(images, found.by_image, split)
    trained = sum(split in record.splits for record in images.records)
    if len(lacking) == trained and masks.given_rest in ("", LEAVE_OUT):
        detail = f"none of its {trained} images has a given mask: there is nothing to learn from"
        return [Fault("split without masks", split, detail)]
    if masks.given_rest:
        return []
    told = dict.fromkeys(found.empty, "is listed there without any shape")
    told |= dict.fromkeys(found.unchanged, "came back as it was handed out")
    remedy = "; name a system of the run in masks.given_rest to take its masks for such images, or set it to leave_out"
    return [
        Fault(
            "training images without a given mask",
            name,
            told.get(name, "nothing is given") + remedy * (place == 0),
        )
        for place, name in enumerate(lacking)
    ]


def _lacking(images: Manifest, given: Mapping[str, object], split: str) -> list[str]:
    return [record.image_id for record in images.records if split in record.splits and record.image_id not in given]


def _notes(masks: MaskConfig, images: Manifest, found: GivenMasks, extra: list[str], split: str) -> list[str]:
    trained = sum(split in record.splits for record in images.records)
    lacking = _lacking(images, found.by_image, split)
    notes = [
        f"{found.form}: {trained - len(lacking)} of {trained} images of split {split} have a given mask",
        *found.notes,
    ]
    if found.unchanged:
        notes.append(
            f"{len(found.unchanged)} masks came back pixel for pixel as they were handed out, so nobody corrected them "
            f"and they do not count: {_listed(found.unchanged)}; are they right, say --masks.given-unchanged True"
        )
    if lacking:
        how = "are left out" if masks.given_rest == LEAVE_OUT else f"learn from {masks.given_rest}'s masks"
        notes.append(f"{len(lacking)} images without one {how}: {_listed(lacking)}")
    if found.empty:
        notes.append(
            f"{len(found.empty)} images are listed without any shape, which counts as no mask: {_listed(found.empty)}"
        )
    if extra:
        notes.append(f"{len(extra)} masks show classes that their images are not tagged with: {_listed(extra)}")
    return notes


def _listed(names: Sequence[str]) -> str:
    return ", ".join(names[:_SHOWN]) + (", ..." if len(names) > _SHOWN else "")


@dataclasses.dataclass(frozen=True)
class GivenShard:
    """The label maps of a shard, to be written."""

    index: int
    """Which shard."""
    maps: list[tuple[ImageRecord, Tensor, Any]]
    """Each image, its label map, and its true mask where it is scored."""
    failed: list[MaskRow]
    """Images that have none."""


class GivenMaskActor:
    """Load the given masks of one shard's images, and another system's for the rest."""

    def __init__(self, given: Mapping[str, LoadGiven], rest_uri: str) -> None:
        torch.set_num_threads(1)
        self.given, self.rest_uri = given, rest_uri

    def __call__(self, shard: ReadShard) -> GivenShard:
        """Return what is to be written of the shard."""
        failed = [failed_row(name, error) for name, error in shard.errors.items()]
        maps = []
        for image in shard.images:
            try:
                maps.append((image.record, self._load(image.record), image.truth))
            except DataError as error:
                failed.append(failed_row(image.record.image_id, str(error)))
        return GivenShard(shard.index, maps, failed)

    def _load(self, record: ImageRecord) -> UInt8[Tensor, "height width"]:
        if record.image_id in self.given:
            return self.given[record.image_id](record.height, record.width)
        return load_mask(storage.join(self.rest_uri, f"{record.image_id}.png"))


def write_given(shard: GivenShard, *, uri: str, thresholds: tuple[float, ...], classes: Classes) -> dict[str, Any]:
    """Publish a shard's label maps and its part, with the counts of the images that are scored."""
    rows: list[dict[str, Any]] = [dataclasses.asdict(row) for row in shard.failed]
    border = classes.border(HALF)
    sweep, index = ThresholdSweep(thresholds, len(classes)), thresholds.index(border)
    for record, labels, truth in shard.maps:
        shown = {class_id(value) for value in _classes_in(set(torch.unique(labels).tolist()))}
        class_ids = tuple(sorted({*record.labels, *shown}))
        row = mask_row(record.image_id, labels, class_ids)
        save_label_map(labels, storage.join(uri, row.mask))
        rows.append(dataclasses.asdict(row))
        if truth is not None:
            counts = sweep.update(_as_maps(record, labels, class_ids, border), truth, record.labels)
            assert counts is not None
            rows[-1]["counts"] = image_sweep(record.image_id, counts, class_ids, record.labels).at(index)
    write_part(uri, shard.index, rows, {"sweep": sweep.to_array()})
    return {}


def _as_maps(
    record: ImageRecord, labels: UInt8[Tensor, "height width"], class_ids: tuple[int, ...], border: float
) -> ImageCam:
    """Return a label map as class maps of 0 and 1, of which the border makes the same again."""
    maps = torch.stack([(labels == label_value(one)).float() for one in class_ids]) if class_ids else None
    maps = torch.zeros(0, *labels.shape) if maps is None else maps
    if border == NO_BACKGROUND:
        maps[:, labels == IGNORE_VALUE] = NO_BACKGROUND
    return ImageCam(record.image_id, class_ids, maps, None, *labels.shape)


def run_given_masks(stage: Stage, system: str, manifest: Manifest) -> PseudoMasks:
    """Write a system's given masks as its pseudo masks, with another system's for the rest where that is asked for.

    Args:
        stage: surroundings.
        system: whose masks.
        manifest: the whole manifest.

    Raises:
        DataError: when more than `cams.max_failed_fraction` of the images or masks cannot be read.
    """
    config, layout, uri = stage.config, stage.layout, stage.layout.masks(system)
    masks, images = config.masks, images_with_cams(manifest, config.data, with_training=True)
    rest = masks.given_rest if masks.given_rest not in ("", LEAVE_OUT) else ""
    scoring = dataclasses.replace(config.evaluation, fixed_threshold=HALF)
    thresholds = sweep_thresholds(scoring, manifest.classes)
    scored = scored_images(manifest, config.data).truth_fingerprint()
    inputs = {**_given_inputs(masks, images), "scored": scored}
    if not masks.given_unchanged and find_handed_out(masks.given, layout.handed_out):
        # Of what was found, not of the lists: another export alone must not make anything anew.
        inputs["unchanged"] = artifacts.fingerprint_of(sorted(_found(masks, manifest, images, layout).unchanged))
    if rest:
        others = artifacts.require_artifact(layout.masks(rest), "masks", verb="refine")
        inputs["rest"] = content_fingerprint(others)
    artifact = Artifact(
        uri=uri,
        kind="masks",
        settings=plain({"masks": _settings(masks), "sweep": thresholds, **FORM}),
        inputs=inputs,
        verb="refine",
    )

    def work() -> dict[str, Any]:
        found = _found(masks, manifest, images, layout)
        own = {row.image_id for row in mask_rows(layout.masks(rest))} if rest else set()
        records = tuple(one for one in images.records if one.image_id in found.by_image or one.image_id in own)
        whole = run_image_stage(
            stage,
            artifact,
            dataclasses.replace(images, records=records),
            actor=GivenMaskActor,
            actor_kwargs={"given": found.by_image, "rest_uri": layout.masks(rest) if rest else ""},
            write=functools.partial(
                write_given, uri=artifact.workshop, thresholds=thresholds, classes=manifest.classes
            ),
            scored_splits=(config.data.eval_split,),
            num_actors=stage.room.actors(masks.num_actors),
            gpus_per_actor=0,
        )
        shares = _shares(config.data, manifest, found, {record.image_id for record in records}, rest)
        return write_mask_tables(artifact.workshop, whole, scoring, manifest.classes) | {"given_masks": shares}

    name = f"masks of {system}"
    meta = stage.make(artifact, name, work, lambda meta: _describe(read_pseudo_masks(uri, meta)), goes_on=True)
    return read_pseudo_masks(uri, meta)


def _shares(data: DataConfig, manifest: Manifest, found: GivenMasks, kept: set[str], rest: str) -> dict[str, Any]:
    """Return how many training images have a given mask, or another system's, and how many scored ones any."""
    trained = [one.image_id for one in manifest.records if data.train_split in one.splits]
    to_score = [one.image_id for one in scored_images(manifest, data).records if one.mask_uri]
    return {
        "trained": len(trained),
        "given": sum(name in found.by_image for name in trained),
        "rest": sum(name not in found.by_image and name in kept for name in trained),
        "form": found.form,
        "rest_of": rest,
        "unchanged": sum(name in found.unchanged for name in trained),
        "scored_split": data.eval_split,
        "scored": sum(name in kept for name in to_score),
        "to_score": len(to_score),
    }


def given_share(summary: Mapping[str, Any]) -> str:
    """Say how many of the training images have a given mask, and what the others learn from."""
    shares = summary["given_masks"]
    text = f"given masks ({shares['form']}) of {shares['given']} of {shares['trained']} training images"
    text += f", and {shares['rest_of']}'s masks of {shares['rest']}" if shares["rest"] else ""
    if unchanged := shares.get("unchanged", 0):
        text += f"; {unchanged} came back as they were handed out and do not count"
    if shares.get("scored", 0) < shares.get("to_score", 0):  # others beside it are scored on all of them
        text += f"; scored on {shares['scored']} of {shares['to_score']} images of {shares['scored_split']}"
    return text


def _describe(found: PseudoMasks) -> str:
    return f"{given_share(found.summary)}; {describe_masks(found)}"
