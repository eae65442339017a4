"""Seeds that refinements are tried on: maps of a run of the miniature, and of a linear classifier on photographs."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import timm
import torch
import torch.nn.functional as F
from torch import Tensor

from qaclims_ray.cams.inference import ImageCam
from qaclims_ray.cams.store import read_cam_shard
from qaclims_ray.data import storage
from qaclims_ray.data.classes import VOC_CLASSES, Classes
from qaclims_ray.data.images import load_image
from qaclims_ray.data.manifest import ImageRecord, read_manifest
from qaclims_ray.data.mask_files import load_mask
from qaclims_ray.data.shards import shard_name, shards_of
from qaclims_ray.data.splits import images_with_cams
from qaclims_ray.data.voc import read_voc
from qaclims_ray.evaluation.threshold import LEVELS, middle_of_top, rate_thresholds
from qaclims_ray.models.backbone import load_backbone_weights
from qaclims_ray.presets.table import preset
from qaclims_ray.run_config import RunConfig, with_overrides
from qaclims_ray.stages.layout import RunLayout
from qaclims_ray.stages.pipeline import run_pipeline
from qaclims_ray.stages.run_folder import load_config
from qaclims_ray.stages.threshold import read_threshold
from qaclims_ray.systems.recipe import clip_files
from qaclims_ray.systems.table import system_config
from qaclims_ray.text.prompts import class_prompts

BACKBONE = "tf_efficientnet_lite2"
"""Of the linear classifier, and of the features that stand in for DINOv2's."""
_STEPS, _RATE, _DECAY = 400, 1e-2, 1e-4


@dataclass(frozen=True)
class Scene:
    """An image with its seed."""

    record: ImageRecord
    """Name, place, labels."""
    pixels: Tensor
    """RGB."""
    cam: ImageCam
    """Its maps."""
    truth: Tensor
    """Its mask: scores it, and nothing else."""


@dataclass(frozen=True)
class Seeds:
    """What refinements start from."""

    name: str
    """In words."""
    scenes: list[Scene]
    """The images."""
    border: float
    """Background score that was chosen without masks."""
    classes: Classes
    """Of the data set."""
    config: RunConfig
    """Settings, those of the steps among them."""
    clip_files: tuple[str, str | None] | None
    """Frozen CLIP; None where none was at hand."""
    class_texts: list[str]
    """What stands for each class."""
    classifier_dir: str
    """Classifier whose backbone IRN takes; empty where there is none."""


def miniature_seeds(folder: Path, seed: int, system: str, every: int) -> Seeds:
    """Return the seeds of a system of the miniature; what is missing is made first.

    Args:
        folder: of the run.
        seed: of the run.
        system: whose maps.
        every: of so many images one is taken.
    """
    layout = RunLayout(str(folder))
    if not Path(layout.evaluation(system), "scores.json").is_file():
        config = with_overrides(preset("miniature"), {"seed": seed, "goal": "seed", "tracking.enabled": False})
        config = with_overrides(config, {"systems": [system], "cluster.num_workers": 0})
        run_pipeline(config, str(folder), until="evaluate")
    config = system_config(load_config(str(folder)), system)
    manifest = read_manifest(layout.manifest)
    scenes = []
    for index, shard in enumerate(shards_of(images_with_cams(manifest, config.data, with_training=False))):
        records = {record.image_id: record for record in shard}
        for cam in read_cam_shard(storage.join(layout.cams(system), shard_name(index))):
            record = records[cam.image_id]
            if cam.class_ids and record.mask_uri:
                scenes.append(Scene(record, load_image(record.image_uri), cam, load_mask(record.mask_uri)))
    return Seeds(
        name=f"miniature {seed}, {system}",
        scenes=scenes[::every],
        border=read_threshold(layout, system).threshold,
        classes=manifest.classes,
        config=config,
        clip_files=clip_files(config),
        class_texts=class_prompts(manifest.class_names, config.text),
        classifier_dir=layout.classifier if storage.exists(layout.classifier) else "",
    )


def photograph_seeds(folder: Path, root: str, weights: str, every: int) -> Seeds:
    """Return seeds of photographs in VOC's layout, of a linear classifier on frozen features.

    It learns from image-level labels alone and takes a minute. Its maps are kept in the folder.

    Args:
        folder: where the maps are kept.
        root: folder in VOC's layout.
        weights: ImageNet weights of `BACKBONE`.
        every: of so many images one is taken.
    """
    config = with_overrides(preset("voc12_efficientnet_lite2"), {"data.root": root})
    manifest = read_voc(config.data)
    records = [record for record in manifest.records if "train" in record.splits and record.labels and record.mask_uri]
    path = folder / "photographs.pt"
    if not path.is_file():
        folder.mkdir(parents=True, exist_ok=True)
        images = [load_image(record.image_uri) for record in records]
        torch.save(linear_maps(images, [record.labels for record in records], weights), path)
    maps = torch.load(path, weights_only=True)
    scenes = []
    for record, own in zip(records[::every], maps[::every], strict=True):
        pixels = load_image(record.image_uri)
        full = F.interpolate(own[None].float(), pixels.shape[1:], mode="bilinear", align_corners=False)[0]
        cam = ImageCam(record.image_id, record.labels, full, None, int(full.shape[1]), int(full.shape[2]))
        scenes.append(Scene(record, pixels, cam, load_mask(record.mask_uri or "")))
    return Seeds(
        name="photographs, linear classifier",
        scenes=scenes,
        border=label_free_border(scenes),
        classes=Classes(tuple(VOC_CLASSES)),
        config=config,
        clip_files=None,
        class_texts=[],
        classifier_dir="",
    )


def linear_maps(images: list[Tensor], labels: list[tuple[int, ...]], weights: str) -> list[Tensor]:
    """Train a linear classifier on frozen features; return each image's maps of its classes, in [0, 1], on cells.

    Args:
        images: RGB pixels.
        labels: classes of each.
        weights: file of the backbone's weights; empty for random ones, which a test takes.
    """
    network: Any = timm.create_model(BACKBONE, num_classes=0, output_stride=16)
    if weights:
        load_backbone_weights(network, weights, setting="--weights")
    network.eval()
    with torch.no_grad():
        cells = [network.forward_features(image[None].float() / 127.5 - 1)[0].half() for image in images]
    pooled = torch.stack([one.float().mean((1, 2)) for one in cells])
    truth = torch.zeros(len(images), 1 + max(max(own) for own in labels))
    for row, own in zip(truth, labels, strict=True):
        row[list(own)] = 1
    head = torch.nn.Linear(pooled.shape[1], truth.shape[1])
    torch.nn.init.zeros_(head.weight)
    torch.nn.init.zeros_(head.bias)
    optimiser = torch.optim.AdamW(head.parameters(), lr=_RATE, weight_decay=_DECAY)
    for _ in range(_STEPS):
        optimiser.zero_grad()
        F.binary_cross_entropy_with_logits(head(pooled), truth).backward()
        optimiser.step()
    found = []
    for one, own in zip(cells, labels, strict=True):
        maps = torch.einsum("kd,drc->krc", head.weight.detach()[list(own)], one.float()).clamp_min(0)
        found.append((maps / maps.amax((1, 2), keepdim=True).clamp_min(1e-5)).half())
    return found


def label_free_border(scenes: list[Scene]) -> float:
    """Return the threshold that the package's own criterion chooses without masks."""
    rated = torch.zeros(len(LEVELS), dtype=torch.float64)
    for scene in scenes:
        assert scene.cam.full is not None
        rated += rate_thresholds(scene.pixels, scene.cam.full, LEVELS)
    return LEVELS[middle_of_top(rated)]
