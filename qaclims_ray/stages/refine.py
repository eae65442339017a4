"""From CAMs to pseudo masks on Ray Data; what IRN needs for it is trained on Ray Train first (rows E7-E11)."""

import dataclasses
import functools
import json
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from pydantic import TypeAdapter

from qaclims_ray.cams.inference import ImageCam
from qaclims_ray.data import artifacts, storage, whole_files
from qaclims_ray.data.artifacts import Artifact, ArtifactMeta, plain
from qaclims_ray.data.classes import Classes
from qaclims_ray.data.images import save_label_map
from qaclims_ray.data.manifest import ImageRecord, Manifest
from qaclims_ray.data.shards import plan_fingerprint
from qaclims_ray.data.splits import images_with_cams, scored_images
from qaclims_ray.evaluation.config import EvaluationConfig
from qaclims_ray.evaluation.image_counts import FORM, CountedFigure, image_sweep, write_image_counts
from qaclims_ray.evaluation.sweep import SeedScores, ThresholdSweep, seed_scores, sweep_thresholds
from qaclims_ray.models.devices import device_of_worker
from qaclims_ray.models.precision import recorded
from qaclims_ray.models.weights import weights_fingerprint
from qaclims_ray.refine.config import CLIP_STEPS, SAM_FIELDS, MaskConfig, MaskStep
from qaclims_ray.refine.mask_index import MaskRow, mask_row, summarise_masks, write_mask_index
from qaclims_ray.refine.refinement import (
    Refiners,
    pseudo_mask,
    refine_cams,
    refined_border,
    without_uncertain,
)
from qaclims_ray.refine.spreading import AffinityOf
from qaclims_ray.run_config import RunConfig
from qaclims_ray.stages.affinity import WALK_FIELDS, run_affinity
from qaclims_ray.stages.evaluate import SCORES_NAME, check_stores_full, read_scores
from qaclims_ray.stages.image_stage import Part, ReadShard, remove_parts, run_image_stage, write_part
from qaclims_ray.stages.mask_images import coverage_text, images_with_stored_cams, mask_row_of
from qaclims_ray.stages.stage import Stage
from qaclims_ray.systems.recipe import clip_files
from qaclims_ray.text.prompts import class_prompts


class RefineActor:
    """Refine the CAMs of one shard."""

    def __init__(
        self,
        config: MaskConfig,
        cams_uri: str,
        affinity_uri: str,
        classes: Classes,
        clip_files: tuple[str, str | None],
        class_texts: list[str],
    ) -> None:
        torch.set_num_threads(1)
        self.config, self.cams_uri, self.classes = config, cams_uri, classes
        self.device = device_of_worker(config.gpus_per_actor)
        self.refiners = Refiners(
            boundaries=self._boundaries(affinity_uri) if "irn" in config.steps else None,
            **(self._by_sam() if "sam" in config.steps else {}),
            affinities=self._affinities(clip_files, class_texts),
        )

    def __call__(self, shard: ReadShard) -> "RefinedShard":
        """Return what is to be written of the shard."""
        images, seeds, failed = images_with_stored_cams(shard, self.cams_uri)
        pixels = [image.pixels for image in images]
        refined = refine_cams(pixels, seeds, self.config, self.refiners, self.classes, device=self.device)
        cams = [(image.record, cam, image.truth) for image, cam in zip(images, refined.cams, strict=True)]
        return RefinedShard(shard.index, cams, refined.border, failed)

    def _boundaries(self, affinity_uri: str) -> Any:
        # Here, since planning a stage needs no network.
        from qaclims_ray.models.folding import for_inference
        from qaclims_ray.refine.irn.network import boundary_maps, load_affinity_net

        with whole_files.whole_copy(affinity_uri) as folder:
            network = for_inference(load_affinity_net(folder), self.device)
        pad_px, precision = self.config.irn.pad_px, self.config.arithmetic
        return lambda images: boundary_maps(network, images, pad_px, precision=precision)

    def _by_sam(self) -> dict[str, Any]:
        # With it comes transformers, which no other step needs.
        from qaclims_ray.refine.sam_masks import generate_masks, load_sam, segment_parts

        sam = load_sam(self.config.sam.model, self.device)
        if self.config.sam.prompts == "grid":
            return {"segments": lambda image: generate_masks(sam, image, self.config.sam)}
        return {"parts": lambda image, prompts: segment_parts(sam, image, prompts)}

    def _affinities(self, clip_files: tuple[str, str | None], class_texts: list[str]) -> dict[MaskStep, AffinityOf]:
        config, found = self.config, {}
        if set(CLIP_STEPS) & set(config.steps):
            from qaclims_ray.models.clip.frozen import load_clip
            from qaclims_ray.refine.clip_affinities import by_class_distribution, by_clip_attention

            # Patches are looked at as they are: mask tokens, where a model has them, have nothing to hide.
            clip = load_clip(*clip_files, device=self.device, mask_adapted=False)
            if "clip_attention" in config.steps:
                found["clip_attention"] = by_clip_attention(clip, config.clip_attention)
            if "class_distribution" in config.steps:
                texts = clip.encode_texts(class_texts)
                found["class_distribution"] = by_class_distribution(clip, texts, config.class_distribution)
        if "feature_affinity" in config.steps:
            from qaclims_ray.refine.feature_affinity import by_features, load_cell_features

            features = load_cell_features(config.feature_affinity, self.device)
            found["feature_affinity"] = by_features(features, config.feature_affinity)
        return found


