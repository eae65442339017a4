"""The rows of a run's contact sheet: some images, chosen by class, and what each system makes of them."""

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch

from qaclims_ray.cams.inference import ImageCam
from qaclims_ray.cams.label_map import label_map
from qaclims_ray.cams.store import read_cam_shard
from qaclims_ray.data import storage
from qaclims_ray.data.images import load_image
from qaclims_ray.data.manifest import Manifest
from qaclims_ray.data.mask_files import load_mask
from qaclims_ray.data.shards import places_in_shards, shard_name
from qaclims_ray.report.contact_sheet import SheetRow
from qaclims_ray.stages.stage import Stage
from qaclims_ray.stages.threshold import at_chosen_threshold
from qaclims_ray.systems.needs import systems_with_cams, systems_with_masks, systems_with_networks
from qaclims_ray.systems.table import system_config, system_of


def sheet_rows(stage: Stage, manifest: Manifest, images: Manifest) -> list[SheetRow]:
    """Return the rows of a run's contact sheet.

    Args:
        stage: surroundings.
        manifest: images to choose from.
        images: those that have CAMs, as they are stored.
    """
    positions = choose_images(manifest, stage.config.evaluation.contact_sheet_images)
    chosen = {manifest.records[position].image_id for position in positions}
    names = systems_with_cams(stage.config)
    cams = {name: _cams_of(stage, name, images, chosen) for name in names}
    thresholds = {name: manifest.classes.border(_shown_threshold(stage, name)) for name in names}
    labels = {name: system_of(stage.config, name).label for name in names}
    pseudo = {name: system_of(stage.config, name).label for name in systems_with_masks(stage.config)}
    final = {name: system_of(stage.config, name).label for name in systems_with_networks(stage.config)}
    rows = []
    for position in positions:
        record = manifest.records[position]
        found = {name: cams[name][record.image_id] for name in cams if record.image_id in cams[name]}
        if len(found) < len(cams):
            continue
        rows.append(
            SheetRow(
                image_id=record.image_id,
                image=load_image(record.image_uri),
                truth=load_mask(record.mask_uri) if record.mask_uri else None,
                class_ids=record.labels,
                heat={labels[name]: _heat(cam) for name, cam in found.items()},
                masks={labels[name]: label_map(cam, thresholds[name]) for name, cam in found.items()},
                pseudo=_stored_masks(stage.layout.masks, record.image_id, pseudo),
                final=_stored_masks(stage.layout.predictions, record.image_id, final),
            )
        )
    return rows


def rows_of(rows: Sequence[SheetRow], label: str) -> list[SheetRow]:
    """Return the same rows with the pictures of one system; nothing where it has none."""
    parts = ("heat", "masks", "pseudo", "final")
    own = list[SheetRow]()
    for row in rows:
        of_label: dict[str, Any] = {part: {k: v for k, v in getattr(row, part).items() if k == label} for part in parts}
        own.append(dataclasses.replace(row, **of_label))
    return own if any(getattr(row, part) for row in own for part in parts) else []


def _shown_threshold(stage: Stage, name: str) -> float:
    return at_chosen_threshold(system_config(stage.config, name), stage.layout, name).fixed_threshold


def choose_images(manifest: Manifest, count: int) -> list[int]:
    """Return positions of images that show every class in turn; what they score plays no part."""
    chosen: list[int] = []
    for _ in range(count):
        for class_id in range(len(manifest.class_names)):
            fresh = (i for i, r in enumerate(manifest.records) if class_id in r.labels and i not in chosen)
            position = next(fresh, None)
            if position is not None and len(chosen) < count:
                chosen.append(position)
    return chosen


def _cams_of(stage: Stage, system: str, images: Manifest, wanted: set[str]) -> dict[str, ImageCam]:
    """Return the CAMs of some images out of the shards that hold them."""
    places = zip(images.records, places_in_shards(images), strict=True)
    shards = sorted({shard for record, (shard, _) in places if record.image_id in wanted})
    uri = stage.layout.cams(system)
    cams = (cam for index in shards for cam in read_cam_shard(storage.join(uri, shard_name(index))))
    return {cam.image_id: cam for cam in cams if cam.image_id in wanted}


def _stored_masks(place_of: Callable[[str], str], image_id: str, labels: Mapping[str, str]) -> dict[str, torch.Tensor]:
    """Return the label maps of an image that the systems left, by the systems' labels."""
    uris = {label: storage.join(place_of(name), f"{image_id}.png") for name, label in labels.items()}
    return {label: load_mask(uri) for label, uri in uris.items() if storage.exists(uri)}


def _heat(cam: ImageCam) -> torch.Tensor:
    assert cam.full is not None  # scoring refuses CAMs without them
    return cam.full.float().amax(0) if cam.class_ids else torch.zeros(cam.height, cam.width)
