"""Training of the image-level classifier: the baseline CAM, and the start of text contrast (row R9)."""

from dataclasses import replace
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from qaclims_ray.data.datasets import seed_of
from qaclims_ray.errors import ConfigError
from qaclims_ray.methods.classifier.calibration import calibrate
from qaclims_ray.methods.classifier.config import CALIBRATED_DIR, ClassifierConfig
from qaclims_ray.methods.generator_task import generator_task
from qaclims_ray.models.generators.cam_net import CamNet
from qaclims_ray.models.generators.mask_generator import build_mask_generator, save_mask_generator
from qaclims_ray.training.loop import images_per_step, seeded
from qaclims_ray.training.meter import StepResult
from qaclims_ray.training.setup import TrainingSetup


def train_classifier(
    *,
    setup: TrainingSetup,
    classifier: ClassifierConfig,
    weights: str | None = None,
) -> dict[str, float]:
    """Train a classifier on image-level labels; runs on every worker.

    Each reported checkpoint holds ``network.json`` and ``network.safetensors``; with `classifier.calibrate` the last
    one also holds the calibrated network in `CALIBRATED_DIR`, from which text contrast starts.

    Args:
        setup: images, architecture, worker.
        classifier: optimiser, batch norm, calibration.
        weights: the file that `cam_net.weights` is a name for; None takes `cam_net.weights` as it is.

    Returns:
        Metrics of the last epoch: loss, accuracy (share of right labels), lr, images_per_s.

    Raises:
        ConfigError, DataError, ModelError: for settings, images or weights that cannot be used.
    """
    cam_net, context = setup.cam_net, setup.context
    if classifier.calibrate and cam_net.generator != "cnn":
        raise ConfigError(
            f"classifier.calibrate maps the logits of a CNN, but cam_net.generator is {cam_net.generator}, whose maps "
            "are not logits; set classifier.calibrate to false"
        )
    with seeded(seed_of("network", setup.seed), torch.device("cpu")):
        network = build_mask_generator(
            replace(cam_net, weights=cam_net.weights if weights is None else weights), setup.num_classes
        )
    # What is stored is the setting as it was given, not the place where this machine keeps the file.
    network.config = cam_net
    dataset = setup.images()
    num_images = images_per_step(classifier.optim, len(dataset))

    def step(wrapped: nn.Module, batch: dict[str, Tensor]) -> StepResult:
        return classifier_step(wrapped, batch, images_per_step=num_images)

    def save_calibrated(folder: str | None) -> None:
        assert isinstance(network, CamNet)
        size = max(1, num_images // context.world_size)
        calibrated = calibrate(network, dataset, batch_size=size, loader_workers=setup.loader_workers, context=context)
        if folder is not None:
            save_mask_generator(calibrated, str(Path(folder, CALIBRATED_DIR)))

    task = generator_task(
        network,
        step,
        dataset,
        classifier.optim,
        freeze_batch_norm=classifier.freeze_batch_norm,
        scope=classifier.train_scope,
        finish=save_calibrated if classifier.calibrate else None,
    )
    return setup.fit(task)


def classifier_step(network: nn.Module, batch: dict[str, Tensor], *, images_per_step: int) -> StepResult:
    """Compute one step: multi-label soft margin loss of the network's image-level scores.

    The loss is the mean over the images of all workers and over classes; of a network with several scores (WeakTr)
    it is the sum of theirs. The accuracy is that of the first.

    Args:
        network: wrapped network.
        batch: image on the network's device and labels.
        images_per_step: images of the step over all workers.
    """
    labels = batch["labels"].to(batch["image"].device, non_blocking=True)
    scores = [score.float() for score in network(batch["image"], want="scores")]  # each (batch, class)
    per_image = sum(F.multilabel_soft_margin_loss(score, labels, reduction="none") for score in scores)
    assert isinstance(per_image, Tensor)
    right = ((scores[0].detach() > 0) == (labels > 0)).float().mean(dim=1)
    return StepResult(loss=per_image.sum() / images_per_step, means={"accuracy": right.sum() / images_per_step})
