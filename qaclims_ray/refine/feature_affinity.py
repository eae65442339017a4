"""Affinity by features of a timm network (step feature_affinity): DINOv2, or a small convolutional network."""

from dataclasses import dataclass
from typing import Any

import timm
import torch
from jaxtyping import UInt8
from torch import Tensor

from qaclims_ray.errors import ConfigError, ModelError
from qaclims_ray.models.backbone import create_backbone, load_backbone_weights
from qaclims_ray.refine.affinities import cosine_affinity
from qaclims_ray.refine.affinity_config import FeatureAffinityConfig
from qaclims_ray.refine.spreading import AffinityOf, CellAffinity, as_seen, cell_grid


@dataclass(frozen=True)
class CellFeatures:
    """A network that gives a feature for each cell of an image."""

    network: Any
    """The timm model, frozen, in evaluation mode."""
    cell_px: int
    """Side of a cell in pixels."""
    mean: tuple[float, float, float]
    """Normalisation that its weights expect, on the 0-1 scale."""
    std: tuple[float, float, float]
    """The same."""


def load_cell_features(config: FeatureAffinityConfig, device: torch.device | str) -> CellFeatures:
    """Load the network.

    Raises:
        ConfigError: for a model that timm does not know, or that gives no features of images of any size.
        ModelError: when its weights cannot be had or do not fit.
    """
    # A vision transformer stretches its positions only where it is told to; others know no such option.
    is_transformer = timm.models.is_model_in_modules(config.backbone, ["vision_transformer"])
    options = {"dynamic_img_size": True} if is_transformer else {}
    network: Any = create_backbone(
        config,
        chosen="images of any size",
        expected="a vision transformer or a convolutional network",
        **options,
    )
    if config.weights != "timm":
        load_backbone_weights(network, config.weights, setting="masks.feature_affinity.weights")
    network.requires_grad_(False).eval().to(device)
    mean, std = network.pretrained_cfg["mean"], network.pretrained_cfg["std"]
    return CellFeatures(network, _cell_px(network, config), (mean[0], mean[1], mean[2]), (std[0], std[1], std[2]))


def by_features(features: CellFeatures, config: FeatureAffinityConfig) -> AffinityOf:
    """Return what makes an affinity of an image out of the features of its cells."""

    @torch.no_grad()
    def affinity_of(image: UInt8[Tensor, "3 height width"]) -> CellAffinity:
        cell_px = features.cell_px
        rows, columns = cell_grid(image.shape[1], image.shape[2], cell_px, config.spread.scale)
        pixels = as_seen(image, (rows * cell_px, columns * cell_px), features.mean, features.std)
        (found,) = features.network.forward_intermediates(
            pixels, indices=[config.stage], intermediates_only=True, stop_early=True
        )
        weights = cosine_affinity(found[0].flatten(1).T, temperature=config.temperature)
        return CellAffinity(weights, rows, columns)

    return affinity_of


def _cell_px(network: Any, config: FeatureAffinityConfig) -> int:
    """Return the side of a cell, and look at one picture to see that the network gives such cells."""
    name, stages = config.backbone, getattr(network, "feature_info", None)
    if not hasattr(network, "forward_intermediates") or not stages:
        raise ConfigError(
            f"masks.feature_affinity.backbone: timm's {name} gives no features of its blocks; take a vision "
            "transformer (vit_small_patch14_dinov2) or a convolutional network (tf_efficientnet_lite2)"
        )
    if not -len(stages) <= config.stage < len(stages):
        raise ConfigError(
            f"masks.feature_affinity.stage is {config.stage}; {name} has {len(stages)}, expected 0 to "
            f"{len(stages) - 1}, or -{len(stages)} to -1"
        )
    cell_px = int(stages[config.stage]["reduction"])
    device = next(network.parameters()).device
    try:
        with torch.no_grad():
            picture = torch.zeros(1, 3, 2 * cell_px, 3 * cell_px, device=device)
            (found,) = network.forward_intermediates(picture, indices=[config.stage], intermediates_only=True)
    except (AssertionError, RuntimeError, ValueError) as error:
        raise ConfigError(
            f"masks.feature_affinity.backbone: timm's {name} does not take images of any size ({error}); take a vision "
            "transformer (vit_small_patch14_dinov2) or a convolutional network (tf_efficientnet_lite2)"
        ) from None
    if found.shape[2:] != (2, 3) or not bool(found.isfinite().all()):
        raise ModelError(
            f"masks.feature_affinity: {name} gives {tuple(found.shape[2:])} cells for an image of 2 by 3, or numbers "
            "that are not finite; take another stage or another model"
        )
    return cell_px
