"""The background score of a system's seeds, chosen without masks: made once, read wherever a threshold is auto."""

import json
from dataclasses import asdict, dataclass
from typing import Any

import torch
from pydantic import TypeAdapter

from qaclims_ray.cams.store import read_cam_shard
from qaclims_ray.cluster.shards import run_shards
from qaclims_ray.data import artifacts, storage
from qaclims_ray.data.artifacts import Artifact
from qaclims_ray.data.images import load_image
from qaclims_ray.data.json_files import read_json_file
from qaclims_ray.data.manifest import ImageRecord, Manifest
from qaclims_ray.data.shards import shard_name, shards_of
from qaclims_ray.errors import ArtifactError, DataError
from qaclims_ray.evaluation.sweep import sweep_thresholds
from qaclims_ray.evaluation.threshold import CRITERION, candidates, middle_of_top, rate_thresholds
from qaclims_ray.run_config import RunConfig
from qaclims_ray.stages.layout import RunLayout
from qaclims_ray.stages.stage import Stage

CHOICE_NAME = "choice.json"
IMAGES = 256
"""Images that are looked at, evenly spread over shards and within each: so the choice takes seconds."""
_MOST_SHARDS = 16


@dataclass(frozen=True, kw_only=True)
class ThresholdChoice:
    """A threshold that was chosen without masks, and what it was chosen by."""

    threshold: float
    """Background score."""
    thresholds: tuple[float, ...]
    """Those that it was chosen from, rising."""
    figures: tuple[float, ...]
    """What the images say for each, their mean; the middle of the highest wins."""
    num_images: int
    """Images that were looked at."""


class ThresholdActor:
    """Rate the thresholds on the sampled images of one shard of CAMs."""

    def __init__(self, thresholds: tuple[float, ...], cams_uri: str) -> None:
        torch.set_num_threads(1)
        self.thresholds, self.cams_uri = thresholds, cams_uri

    def __call__(self, shard: tuple[int, dict[str, Any]]) -> dict[str, Any]:
        """Return the shard's figures, summed over its images."""
        index, images = shard
        figures, count = torch.zeros(len(self.thresholds), dtype=torch.float64), 0
        for cam in read_cam_shard(storage.join(self.cams_uri, shard_name(index))):
            if cam.image_id in images and cam.full is not None:
                figures += rate_thresholds(images[cam.image_id], cam.full, self.thresholds)
                count += 1
        return {"figures": figures.tolist(), "images": count}


def wants_threshold(config: RunConfig, scored: Manifest) -> bool:
    """Whether a threshold is chosen of a system's seeds: where there is something to choose by, or it is asked for.

    Args:
        config: the system's.
        scored: the images that seeds are scored on, whether or not they have masks.
    """
    has_labels = any(record.labels for record in scored.records)
    return scored.classes.has_background and (has_labels or config.masks.seed_threshold == "auto")


def run_threshold(stage: Stage, system: str, manifest: Manifest) -> ThresholdChoice:
    """Choose the threshold of a system's seeds without masks, by some of the images that seeds are scored on.

    Args:
        stage: surroundings.
        system: whose CAMs.
        manifest: the images that have CAMs, the scored ones among them; it has a background.

    Raises:
        DataError: when none of the scored images has a label.
    """
    config, uri = stage.config, stage.layout.threshold(system)
    cams = artifacts.require_artifact(stage.layout.cams(system), "cams", verb="cams")
    thresholds = candidates(sweep_thresholds(config.scoring, manifest.classes))
    sample = _sample(shards_of(manifest), config.data.eval_split)
    if not sample:
        raise DataError(
            f"no image of {config.data.eval_split} has a label: there are no seeds to choose a threshold of"
        )
    artifact = Artifact(
        uri=uri,
        kind="threshold",
        settings={"criterion": CRITERION, "thresholds": thresholds},
        inputs={"cams": cams.recipe(), "images": artifacts.fingerprint_of(_names(sample))},
        verb="evaluate",
    )

    def work() -> dict[str, Any]:
        summaries = run_shards(
            sample,
            decode=_decode,
            actor=ThresholdActor,
            actor_kwargs={"thresholds": thresholds, "cams_uri": stage.layout.cams(system)},
            num_actors=stage.room.actors(None),
            progress=stage.progress.advance,
        )
        choice = _chosen(summaries, thresholds)
        storage.write_bytes(storage.join(artifact.workshop, CHOICE_NAME), json.dumps(asdict(choice)).encode())
        return {"threshold": choice.threshold}

    stage.make(artifact, f"threshold of {system}", work, lambda _: _describe(read_threshold(stage.layout, system)))
    return read_threshold(stage.layout, system)


def read_threshold(layout: RunLayout, system: str) -> ThresholdChoice:
    """Return what was chosen for a system.

    Raises:
        ArtifactError: when nothing was, or the file is damaged.
    """
    uri = layout.threshold(system)
    artifacts.require_artifact(uri, "threshold", verb="evaluate")
    remedy = f"Remove {uri} and run the same command again, which makes it anew"
    validate = TypeAdapter(ThresholdChoice).validate_python
    return read_json_file(storage.join(uri, CHOICE_NAME), validate, remedy=remedy)


def at_chosen_threshold(config: RunConfig, layout: RunLayout, system: str) -> RunConfig:
    """Return a system's settings with the threshold that was chosen for it where they say auto, and what follows it.

    Args:
        config: the system's.
        layout: where its choice lies.
        system: whose CAMs.

    Raises:
        ArtifactError: when they say auto and nothing was chosen yet.
    """
    given = config.masks.seed_threshold
    return config.at_threshold(read_threshold(layout, system).threshold if given == "auto" else given)


def _sample(shards: list[list[ImageRecord]], split: str) -> list[tuple[int, list[ImageRecord]]]:
    """Return some shards, each with some of its labelled images of a split; which ones depends on nothing else."""
    found = [(index, [r for r in shard if r.labels and split in r.splits]) for index, shard in enumerate(shards)]
    chosen = _spread([(index, records) for index, records in found if records], _MOST_SHARDS)
    each = -(-IMAGES // max(len(chosen), 1))
    return [(index, _spread(records, each)) for index, records in chosen]


def _spread(items: list[Any], number: int) -> list[Any]:
    count = min(number, len(items))
    return [items[position * len(items) // count] for position in range(count)]


def _names(sample: list[tuple[int, list[ImageRecord]]]) -> list[list[str]]:
    return [[record.image_id for record in records] for _, records in sample]


def _decode(shard: tuple[int, list[ImageRecord]]) -> tuple[int, dict[str, Any]]:
    index, records = shard
    images = {}
    for record in records:
        try:
            images[record.image_id] = load_image(record.image_uri)
        except DataError:  # it has no CAM either, and the stage that made them has said so
            continue
    return index, images


def _chosen(summaries: list[dict[str, Any]], thresholds: tuple[float, ...]) -> ThresholdChoice:
    """Add up the shards' figures and take the threshold in the middle of the highest."""
    count = sum(summary["images"] for summary in summaries)
    if count == 0:
        raise ArtifactError("none of the sampled images has stored CAMs; run `qaclims cams` again")
    figures = torch.tensor([summary["figures"] for summary in summaries], dtype=torch.float64).sum(0) / count
    return ThresholdChoice(
        threshold=thresholds[middle_of_top(figures)],
        thresholds=thresholds,
        figures=tuple(figures.tolist()),
        num_images=count,
    )


def _describe(choice: ThresholdChoice) -> str:
    return f"{choice.threshold:g}, chosen without masks on {choice.num_images} images"