@dataclasses.dataclass(frozen=True)
class RefinedShard:
    """The refined maps of a shard, of which pseudo masks and counts are to be made."""

    index: int
    """Which shard."""
    cams: list[tuple[ImageRecord, ImageCam, Any]]
    """Each image, its maps, and its true mask where it is scored."""
    border: float
    """The maps' background score."""
    failed: list[MaskRow]
    """Images that have none."""
    remark: str = ""
    """See `run_shards`."""


def write_refined(
    shard: RefinedShard,
    *,
    uri: str,
    uncertain: tuple[float, float] | None,
    thresholds: tuple[float, ...],
    classes: Classes,
) -> dict[str, Any]:
    """Publish a shard's pseudo masks and its part, with the counts of the images that are scored."""
    rows: list[dict[str, Any]] = [dataclasses.asdict(row) for row in shard.failed]
    sweep, index = ThresholdSweep(thresholds, len(classes)), thresholds.index(round(shard.border, 6))
    for record, cam, truth in shard.cams:
        labels = pseudo_mask(cam, shard.border, uncertain)
        row = mask_row(cam.image_id, labels, cam.class_ids)
        save_label_map(labels, storage.join(uri, row.mask))
        rows.append(dataclasses.asdict(row))
        if truth is not None:
            counts = sweep.update(without_uncertain(cam, uncertain), truth, record.labels)
            assert counts is not None
            rows[-1]["counts"] = image_sweep(cam.image_id, counts, cam.class_ids, record.labels).at(index)
    write_part(uri, shard.index, rows, {"sweep": sweep.to_array()})
    return {"remark": shard.remark}


@dataclasses.dataclass(frozen=True)
class PseudoMasks:
    """A system's pseudo masks."""

    meta: ArtifactMeta
    """Of the artefact."""
    scores: SeedScores | None
    """Their scores; None where no scored image has a mask."""
    summary: dict[str, Any]
    """Coverage, ignored share, class areas."""


@dataclasses.dataclass(frozen=True)
class _Scored:
    """What the file of scores holds."""

    scores: SeedScores | None


def run_refine(stage: Stage, system: str, manifest: Manifest) -> PseudoMasks:
    """Turn a system's CAMs into pseudo masks; the affinity network is trained first where IRN is a step.

    Args:
        stage: surroundings.
        system: whose CAMs.
        manifest: the whole manifest.

    Raises:
        ConfigError: when the CAMs were stored without their full-resolution maps.
        DataError: when more than `cams.max_failed_fraction` of the images cannot be read.
    """
    config, layout, uri = stage.config, stage.layout, stage.layout.masks(system)
    check_stores_full(config.cams)
    images = images_with_cams(manifest, config.data, with_training=True)
    cams = artifacts.require_artifact(layout.cams(system), "cams", verb="cams")
    affinity = run_affinity(stage, system, images, cams) if "irn" in config.masks.steps else None
    scoring = dataclasses.replace(config.evaluation, fixed_threshold=refined_border(config.masks))
    thresholds = sweep_thresholds(scoring, manifest.classes)
    artifact = Artifact(
        uri=uri,
        kind="masks",
        settings=plain({"masks": mask_settings(config.masks), "sweep": thresholds, **FORM}),
        inputs={
            "cams": cams.recipe(),
            **_image_inputs(config, manifest, images),
            **({"affinity": affinity.fingerprint} if affinity else {}),
            **frozen_inputs(config, _class_texts(config, manifest)),
        },
        verb="refine",
    )

    written = {"uri": artifact.workshop, "uncertain": config.masks.uncertain, "classes": manifest.classes}
    write = functools.partial(write_refined, thresholds=thresholds, **written)

    def work() -> dict[str, Any]:
        whole = run_image_stage(
            stage,
            artifact,
            images,
            actor=RefineActor,
            actor_kwargs={
                "config": config.masks,
                "cams_uri": layout.cams(system),
                "affinity_uri": layout.affinity(system),
                "classes": manifest.classes,
                "clip_files": clip_files(config),
                "class_texts": _class_texts(config, manifest),
            },
            write=write,
            cams_uri=layout.cams(system),
            scored_splits=(config.data.eval_split,),
            num_actors=stage.room.actors(config.masks.num_actors, config.masks.gpus_per_actor),
            gpus_per_actor=config.masks.gpus_per_actor,
        )
        return write_mask_tables(artifact.workshop, whole, scoring, manifest.classes)

    name = f"masks of {system}"
    meta = stage.make(artifact, name, work, lambda meta: describe_masks(read_pseudo_masks(uri, meta)), goes_on=True)
    return read_pseudo_masks(uri, meta)


