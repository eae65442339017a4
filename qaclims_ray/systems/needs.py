"""What the systems of a run need of the pipeline."""

from qaclims_ray.methods.method import Method
from qaclims_ray.methods.table import method_of
from qaclims_ray.models.weights import FROM_CLASSIFIER
from qaclims_ray.refine.config import CLIP_STEPS, MaskConfig
from qaclims_ray.run_config import RunConfig
from qaclims_ray.systems.table import (
    SUPERVISED,
    learns_from_masks_alone,
    system_config,
    system_of,
    training_order,
)


def methods_of(config: RunConfig) -> list[Method]:
    """Return the methods of the run's systems, those that others start from among them."""
    return [method_of(system_of(config, name).method) for name in training_order(config)]


def needs_clip(config: RunConfig) -> bool:
    """Whether any system of the run learns from CLIP, or refines its masks by it."""
    return any(method.uses_clip for method in methods_of(config)) or refines_by_clip(config)


def refines_by_clip(config: RunConfig) -> bool:
    """Whether any system of the run refines its masks by the run's CLIP."""
    return any(step in CLIP_STEPS for masks in refinements(config) for step in masks.steps)


def refinements(config: RunConfig) -> set[MaskConfig]:
    """Return the settings by which systems of the run turn their CAMs into pseudo masks."""
    if config.goal == "seed":
        return set()
    return {system_config(config, name).masks for name in systems_with_cams(config)}


def needs_classifier(config: RunConfig) -> bool:
    """Whether any system of the run is the classifier or starts from it."""
    return starts_from_classifier(config) or any(method.uses_classifier for method in methods_of(config))


def needs_backbone(config: RunConfig) -> bool:
    """Whether any training of the run starts from the weights of `cam_net`: CAM networks, or an encoder of tags."""
    methods = methods_of(config)
    learns_tags = any(method.own_network is not None and not method.uses_clip for method in methods)
    return learns_tags or needs_classifier(config) or any(method.phases is not None for method in methods)


def starts_from_classifier(config: RunConfig) -> bool:
    """Whether affinity or final networks start from the classifier's backbone."""
    if learns_from_masks_alone(config):
        return False
    uses_irn = any("irn" in masks.steps and masks.irn.weights == FROM_CLASSIFIER for masks in refinements(config))
    own = (method_of(system_of(config, name).method).own_network for name in systems_with_networks(config))
    return uses_irn or (config.segmentation.net.weights == FROM_CLASSIFIER and any(one is None for one in own))


def needs_corpus(config: RunConfig) -> bool:
    """Whether any system of the run reads the VQA corpus."""
    return any(
        method_of(system_of(config, name).method).uses_texts and system_config(config, name).text.source == "qape"
        for name in training_order(config)
    )


def systems_with_cams(config: RunConfig) -> list[str]:
    """Return the compared systems that have CAMs: all but final networks that need none."""
    return [name for name in config.systems if method_of(system_of(config, name).method).has_cams]


def systems_with_masks(config: RunConfig) -> list[str]:
    """Return the compared systems that get pseudo masks, those that bring their own last: they may take others'."""
    if config.goal == "seed":
        return []
    return [*systems_with_cams(config), *systems_with_given_masks(config)]


def systems_with_given_masks(config: RunConfig) -> list[str]:
    """Return the compared systems whose masks were made elsewhere."""
    return [name for name in config.systems if method_of(system_of(config, name).method).brings_masks]


def systems_with_networks(config: RunConfig) -> list[str]:
    """Return the systems that get a final network: the compared ones, and the bound where it is asked for."""
    if config.goal != "segmentation":
        return []
    return list(dict.fromkeys([*config.systems, *([SUPERVISED] if config.supervised_bound else [])]))


def rounds_of(resolved: RunConfig, name: str) -> int:
    """Return how often a system's final network is trained: once, unless its masks come from its own maps.

    Masks that a person gave stay what they are, and so do true ones; a network that makes its own makes them all along.

    Args:
        resolved: the run's configuration with the system's settings on top.
        name: of the system.
    """
    return resolved.segmentation.rounds if method_of(system_of(resolved, name).method).has_cams else 1


def trains_nothing(config: RunConfig, name: str) -> bool:
    """Whether a system's CAMs can be made before anything is trained."""
    method = method_of(system_of(config, name).method)
    return method.has_cams and method.phases is None and not method.uses_classifier


def is_mask_trained(config: RunConfig, name: str) -> bool:
    """Whether a system's maps come from a model that was trained on masks."""
    return bool(method_of(system_of(config, name).method).trained_on_masks)


def source_of_cams(config: RunConfig, name: str) -> Method | None:
    """Return the method that brings the CAMs which a system is, or learns its prompts on; None where a network does."""
    system = system_of(config, name)
    names = (system.method, *([system_of(config, system.base).method] if system.base else []))
    return next((method for method in map(method_of, names) if method.cam_work is not None), None)


def uses_given(config: RunConfig, name: str) -> bool:
    """Whether a system is, or learns its prompts on, CAMs made elsewhere."""
    return source_of_cams(config, name) is not None
