"""What can be known of a run's label maps without a mask: counted over all images that have any (docs/trust.md)."""

import dataclasses
import json
from dataclasses import dataclass
from typing import Any

import torch
from pydantic import TypeAdapter

from qaclims_ray.cams.label_map import label_map
from qaclims_ray.cams.store import read_cam_shard
from qaclims_ray.cluster.shards import as_it_is, run_shards
from qaclims_ray.data import artifacts, storage
from qaclims_ray.data.artifacts import Artifact, ArtifactMeta, plain
from qaclims_ray.data.classes import Classes
from qaclims_ray.data.json_files import read_json_file
from qaclims_ray.data.manifest import ImageRecord, Manifest
from qaclims_ray.data.mask_files import load_mask
from qaclims_ray.data.shards import shard_name, shards_of
from qaclims_ray.data.splits import images_with_cams, segmented_images
from qaclims_ray.data.tag_pairs import TagPair, inseparable_pairs
from qaclims_ray.evaluation.agreement import ComparedImage, MapSource, MapStage, compared_image
from qaclims_ray.evaluation.trust import ImageTrust, MapThreshold, TrustFigures, image_trust, trust_figures
from qaclims_ray.run_config import RunConfig
from qaclims_ray.stages.classifier_scores import score_classifier
from qaclims_ray.stages.layout import RunLayout
from qaclims_ray.stages.run_maps import WRITTEN, seed_border, written_folders
from qaclims_ray.stages.stage import Stage
from qaclims_ray.stages.threshold import read_threshold
from qaclims_ray.systems.needs import needs_classifier, systems_with_cams

FIGURES_NAME, IMAGES_NAME = "trust.json", "images.json"
"""Files of the artefact: the figures, and a row for each image."""
MOVED = 0.8
"""A seed's threshold is moved by this factor, down and up, to see whether its maps stay."""
_FORM = 1
"""Counts up when the files or the figures change."""
_IMAGES_PER_TASK = 64


@dataclass(frozen=True)
class Trust:
    """What is known without a mask."""

    figures: TrustFigures
    """Of all images."""
    images: tuple[ImageTrust, ...]
    """Image by image, sorted by their ids."""


@dataclass(frozen=True)
class _MapShard:
    """Images whose maps are compared."""

    cams: str
    """File of their CAMs below each system's folder; empty for images without CAMs."""
    records: list[ImageRecord]
    """The images."""


class CompareMapsActor:
    """Read the label maps of one shard's images and count how they agree."""

    def __init__(
        self,
        layout: RunLayout,
        borders: dict[str, float],
        folders: dict[str, dict[MapStage, str]],
        classes: Classes,
    ) -> None:
        torch.set_num_threads(1)
        self.layout, self.borders, self.folders, self.classes = layout, borders, folders, classes

    def __call__(self, shard: _MapShard) -> dict[str, Any]:
        """Return the images' counts."""
        maps: dict[str, dict[MapSource, Any]] = {record.image_id: {} for record in shard.records}
        moved: dict[str, dict[MapSource, tuple[Any, Any]]] = {record.image_id: {} for record in shard.records}
        for system, border in self.borders.items():
            source = MapSource(system, "seed")
            for cam in read_cam_shard(storage.join(self.layout.cams(system), shard.cams)) if shard.cams else ():
                if cam.image_id not in maps:
                    continue
                maps[cam.image_id][source] = label_map(cam, border)
                if self.classes.has_background:
                    moved[cam.image_id][source] = (
                        label_map(cam, border * MOVED),
                        label_map(cam, min(border / MOVED, 1.0)),
                    )
            for image_id in maps:
                maps[image_id] |= self._written(system, image_id)
        images = [
            compared_image(record.image_id, record.labels, maps[record.image_id], moved[record.image_id], self.classes)
            for record in shard.records
        ]
        return {"images": [image for image in images if image.areas]}

    def _written(self, system: str, image_id: str) -> dict[MapSource, Any]:
        """Return the maps that the system's stages wrote of an image."""
        found = {}
        for stage, folder in self.folders[system].items():
            uri = storage.join(folder, f"{image_id}.png")
            if storage.exists(uri):
                found[MapSource(system, stage)] = load_mask(uri)
        return found


