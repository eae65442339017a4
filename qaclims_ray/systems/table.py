"""The systems a run compares: the known ones, as the run's own settings for them and its variants say.

One run trains several of them on the same data, corpus and starting point.
"""

from collections.abc import Sequence
from dataclasses import replace

from qaclims_ray.errors import ConfigError, did_you_mean
from qaclims_ray.methods.table import method_of
from qaclims_ray.models.weights import FROM_CLASSIFIER
from qaclims_ray.run_config import RunConfig, System, to_dict, with_overrides
from qaclims_ray.systems.known import SYSTEMS
from qaclims_ray.systems.recipe import recipe_of

SUPERVISED = "fully_supervised"
"""The upper bound: the final network trained on true masks, where `supervised_bound` or `systems` asks for it."""
LEAVE_OUT = "leave_out"
"""Value of `masks.given_rest`: images without a given mask are not learned from."""
_MASK_TRAINED = "mask-trained"
"""Stands in every label of a system whose maps come from a model that was trained on masks."""
_NOT_TAGS = "not tags"
"""Stands in every label of a system that learned from masks made elsewhere: no image-level labels are behind it."""


def system_of(config: RunConfig, name: str) -> System:
    """Return a system of a run by name, known or of its variants, with all that it takes over.

    Raises:
        ConfigError: when there is no such system, or a variant takes a known one's name.
    """
    found = _named(config, name)
    if method_of(found.method).brings_masks:
        return replace(found, label=f"{found.label}{_source_of_masks(config, found)}")
    if method_of(found.method).trained_on_masks:
        return replace(found, label=f"{found.label} ({_MASK_TRAINED})")
    if config.selection.criterion == "oracle" and method_of(found.method).rates_epochs:
        return replace(found, label=f"{found.label} (epoch chosen with pixel labels)")
    return found


def _source_of_masks(config: RunConfig, system: System) -> str:
    rest = str(system.overrides.get("masks.given_rest", config.masks.given_rest))
    return f", else {rest}'s ({_NOT_TAGS} alone)" if rest not in ("", LEAVE_OUT) else f" ({_NOT_TAGS})"


def _named(config: RunConfig, name: str) -> System:
    own = next((variant for variant in config.variants if variant.name == name), None)
    if own is None or own.adjusts:
        return _adjusted(config, name)
    if name in SYSTEMS:  # it could even be its own base
        raise ConfigError(
            f"variant {name!r} has the name of a known system; give it another, or set like to {name} to adjust that "
            "system in this run"
        )
    if not own.like:
        return replace(own, label=own.label or name)
    known = _adjusted(config, own.like)
    return _on_top(own, known, f"{known.label}, {name}")


def _adjusted(config: RunConfig, name: str) -> System:
    """Return a known system with what this run sets for it alone."""
    known = known_system(name)
    own = next((variant for variant in config.variants if variant.adjusts and variant.name == name), None)
    return known if own is None else _on_top(own, known, known.label)


def _on_top(own: System, known: System, label: str) -> System:
    return replace(
        known,
        name=own.name,
        label=own.label or label,
        description=own.description or known.description,
        miniature_only=own.miniature_only or known.miniature_only,
        overrides={**known.overrides, **own.overrides},
    )


def known_system(name: str) -> System:
    """Return a system by name, as every run finds it.

    Raises:
        ConfigError: when there is none of that name.
    """
    if name not in SYSTEMS:
        raise ConfigError(f"there is no system {name!r}; {did_you_mean(name, SYSTEMS)}known: {', '.join(SYSTEMS)}")
    return SYSTEMS[name]


def adjustments(config: RunConfig) -> tuple[System, ...]:
    """Return the variants that are this run's settings for known systems."""
    return tuple(variant for variant in config.variants if variant.adjusts)


def with_systems(config: RunConfig, systems: Sequence[str], variants: Sequence[System] = ()) -> RunConfig:
    """Return a run of other systems; what the run sets for known ones stays.

    Args:
        config: the run.
        systems: names of the systems that are trained and compared.
        variants: those of them that are not known.
    """
    kept = [to_dict(variant) for variant in (*adjustments(config), *variants)]
    return with_overrides(config, {"systems": list(systems), "variants": kept})


def system_config(config: RunConfig, name: str) -> RunConfig:
    """Return the run's configuration with one system's settings on top.

    Raises:
        ConfigError: when there is no such system, or its settings do not fit.
    """
    system = system_of(config, name)
    resolved, method = with_overrides(config, system.overrides), method_of(system.method)
    if method.own_network is not None:
        final = method.own_network.settings(recipe_of(resolved, method), resolved.segmentation)
        return replace(resolved, segmentation=final)
    if resolved.segmentation.net.weights == FROM_CLASSIFIER and learns_from_masks_alone(config):
        return with_overrides(resolved, {"segmentation.net.weights": resolved.cam_net.weights or "random"})
    return resolved


def learns_from_masks_alone(config: RunConfig) -> bool:
    """Whether every system learns from masks, given ones among them: then there is no classifier.

    Final networks that would start from its backbone start from what that would have started from.
    """
    methods = [method_of(system_of(config, name).method) for name in config.systems]
    with_tags = any(method.has_cams or method.own_network is not None for method in methods)
    return any(method.brings_masks for method in methods) and not with_tags


def training_order(config: RunConfig) -> list[str]:
    """Return the run's systems with those they start from, each after its own base.

    Raises:
        ConfigError: when there is no such system, or one starts from itself.
    """
    order: list[str] = []

    def visit(name: str, above: tuple[str, ...] = ()) -> None:
        if name in above:  # only systems of the run's own can do that
            raise ConfigError(f"system {name} starts from itself: {' < '.join((*above, name))}; give one another base")
        if base := system_of(config, name).base:
            visit(base, (*above, name))
        if name not in order:
            order.append(name)

    for name in config.systems:
        visit(name)
    return order
