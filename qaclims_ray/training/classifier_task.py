"""Training of the image-level classifier: the baseline CAM, and the start of text contrast (row R9)."""

from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from qaclims_ray.config import AugmentConfig, CamNetConfig, ClassifierConfig
from qaclims_ray.data.datasets import ImageLabelDataset, seed_of
from qaclims_ray.data.manifest import Manifest
from qaclims_ray.models.cam_net import build_cam_net, save_cam_net
from qaclims_ray.training.calibration import calibrate
from qaclims_ray.training.context import WorkerContext
from qaclims_ray.training.loop import Task, fit, images_per_step, seeded
from qaclims_ray.training.meter import OnStep, StepResult

CALIBRATED_DIR = "calibrated"
"""Folder of the calibrated network inside the last checkpoint."""


def train_classifier(
    *,
    manifest: Manifest,
    cam_net: CamNetConfig,
    augment: AugmentConfig,
    classifier: ClassifierConfig,
    precision: str,
    loader_workers: int,
    seed: int,
    context: WorkerContext,
    on_step: OnStep | None = None,
) -> dict[str, float]:
    """Train a classifier on image-level labels; runs on every worker.

    Each reported checkpoint holds ``network.json`` and ``network.safetensors``; with `classifier.calibrate` the last
    one also holds the calibrated network in `CALIBRATED_DIR`, from which text contrast starts.

    Args:
        manifest: training images.
        cam_net: architecture and pretrained weights.
        augment: training crops.
        classifier: optimiser, batch norm, calibration.
        precision: "fp32" or "bf16".
        loader_workers: image loading processes of this worker.
        seed: seed of initial weights, order and crops.
        context: this worker.
        on_step: see `training.loop.fit`.

    Returns:
        Metrics of the last epoch: loss, accuracy (share of right labels), lr, images_per_s.

    Raises:
        ConfigError, DataError, ModelError: for settings, images or weights that cannot be used.
    """
    with seeded(seed_of("network", seed), torch.device("cpu")):
        network = build_cam_net(cam_net, len(manifest.class_names))
    dataset = ImageLabelDataset(manifest, augment, cam_net.image_mean, cam_net.image_std, seed)
    num_images = images_per_step(classifier.optim, len(dataset))

    def step(wrapped: nn.Module, batch: dict[str, Tensor]) -> StepResult:
        return classifier_step(wrapped, batch, images_per_step=num_images)

    def save_calibrated(folder: str | None) -> None:
        size = max(1, num_images // context.world_size)
        calibrated = calibrate(network, dataset, batch_size=size, loader_workers=loader_workers, context=context)
        if folder is not None:
            save_cam_net(calibrated, str(Path(folder, CALIBRATED_DIR)))

    task = Task(
        network=network,
        step=step,
        dataset=dataset,
        optim=classifier.optim,
        freeze_batch_norm=classifier.freeze_batch_norm,
        finish=save_calibrated if classifier.calibrate else None,
    )
    return fit(task, precision=precision, loader_workers=loader_workers, seed=seed, context=context, on_step=on_step)


def classifier_step(network: nn.Module, batch: dict[str, Tensor], *, images_per_step: int) -> StepResult:
    """Compute one step: multi-label soft margin loss of the logits averaged over the image.

    The loss is the mean over the images of all workers and over classes.

    Args:
        network: wrapped network.
        batch: image on the network's device and labels.
        images_per_step: images of the step over all workers.
    """
    labels = batch["labels"].to(batch["image"].device, non_blocking=True)
    scores = network(batch["image"]).float().mean(dim=(2, 3))  # (batch, class)
    per_image = F.multilabel_soft_margin_loss(scores, labels, reduction="none")
    right = ((scores.detach() > 0) == (labels > 0)).float().mean(dim=1)
    return StepResult(loss=per_image.sum() / images_per_step, means={"accuracy": right.sum() / images_per_step})
