"""What IRN needs before it refines: confident seeds of the CAMs, and an affinity network trained on them (E7, E8)."""

import dataclasses
import functools
from typing import Any

import torch

from qaclims_ray.data import storage
from qaclims_ray.data.artifacts import Artifact, ArtifactMeta, plain
from qaclims_ray.data.config import JointCropConfig
from qaclims_ray.data.datasets import seed_of
from qaclims_ray.data.images import save_label_map
from qaclims_ray.data.label_map_dataset import LabelMapDataset
from qaclims_ray.data.manifest import Manifest, read_manifest
from qaclims_ray.data.shards import plan_fingerprint
from qaclims_ray.data.splits import training_images
from qaclims_ray.models.devices import device_of_worker, upload
from qaclims_ray.models.weights import FROM_CLASSIFIER
from qaclims_ray.refine.irn.config import IrnConfig
from qaclims_ray.refine.irn.labels import confident_seeds
from qaclims_ray.refine.mask_index import MaskRow, mask_row, summarise_masks, write_mask_index
from qaclims_ray.run_config import RunConfig
from qaclims_ray.stages.image_stage import ReadShard, remove_parts, run_image_stage, write_part
from qaclims_ray.stages.mask_images import coverage_text, images_with_stored_cams, mask_row_of, masked_images
from qaclims_ray.stages.stage import Stage
from qaclims_ray.stages.trainings import local_start, plan_training, run_trainings, start_fingerprint
from qaclims_ray.training.context import WorkerContext
from qaclims_ray.training.meter import OnStep

WALK_FIELDS = ("walk_radius", "beta", "log2_steps", "walk_threshold", "pad_px")
"""Settings of IRN that its training does not depend on."""
_SEED_FIELDS = ("foreground_threshold", "background_threshold", "crf")
_APART = (*WALK_FIELDS, *_SEED_FIELDS, "around_seed")
"""What its training does not read itself: seeds count by their own artefact."""


class SeedLabelActor:
    """Find the confident seeds of one shard's images."""

    def __init__(self, irn: IrnConfig, cams_uri: str, gpus_per_actor: float) -> None:
        torch.set_num_threads(1)
        self.irn, self.cams_uri = irn, cams_uri
        self.device = device_of_worker(gpus_per_actor)

    def __call__(self, shard: ReadShard) -> "SeedShard":
        """Return what is to be written of the shard."""
        images, cams, failed = images_with_stored_cams(shard, self.cams_uri)
        labels = [
            confident_seeds(upload(image.pixels, self.device), cam, self.irn).cpu()
            for image, cam in zip(images, cams, strict=True)
        ]
        found = [(cam.image_id, cam.class_ids, own) for cam, own in zip(cams, labels, strict=True)]
        return SeedShard(shard.index, found, failed)


@dataclasses.dataclass(frozen=True)
class SeedShard:
    """The confident seeds of a shard, to be written."""

    index: int
    """Which shard."""
    found: list[tuple[str, tuple[int, ...], Any]]
    """Identifier, classes and label map of each image."""
    failed: list[MaskRow]
    """Images that have none."""


def write_seeds(shard: SeedShard, *, uri: str) -> dict[str, Any]:
    """Publish a shard's label maps and its part."""
    rows = list(shard.failed)
    for image_id, class_ids, labels in shard.found:
        rows.append(mask_row(image_id, labels, class_ids))
        save_label_map(labels, storage.join(uri, rows[-1].mask))
    write_part(uri, shard.index, [dataclasses.asdict(row) for row in rows], {})
    return {}


def run_affinity(stage: Stage, system: str, images: Manifest, cams: ArtifactMeta) -> ArtifactMeta:
    """Write confident seeds and train the affinity network on them."""
    config, layout = stage.config, stage.layout
    seeds = _run_seed_labels(stage, system, images, cams)
    irn, trained = config.masks.irn, training_images(images, config.data)
    settings = {name: value for name, value in plain(irn).items() if name not in _APART}
    artifact = Artifact(
        uri=layout.affinity(system),
        kind="affinity",
        settings={"irn": settings, "seed": config.seed, "precision": config.cluster.arithmetic},
        inputs={
            "seed_labels": seeds.recipe(),
            "manifest": trained.images_fingerprint(),
            "weights": start_fingerprint(layout, irn.weights),
        },
        verb="refine",
    )
    work = functools.partial(
        _train_affinity,
        config=config,
        manifest_uri=layout.manifest,
        masks_uri=layout.seed_labels(system),
        classifier_uri=layout.classifier if irn.weights == FROM_CLASSIFIER else "",
    )
    training = plan_training(stage, artifact, work, irn.optim, label=f"{system}: irn", num_images=len(trained.records))
    return run_trainings(stage, [training])[0]


def _train_affinity(
    context: WorkerContext,
    on_step: OnStep,
    *,
    config: RunConfig,
    manifest_uri: str,
    masks_uri: str,
    classifier_uri: str,
) -> dict[str, float]:
    """Train the affinity network on confident seeds; runs on every worker."""
    from qaclims_ray.refine.irn.network import build_affinity_net
    from qaclims_ray.refine.irn.task import train_affinity
    from qaclims_ray.training.loop import seeded

    irn, cluster = config.masks.irn, config.cluster
    images = masked_images(read_manifest(manifest_uri), config.data.train_split, masks_uri)
    with local_start(classifier_uri) as classifier_dir:
        with seeded(seed_of("affinity", config.seed), context.device):
            network = build_affinity_net(irn, classifier_dir=classifier_dir)
    crop = JointCropConfig(min_scale=irn.min_scale, max_scale=irn.max_scale, crop_px=irn.crop_px)
    return train_affinity(
        network=network,
        dataset=LabelMapDataset(images, crop, *network.normalisation, config.seed),
        irn=irn,
        seed=config.seed,
        precision=cluster.arithmetic,
        loader_workers=context.loader_workers,
        context=context,
        on_step=on_step,
    )


def _run_seed_labels(stage: Stage, system: str, images: Manifest, cams: ArtifactMeta) -> ArtifactMeta:
    config, uri = stage.config, stage.layout.seed_labels(system)
    irn = plain(config.masks.irn)
    artifact = Artifact(
        uri=uri,
        kind="seed_labels",
        settings={name: irn[name] for name in _SEED_FIELDS},
        inputs={"cams": cams.recipe(), "manifest": plan_fingerprint(images, images.images_fingerprint())},
        verb="refine",
    )

    def work() -> dict[str, Any]:
        whole = run_image_stage(
            stage,
            artifact,
            images,
            actor=SeedLabelActor,
            actor_kwargs={
                "irn": config.masks.irn,
                "cams_uri": stage.layout.cams(system),
                "gpus_per_actor": config.masks.gpus_per_actor,
            },
            write=functools.partial(write_seeds, uri=artifact.workshop),
            cams_uri=stage.layout.cams(system),
            num_actors=stage.room.actors(config.masks.num_actors, config.masks.gpus_per_actor),
            gpus_per_actor=config.masks.gpus_per_actor,
        )
        rows = [mask_row_of(row) for row in whole.rows]
        write_mask_index(artifact.workshop, rows, images.class_names)
        remove_parts(artifact.workshop)
        return summarise_masks(rows, images.class_names)

    def describe(meta: ArtifactMeta) -> str:
        return coverage_text(meta.summary)

    return stage.make(artifact, f"confident seeds of {system}", work, describe, goes_on=True)
