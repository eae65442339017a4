"""Checks of a run's systems before any work starts: names, and settings that do not go together."""

from collections.abc import Sequence

from qaclims_ray.data.classes import has_background, require_classes
from qaclims_ray.errors import ConfigError
from qaclims_ray.methods.table import method_of
from qaclims_ray.models.weights import FROM_CLIP
from qaclims_ray.run_config import RunConfig
from qaclims_ray.settings import Threshold
from qaclims_ray.systems.needs import source_of_cams, systems_with_cams, systems_with_given_masks
from qaclims_ray.systems.recipe import recipe_of
from qaclims_ray.systems.table import (
    LEAVE_OUT,
    SUPERVISED,
    adjustments,
    known_system,
    system_config,
    system_of,
    training_order,
)
from qaclims_ray.text.config import SHARED_KEY


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
        method = method_of(system.method)
        if not method.has_cams and config.goal != "segmentation":
            raise ConfigError(f"system {name} is a final network; set goal to segmentation")
        if method.brings_masks:
            _check_given_masks(config, name, resolved)
        if method.own_network is not None and not has_background(config.data.dataset):
            raise ConfigError(
                f"system {name} cuts its maps into objects and background, but {config.data.dataset} has no "
                "background; leave it out"
            )
        net = resolved.segmentation.net
        if method.own_network is None and (net.weights == FROM_CLIP or net.architecture == "clip_decoder"):
            raise ConfigError(
                f"system {name} learns from masks: its final network cannot be the decoder on the frozen CLIP, which "
                "makes its own (segmentation.net.architecture clip_decoder, weights clip); take the system online"
            )
        _check_background(name, resolved)
        _check_threshold(name, resolved)
        _check_method(config, name, resolved)
    _check_labels(config)
    for variant in adjustments(config):
        known_system(variant.like)
    own = [variant.name for variant in config.variants if not variant.adjusts]
    if unused := [name for name in own if name not in training_order(config)]:
        raise ConfigError(f"variants {unused} would not be trained: name them in systems too")


def _check_given_masks(config: RunConfig, name: str, resolved: RunConfig) -> None:
    """Refuse a system on given masks where none are given, or where the others are to come from nothing."""
    if not resolved.masks.given:
        raise ConfigError(f"system {name} needs masks made elsewhere; set masks.given to their folder or file")
    rest, known = resolved.masks.given_rest, [one for one in systems_with_cams(config) if one != name]
    if rest not in ("", LEAVE_OUT, *known):
        listed = ", ".join([*known, LEAVE_OUT])
        raise ConfigError(
            f"system {name}: masks.given_rest is {rest!r}, expected a system of the run that makes pseudo masks, or "
            f"{LEAVE_OUT}: {listed}. Name another system in systems too"
        )


def _check_labels(config: RunConfig) -> None:
    """Refuse systems of one label: tables and figures tell systems apart by it."""
    by_label: dict[str, str] = {}
    for name in dict.fromkeys((*config.systems, SUPERVISED)):
        other = by_label.setdefault(label := system_of(config, name).label, name)
        if other != name:
            raise ConfigError(f"systems {other} and {name} are both called {label!r}: give one another label")


def check_named_classes(config: RunConfig, class_names: Sequence[str]) -> None:
    """Check, once the data set is read, that settings which name classes name its own.

    Raises:
        ConfigError: naming the system, the setting and the names.
    """
    for name in training_order(config):
        method, resolved = method_of(system_of(config, name).method), system_config(config, name)
        text, own = resolved.text, method.named_classes
        try:
            by_steps = config.goal != "seed" and "class_distribution" in resolved.masks.steps
            if method.uses_clip or method.asks_by_words or by_steps:
                require_classes("text.class_words", dict(text.class_words), class_names)
            if method.uses_texts and text.source == "fixed":
                names = dict(text.fixed_background)
                require_classes("text.fixed_background", names, class_names, or_all=SHARED_KEY)
            for setting, named in own(getattr(resolved, method.section)).items() if own is not None else ():
                require_classes(setting, named, class_names)
        except ConfigError as error:
            raise ConfigError(f"system {name}: {error}. Name these, or leave the system out") from None


def unused_remarks(config: RunConfig) -> list[str]:
    """Say of given masks that no system of the run learns from: corrections would seem to have been learned."""
    if not config.masks.given or systems_with_given_masks(config):
        return []
    return [f"nothing learns from masks.given ({config.masks.given}): add given_masks to systems, or leave it out"]


def threshold_remarks(config: RunConfig) -> list[str]:
    """Say of which systems seeds are scored at another threshold than the one that cuts their pseudo masks."""
    if config.goal == "seed" or not has_background(config.data.dataset):
        return []
    by_pair: dict[tuple[Threshold, Threshold], list[str]] = {}
    for name in systems_with_cams(config):
        resolved = system_config(config, name)
        pair = resolved.set_threshold, resolved.masks.seed_threshold
        if pair[0] != pair[1] and resolved.masks.cuts_seeds:
            by_pair.setdefault(pair, []).append(name)
    return [
        f"seeds of {', '.join(names)} are scored at {scored} (evaluation.fixed_threshold), but cut into masks at "
        f"{cut} (masks.seed_threshold); with evaluation.fixed_threshold None the one follows the other"
        for (scored, cut), names in by_pair.items()
    ]


def _check_method(config: RunConfig, name: str, resolved: RunConfig) -> None:
    """Let the system's method refuse settings, and its base's, where that is read with the system's own settings."""
    system = system_of(config, name)
    method, base = method_of(system.method), system_of(config, system.base).method if system.base else ""
    brings = source_of_cams(config, name)
    # CAMs made elsewhere are imported for those that use them, not for themselves where nothing compares them.
    if brings is not None and brings.check is not None and name in config.systems:
        brings.check(name, recipe_of(resolved, brings), "")
    if method.check is not None and method is not brings:
        method.check(name, recipe_of(resolved, method), base)


def _check_threshold(name: str, resolved: RunConfig) -> None:
    """Refuse a threshold that is chosen of CAMs where one is needed before there are any, or none is asked for."""
    if resolved.masks.seed_threshold != "auto":
        return
    if not has_background(resolved.data.dataset):
        raise ConfigError(
            f"system {name}: masks.seed_threshold is auto, but {resolved.data.dataset} has no background that a "
            "threshold would part; leave it out"
        )
    if resolved.selection.criterion == "separation" and resolved.set_threshold == "auto":
        raise ConfigError(
            f"system {name}: selection.criterion is separation, which rates masks at a threshold after every epoch, "
            "but masks.seed_threshold is auto and chosen of the last CAMs; set evaluation.fixed_threshold to a number"
        )


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
