"""One streaming pass over CAMs and masks gives every threshold's confusion matrix (row E3)."""

import dataclasses
import functools
import json
from collections.abc import Callable, Iterator
from typing import Any, TypeVar

import numpy as np
from pydantic import TypeAdapter

from qaclims_ray.cams.config import CamConfig
from qaclims_ray.cams.store import read_cam_shard
from qaclims_ray.cluster.shards import run_shards
from qaclims_ray.data import artifacts, storage
from qaclims_ray.data.artifacts import Artifact
from qaclims_ray.data.json_files import read_json_file
from qaclims_ray.data.manifest import ImageRecord, Manifest
from qaclims_ray.data.mask_files import load_mask
from qaclims_ray.data.shards import shard_name, shards_of
from qaclims_ray.data.splits import scored_images
from qaclims_ray.errors import ConfigError
from qaclims_ray.evaluation.config import EvaluationConfig
from qaclims_ray.evaluation.cooccurrence import CooccurrenceScores, CooccurrenceSums, cooccurrence_scores
from qaclims_ray.evaluation.image_counts import (
    FORM,
    CountedFigure,
    ImageSweep,
    LabelCounts,
    image_sweep,
    write_image_counts,
)
from qaclims_ray.evaluation.sweep import SeedScores, ThresholdSweep, seed_scores, sweep_thresholds
from qaclims_ray.run_config import RunConfig
from qaclims_ray.stages.stage import Stage

SCORES_NAME = "scores.json"

_Scores = TypeVar("_Scores")


class SweepActor:
    """Count one shard of CAMs against its masks."""

    def __init__(self, thresholds: tuple[float, ...], fixed_threshold: float, num_classes: int, cams_uri: str) -> None:
        self.thresholds, self.fixed_threshold = thresholds, fixed_threshold
        self.num_classes, self.cams_uri = num_classes, cams_uri

    def __call__(self, shard: tuple[int, dict[str, Any]]) -> dict[str, Any]:
        """Return the shard's counts, summed and by image, and where false positives lie when the data set knows."""
        index, masks = shard
        sweep = ThresholdSweep(self.thresholds, self.num_classes)
        places = CooccurrenceSums((self.fixed_threshold,), range(self.num_classes))
        images = []
        for cam in read_cam_shard(storage.join(self.cams_uri, shard_name(index))):
            if cam.image_id not in masks:
                continue  # its CAM is for the final network's training alone
            mask, context, labels = masks[cam.image_id]
            if mask is None:
                continue
            images.append(image_sweep(cam.image_id, sweep.update(cam, mask, labels), cam.class_ids, labels))
            if context is not None:
                places.update(cam, mask, context)
        return {"counts": sweep.to_array(), "places": places, "images": images}


def can_score(manifest: Manifest) -> bool:
    """Whether any image of the manifest has a mask to score against."""
    return any(record.mask_uri for record in manifest.records)


@dataclasses.dataclass(frozen=True)
class Evaluation:
    """A system's scores."""

    seed: SeedScores
    """Scores of its CAMs."""
    cooccurrence: CooccurrenceScores | None
    """Where its false positives lie at the fixed threshold; the miniature alone knows."""


def run_evaluate(stage: Stage, system: str, manifest: Manifest, label_free: float | None = None) -> Evaluation:
    """Score a system's CAMs over the scored images.

    Args:
        stage: surroundings; its settings' threshold is a number.
        system: whose CAMs.
        manifest: the images that have CAMs, the scored ones among them.
        label_free: the threshold that was chosen without masks; None where there is no background.

    Raises:
        ConfigError: when the CAMs were stored without their full-resolution maps.
        DataError: when masks do not fit the images or the classes.
    """
    config, uri = stage.config, stage.layout.evaluation(system)
    check_stores_full(config.cams)
    cams = artifacts.require_artifact(stage.layout.cams(system), "cams", verb="cams")
    artifact = Artifact(
        uri=uri,
        kind="evaluation",
        settings=scoring_settings(config.scoring),
        inputs={
            "cams": cams.recipe(),
            "scored": scored_images(manifest, config.data).truth_fingerprint(),
            **({} if label_free is None else {"threshold": f"{label_free:g}"}),
        },
        verb="evaluate",
    )

    def work() -> dict[str, Any]:
        summaries = _count(stage, system, manifest)
        evaluation = _merged(summaries, manifest, config, label_free)
        figures = _counted(evaluation.seed, [image for s in summaries for image in s["images"]])
        write_image_counts(artifact.workshop, figures, manifest.class_names)
        content = json.dumps(dataclasses.asdict(evaluation))
        storage.write_bytes(storage.join(artifact.workshop, SCORES_NAME), content.encode())
        return {"miou_fixed": evaluation.seed.miou_fixed}

    stage.make(artifact, f"evaluate {system}", work, lambda _: _describe(read_evaluation(uri).seed))
    return read_evaluation(uri)