def run_trust(stage: Stage, manifest: Manifest) -> Trust | None:
    """Count what can be known without a mask; None where no system has CAMs.

    Args:
        stage: surroundings, of the whole run.
        manifest: the whole manifest.

    Raises:
        DamagedError: when maps are not those that were written.
    """
    config, layout = stage.config, stage.layout
    systems = systems_with_cams(config)
    if not systems:
        return None
    borders = {name: seed_border(config, layout, manifest.classes, name) for name in systems}
    # Without labels of scored images none is chosen.
    has_choice = [name for name in systems if artifacts.readable_meta(layout.threshold(name)) is not None]
    label_free = {name: read_threshold(layout, name).threshold for name in has_choice}
    has_classifier = needs_classifier(config)
    folders = {name: written_folders(config, layout, name) for name in systems}
    artifact = Artifact(
        uri=layout.trust,
        kind="trust",
        settings=plain(
            {"form": _FORM, "goal": config.goal, "borders": borders, "label_free": label_free, "moved": MOVED}
        ),
        inputs={
            "manifest": manifest.fingerprint(),
            **{f"cams/{name}": meta.recipe() for name in systems if (meta := artifacts.read_meta(layout.cams(name)))},
            **{
                f"{WRITTEN[written]}/{name}": _fingerprint(uri)
                for name, own in folders.items()
                for written, uri in own.items()
            },
            **({"classifier": _fingerprint(layout.classifier)} if has_classifier else {}),
        },
        verb="report",
    )

    def work() -> dict[str, Any]:
        images = _compare(stage, manifest, borders, folders)
        figures = trust_figures(
            images,
            manifest.classes,
            thresholds={name: MapThreshold(borders[name], chosen) for name, chosen in label_free.items()},
            classifier=score_classifier(stage, manifest) if has_classifier else None,
            inseparable=_pairs(manifest, config.data.train_split),
        )
        rows = [image_trust(image, manifest.classes) for image in images]
        _write(artifact.workshop, FIGURES_NAME, dataclasses.asdict(figures))
        _write(artifact.workshop, IMAGES_NAME, [dataclasses.asdict(row) for row in rows])
        return {"images": len(rows)}

    stage.make(artifact, "trust", work, _describe)
    return read_trust(layout.trust)


def _pairs(manifest: Manifest, split: str) -> list[TagPair]:
    """Return the classes that the labels of the training images hardly tell apart."""
    trained = [record.labels for record in manifest.records if split in record.splits]
    return inseparable_pairs([manifest.class_names[label] for label in labels] for labels in trained)


def _fingerprint(uri: str) -> str:
    meta = artifacts.read_meta(uri)
    return "" if meta is None else meta.fingerprint


def _compare(
    stage: Stage, manifest: Manifest, borders: dict[str, float], folders: dict[str, dict[MapStage, str]]
) -> list[ComparedImage]:
    """Count all images' maps; return them in the order of their ids."""
    config = stage.config
    summaries = run_shards(
        _shards(config, manifest),
        decode=as_it_is,
        actor=CompareMapsActor,
        actor_kwargs={
            "layout": stage.layout,
            "borders": borders,
            "folders": folders,
            "classes": manifest.classes,
        },
        num_actors=stage.room.actors(config.masks.num_actors),
        progress=stage.progress.advance,
    )
    return sorted((image for s in summaries for image in s["images"]), key=lambda image: image.image_id)


def _shards(config: RunConfig, manifest: Manifest) -> list[_MapShard]:
    """Return the images with CAMs as they are stored, and those that final networks alone segment."""
    with_cams = images_with_cams(manifest, config.data, with_training=config.goal != "seed")
    shards = [_MapShard(shard_name(index), records) for index, records in enumerate(shards_of(with_cams))]
    if config.goal == "segmentation":
        known = {record.image_id for record in with_cams.records}
        others = [record for record in segmented_images(manifest, config.data).records if record.image_id not in known]
        for start in range(0, len(others), _IMAGES_PER_TASK):
            shards.append(_MapShard("", others[start : start + _IMAGES_PER_TASK]))
    return shards


def _write(uri: str, name: str, content: Any) -> None:
    storage.write_bytes(storage.join(uri, name), json.dumps(content).encode())


def read_trust(uri: str) -> Trust:
    """Return what a finished stage kept.

    Raises:
        ArtifactError: when a file is damaged.
    """
    remedy = f"Remove {uri} and run `qaclims report` again, which makes it anew"
    figures = read_json_file(storage.join(uri, FIGURES_NAME), TypeAdapter(TrustFigures).validate_python, remedy=remedy)
    rows = TypeAdapter(tuple[ImageTrust, ...]).validate_python
    return Trust(figures, read_json_file(storage.join(uri, IMAGES_NAME), rows, remedy=remedy))


def _describe(meta: ArtifactMeta) -> str:
    return f"maps of {meta.summary.get('images')} images held against each other"
