"""Training of final networks on Ray Train, and their scores on the test split by Ray Data (rows D1-D8)."""

import contextlib
import dataclasses
import functools
import json
import tempfile
from collections.abc import Iterator, Mapping
from typing import Any

import torch
from pydantic import TypeAdapter
from torch import Tensor

from qaclims_ray.data import artifacts, storage, whole_files
from qaclims_ray.data.artifacts import Artifact, ArtifactMeta, plain
from qaclims_ray.data.classes import Classes
from qaclims_ray.data.images import save_label_map
from qaclims_ray.data.manifest import ImageRecord, Manifest, read_manifest
from qaclims_ray.data.shards import plan_fingerprint
from qaclims_ray.data.splits import scored_images, segmented_images, training_images
from qaclims_ray.evaluation.config import EvaluationConfig
from qaclims_ray.evaluation.foremost import Foremost, foremost_of
from qaclims_ray.evaluation.image_counts import FORM, CountedFigure, image_sweep, write_image_counts
from qaclims_ray.evaluation.sweep import SeedScores, ThresholdSweep, sweep_thresholds
from qaclims_ray.methods.table import method_of
from qaclims_ray.models.devices import BatchSize, device_of_worker
from qaclims_ray.models.precision import Arithmetic
from qaclims_ray.models.weights import FROM_CLASSIFIER
from qaclims_ray.refine.shares import HALF
from qaclims_ray.run_config import RunConfig
from qaclims_ray.segmentation.config import SegmentationConfig
from qaclims_ray.segmentation.inference import (
    SEGMENTED_AT_ONCE,
    as_class_maps,
    crf_probabilities,
    segment_images,
    settings_of_predictions,
)
from qaclims_ray.stages.evaluate import SCORES_NAME, read_scores
from qaclims_ray.stages.image_stage import Part, ReadImage, ReadShard, remove_parts, run_image_stage, write_part
from qaclims_ray.stages.mask_images import masked_images, truth_images, truth_share
from qaclims_ray.stages.own_network import own_training
from qaclims_ray.stages.refine import content_fingerprint, stage_scores
from qaclims_ray.stages.rounds import run_relabel
from qaclims_ray.stages.stage import Stage
from qaclims_ray.stages.trainings import plan_training, run_trainings, start_fingerprint
from qaclims_ray.systems.needs import rounds_of
from qaclims_ray.systems.table import system_of
from qaclims_ray.training.context import WorkerContext
from qaclims_ray.training.group import Training
from qaclims_ray.training.meter import OnStep

_FIGURES = ("plain", "crf", "seed_plain", "seed_crf")
_OTHER_FIELDS = ("test", "rounds")
"""Settings that a trained network does not depend on by itself: masks of a further round hold what came of them."""


@dataclasses.dataclass(frozen=True)
class Segmentation:
    """How a system's final network does on the test split."""

    plain: SeedScores | None
    """Without CRF; None where no image of the split has a mask."""
    crf: SeedScores | None
    """With CRF."""
    seed_plain: SeedScores | None = None
    """Without CRF, on the images on which seeds and pseudo masks are scored: what it made of its own masks."""
    seed_crf: SeedScores | None = None
    """The same with CRF."""


