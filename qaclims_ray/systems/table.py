"""The systems a run compares: the known ones, as the run's own settings for them and its variants say.

One run trains several of them on the same data, corpus and starting point.
"""

from collections.abc import Sequence
from dataclasses import replace

from qaclims_ray.errors import ConfigError
from qaclims_ray.run_config import RunConfig, System, to_dict, with_overrides
from qaclims_ray.systems.known import SYSTEMS

FROM_CLASSIFIER = "classifier"
"""Initial weights of affinity and final networks: the backbone of the run's image-level classifier."""
SUPERVISED = "fully_supervised"
"""The upper bound, which every run up to the final network compares with where the training images have masks."""
_WITHOUT_CLIP = ("classifier", "given", "supervised")
"""Methods that train no CAM network with CLIP."""


def system_of(config: RunConfig, name: str) -> System:
    """Return a system of a run by name, known or of its variants, with all that it takes over.

    Raises:
        ConfigError: when there is no such system, or a variant takes a known one's name.
    """
    found = _named(config, name)
    if config.selection.criterion == "oracle" and found.method not in _WITHOUT_CLIP:
        return replace(found, label=f"{found.label} (epoch chosen with pixel labels)")
    return found


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
        raise ConfigError(f"there is no system {name!r}; known: {', '.join(SYSTEMS)}")
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


def artifact_kind(method: str) -> str:
    """Return the kind of the artifact that holds a method's network; on disk QA-CLIMS has kept the name of its loss."""
    return "ritc" if method == "qa_clims" else method


def system_config(config: RunConfig, name: str) -> RunConfig:
    """Return the run's configuration with one system's settings on top.

    Raises:
        ConfigError: when there is no such system, or its settings do not fit.
    """
    return with_overrides(config, system_of(config, name).overrides)


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


def needs_clip(config: RunConfig) -> bool:
    """Whether any system of the run learns from CLIP."""
    return any(system_of(config, name).method not in _WITHOUT_CLIP for name in training_order(config))


def needs_classifier(config: RunConfig) -> bool:
    """Whether any system of the run is the classifier or starts from it."""
    return starts_from_classifier(config) or any(
        system_of(config, name).method not in ("given", "supervised") for name in training_order(config)
    )


def starts_from_classifier(config: RunConfig) -> bool:
    """Whether affinity or final networks start from the classifier's backbone."""
    uses_irn = config.goal != "seed" and "irn" in config.masks.steps and config.masks.irn.weights == FROM_CLASSIFIER
    return uses_irn or (config.goal == "segmentation" and config.segmentation.net.weights == FROM_CLASSIFIER)


def systems_with_cams(config: RunConfig) -> list[str]:
    """Return the compared systems that have CAMs: all but the fully supervised one."""
    return [name for name in config.systems if system_of(config, name).method != "supervised"]


def uses_given(config: RunConfig, name: str) -> bool:
    """Whether a system is, or learns its prompts on, CAMs made elsewhere."""
    system = system_of(config, name)
    return "given" in (system.method, system_of(config, system.base).method if system.base else "")


def needs_corpus(config: RunConfig) -> bool:
    """Whether any system of the run reads the VQA corpus."""
    return any(
        system_of(config, name).method in ("qa_clims", "clims") and system_config(config, name).text.source == "qape"
        for name in training_order(config)
    )
