"""A raw data set becomes a manifest (and the miniature world is drawn first)."""

import dataclasses
import functools
import tempfile
from collections import Counter

from qaclims_ray.data import places, storage, trees, whole_files
from qaclims_ray.data.artifacts import Artifact, fingerprint_of, plain
from qaclims_ray.data.class_counts import class_lines
from qaclims_ray.data.coco import read_coco
from qaclims_ray.data.config import DataConfig
from qaclims_ray.data.folder import read_folder
from qaclims_ray.data.histology import read_histology
from qaclims_ray.data.manifest import Manifest, manifest_artifact, read_manifest, write_manifest
from qaclims_ray.data.voc import read_voc
from qaclims_ray.errors import ArtifactError, DamagedError
from qaclims_ray.miniature import vocabulary
from qaclims_ray.miniature.dataset import write_dataset
from qaclims_ray.stages.learnable import check_labels, check_masks
from qaclims_ray.stages.stage import Stage
from qaclims_ray.stages.true_masks import draw_true_masks, true_masks
from qaclims_ray.tracking.tracker import TrackedData, Tracker


def run_data(stage: Stage) -> Manifest:
    """Return the run's manifest, made if it is not there for these settings; its notes and classes are told.

    Raises:
        DataError: one report of all faults of the data set, or that the run would have nothing to learn from it.
    """
    config, uri, home = stage.config, stage.layout.manifest, stage.layout.out
    is_drawn = config.data.dataset == "miniature"
    artifact = manifest_artifact(
        uri,
        places.stored(plain({"data": config.data, "seed": config.seed if is_drawn else None}), home),
        {} if is_drawn else {"files": storage.listing_fingerprint(config.data.root, home=home)},
    )
    stage.progress.start("data")
    manifest = _there_already(stage, artifact)
    if manifest is not None:
        stage.progress.finish(f"{_describe(manifest)} (there already)", is_new=False)
    else:
        stage.say_why(artifact)
        write_manifest(_read(stage, config.data, artifact.fingerprint), artifact)
        manifest = read_manifest(uri)
        stage.progress.finish(f"{_describe(manifest)} -> {uri}")
    for line in (*manifest.notes, *class_lines(manifest, used_splits(config.data))):
        stage.progress.note(line)
    # Once more for a manifest that is there already: another goal or system may need more of it.
    check_labels(config, manifest.class_names, manifest.records)
    check_masks(config, manifest)
    return manifest


def log_data(tracker: Tracker, config: DataConfig, manifest: Manifest) -> None:
    """Record in MLflow what was read, each split of the run as a data set."""
    for split in dict.fromkeys(used_splits(config)):
        data = tracked_split(config, manifest, split)
        if data.counts["images"]:
            tracker.log_data(data)


def tracked_split(config: DataConfig, manifest: Manifest, split: str) -> TrackedData:
    """Return what MLflow is told of a split."""
    records = [record for record in manifest.records if split in record.splits]
    shown = Counter(manifest.class_names[index] for record in records for index in record.labels)
    return TrackedData(
        name=f"{config.dataset}/{split}",
        digest=fingerprint_of([manifest.fingerprint(), split]),
        source=config.root or manifest.home or config.dataset,
        counts={"images": len(records), "classes": len(manifest.class_names), **shown},
        use=split,
    )


def used_splits(data: DataConfig) -> tuple[str, ...]:
    """Return the splits of a run, the training split first."""
    return (data.train_split, data.eval_split, data.test_split)


def _there_already(stage: Stage, artifact: Artifact) -> Manifest | None:
    """Return the manifest where it, and what was drawn for it, is there and whole."""
    try:
        manifest = read_manifest(artifact.uri) if artifact.current() else None
    except ArtifactError as error:
        stage.progress.remake(str(error))
        return None
    return manifest if manifest is not None and _has_its_files(stage, manifest) else None


def _has_its_files(stage: Stage, manifest: Manifest) -> bool:
    """Whether what a run draws of its data set itself is there, whole and of this manifest."""
    match stage.config.data.dataset:
        case "miniature":
            return _pictures(stage).current() is not None
        case "coco14":
            return true_masks(stage.config.data.root, manifest, _masks_uri(stage)).current() is not None
        case _:
            masks = [record.mask_uri for record in manifest.records if record.mask_uri]
            drawn = [uri for uri in masks if uri.startswith(f"{stage.layout.data}/")]
            return all(storage.exists(uri) for uri in drawn)


def _pictures(stage: Stage) -> Artifact:
    """Return the drawn miniature as an artefact."""
    drawn = {"num_images": stage.config.data.num_images, "seed": stage.config.seed}
    return Artifact(uri=stage.layout.data, kind="pictures", settings=drawn, verb="data")


def _draw_miniature(stage: Stage) -> None:
    """Draw the miniature's pictures where they are not there for these settings."""
    artifact, data = _pictures(stage), stage.config.data
    if artifact.current() and _is_as_drawn(stage, artifact.uri):
        return
    artifact.begin()
    with tempfile.TemporaryDirectory() as scratch:
        folder = scratch if storage.is_remote(artifact.uri) else artifact.workshop
        write_dataset(folder, num_images=data.num_images, seed=stage.config.seed)
        if folder == scratch:
            storage.upload_tree(scratch, artifact.workshop)
    artifact.complete({"images": data.num_images})


def _is_as_drawn(stage: Stage, uri: str) -> bool:
    """Whether no picture was changed since: their sizes alone were looked at, and now each is read anyway."""
    try:
        whole_files.check_files(uri, trees.sizes_below(uri))
    except DamagedError as error:
        stage.progress.remake(f"{uri} is drawn again: its {error.name} was changed")
        return False
    return True


def _masks_uri(stage: Stage) -> str:
    return storage.join(stage.layout.data, "masks")


def _read(stage: Stage, data: DataConfig, fingerprint: str) -> Manifest:
    masks_uri = _masks_uri(stage)
    check, on_progress = functools.partial(check_labels, stage.config), stage.progress.advance
    match data.dataset:
        case "miniature":
            _draw_miniature(stage)
            generated = _with_root(data, stage.layout.data)
            return read_voc(generated, class_names=vocabulary.CLASSES, file_names=vocabulary.CLASSES)
        case "voc12":
            return read_voc(data, masks_uri=masks_uri, on_progress=on_progress, check_labels=check)
        case "coco14":
            coco = read_coco(data, masks_uri, on_progress=on_progress, check_labels=check)
            coco = dataclasses.replace(coco, manifest=dataclasses.replace(coco.manifest, home=stage.layout.out))
            draw_true_masks(stage, coco, masks_uri)
            return coco.manifest
        case "folder":
            return read_folder(data, masks_uri=masks_uri, on_progress=on_progress, check_labels=check)
        case "bcss_wsss" | "luad_histoseg":
            # In a folder of its own, so that masks of other settings stay those of their manifest.
            masks_uri = storage.join(masks_uri, fingerprint)
            return read_histology(data, masks_uri, on_progress=on_progress, check_labels=check)


def _with_root(data: DataConfig, root: str) -> DataConfig:
    return dataclasses.replace(data, root=root)


def _describe(manifest: Manifest) -> str:
    pairs = sum(len(record.labels) for record in manifest.records)
    return f"{len(manifest.records)} images, {len(manifest.class_names)} classes, {pairs} (image, class) pairs"