class SegmentActor:
    """Hold a final network; segment one shard's images, those that are scored with and without CRF."""

    def __init__(
        self,
        config: SegmentationConfig,
        network_uri: str,
        thresholds: tuple[float, ...],
        classes: Classes,
        gpus_per_actor: float,
    ) -> None:
        # Here, since planning a stage needs no network.
        from qaclims_ray.models.folding import for_inference
        from qaclims_ray.segmentation.networks.network import load_segmentation_network

        torch.set_num_threads(1)
        device = device_of_worker(gpus_per_actor)
        with whole_files.whole_copy(network_uri) as folder:
            self.network = for_inference(load_segmentation_network(folder), device)
        self.config, self.thresholds, self.border = config, thresholds, classes.border(HALF)
        self.precision: Arithmetic = config.test.arithmetic(gpus_per_actor)
        size = SEGMENTED_AT_ONCE.chosen(config.test.batch_size, device, gpus_per_actor)
        self.at_once = BatchSize(size, "segmentation.test.batch_size")

    def __call__(self, shard: ReadShard) -> "SegmentedShard":
        """Return what is to be written of the shard."""
        found = self.at_once.run(lambda batch_size: self._segment(shard, batch_size))
        return SegmentedShard(shard.index, found, shard.errors, self.at_once.remark)

    def _segment(self, shard: ReadShard, batch_size: int) -> "list[SegmentedImage]":
        net, test = self.config.net, dataclasses.replace(self.config.test, batch_size=batch_size)
        segmented = []
        pixels = [image.pixels for image in shard.images]
        for positions, found in segment_images(
            self.network, pixels, test, net.image_mean, net.image_std, precision=self.precision
        ):
            images = [shard.images[position] for position in positions]
            plain = [self._foremost(image, own) for image, own in zip(images, found, strict=True)]
            scored = [position for position, image in enumerate(images) if image.truth is not None]
            refined: dict[int, Foremost] = {}
            if scored:
                smooth = crf_probabilities(
                    torch.stack([images[position].pixels for position in scored]), found[scored], test.crf, self.border
                )
                for position, own in zip(scored, smooth, strict=True):
                    refined[position] = self._foremost(images[position], own)
            for position, image in enumerate(images):
                segmented.append(SegmentedImage(image.record, plain[position], refined.get(position), image.truth))
        return segmented

    def _foremost(self, image: ReadImage, probabilities: Tensor) -> Foremost:
        maps = as_class_maps(image.record.image_id, probabilities, self.border)
        return foremost_of(maps, self.thresholds).cpu()


@dataclasses.dataclass(frozen=True)
class SegmentedImage:
    """What a final network says of an image."""

    record: ImageRecord
    """The image."""
    plain: Foremost
    """Without CRF."""
    crf: Foremost | None
    """With CRF, where the image is scored."""
    truth: Any
    """Its mask (height, width) where it is scored, or None."""


@dataclasses.dataclass(frozen=True)
class SegmentedShard:
    """What a final network says of a shard, to be written."""

    index: int
    """Which shard."""
    images: list[SegmentedImage]
    """Its readable images."""
    errors: dict[str, str]
    """Image id -> what is wrong with it."""
    remark: str
    """See `run_shards`."""


def write_segmented(
    shard: SegmentedShard, *, uri: str, thresholds: tuple[float, ...], classes: Classes, splits: Mapping[str, str]
) -> dict[str, Any]:
    """Publish a shard's label maps and its part, with the counts of both figures."""
    border = classes.border(HALF)
    sweeps = {figure: ThresholdSweep(thresholds, len(classes)) for figure in _FIGURES}
    rows: list[dict[str, Any]] = [{"image_id": name, "error": error} for name, error in shard.errors.items()]
    for image in shard.images:
        labels = image.plain.label_map(thresholds, border)
        save_label_map(labels, storage.join(uri, f"{image.record.image_id}.png"))
        if image.crf is not None:
            rows.append(_row(image, image.crf, sweeps, thresholds.index(border), splits))
    write_part(uri, shard.index, rows, {name: sweep.to_array() for name, sweep in sweeps.items()})
    return {"remark": shard.remark}


def _row(
    image: SegmentedImage, crf: Foremost, sweeps: dict[str, ThresholdSweep], index: int, splits: Mapping[str, str]
) -> dict[str, Any]:
    """Count a scored image in the sums; return its own counts."""
    name, labels, found = image.record.image_id, image.record.labels, {}
    for prefix, split in splits.items():
        if split in image.record.splits:
            for figure, maps in ((f"{prefix}plain", image.plain), (f"{prefix}crf", crf)):
                counts = sweeps[figure].add(maps, image.truth, labels)
                assert counts is not None
                found[figure] = image_sweep(name, counts, maps.class_ids, labels).at(index)
    return {"image_id": name, "counts": found}


