"""Masks that a final network makes for the next round: of the images that have pseudo masks, within their tags."""

import dataclasses
import functools
from typing import Any

import torch

from qaclims_ray.cams.inference import ImageCam
from qaclims_ray.data.artifacts import Artifact, ArtifactMeta, plain
from qaclims_ray.data.classes import Classes
from qaclims_ray.data.manifest import Manifest
from qaclims_ray.data.shards import plan_fingerprint
from qaclims_ray.data.splits import images_with_cams, scored_images
from qaclims_ray.evaluation.image_counts import FORM
from qaclims_ray.evaluation.sweep import sweep_thresholds
from qaclims_ray.models.devices import BatchSize, device_of_worker
from qaclims_ray.models.precision import Arithmetic
from qaclims_ray.refine.mask_index import failed_row
from qaclims_ray.refine.shares import HALF
from qaclims_ray.segmentation.config import SegmentationConfig
from qaclims_ray.segmentation.inference import SEGMENTED_AT_ONCE, settings_of_predictions
from qaclims_ray.segmentation.relabelling import maps_within_tags
from qaclims_ray.stages.image_stage import ReadShard, run_image_stage
from qaclims_ray.stages.refine import RefinedShard, describe_masks, read_pseudo_masks, write_mask_tables, write_refined
from qaclims_ray.stages.stage import Stage


class RelabelActor:
    """Hold a round's final network; draw one shard's masks with it."""

    def __init__(self, config: SegmentationConfig, network_uri: str, classes: Classes, gpus_per_actor: float) -> None:
        # Here, since planning a stage needs no network.
        from qaclims_ray.models.folding import for_inference
        from qaclims_ray.stages.predict_final import read_final_network

        torch.set_num_threads(1)
        device = device_of_worker(gpus_per_actor)
        self.network = for_inference(read_final_network(network_uri), device)
        self.config, self.classes = config, classes
        self.precision: Arithmetic = config.test.arithmetic(gpus_per_actor)
        size = SEGMENTED_AT_ONCE.chosen(config.test.batch_size, device, gpus_per_actor)
        self.at_once = BatchSize(size, "segmentation.test.batch_size")

    def __call__(self, shard: ReadShard) -> RefinedShard:
        """Return what is to be written of the shard."""
        maps = self.at_once.run(lambda batch_size: self._maps(shard, batch_size))
        found = [(image.record, cam, image.truth) for image, cam in zip(shard.images, maps, strict=True)]
        failed = [failed_row(name, error) for name, error in shard.errors.items()]
        return RefinedShard(shard.index, found, self.classes.border(HALF), failed, self.at_once.remark)

    def _maps(self, shard: ReadShard, batch_size: int) -> list[ImageCam]:
        return maps_within_tags(
            self.network,
            [image.pixels for image in shard.images],
            [image.record.labels for image in shard.images],
            [image.record.image_id for image in shard.images],
            dataclasses.replace(self.config, test=dataclasses.replace(self.config.test, batch_size=batch_size)),
            self.classes,
            precision=self.precision,
        )


def run_relabel(stage: Stage, system: str, number: int, network: ArtifactMeta, manifest: Manifest) -> ArtifactMeta:
    """Make the masks that a round learns from, by the network of the one before; scored where there are true masks.

    Args:
        stage: surroundings.
        system: whose network.
        number: the round that learns from them, 2 or higher.
        network: meta of the network of the round before.
        manifest: the whole manifest.

    Raises:
        DataError: when more than `cams.max_failed_fraction` of the images cannot be read.
    """
    config, layout, uri = stage.config, stage.layout, stage.layout.round_masks(system, number)
    images = images_with_cams(manifest, config.data, with_training=True)
    scoring = dataclasses.replace(config.evaluation, fixed_threshold=HALF)
    thresholds = sweep_thresholds(scoring, manifest.classes)
    drawn = {"test": settings_of_predictions(config.segmentation.test, config.cams.gpus_per_actor)}
    artifact = Artifact(
        uri=uri,
        kind="masks",
        settings=plain({"masks": {**drawn, "uncertain": config.masks.uncertain}, "sweep": thresholds, **FORM}),
        inputs={
            "network": network.fingerprint,
            "manifest": plan_fingerprint(images, images.images_fingerprint()),
            "scored": scored_images(manifest, config.data).truth_fingerprint(),
        },
        verb="segment",
    )
    write = functools.partial(
        write_refined,
        uri=artifact.workshop,
        uncertain=config.masks.uncertain,
        thresholds=thresholds,
        classes=manifest.classes,
    )

    def work() -> dict[str, Any]:
        whole = run_image_stage(
            stage,
            artifact,
            images,
            actor=RelabelActor,
            actor_kwargs={
                "config": config.segmentation,
                "network_uri": layout.round_network(system, number - 1),
                "classes": manifest.classes,
                "gpus_per_actor": config.cams.gpus_per_actor,
            },
            write=write,
            scored_splits=(config.data.eval_split,),
            num_actors=stage.room.actors(config.cams.num_actors, config.cams.gpus_per_actor),
            gpus_per_actor=config.cams.gpus_per_actor,
        )
        return write_mask_tables(artifact.workshop, whole, scoring, manifest.classes)

    name = f"masks of {system} for round {number}"
    return stage.make(artifact, name, work, lambda meta: describe_masks(read_pseudo_masks(uri, meta)), goes_on=True)
