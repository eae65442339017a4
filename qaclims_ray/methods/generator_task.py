"""What all trainings of a mask generator share: where it starts, what of it learns, how it is kept."""

import functools
from collections.abc import Callable
from typing import Any, Literal

from torch import Tensor, nn

from qaclims_ray.models.generators.mask_generator import MaskNetwork, save_mask_generator
from qaclims_ray.models.network_folder import load_weights
from qaclims_ray.training.config import OptimConfig
from qaclims_ray.training.loop import Task, TrainingImages
from qaclims_ray.training.meter import StepResult
from qaclims_ray.training.selection import Rate


def generator_task(
    network: MaskNetwork,
    step: Callable[[nn.Module, dict[str, Tensor]], StepResult],
    dataset: TrainingImages,
    optim: OptimConfig,
    *,
    freeze_batch_norm: bool,
    scope: Literal["head", "full"] = "full",
    identity: Any = None,
    rate: Rate | None = None,
    finish: Callable[[str | None], None] | None = None,
) -> Task:
    """Make the training of a mask generator.

    Args:
        network: trained in place; with `scope = head` its backbone is frozen.
        step: what one step computes.
        dataset: training images.
        optim: optimiser and schedule.
        freeze_batch_norm: keep batch norm statistics fixed.
        scope: what learns.
        identity: see `Task`.
        rate: rates the network after every epoch; the best epoch's network is kept. None keeps the last.
        finish: see `Task`.
    """
    if scope == "head":
        # Weights only: the backbone stays in training mode, stochastic depth included, as in the released code (S3).
        for parameter in network.backbone_parameters():
            parameter.requires_grad_(False)
    return Task(
        network=network,
        groups=((tuple(network.backbone_parameters()), 1.0), (tuple(network.head_parameters()), optim.head_lr_factor)),
        save=lambda folder: save_mask_generator(network, folder),
        load=lambda folder: load_weights(network, folder),
        step=step,
        dataset=dataset,
        optim=optim,
        freeze_batch_norm=freeze_batch_norm,
        identity=identity,
        score=None if rate is None else functools.partial(rate, network),
        finish=finish,
    )
