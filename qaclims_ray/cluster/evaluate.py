"""Stage 7: one streaming pass over CAMs and masks gives every threshold's confusion matrix (row E3)."""

import dataclasses
import functools
import json
from typing import Any

import numpy as np

from qaclims_ray.cluster.masks import shard_name, shards_of
from qaclims_ray.cluster.shards import run_shards
from qaclims_ray.cluster.stage import Stage, current
from qaclims_ray.config import CamConfig, EvaluationConfig
from qaclims_ray.data import artifacts, storage
from qaclims_ray.data.images import load_mask
from qaclims_ray.data.manifest import ImageRecord, Manifest
from qaclims_ray.errors import ConfigError
from qaclims_ray.evaluation.sweep import SeedScores, SweepCurve, ThresholdSweep, seed_scores, sweep_thresholds
from qaclims_ray.masks.cam_store import read_cam_shard

SCORES_NAME = "scores.json"


class SweepActor:
    """Count one shard of CAMs against its masks."""

    def __init__(self, thresholds: tuple[float, ...], num_classes: int, cams_uri: str) -> None:
        self.thresholds, self.num_classes, self.cams_uri = thresholds, num_classes, cams_uri

    def __call__(self, shard: tuple[int, dict[str, Any]]) -> dict[str, Any]:
        """Return the shard's counts as a flat list."""
        index, masks = shard
        sweep = ThresholdSweep(self.thresholds, self.num_classes)
        for cam in read_cam_shard(storage.join(self.cams_uri, shard_name(index))):
            sweep.update(cam, masks[cam.image_id])
        return {"counts": sweep.to_array()}


def can_score(manifest: Manifest) -> bool:
    """Whether any image of the manifest has a mask to score against."""
    return any(record.mask_uri for record in manifest.records)


def run_evaluate(stage: Stage, system: str, manifest: Manifest) -> SeedScores:
    """Score a system's CAMs over the manifest's images.

    Raises:
        ConfigError: when the CAMs were stored without their full-resolution maps.
        DataError: when masks do not fit the images or the classes.
    """
    config, uri = stage.config, stage.layout.evaluation(system)
    stage.progress.start("evaluate")
    check_stores_full(config.cams)
    cams = artifacts.require(stage.layout.cams(system), "cams", verb="cams")
    thresholds = sweep_thresholds(config.evaluation)
    settings = scoring_settings(config.evaluation)
    inputs = {"cams": cams.fingerprint, "manifest": manifest.fingerprint()}
    if current(uri, "evaluation", settings, inputs):
        scores = read_scores(uri)
        stage.progress.finish(f"{_describe(scores)} (there already)")
    else:
        shards = shards_of(manifest)
        summaries = run_shards(
            list(enumerate(shards)),
            decode=_decode_masks,
            actor=SweepActor,
            actor_kwargs={
                "thresholds": thresholds,
                "num_classes": len(manifest.class_names),
                "cams_uri": stage.layout.cams(system),
            },
            num_actors=1,
            gpus_per_actor=0,
            progress=stage.progress.advance,
        )
        counts = (
            ThresholdSweep.from_array(np.asarray(s["counts"]), thresholds, len(manifest.class_names)) for s in summaries
        )
        sweep = functools.reduce(ThresholdSweep.merge, counts)
        scores = seed_scores(sweep, config.evaluation.fixed_threshold, manifest.class_names)
        storage.write_bytes(storage.join(uri, SCORES_NAME), json.dumps(dataclasses.asdict(scores)).encode())
        artifacts.write_meta(uri, "evaluation", settings, inputs, {"miou_fixed": scores.miou_fixed})
        stage.progress.finish(_describe(scores))
    return scores


def read_scores(uri: str) -> SeedScores:
    """Return the scores of a finished evaluation."""
    values = json.loads(storage.read_bytes(storage.join(uri, SCORES_NAME)))
    curve = SweepCurve(**{name: tuple(points) for name, points in values.pop("curve").items()})
    return SeedScores(**values, curve=curve)


def scoring_settings(config: EvaluationConfig) -> dict[str, Any]:
    """Return the settings that shape the scores (not the pictures)."""
    return {k: v for k, v in artifacts.plain(config).items() if k != "contact_sheet_images"}


def check_stores_full(config: CamConfig) -> None:
    """Refuse to score CAMs that were stored on the small grid only."""
    if config.store == "grid":
        raise ConfigError("cams.store is grid: scoring needs the full-resolution maps, set cams.store to full or both")


def _decode_masks(shard: tuple[int, list[ImageRecord]]) -> tuple[int, dict[str, Any]]:
    index, records = shard
    return index, {record.image_id: load_mask(record.mask_uri) if record.mask_uri else None for record in records}


def _describe(scores: SeedScores) -> str:
    return (
        f"mIoU {scores.miou_fixed:.1%} at {scores.threshold_fixed:g}, {scores.miou_best:.1%} at its best threshold "
        f"{scores.threshold_best:g} (chosen with pixel labels)"
    )
