"""Mask generators: the networks whose class maps every training here improves, and which of them to make.

A training needs nothing but this interface, so text contrast, CLIMS and SemPLeS run on each of them (row S22).
"""

import dataclasses
from collections.abc import Iterator
from typing import Any, Literal, Protocol, TypeAlias, runtime_checkable

import torch
from jaxtyping import Float
from torch import Tensor, nn

from qaclims_ray.errors import ArtifactError
from qaclims_ray.models.generators.cam_net import CamNet, build_cam_net, rebuild_cam_net, save_cam_net
from qaclims_ray.models.generators.config import CamNetConfig
from qaclims_ray.models.generators.weaktr import WeakTr, build_weaktr, rebuild_weaktr, save_weaktr
from qaclims_ray.models.network_folder import load_network


@runtime_checkable
class MaskGenerator(Protocol):
    """What an ``nn.Module`` must offer to be trained as a mask generator."""

    config: CamNetConfig
    """Its settings."""

    @property
    def num_classes(self) -> int:
        """K."""
        ...

    def forward(
        self, image: Float[Tensor, "batch 3 height width"], *, want: Literal["maps", "scores"] = "maps"
    ) -> Float[Tensor, "batch class cam_height cam_width"] | tuple[Float[Tensor, "batch class"], ...]:
        """Return class maps, or image-level scores of which each is to be classified by itself.

        Args:
            image: normalised with `config.image_mean` and `config.image_std`, of any size.
            want: maps, a cell for every begun `config.output_stride` pixels; or scores.
        """
        ...

    def head_parameters(self) -> Iterator[nn.Parameter]:
        """Yield the parameters that are new in this network; with the backbone's they are all."""
        ...

    def backbone_parameters(self) -> Iterator[nn.Parameter]:
        """Yield the parameters that may come pretrained."""
        ...


MaskNetwork: TypeAlias = CamNet | WeakTr
"""The mask generators there are, for code that also uses what every ``nn.Module`` has."""


def build_mask_generator(config: CamNetConfig, num_classes: int) -> MaskNetwork:
    """Make a mask generator; what is not pretrained is random, from torch's global generator.

    Args:
        config: kind, backbone, pretrained weights.
        num_classes: K.

    Raises:
        ConfigError: for an unknown or unsuitable backbone.
        ModelError: when the pretrained weights are absent, broken or do not fit.
    """
    match config.generator:
        case "cnn":
            return build_cam_net(config, num_classes)
        case "weaktr":
            return build_weaktr(config, num_classes)


def save_mask_generator(net: MaskNetwork, folder: str) -> None:
    """Write settings and weights into a local folder, which is made if it is not there."""
    match net:
        case CamNet():
            save_cam_net(net, folder)
        case WeakTr():
            save_weaktr(net, folder)


def load_mask_generator(folder: str, device: torch.device | str = "cpu") -> MaskNetwork:
    """Read a mask generator back, in evaluation mode.

    Args:
        folder: local path or URI.
        device: where it goes.

    Raises:
        ArtifactError: when the folder holds no network, or a broken one.
    """
    return load_network(folder, _rebuild, device, config_type=CamNetConfig)


def _rebuild(config: CamNetConfig, description: dict[str, Any]) -> MaskNetwork:
    match config.generator:
        case "cnn":
            return rebuild_cam_net(config, description)
        case "weaktr":
            return rebuild_weaktr(config, description)


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
