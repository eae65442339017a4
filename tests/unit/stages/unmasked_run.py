"""A run without masks as it lies on disk: images, manifest, CAMs, masks, predictions, and what is known of them."""

import dataclasses
import json
from pathlib import Path

import torch

from qaclims_ray.cams.inference import ImageCam
from qaclims_ray.cams.store import write_cam_shard
from qaclims_ray.data import storage
from qaclims_ray.data.artifacts import Artifact, plain
from qaclims_ray.data.classes import Classes
from qaclims_ray.data.images import save_label_map
from qaclims_ray.data.manifest import ImageRecord, Manifest, manifest_artifact, write_manifest
from qaclims_ray.evaluation.agreement import MapSource, compared_image
from qaclims_ray.evaluation.image_counts import write_image_counts
from qaclims_ray.evaluation.trust import MapThreshold, image_trust, trust_figures
from qaclims_ray.presets.table import preset
from qaclims_ray.run_config import to_dict, with_overrides
from qaclims_ray.stages.layout import RunLayout
from qaclims_ray.stages.refine import mask_settings
from qaclims_ray.stages.trust import FIGURES_NAME, IMAGES_NAME
from qaclims_ray.systems.table import system_config
from tests.finished_artifacts import finished
from tests.unit.data.tiny_data_sets import image_bytes

CLASSES = Classes(("cat", "dog"))
SYSTEM = "baseline"
SIZE = (20, 16)


def maps_of(number: int, shift: int) -> dict[str, torch.Tensor]:
    """Seed, pseudo mask and prediction of an image: boxes that differ more from image to image."""
    found = {}
    for stage, moved in (("seed", 0), ("mask", number), ("final", shift + 2 * number)):
        labels = torch.zeros(SIZE[1], SIZE[0], dtype=torch.uint8)
        labels[2:12, 1 + moved : 9 + moved] = 1 + number % 2
        found[stage] = labels
    return found


def make_run(out: Path, *, images: int = 6, shift: int = 0, goal: str = "segmentation", masked: int = 0) -> str:
    """Write the run; the last `masked` images have a true mask."""
    layout, records, compared = RunLayout(str(out)), [], []
    config = with_overrides(preset("miniature"), {"systems": [SYSTEM], "goal": goal, "supervised_bound": False})
    storage.write_bytes(layout.config, json.dumps(to_dict(config)).encode())
    cams = []
    for number in range(images):
        name, tags = f"i{number}", (number % 2,)
        uri = f"{out}/photos/{name}.jpg"
        storage.write_bytes(uri, image_bytes(number, SIZE))
        mask = f"{out}/truth/{name}.png" if number >= images - masked else None
        records.append(ImageRecord(name, uri, *SIZE, labels=tags, mask_uri=mask, splits=("train", "val")))
        maps = maps_of(number, shift)
        heat = torch.where(maps["seed"] > 0, 0.9, 0.0)
        cams.append(ImageCam(name, tags, heat[None], None, SIZE[1], SIZE[0]))
        save_label_map(maps["mask"], f"{layout.masks(SYSTEM)}/{name}.png")
        save_label_map(maps["final"], f"{layout.predictions(SYSTEM)}/{name}.png")
        by_source = {MapSource(SYSTEM, stage): labels for stage, labels in maps.items()}
        compared.append(compared_image(name, tags, by_source, {}, CLASSES))
    write_cam_shard(f"{layout.cams(SYSTEM)}/part-00000.parquet", cams, "float32")
    write_manifest(Manifest(CLASSES.names, tuple(records)), manifest_artifact(layout.manifest, {}))
    inputs = {}
    for folder, kind in (("cams", "cams"), ("masks", "masks"), ("predictions", "predictions")):
        uri, settings = getattr(layout, folder)(SYSTEM), {}
        if folder != "cams":
            write_image_counts(uri, [], CLASSES.names)
        if folder == "masks":
            settings = {"masks": plain(mask_settings(system_config(config, SYSTEM).masks))}
        meta = finished(Artifact(uri=uri, kind=kind, settings=settings, inputs={}, verb=""))
        inputs[f"{folder}/{SYSTEM}"] = meta.recipe() if folder == "cams" else meta.fingerprint
    figures = trust_figures(
        compared, CLASSES, thresholds={SYSTEM: MapThreshold(0.6, 0.5)}, classifier=None, inseparable=[]
    )
    rows = [dataclasses.asdict(image_trust(one, CLASSES)) for one in compared]
    for name, content in ((FIGURES_NAME, dataclasses.asdict(figures)), (IMAGES_NAME, rows)):
        storage.write_bytes(f"{layout.trust}/{name}", json.dumps(content).encode())
    finished(Artifact(uri=layout.trust, kind="trust", settings={}, inputs=inputs, verb="report"))
    return str(out)
