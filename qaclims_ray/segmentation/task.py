"""Training of the final networks on label maps, pseudo masks or true ones (rows D1-D8)."""

import contextlib
import dataclasses
from collections.abc import Callable, Sequence
from typing import Any

import torch
from jaxtyping import Float, Int64, UInt8
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from qaclims_ray.data.artifacts import fingerprint_of
from qaclims_ray.data.classes import BACKGROUND_VALUE, IGNORE_VALUE, Classes
from qaclims_ray.data.datasets import seed_of
from qaclims_ray.data.label_map_dataset import LabelledImage, LabelMapDataset
from qaclims_ray.errors import DataError
from qaclims_ray.models.devices import upload
from qaclims_ray.models.network_folder import load_weights
from qaclims_ray.models.precision import Arithmetic
from qaclims_ray.segmentation.config import SegmentationConfig
from qaclims_ray.segmentation.losses import balanced, cross_entropy_sum, labels_at, pixel_mean
from qaclims_ray.segmentation.networks.network import (
    FinalNetwork,
    build_segmentation_network,
    save_segmentation_network,
)
from qaclims_ray.training.context import WorkerContext, all_reduce_sum
from qaclims_ray.training.loop import Task, fit, seeded
from qaclims_ray.training.meter import OnStep, StepResult


def train_segmentation(
    *,
    images: Sequence[LabelledImage],
    classes: Classes,
    segmentation: SegmentationConfig,
    seed: int,
    precision: Arithmetic,
    loader_workers: int,
    context: WorkerContext,
    on_step: OnStep | None = None,
    weights: str | None = None,
) -> dict[str, float]:
    """Train a final network; runs on every worker.

    Batches walk through shuffled passes over the images, so that any number of steps sees all equally often; where an
    epoch is a pass, its last images that fill no batch are left out.
    Each checkpoint holds ``network.json`` and ``network.safetensors``.

    Args:
        images: pictures and their label maps.
        classes: of the data set; the network has an output for each of its labels.
        segmentation: network, crops, loss, optimiser.
        seed: seed of the network's fresh layers, of order and crops.
        precision: "fp32" or "bf16".
        loader_workers: image loading processes of this worker.
        context: this worker.
        on_step: see `loop.fit`.
        weights: the file or folder that `segmentation.net.weights` is a name for; None takes it as it is.

    Returns:
        Metrics since the last checkpoint but one: loss, accuracy (share of labelled pixels of the crops that the
        network, as it then was, gave their label; not of Mask2Former), lr, images_per_s.

    Raises:
        ConfigError, DataError, ModelError: for settings, images or weights that cannot be used.
    """
    net = segmentation.net
    with seeded(seed_of("network", seed), torch.device("cpu")):
        network = build_segmentation_network(
            dataclasses.replace(net, weights=net.weights if weights is None else weights), classes.num_labels
        )
    network.config = net
    task = segmentation_task(network, images, classes, segmentation, seed=seed, context=context)
    return fit(task, precision=precision, loader_workers=loader_workers, seed=seed, context=context, on_step=on_step)


def segmentation_task(
    network: FinalNetwork,
    images: Sequence[LabelledImage],
    classes: Classes,
    segmentation: SegmentationConfig,
    *,
    seed: int,
    context: WorkerContext,
) -> Task:
    """Make the training of a final network, which is trained in place.

    Args:
        network: the network.
        images: pictures and their label maps.
        classes: see `train_segmentation`.
        segmentation: crops, loss, optimiser; the network is built already.
        seed: seed of order and crops.
        context: this worker.

    Raises:
        DataError: when there is no image.
    """
    # Where a recipe counts steps, epochs walk on through passes: small data sets would save a checkpoint all the time.
    steps = segmentation.steps_per_epoch
    dataset = LabelMapDataset(
        images,
        segmentation.crop,
        network.config.image_mean,
        network.config.image_std,
        seed,
        items_per_epoch=None if steps is None else steps * segmentation.optim.batch_size,
    )
    parts = num_parts(segmentation, context.world_size)
    uses_sets = network.supervision == "sets"

    def step(wrapped: nn.Module, batch: dict[str, Tensor]) -> StepResult:
        _check_labels(batch, classes, dataset.images)
        if not classes.has_background:
            batch = {**batch, "labels": without_background(batch["labels"])}
        if uses_sets:  # Mask2Former matches predictions with masks itself
            return sets_step(wrapped, batch, parts=parts, world_size=context.world_size)
        is_balanced = segmentation.loss == "balanced"
        return dense_step(wrapped, batch, is_balanced=is_balanced, parts=parts, world_size=context.world_size)

    optim = segmentation.optim
    return Task(
        network=network,
        groups=((tuple(network.backbone_parameters()), 1.0), (tuple(network.head_parameters()), optim.head_lr_factor)),
        save=lambda folder: save_segmentation_network(network, folder, classes),
        load=lambda folder: load_weights(network, folder),
        step=step,
        dataset=dataset,
        optim=optim,
        freeze_batch_norm=segmentation.freeze_batch_norm,
        is_captured=not uses_sets,  # matching reads values
        identity=_identity(network, dataset.images, segmentation),
    )


def without_background(labels: UInt8[Tensor, "batch height width"]) -> UInt8[Tensor, "batch height width"]:
    """Return label values as a network without background numbers them: the class ids; 0 and 255 become 255."""
    return torch.where(labels == IGNORE_VALUE, labels, labels - 1)  # bytes: 0 - 1 is 255