def _count(stage: Stage, system: str, manifest: Manifest) -> list[dict[str, Any]]:
    """Count every shard of CAMs against the masks of its scored images."""
    config, shards = stage.config, shards_of(manifest)
    return run_shards(
        [(i, [r for r in shard if config.data.eval_split in r.splits]) for i, shard in enumerate(shards)],
        decode=_decode_masks,
        actor=SweepActor,
        actor_kwargs={
            "thresholds": sweep_thresholds(config.scoring, manifest.classes),
            "fixed_threshold": config.fixed_threshold,
            "num_classes": len(manifest.class_names),
            "cams_uri": stage.layout.cams(system),
        },
        num_actors=stage.room.actors(None),
        progress=stage.progress.advance,
    )


def _merged(
    summaries: list[dict[str, Any]], manifest: Manifest, config: RunConfig, label_free: float | None
) -> Evaluation:
    """Add up the shards' counts and read the scores off them."""
    classes = manifest.classes
    thresholds = sweep_thresholds(config.scoring, classes)
    counts = (ThresholdSweep.from_array(np.asarray(s["counts"]), thresholds, len(classes)) for s in summaries)
    sweep = functools.reduce(ThresholdSweep.merge, counts)
    scores = seed_scores(sweep, config.fixed_threshold, classes, label_free)
    if not any(record.context_uri for record in manifest.records):
        return Evaluation(scores, None)
    sums = functools.reduce(CooccurrenceSums.merge, (s["places"] for s in summaries))
    return Evaluation(scores, cooccurrence_scores(sums, config.fixed_threshold, classes.names))


def _counted(scores: SeedScores, images: list[ImageSweep]) -> Iterator[CountedFigure]:
    """Yield the images' counts at the three thresholds, of which two are known only now."""
    for name in ("fixed", "label_free", "best"):
        threshold = getattr(scores, f"threshold_{name}")
        index = scores.curve.thresholds.index(threshold)
        yield CountedFigure(name, threshold, ((image.image_id, _rows_at(image, index)) for image in images))


def _rows_at(image: ImageSweep, index: int) -> Iterator[LabelCounts]:
    """Yield an image's rows when they are written: those of a million images take a gigabyte."""
    yield from image.at(index)


def read_evaluation(uri: str) -> Evaluation:
    """Return the scores of a finished evaluation."""
    return read_scores(uri, TypeAdapter(Evaluation).validate_python)


def read_scores(uri: str, validate: Callable[[Any], _Scores]) -> _Scores:
    """Return what a stage scored, out of the file that ``dataclasses.asdict`` filled.

    Args:
        uri: the stage's folder.
        validate: makes what the stage wrote of it.

    Raises:
        ArtifactError: when the file is damaged.
    """
    remedy = f"Remove {uri} and run the same command again, which makes it anew"
    return read_json_file(storage.join(uri, SCORES_NAME), validate, remedy=remedy)


def scoring_settings(config: EvaluationConfig) -> dict[str, Any]:
    """Return the settings that shape the scores and their tables (not the pictures).

    Args:
        config: a run's `scoring`.
    """
    shown = {k: v for k, v in artifacts.plain(config).items() if k not in ("contact_sheet_images", "gallery_images")}
    return {**shown, **FORM}


def check_stores_full(config: CamConfig) -> None:
    """Refuse to score CAMs that were stored on the small grid only."""
    if config.store == "grid":
        raise ConfigError("cams.store is grid: scoring needs the full-resolution maps, set cams.store to full or both")


def _decode_masks(shard: tuple[int, list[ImageRecord]]) -> tuple[int, dict[str, Any]]:
    index, records = shard
    return index, {
        record.image_id: (
            *(load_mask(uri) if uri else None for uri in (record.mask_uri, record.context_uri)),
            record.labels,
        )
        for record in records
    }


def _describe(scores: SeedScores) -> str:
    if not scores.has_background:
        return f"mIoU {scores.miou_fixed:.1%}, Dice {scores.mdice_fixed:.1%}"
    return (
        f"mIoU {scores.miou_fixed:.1%} at {scores.threshold_fixed:g}, {scores.miou_best:.1%} at its best threshold "
        f"{scores.threshold_best:g} (chosen with pixel labels)"
    )