def train_final_networks(stages: Mapping[str, Stage], manifest: Manifest) -> dict[str, ArtifactMeta]:
    """Train systems' final networks on their masks, on the same workers one after the other; in rounds where asked for.

    Args:
        stages: surroundings, by system; one without pseudo masks makes its own while it learns, or takes the true ones.
        manifest: the whole manifest.

    Raises:
        DataError: when there is no mask to train on.
    """
    trained: dict[str, ArtifactMeta] = {}
    rounds = {system: rounds_of(stage.config, system) for system, stage in stages.items()}
    for number in range(1, max(rounds.values()) + 1):
        at_work = {system: stage for system, stage in stages.items() if number <= rounds[system]}
        trainings = [_training(stage, system, manifest, number) for system, stage in at_work.items()]
        for (system, stage), training in zip(at_work.items(), trainings, strict=True):
            # Where the number of rounds was another one, this round's network may lie in the place of the last.
            for place in (stage.layout.segmentation(system), stage.layout.round_network(system, number)):
                training.artifact.take_from(place)
        trained |= zip(at_work, run_trainings(next(iter(at_work.values())), trainings), strict=True)
        for system, stage in at_work.items():
            if number < rounds[system]:
                run_relabel(stage, system, number + 1, trained[system], manifest)
    return {system: trained[system] for system in stages}


def _training(stage: Stage, system: str, manifest: Manifest, number: int) -> Training:
    config, layout, rounds = stage.config, stage.layout, rounds_of(stage.config, system)
    if (method := method_of(system_of(config, system).method)).own_network is not None:
        return own_training(stage, system, manifest)
    segmentation, trained = config.segmentation, training_images(manifest, config.data)
    weights, masks_uri = segmentation.net.weights, ""
    inputs = {"manifest": trained.images_fingerprint(), "weights": start_fingerprint(layout, weights)}
    if method.has_masks:
        masks_uri = layout.masks(system)
        inputs["masks"] = content_fingerprint(artifacts.require_artifact(masks_uri, "masks", verb="refine"))
    else:
        inputs["truth"] = trained.truth_fingerprint()
    settings = {name: value for name, value in plain(segmentation).items() if name not in _OTHER_FIELDS}
    if number > 1:
        masks_uri, settings["rounds"] = layout.round_masks(system, number), number
        masks = artifacts.require_artifact(masks_uri, "masks", verb="segment")
        inputs["round_masks"] = content_fingerprint(masks)
    artifact = Artifact(
        uri=layout.segmentation(system) if number == rounds else layout.round_network(system, number),
        kind="segmentation",
        settings={"segmentation": settings, "seed": config.seed, "precision": config.cluster.arithmetic},
        inputs=inputs,
        verb="segment",
    )
    work = functools.partial(
        _train,
        config=config,
        manifest_uri=layout.manifest,
        masks_uri=masks_uri,
        classifier_uri=layout.classifier if weights == FROM_CLASSIFIER else "",
    )
    label = f"{system}: segmentation" + (f", round {number} of {rounds}" if rounds > 1 else "")
    if not masks_uri and (share := truth_share(manifest, config.data.train_split)):
        label += f" ({share})"
    return plan_training(
        stage,
        artifact,
        work,
        segmentation.optim,
        label=label,
        num_images=len(trained.records),
        num_steps=segmentation.steps_per_epoch and segmentation.optim.epochs * segmentation.steps_per_epoch,
        phase="" if number == rounds else f"round-{number}",
    )


def _train(
    context: WorkerContext,
    on_step: OnStep,
    *,
    config: RunConfig,
    manifest_uri: str,
    masks_uri: str,
    classifier_uri: str,
) -> dict[str, float]:
    """Train a final network on pseudo masks, or on the true ones; runs on every worker."""
    from qaclims_ray.segmentation.task import train_segmentation

    split, manifest = config.data.train_split, read_manifest(manifest_uri)
    images = masked_images(manifest, split, masks_uri) if masks_uri else truth_images(manifest, split)
    with _initial_weights(classifier_uri) as weights:
        return train_segmentation(
            images=images,
            classes=manifest.classes,
            segmentation=config.segmentation,
            seed=config.seed,
            precision=config.cluster.arithmetic,
            loader_workers=context.loader_workers,
            context=context,
            on_step=on_step,
            weights=weights,
        )


