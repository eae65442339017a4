"""A raw data set becomes a manifest (and the miniature world is drawn first)."""

import dataclasses
import tempfile
from collections import Counter
from typing import Any

from qaclims_ray.data import storage
from qaclims_ray.data.artifacts import plain
from qaclims_ray.data.coco import read_coco
from qaclims_ray.data.config import DataConfig
from qaclims_ray.data.folder import read_folder
from qaclims_ray.data.histology import read_histology
from qaclims_ray.data.manifest import Manifest, manifest_artifact, read_manifest, write_manifest
from qaclims_ray.data.voc import read_voc
from qaclims_ray.miniature import vocabulary
from qaclims_ray.miniature.dataset import write_dataset
from qaclims_ray.stages.stage import Stage
from qaclims_ray.stages.true_masks import draw_true_masks


def run_data(stage: Stage) -> Manifest:
    """Return the run's manifest, made if it is not there for these settings.

    Raises:
        DataError: one report of all faults of the data set.
    """
    config, uri = stage.config, stage.layout.manifest
    is_drawn = config.data.dataset == "miniature"
    artifact = manifest_artifact(
        uri,
        plain({"data": config.data, "seed": config.seed if is_drawn else None}),
        {} if is_drawn else {"files": storage.listing_fingerprint(config.data.root)},
    )
    stage.progress.start("data")
    if artifact.current():
        manifest = read_manifest(uri)
        stage.progress.finish(f"{_describe(manifest)} (there already)", is_new=False)
    else:
        stage.say_why(artifact)
        manifest = _read(stage, config.data)
        write_manifest(manifest, artifact)
        stage.progress.finish(f"{_describe(manifest)} -> {uri}")
    stage.tracker.log_params({"data": {"fingerprint": manifest.fingerprint(), **_summary(manifest)}})
    return manifest


def _read(stage: Stage, data: DataConfig) -> Manifest:
    masks_uri = storage.join(stage.layout.data, "masks")
    match data.dataset:
        case "miniature":
            root = stage.layout.data
            if storage.is_remote(root):
                with tempfile.TemporaryDirectory() as folder:
                    write_dataset(folder, num_images=data.num_images, seed=stage.config.seed)
                    storage.upload_tree(folder, root)
            else:
                write_dataset(root, num_images=data.num_images, seed=stage.config.seed)
            generated = _with_root(data, root)
            return read_voc(generated, class_names=vocabulary.CLASSES, file_names=vocabulary.CLASSES)
        case "voc12":
            return read_voc(data, masks_uri=masks_uri)
        case "coco14":
            coco = read_coco(data, masks_uri, on_progress=stage.progress.advance)
            draw_true_masks(stage, coco, masks_uri)
            return coco.manifest
        case "folder":
            return read_folder(data, masks_uri=masks_uri)
        case "bcss_wsss" | "luad_histoseg":
            return read_histology(data, masks_uri)


def _with_root(data: DataConfig, root: str) -> DataConfig:
    return dataclasses.replace(data, root=root)


def _summary(manifest: Manifest) -> dict[str, Any]:
    counts = Counter(split for record in manifest.records for split in record.splits)
    return {
        "images": len(manifest.records),
        "classes": len(manifest.class_names),
        "has_background": manifest.has_background,
        **{f"images_{s}": n for s, n in counts.items()},
    }


def _describe(manifest: Manifest) -> str:
    pairs = sum(len(record.labels) for record in manifest.records)
    return f"{len(manifest.records)} images, {len(manifest.class_names)} classes, {pairs} (image, class) pairs"
