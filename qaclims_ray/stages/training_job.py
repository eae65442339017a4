"""What a training worker is told, and how it turns that into a call of ``training/``."""

import contextlib
import dataclasses
import functools
import tempfile
from collections.abc import Callable, Iterator
from typing import Any, Literal

import torch

from qaclims_ray.data import storage
from qaclims_ray.data.classes import num_labels
from qaclims_ray.data.config import JointCropConfig
from qaclims_ray.data.datasets import ImageLabelDataset, seed_of
from qaclims_ray.data.label_map_dataset import LabelMapDataset
from qaclims_ray.data.manifest import Manifest, read_manifest
from qaclims_ray.methods.classifier.task import train_classifier
from qaclims_ray.methods.clims.task import clims_regions, train_clims
from qaclims_ray.methods.qa_clims.task import ritc_regions, train_ritc
from qaclims_ray.methods.rating import CamSource, clip_score, oracle_score, separation_score
from qaclims_ray.methods.region_features import RegionOptions, Regions
from qaclims_ray.methods.semples.matching import region_options, train_jointly, train_matching
from qaclims_ray.methods.semples.phases import Phase
from qaclims_ray.methods.semples.prompts import light, train_prompts
from qaclims_ray.models.clip.frozen import FrozenClip, load_clip
from qaclims_ray.models.clip.prompts import encode_prompts, load_prompts
from qaclims_ray.models.generators.cam_net import backbone_file
from qaclims_ray.refine.irn.network import build_affinity_net
from qaclims_ray.refine.irn.task import train_affinity
from qaclims_ray.run_config import RunConfig
from qaclims_ray.segmentation.task import train_segmentation
from qaclims_ray.stages.data import scored_manifest, training_manifest
from qaclims_ray.stages.given_cams import StoredMaps
from qaclims_ray.stages.mask_images import masked_images, truth_images
from qaclims_ray.stages.stage import backbone_weights, clip_model
from qaclims_ray.text.bank import read_bank
from qaclims_ray.text.prompts import class_prompts
from qaclims_ray.tracking.mlflow_tracker import attach
from qaclims_ray.tracking.tracker import TrackerHandle
from qaclims_ray.training.config import OptimConfig
from qaclims_ray.training.context import WorkerContext
from qaclims_ray.training.loop import seeded
from qaclims_ray.training.selection import Rate
from qaclims_ray.training.setup import TrainingSetup

JobKind = Literal["classifier", "ritc", "clims", "match", "prompts", "refine", "joint", "affinity", "segmentation"]
RegionsOf = Literal["semples", "ritc"]