@contextlib.contextmanager
def _initial_weights(classifier_uri: str) -> Iterator[str | None]:
    """Yield a file with the backbone of the classifier, or nothing where the network starts from something else."""
    if not classifier_uri:
        yield None
        return
    from qaclims_ray.models.generators.cam_net import backbone_file

    with whole_files.whole_copy(classifier_uri) as folder, tempfile.TemporaryDirectory() as scratch:
        yield backbone_file(folder, scratch)


def score_final_network(stage: Stage, system: str, network: ArtifactMeta, manifest: Manifest) -> Segmentation:
    """Segment with a system's final network, and score it on the test split.

    Args:
        stage: surroundings.
        system: whose network.
        network: its meta.
        manifest: the whole manifest.

    Raises:
        DataError: when more than `cams.max_failed_fraction` of the images cannot be read.
    """
    config, layout, uri = stage.config, stage.layout, stage.layout.predictions(system)
    tested = segmented_images(manifest, config.data)
    scoring = dataclasses.replace(config.evaluation, fixed_threshold=HALF)
    thresholds = sweep_thresholds(scoring, manifest.classes)
    test = settings_of_predictions(config.segmentation.test, config.cams.gpus_per_actor)
    artifact = Artifact(
        uri=uri,
        kind="predictions",
        settings=plain({"test": test, "sweep": thresholds, **FORM}),
        inputs={
            "network": network.fingerprint,
            "manifest": plan_fingerprint(tested, tested.images_fingerprint()),
            "scored": scored_images(manifest, config.data).truth_fingerprint(),
            "tested": manifest.subset(config.data.test_split).truth_fingerprint(),
        },
        verb="segment",
    )

    def work() -> dict[str, Any]:
        whole = run_image_stage(
            stage,
            artifact,
            tested,
            actor=SegmentActor,
            actor_kwargs={
                "config": config.segmentation,
                "network_uri": layout.segmentation(system),
                "thresholds": thresholds,
                "classes": manifest.classes,
                "gpus_per_actor": config.cams.gpus_per_actor,
            },
            write=functools.partial(
                write_segmented,
                uri=artifact.workshop,
                thresholds=thresholds,
                classes=manifest.classes,
                splits={"": config.data.test_split, "seed_": config.data.eval_split},
            ),
            scored_splits=(config.data.test_split, config.data.eval_split),
            num_actors=stage.room.actors(config.cams.num_actors, config.cams.gpus_per_actor),
            gpus_per_actor=config.cams.gpus_per_actor,
        )
        errors = _write_scores(artifact.workshop, whole, scoring, manifest.classes)
        return {"images": len(tested.records) - len(errors), "errors": errors[:20]}

    stage.make(artifact, f"segment with {system}", work, lambda _: _describe(read_segmentation(uri)), goes_on=True)
    return read_segmentation(uri)


def _write_scores(uri: str, whole: Part, scoring: EvaluationConfig, classes: Classes) -> list[str]:
    """Write scores and counts by image out of the parts; return what is wrong with images that failed."""
    found = Segmentation(*(stage_scores(whole.counts[name], scoring, classes) for name in _FIGURES))
    content = {name: value and dataclasses.asdict(value) for name, value in vars(found).items()}
    storage.write_bytes(storage.join(uri, SCORES_NAME), json.dumps(content).encode())
    counted = [(row["image_id"], row["counts"]) for row in whole.rows if "counts" in row]
    figures = (CountedFigure(f, HALF, [(name, c[f]) for name, c in counted if f in c]) for f in _FIGURES)
    write_image_counts(uri, figures, classes.names)
    remove_parts(uri)
    return [row["error"] for row in whole.rows if "error" in row]


def read_segmentation(uri: str) -> Segmentation:
    """Return what a finished stage kept."""
    return read_scores(uri, TypeAdapter(Segmentation).validate_python)


def _describe(found: Segmentation) -> str:
    if found.plain is None or found.crf is None:
        return "nothing to score: no image of the test split has a mask"
    text = f"mIoU {found.plain.miou_fixed:.1%}, with CRF {found.crf.miou_fixed:.1%}"
    if found.plain.has_background:
        return text
    return f"{text}; Dice {found.plain.mdice_fixed:.1%}, with CRF {found.crf.mdice_fixed:.1%}"
