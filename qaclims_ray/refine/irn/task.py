"""Training of the affinity network on the confident seeds (Ahn et al. 2019, row E8)."""

import dataclasses
from collections.abc import Callable

import torch
from jaxtyping import Float, UInt8
from torch import Tensor, nn
from torch.utils.data import DataLoader, Subset

from qaclims_ray.models.network_folder import load_weights
from qaclims_ray.models.precision import Arithmetic
from qaclims_ray.refine.irn.config import GRID_STRIDE, IrnConfig
from qaclims_ray.refine.irn.losses import WEIGHTS, affinity_sums
from qaclims_ray.refine.irn.network import AffinityNet, grid_of, save_affinity_net
from qaclims_ray.training.context import WorkerContext, all_reduce_sum
from qaclims_ray.training.loop import Task, TrainingImages, fit, images_per_step
from qaclims_ray.training.meter import OnStep, StepResult, weighted

_TRAINED_WITH = ("backbone", "weights", "width", "radius", "min_scale", "max_scale", "crop_px")


def train_affinity(
    *,
    network: AffinityNet,
    dataset: TrainingImages,
    irn: IrnConfig,
    seed: int,
    precision: Arithmetic,
    loader_workers: int,
    context: WorkerContext,
    on_step: OnStep | None = None,
) -> dict[str, float]:
    """Train an affinity network in place; runs on every worker.

    Each reported checkpoint holds ``network.json`` and ``network.safetensors``. After the last epoch the mean
    displacement over the training images is measured; the last checkpoint and the network hold it.

    Args:
        network: fresh branches on a frozen backbone.
        dataset: items with image (3, crop, crop; normalised as `network.normalisation` says), labels (crop, crop;
            label values of confident seeds) and index.
        irn: radius and optimiser.
        seed: seed of the order of images.
        precision: "fp32" or "bf16" (autocast of the network); losses compute in float32.
        loader_workers: image loading processes of this worker.
        context: this worker.
        on_step: see `training.loop.fit`.

    Returns:
        Metrics of the last epoch: loss, its terms loss/background, loss/foreground, loss/negative,
        loss/background_displacement, loss/foreground_displacement (means over pairs, before weighting), lr,
        images_per_s.

    Raises:
        ConfigError, DataError, ArtifactError: see `training.loop.fit`.
    """

    def finish(folder: str | None) -> None:
        size = max(1, images_per_step(irn.optim, len(dataset)) // context.world_size)
        mean = mean_displacement(network, dataset, batch_size=size, loader_workers=loader_workers, context=context)
        network.mean_displacement.copy_(mean)
        if folder is not None:
            # Once more: the checkpoint's network was written before its mean displacement was known.
            save_affinity_net(network, folder)

    return fit(
        _affinity_task(network, dataset, irn, finish),
        precision=precision,
        loader_workers=loader_workers,
        seed=seed,
        context=context,
        on_step=on_step,
    )


def _affinity_task(
    network: AffinityNet, dataset: TrainingImages, irn: IrnConfig, finish: Callable[[str | None], None]
) -> Task:
    return Task(
        network=network,
        groups=(
            (tuple(network.boundary.parameters()), 1.0),
            (tuple(network.displacement.parameters()), irn.optim.head_lr_factor),
        ),
        save=lambda folder: save_affinity_net(network, folder),
        load=lambda folder: load_weights(network, folder),
        step=lambda wrapped, batch: affinity_step(wrapped, batch, radius=irn.radius),
        dataset=dataset,
        on_device=("image", "labels"),
        optim=irn.optim,
        freeze_batch_norm=True,
        identity={name: value for name, value in dataclasses.asdict(irn).items() if name in _TRAINED_WITH},
        finish=finish,
    )


def affinity_step(network: nn.Module, batch: dict[str, Tensor], *, radius: int) -> StepResult:
    """Compute one step: a share of the loss of the global batch, whatever the number of workers.

    Each term is the mean over the pairs of all workers; without any such pair it is zero.

    Args:
        network: wrapped network.
        batch: image and labels, on the network's device.
        radius: distance in cells below which two cells are a pair.
    """
    boundary, displacement = network(batch["image"])
    sums, num_pairs = affinity_sums(boundary, displacement, grid_labels(batch["labels"]), radius=radius)
    terms = sums.divided(all_reduce_sum(num_pairs))
    return weighted(vars(terms), WEIGHTS)


def grid_labels(labels: UInt8[Tensor, "batch height width"]) -> UInt8[Tensor, "batch grid_height grid_width"]:
    """Return the label of each cell: that of the pixel at its centre, right and below where there is none."""
    height, width = labels.shape[1:]
    rows, columns = (torch.arange(cells, device=labels.device) * GRID_STRIDE for cells in grid_of(labels))
    centre = GRID_STRIDE // 2
    rows, columns = (rows + centre).clamp(max=height - 1), (columns + centre).clamp(max=width - 1)
    return labels[:, rows[:, None], columns]


@torch.no_grad()
def mean_displacement(
    network: AffinityNet, dataset: TrainingImages, *, batch_size: int, loader_workers: int, context: WorkerContext
) -> Float[Tensor, " 2"]:
    """Return the mean of the displacement fields of all training images, each image counting the same.

    Runs on every worker, each taking its share of the images; all get the same result.

    Args:
        network: trained; left in the mode it was in, what it subtracts so far has no influence.
        dataset: training images, seen as in epoch 0.
        batch_size: images in one forward pass of one worker.
        loader_workers: image loading processes.
        context: this worker.
    """
    dataset.set_epoch(0)
    share = Subset(dataset, range(context.rank, len(dataset), context.world_size))  # type: ignore[arg-type]
    was_training = network.training
    network.train()  # the field as it is, nothing subtracted; no part of it has another training mode
    total = torch.zeros(2, dtype=torch.float64, device=context.device)
    for batch in DataLoader(share, batch_size=batch_size, num_workers=loader_workers):
        _, displacement = network(batch["image"].to(context.device))
        total += displacement.double().mean(dim=(2, 3)).sum(dim=0)
    network.train(was_training)
    return (all_reduce_sum(total) / len(dataset)).float()
