"""What all trainings of a mask generator share: where it starts, what of it learns, how it is kept."""

import dataclasses
import functools
from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal

from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn

from qaclims_ray.config import CamNetConfig, OptimConfig
from qaclims_ray.errors import ArtifactError
from qaclims_ray.models.mask_generator import MaskNetwork, load_mask_generator, save_mask_generator
from qaclims_ray.models.network_folder import WEIGHTS_NAME
from qaclims_ray.training.loop import Task, TrainingImages
from qaclims_ray.training.meter import StepResult
from qaclims_ray.training.selection import Rate


def initial_generator(init_dir: str, cam_net: CamNetConfig, num_classes: int) -> MaskNetwork:
    """Load the network that a training starts from.

    Args:
        init_dir: its folder.
        cam_net: the architecture it must have.
        num_classes: the number of classes it must have.

    Raises:
        ArtifactError: when it is another one.
    """
    network = load_mask_generator(init_dir)
    if network.num_classes != num_classes:
        raise ArtifactError(
            f"the network at {init_dir} has {network.num_classes} classes, the data set {num_classes}; "
            "train the classifier on this data set"
        )
    # Where pretrained weights came from no longer matters.
    found, expected = (dataclasses.replace(config, weights="") for config in (network.config, cam_net))
    if found != expected:
        raise ArtifactError(
            f"the network at {init_dir} was built with {found}, expected {expected}; train the classifier again"
        )
    return network


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


def load_weights(network: nn.Module, folder: str) -> None:
    """Bring a network to the weights that a folder holds.

    Raises:
        ArtifactError: when they are absent, broken or of another network.
    """
    try:
        network.load_state_dict(load_file(Path(folder, WEIGHTS_NAME)))
    except (OSError, RuntimeError, SafetensorError) as error:
        raise ArtifactError(f"the checkpoint at {folder} does not fit the network: {error}") from None
