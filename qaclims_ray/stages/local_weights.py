"""Weights of small networks that lie on this machine, for runs on a folder of photographs; nothing is downloaded."""

from pathlib import Path
from typing import NamedTuple

from qaclims_ray.models.known_weights import find, weight_named, weights_folder, weights_in
from qaclims_ray.presets.small import LITE2, LOCAL, MOBILENET, SMALL_BACKBONES, SmallBackbone
from qaclims_ray.run_config import RunConfig, with_overrides
from qaclims_ray.systems.needs import needs_classifier
from qaclims_ray.systems.table import learns_from_masks_alone, system_config

_FROM_SCRATCH = {
    "cam_net.weights": "",
    "classifier.freeze_batch_norm": False,
    "classifier.optim.lr": 1e-3,
    "classifier.optim.head_lr_factor": 1.0,
    "classifier.optim.epochs": 30,
    "segmentation.freeze_batch_norm": False,
    "segmentation.optim.lr": 1e-3,
}
"""A network that starts at random has no batch statistics to keep, and learns all of its layers."""
_CLIPS = ("clip-vit-b-16", "clip-vit-l-14")
"""Those with patches of 16 pixels and less, the published ones first: they tell apart where in the image a thing is."""


class LocalBackbone(NamedTuple):
    """A small backbone and the file of its weights."""

    small: SmallBackbone
    path: Path
    weight: str
    """Name of the known weight."""


class LocalClip(NamedTuple):
    """A plain CLIP whose weights lie on this machine."""

    model: str
    """Its architecture, as open_clip calls it."""
    path: Path
    weight: str
    """Name of the known weight."""

    def settings(self) -> dict[str, object]:
        """Return the settings of a run that takes it."""
        return {"clip.model": self.model, "clip.weights": str(self.path), "clip.mask_adapted": False}


def local_clip() -> LocalClip | None:
    """Return the CLIP of this machine that suits seeds without training best, None where there is none."""
    for name in _CLIPS:
        weight, path = weight_named(name), find(name)
        if weight is not None and path is not None:
            return LocalClip(weight.open_clip[-1], path, name)
    return None


def local_backbones() -> list[LocalBackbone]:
    """Return the small backbones whose weights lie on this machine, the best first."""
    named = [(small, name) for small in SMALL_BACKBONES for name in small.weights]
    return [LocalBackbone(small, path, name) for small, name in named if (path := find(name)) is not None]


def backbone_of_file(path: str) -> SmallBackbone | None:
    """Return the small backbone that a file of weights is for, by its name or content; None where it is not known."""
    found = weights_in({"cam_net.weights": path})
    weight = found[0].weight if found else None
    return next((small for small in SMALL_BACKBONES if weight is not None and weight.name in small.weights), None)


def with_local_weights(config: RunConfig) -> RunConfig:
    """Put weights of this machine where a run on a folder asks for them, and the network that these are for.

    A known file that `cam_net.weights` names brings its network too, whatever the preset's.
    """
    weights = config.cam_net.weights
    if weights == LOCAL:
        there = sorted(local_backbones(), key=lambda one: one.small.backbone != config.cam_net.backbone)
        if there:
            return with_overrides(config, there[0].small.settings(weights=str(there[0].path)))
        return from_scratch(config)
    if config.data.dataset == "folder" and "/" in weights and (small := backbone_of_file(weights)) is not None:
        return with_overrides(config, small.settings(weights=weights))
    return config


def from_scratch(config: RunConfig) -> RunConfig:
    """Return a run whose network, the smallest, starts from random weights."""
    return with_overrides(config, {**MOBILENET.settings(weights=""), **_FROM_SCRATCH})


def random_start_remarks(config: RunConfig) -> list[str]:
    """Say, where a network learns photographs from random weights, that this is poor and what to do."""
    if config.data.dataset == "folder" and learns_from_masks_alone(config):
        final = system_config(config, config.systems[0]).segmentation.net
        return [f"the final network, a {final.backbone}, starts from random weights"] * (final.weights == "random")
    is_random = config.cam_net.generator == "cnn" and not config.cam_net.weights and not config.classifier.network
    if config.data.dataset != "folder" or not is_random or not needs_classifier(config):
        return []
    best = weight_named(LITE2.weights[0])
    assert best is not None
    return [
        f"the {config.cam_net.backbone} starts from random weights (cam_net.weights is empty): its masks will be poor. "
        f"Put {best.files[0].name} ({best.num_bytes / 1e6:.0f} MB, {best.licence}; {best.page}) into "
        f"{weights_folder()}, by hand or by `qaclims fetch {best.name}`, or name a file with --cam-net.weights; then "
        "begin again"
    ]