def num_parts(segmentation: SegmentationConfig, world_size: int) -> int:
    """Return the parts of a worker's share, on all workers the same: never more than its images."""
    return max(1, min(segmentation.accumulation, segmentation.optim.batch_size // world_size))


def dense_step(
    network: nn.Module, batch: dict[str, Tensor], *, is_balanced: bool, parts: int, world_size: int
) -> StepResult:
    """Compute one step of a network that gives logits.

    The loss is the mean cross-entropy over the labelled pixels of all workers (row D1), or half of it each for
    background and foreground (row D2); of a network with several logits it is the sum of theirs (row D3), each at its
    own resolution. Pixels are counted over all parts and workers first, so neither changes the update. The accuracy
    is that of the first logits.

    Args:
        network: wrapped network.
        batch: image on the network's device, and labels.
        is_balanced: whether background and foreground weigh the same.
        parts: parts of this worker's images, see `sum_of_parts`.
        world_size: number of workers.
    """
    all_labels = batch["labels"].to(batch["image"].device, non_blocking=True)
    images, labels = batch["image"].tensor_split(parts), all_labels.tensor_split(parts)
    reduce = balanced if is_balanced else pixel_mean
    counts: list[Tensor] = []
    right: list[Tensor] = []

    def loss_of(part: int) -> Tensor:
        logits: tuple[Tensor, ...] = network(images[part], labels[part])
        if not counts:  # known from the first part on: they need the logits' sizes
            local = torch.stack([pixel_counts(labels_at(all_labels, _size(each))) for each in logits])
            counts.extend(all_reduce_sum(local))
        targets = [labels_at(labels[part], _size(each)) for each in logits]
        right.append((logits[0].detach().argmax(1) == targets[0]).sum())
        sums = [cross_entropy_sum(each, target).losses for each, target in zip(logits, targets, strict=True)]
        return torch.stack([reduce(losses, count) for losses, count in zip(sums, counts, strict=True)]).sum()

    loss = sum_of_parts(network, parts, world_size, loss_of)
    return StepResult(loss=loss, means={"accuracy": torch.stack(right).sum() / counts[0].sum().clamp(min=1)})


def sets_step(network: nn.Module, batch: dict[str, Tensor], *, parts: int, world_size: int) -> StepResult:
    """Compute one step of a network with a loss of its own (Mask2Former, row D8).

    The network's loss is this worker's share of a mean over the masks of all workers. Of several parts each is such a
    mean, and weighs by its images over all workers; so parts change the update a little.

    Args:
        network: wrapped network.
        batch: image on the network's device, and labels.
        parts: parts of this worker's images, see `sum_of_parts`.
        world_size: number of workers.
    """
    all_labels = batch["labels"].to(batch["image"].device, non_blocking=True)
    images, labels = batch["image"].tensor_split(parts), all_labels.tensor_split(parts)
    sizes = all_reduce_sum(upload(torch.tensor([float(len(image)) for image in images]), batch["image"].device))
    # Workers' shares of a part add up to the mean over its images of all workers, so it weighs by their number.
    weights = sizes / sizes.sum()

    def loss_of(part: int) -> Tensor:
        return weights[part] * network(images[part], labels[part])

    return StepResult(loss=sum_of_parts(network, parts, world_size, loss_of))


def sum_of_parts(
    network: nn.Module, parts: int, world_size: int, loss_of: Callable[[int], Tensor]
) -> Float[Tensor, ""]:
    """Return the sum of the parts' losses; all but the last have gone backward, so their graphs are gone.

    Their gradients wait in the parameters; workers exchange gradients with those of the last part.

    Args:
        network: wrapped network.
        parts: their number, the same on all workers.
        world_size: number of workers: what DDP divides by.
        loss_of: computes a part's loss.
    """
    done: Tensor | float = 0.0
    for part in range(parts - 1):
        with network.no_sync() if isinstance(network, DistributedDataParallel) else contextlib.nullcontext():
            loss = loss_of(part)
            (loss * world_size).backward()
        done = done + loss.detach()
    return loss_of(parts - 1) + done


def pixel_counts(labels: UInt8[Tensor, "batch height width"]) -> Int64[Tensor, " kind=2"]:
    """Count background and foreground pixels, as `segmentation.losses.PixelSums` does."""
    is_background = labels == BACKGROUND_VALUE
    return torch.stack([is_background.sum(), (~is_background & (labels != IGNORE_VALUE)).sum()])


def _size(logits: Tensor) -> tuple[int, int]:
    return int(logits.shape[2]), int(logits.shape[3])


def _check_labels(batch: dict[str, Tensor], classes: Classes, images: Sequence[LabelledImage]) -> None:
    """Refuse label values that the network does not know; batch and labels are on the CPU, so nothing waits."""
    labels = batch["labels"]
    is_unknown = (labels > len(classes)) & (labels != IGNORE_VALUE)
    if is_unknown.any():
        first = int(is_unknown.flatten(1).any(1).nonzero()[0])
        raise DataError(
            f"label map {images[int(batch['index'][first])].mask_uri} holds label {int(labels[is_unknown][0])}; "
            f"expected {'0 (background)' if classes.has_background else 1} to {len(classes)}, or 255: it was made with "
            "another class list"
        )


def _identity(
    network: FinalNetwork, images: Sequence[LabelledImage], segmentation: SegmentationConfig
) -> dict[str, Any]:
    return {
        "net": dataclasses.asdict(network.config),
        "num_labels": network.num_labels,
        "crop": dataclasses.asdict(segmentation.crop),
        "loss": segmentation.loss,
        "images": fingerprint_of([image.image_id for image in images]),
    }
