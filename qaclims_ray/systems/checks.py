"""Checks of a run's systems before any work starts: names, and settings that do not go together."""

from qaclims_ray.data.classes import has_background
from qaclims_ray.errors import ConfigError
from qaclims_ray.run_config import RunConfig, System
from qaclims_ray.systems.table import adjustments, known_system, system_config, system_of, training_order, uses_given


def check_systems(config: RunConfig) -> None:
    """Resolve every system of a run once, so that a bad name or combination fails before any work starts.

    Raises:
        ConfigError: naming the setting or system that cannot be used and why.
    """
    for name in training_order(config):
        system, resolved = system_of(config, name), system_config(config, name)
        if system.miniature_only and config.data.dataset != "miniature":
            raise ConfigError(
                f"system {name} holds texts of the miniature world; data.dataset is {config.data.dataset}"
            )
        if system.method == "supervised" and config.goal != "segmentation":
            raise ConfigError(f"system {name} is a final network; set goal to segmentation")
        _check_masks(name, resolved, system)
        _check_background(name, resolved)
        if system.method == "qa_clims":
            _check_ritc(name, resolved, system)
        if system.method == "clims" and resolved.text.source != "fixed":
            raise ConfigError(f"system {name}: CLIMS has fixed background texts; set text.source to fixed")
        if name in config.systems and uses_given(config, name):  # a base is imported for those that use it
            _check_given(name, resolved, system)
    for variant in adjustments(config):
        known_system(variant.like)
    own = [variant.name for variant in config.variants if not variant.adjusts]
    if unused := [name for name in own if name not in training_order(config)]:
        raise ConfigError(f"variants {unused} would not be trained: name them in systems too")


def _check_masks(name: str, resolved: RunConfig, system: System) -> None:
    """Refuse sigmoid masks of WeakTr's maps: they are never negative, so that no mask would fall below one half."""
    takes_sigmoid = system.method in ("qa_clims", "clims") or (
        system.method == "semples" and resolved.semples.mask == "sigmoid"
    )
    if resolved.cam_net.generator == "weaktr" and takes_sigmoid:
        advice = "set semples.mask to minmax" if system.method == "semples" else "use cam_net.generator cnn"
        raise ConfigError(f"system {name} takes the sigmoid of logits, but WeakTr's maps are none; {advice}")


def _check_background(name: str, resolved: RunConfig) -> None:
    """Refuse what parts objects from a background where the data set has none."""
    dataset = resolved.data.dataset
    if has_background(dataset):
        return
    steps = [step for step in resolved.masks.steps if step in ("irn", "sam")]
    if steps and resolved.goal != "seed":
        raise ConfigError(
            f"system {name}: masks.steps has {' and '.join(steps)}, which part objects from a background, but "
            f"{dataset} has none; leave them out, or take crf or pamr"
        )
    if resolved.segmentation.loss == "balanced" and resolved.goal == "segmentation":
        raise ConfigError(
            f"system {name}: segmentation.loss is balanced between background and foreground, but {dataset} has no "
            "background; set it to cross_entropy"
        )


def _check_given(name: str, resolved: RunConfig, system: System) -> None:
    if not resolved.cams.given:
        raise ConfigError(f"system {name} needs CAMs made elsewhere; set cams.given to their folder")
    semples = resolved.semples
    if system.method == "semples" and (
        semples.schedule == "joint" or semples.rounds == 0 or semples.refine_weight == 0
    ):
        raise ConfigError(
            f"system {name} learns prompts on given CAMs and refines with them, but semples.schedule is "
            f"{semples.schedule}, semples.rounds {semples.rounds}, semples.refine_weight {semples.refine_weight:g}; "
            "expected sequential, at least 1, and more than 0"
        )


def _check_ritc(name: str, resolved: RunConfig, system: System) -> None:
    if resolved.ritc.region_mode in ("token_mask", "both") and not resolved.clip.mask_adapted:
        raise ConfigError(
            f"system {name}: ritc.region_mode is {resolved.ritc.region_mode}, but a plain CLIP has no mask "
            "tokens; set ritc.region_mode to pixel_mask, or clip.mask_adapted with an OVSeg checkpoint"
        )
    if (resolved.ritc.prompt_weight > 0 or resolved.ritc.prompt_text) != bool(system.base):
        raise ConfigError(
            f"system {name}: ritc.prompt_weight is {resolved.ritc.prompt_weight:g}; learned prompts come from another "
            f"system's network (ritc.prompt_text is {resolved.ritc.prompt_text} too), so one of the two is set in the "
            "system qa_clims_prompts and neither in all others"
        )