def write_mask_tables(uri: str, whole: Part, scoring: EvaluationConfig, classes: Classes) -> dict[str, Any]:
    """Write index, counts by image and scores of pseudo masks out of the parts; return the summary.

    Args:
        uri: folder of the masks.
        whole: the parts of all shards.
        scoring: thresholds, the fixed one among them.
        classes: those of the data set.
    """
    counted = [(row["image_id"], row.pop("counts")) for row in whole.rows if "counts" in row]
    write_image_counts(uri, [CountedFigure("fixed", scoring.threshold, counted)], classes.names)
    rows = [mask_row_of(row) for row in whole.rows]
    write_mask_index(uri, rows, classes.names)
    scores = stage_scores(whole.counts["sweep"], scoring, classes)
    content = {"scores": None if scores is None else dataclasses.asdict(scores)}
    storage.write_bytes(storage.join(uri, SCORES_NAME), json.dumps(content).encode())
    remove_parts(uri)
    return summarise_masks(rows, classes.names)


def _image_inputs(config: RunConfig, manifest: Manifest, images: Manifest) -> dict[str, str]:
    """Return fingerprints of the images that get masks, and of the true masks that some are scored with."""
    return {
        "manifest": plan_fingerprint(images, images.images_fingerprint()),
        "scored": scored_images(manifest, config.data).truth_fingerprint(),
    }


def _class_texts(config: RunConfig, manifest: Manifest) -> list[str]:
    """Return what stands for each class where a step compares patches with it, and nothing where none does."""
    if "class_distribution" not in config.masks.steps:
        return []
    return class_prompts(manifest.class_names, config.text)


def frozen_inputs(config: RunConfig, class_texts: Sequence[str]) -> dict[str, str]:
    """Return fingerprints of the networks that steps use without a training, and of the texts that one is asked."""
    steps, masks, found = config.masks.steps, config.masks, {}
    if "sam" in steps:
        found["sam"] = weights_fingerprint(masks.sam.model)
    if set(CLIP_STEPS) & set(steps):
        found["clip"] = weights_fingerprint(*clip_files(config))
    if "class_distribution" in steps:
        found["class_texts"] = artifacts.fingerprint_of(list(class_texts))
    if "feature_affinity" in steps:
        found["features"] = weights_fingerprint(masks.feature_affinity.weights)
    return found


def mask_settings(config: MaskConfig) -> dict[str, Any]:
    """Return the settings that pseudo masks depend on besides their inputs: those of the steps that are taken."""
    values = plain(config)
    used: dict[str, Any] = {step: values[step] for step in config.steps}
    if "sam" in used:
        used["sam"] = {name: value for name, value in used["sam"].items() if name in SAM_FIELDS[config.sam.prompts]}
    if "irn" in used:
        used["irn"] = {name: used["irn"][name] for name in WALK_FIELDS}
        used |= recorded(config.arithmetic)  # no other step has a network that follows it
    if config.cuts_seeds:
        used["seed_threshold"] = config.seed_threshold
    if config.white_above is not None:
        used["white_above"] = config.white_above
    return {"steps": config.steps, "uncertain": config.uncertain, **used}


def content_fingerprint(masks: ArtifactMeta) -> str:
    """Return what a final network depends on: all that shaped the pseudo masks, but not which others there are.

    A network's own images are an input of its own; that more of them were refined, to be scored, is nothing to it.
    """
    inputs = {name: value for name, value in masks.inputs.items() if name not in ("scored", "manifest")}
    return artifacts.fingerprint_of([masks.settings["masks"], inputs])


def read_pseudo_masks(uri: str, meta: ArtifactMeta) -> PseudoMasks:
    """Return what a finished stage kept."""
    return PseudoMasks(meta, read_scores(uri, TypeAdapter(_Scored).validate_python).scores, meta.summary)


def stage_scores(counts: np.ndarray, scoring: EvaluationConfig, classes: Classes) -> SeedScores | None:
    """Read the scores off the counts of all shards; None where nothing was scored.

    Args:
        counts: of `ThresholdSweep.to_array`, summed over shards.
        scoring: thresholds, the fixed one among them.
        classes: what is scored.
    """
    sweep = ThresholdSweep.from_array(counts, sweep_thresholds(scoring, classes), len(classes))
    if int(sweep.counts.sum()) == 0:
        return None
    return seed_scores(sweep, scoring.threshold, classes)


def describe_masks(found: PseudoMasks) -> str:
    """Say in a line what pseudo masks score and cover."""
    share, scores = coverage_text(found.summary), found.scores
    if scores is None:
        return share
    if not scores.has_background:
        ignored = found.summary["mean_ignored"]
        return f"mIoU {scores.miou_fixed:.1%}, Dice {scores.mdice_fixed:.1%}, {ignored:.1%} ignored"
    return f"mIoU {scores.miou_fixed:.1%}, {share}"