@dataclasses.dataclass(frozen=True, kw_only=True)
class TrainingJob:
    """What every worker is told."""

    kind: JobKind
    """What is trained."""
    config: RunConfig
    """Resolved configuration of the system."""
    manifest_uri: str
    """The manifest."""
    init_uri: str = ""
    """The network to start from; for prompts, the fixed mask generator or given CAMs; for affinity and final networks,
    the classifier whose backbone they take over, or empty."""
    bank_uri: str = ""
    """RITC and CLIMS: the text bank."""
    prompts_uri: str = ""
    """Refinement, and RITC with prompts: the learned prompts."""
    masks_uri: str = ""
    """Affinity network: confident seeds; final network: pseudo masks, or empty for the true masks."""
    regions_of: RegionsOf = "semples"
    """Prompts: whose way of cutting regions they are learned on."""
    on_given: bool = False
    """Prompts: whether they are learned on CAMs made elsewhere."""
    phase: str = ""
    """Name of the phase, in front of its figures."""
    tracker: TrackerHandle | None = None
    """MLflow run to go on with."""

    @property
    def optim(self) -> OptimConfig:
        """Optimiser settings of this training."""
        match self.kind:
            case "classifier":
                return self.config.classifier.optim
            case "ritc":
                return self.config.ritc.optim
            case "clims":
                return self.config.clims.optim
            case "affinity":
                return self.config.masks.irn.optim
            case "segmentation":
                return self.config.segmentation.optim
            case "match" | "prompts" | "refine" | "joint" as kind:
                return Phase(kind).optim(self.config.semples)

    @property
    def counts_steps(self) -> bool:
        """Whether its length is given in steps and not in passes over the images."""
        return self.kind in ("prompts", "segmentation")

    def num_items(self, num_images: int) -> int:
        """Return how many items an epoch has, images or cached features."""
        prompt, segmentation = self.config.semples.prompt, self.config.segmentation
        match self.kind:
            case "prompts":
                return prompt.steps_per_epoch * prompt.optim.batch_size
            case "segmentation":
                return segmentation.steps_per_epoch * segmentation.optim.batch_size
            case _:
                return num_images

    def total_steps(self, num_images: int) -> int:
        """Return the optimiser steps of the whole training."""
        if self.kind == "prompts" and not self.config.semples.prompt.learn:
            return 0
        return self.optim.epochs * max(self.num_items(num_images) // self.optim.batch_size, 1)


def train_worker(
    job: TrainingJob, context: WorkerContext, on_progress: Callable[[int, dict[str, float]], None] | None = None
) -> dict[str, float]:
    """Run one training on this worker and return its final metrics."""
    tracker = (
        attach(job.tracker, system_metrics_node="rank-0") if context.rank == 0 and job.tracker is not None else None
    )
    prefix = f"train/{job.phase}/" if job.phase else "train/"

    def on_step(step: int, metrics: dict[str, float]) -> None:
        if tracker is not None:
            tracker.log_metrics({f"{prefix}{name}": value for name, value in metrics.items()}, step=step)
        if on_progress is not None:
            on_progress(step, metrics)

    try:
        return _train(job, context, on_step)
    finally:
        if tracker is not None:
            tracker.close()


def _train(
    job: TrainingJob, context: WorkerContext, on_step: Callable[[int, dict[str, float]], None]
) -> dict[str, float]:
    config = job.config
    manifest = training_manifest(read_manifest(job.manifest_uri), config)
    setup = TrainingSetup(
        manifest=manifest,
        cam_net=config.cam_net,
        augment=config.augment,
        precision=config.cluster.precision,
        loader_workers=config.cluster.loader_workers,
        seed=config.seed,
        context=context,
        on_step=on_step,
    )
    match job.kind:
        case "classifier":
            return train_classifier(setup=setup, classifier=config.classifier, weights=backbone_weights(config))
        case "affinity":
            return _train_affinity(job, manifest, setup)
        case "segmentation":
            return _train_segmentation(job, manifest, setup)
    clip = load_job_clip(config, context.device)
    class_texts = _class_texts(manifest, config, clip)
    with storage.local_copy(job.init_uri) as init_dir:
        shared: dict[str, Any] = {"setup": setup, "clip": clip, "init_dir": init_dir}
        if job.kind != "prompts":
            shared["rate"] = _rate(job, manifest, clip, class_texts, context)
        match job.kind:
            case "ritc":
                prompts = _prompts(job, clip) if job.prompts_uri else None
                return train_ritc(bank=read_bank(job.bank_uri), ritc=config.ritc, prompts=prompts, **shared)
            case "clims":
                return train_clims(bank=read_bank(job.bank_uri), clims=config.clims, **shared)
        shared |= {"semples": config.semples, "class_texts": class_texts}
        match job.kind:
            case "prompts":
                given = StoredMaps(init_dir) if job.on_given else None
                return train_prompts(options=_regions(job), given=given, **shared)
            case "joint":
                return train_jointly(optim=job.optim, **shared)
            case _:
                prompts = _prompts(job, clip) if job.prompts_uri else None
                return train_matching(optim=job.optim, prompts=prompts, **shared)


def _train_affinity(job: TrainingJob, manifest: Manifest, setup: TrainingSetup) -> dict[str, float]:
    config, irn = job.config, job.config.masks.irn
    crop = JointCropConfig(min_scale=irn.min_scale, max_scale=irn.max_scale, crop_px=irn.crop_px)
    images = masked_images(manifest, config.data.train_split, job.masks_uri)
    with contextlib.ExitStack() as stack:
        classifier_dir = stack.enter_context(storage.local_copy(job.init_uri)) if job.init_uri else ""
        with seeded(seed_of("affinity", config.seed), setup.context.device):
            network = build_affinity_net(irn, classifier_dir=classifier_dir)
    mean, std = network.normalisation
    return train_affinity(
        network=network,
        dataset=LabelMapDataset(images, crop, mean, std, config.seed),
        irn=irn,
        seed=setup.seed,
        precision=setup.precision,
        loader_workers=setup.loader_workers,
        context=setup.context,
        on_step=setup.on_step,
    )


def _train_segmentation(job: TrainingJob, manifest: Manifest, setup: TrainingSetup) -> dict[str, float]:
    config, split = job.config, job.config.data.train_split
    images = masked_images(manifest, split, job.masks_uri) if job.masks_uri else truth_images(manifest, split)
    with _initial_weights(job.init_uri) as weights:
        return train_segmentation(
            images=images,
            num_labels=num_labels(len(manifest.class_names), has_background=manifest.has_background),
            has_background=manifest.has_background,
            segmentation=config.segmentation,
            seed=setup.seed,
            precision=setup.precision,
            loader_workers=setup.loader_workers,
            context=setup.context,
            on_step=setup.on_step,
            weights=weights,
        )


@contextlib.contextmanager
def _initial_weights(classifier_uri: str) -> Iterator[str | None]:
    """Yield a file with the backbone of the classifier, or nothing where the network starts from something else."""
    if not classifier_uri:
        yield None
        return
    with storage.local_copy(classifier_uri) as folder, tempfile.TemporaryDirectory() as scratch:
        yield backbone_file(folder, scratch)


def _regions(job: TrainingJob) -> RegionOptions:
    """Return how this training makes regions of maps."""
    config, semples = job.config, job.config.semples
    match job.kind:
        case "ritc":
            return ritc_regions(config.ritc)
        case "clims":
            return clims_regions(config.clims)
        case "prompts":
            epsilon = semples.prompt.mask_epsilon
            if job.regions_of == "ritc":
                return ritc_regions(config.ritc)
            options = region_options(semples, epsilon=epsilon)
            return dataclasses.replace(options, mask="given") if job.on_given else options
        case _:
            return region_options(semples, epsilon=semples.mask_epsilon)


def _rate(
    job: TrainingJob, manifest: Manifest, clip: FrozenClip, class_texts: torch.Tensor, context: WorkerContext
) -> Rate | None:
    """Return what chooses the epoch, if anything does."""
    config, net = job.config, job.config.cam_net
    cam_source = CamSource(cams=config.cams, image_mean=net.image_mean, image_std=net.image_std)
    match config.selection.criterion:
        case "last":
            return None
        case "oracle":
            whole = read_manifest(job.manifest_uri)
            split = config.selection.split
            scored = whole.subset(split) if split else scored_manifest(whole, config)
            return functools.partial(
                oracle_score,
                manifest=scored,
                cam_source=cam_source,
                evaluation=config.evaluation,
                num_images=config.selection.num_images,
                context=context,
            )
        case "separation":
            return functools.partial(
                separation_score,
                manifest=manifest,
                cam_source=cam_source,
                threshold=config.evaluation.fixed_threshold,
                num_images=config.selection.num_images,
                clip=clip,
                class_texts=class_texts,
                context=context,
            )
        case "clip_score":
            return functools.partial(
                clip_score,
                dataset=ImageLabelDataset(manifest, light(config.augment), net.image_mean, net.image_std, config.seed),
                regions=Regions(clip=clip, options=_regions(job), image_mean=net.image_mean, image_std=net.image_std),
                class_texts=class_texts,
                num_images=config.selection.num_images,
                context=context,
            )


def load_job_clip(config: RunConfig, device: torch.device) -> FrozenClip:
    """Load the run's CLIP in the precision that trainings use."""
    model, weights = clip_model(config)
    dtype = torch.bfloat16 if config.cluster.precision == "bf16" else torch.float32
    return load_clip(model, weights, device=device, dtype=dtype, mask_adapted=config.clip.mask_adapted)


def _class_texts(manifest: Manifest, config: RunConfig, clip: FrozenClip) -> torch.Tensor:
    with torch.no_grad():
        return clip.encode_texts(class_prompts(manifest.class_names, config.text))


def _prompts(job: TrainingJob, clip: FrozenClip) -> torch.Tensor:
    device = next(clip.parameters()).device
    stored = load_prompts(job.prompts_uri, device, clip_fingerprint=clip.fingerprint())
    with torch.no_grad():
        return encode_prompts(clip, stored.vectors, stored.template)
