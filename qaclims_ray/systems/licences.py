"""Which weights a run uses, under which licences, and the refusal of those that not everyone may use."""

from collections.abc import Iterable
from dataclasses import dataclass

from qaclims_ray.errors import ConfigError
from qaclims_ray.methods.table import method_of
from qaclims_ray.models.known_weights import NamedWeight, weights_in
from qaclims_ray.models.weights import FROM_CLIP
from qaclims_ray.run_config import RunConfig, flat
from qaclims_ray.systems.needs import (
    methods_of,
    needs_classifier,
    needs_clip,
    needs_corpus,
    systems_with_cams,
    systems_with_networks,
)
from qaclims_ray.systems.table import system_config, system_of

UNKNOWN_LICENCE = "unknown"
"""Stands for the licence of a weight that is not in the table."""


@dataclass(frozen=True)
class UsedWeight:
    """A weight that a run learns from."""

    title: str
    """What it is; of an unknown one what the settings call it."""
    settings: tuple[str, ...]
    """Settings that name it."""
    licence: str
    """SPDX identifier, or words."""
    users: str
    """Who may use it."""
    is_permissive: bool
    """Whether it may be used commercially, as far as is known."""
    instead: str
    """What takes its place where only permissive licences may be used."""

    @property
    def line(self) -> str:
        """All of it in one line."""
        return f"weights: {self.title} ({', '.join(self.settings)}): licence {self.licence}; {self.users}"


def weights_used(config: RunConfig) -> list[UsedWeight]:
    """Return the weights that the systems of a run start or learn from, each once.

    Raises:
        ConfigError: for a system that does not exist.
    """
    settings: dict[tuple[str, str], list[str]] = {}
    named: dict[tuple[str, str], NamedWeight] = {}
    for one in _named(config):
        key = (one.weight.name, "") if one.weight else (one.value, one.architecture)
        named.setdefault(key, one)
        if one.setting not in settings.setdefault(key, []):
            settings[key].append(one.setting)
    return [_used(named[key], tuple(settings[key])) for key in named]


def _named(config: RunConfig) -> Iterable[NamedWeight]:
    """Yield what the settings that count name; systems may have settings of their own."""
    wanted = [name for name, needed in (("clip.weights", needs_clip), ("corpus.model", needs_corpus)) if needed(config)]
    if needs_classifier(config) or any(method.phases for method in methods_of(config)):
        wanted += ["cam_net.weights", "classifier.network"]
    yield from _of(config, wanted)
    for name in systems_with_cams(config):
        yield from _of(system_config(config, name), method_of(system_of(config, name).method).weights)
    if config.goal == "seed":
        return
    for name in systems_with_cams(config):
        resolved = system_config(config, name)
        steps = resolved.masks.steps
        step_of = {
            "irn": "masks.irn.weights",
            "sam": "masks.sam.model",
            "feature_affinity": "masks.feature_affinity.weights",
        }
        yield from _of(resolved, [setting for step, setting in step_of.items() if step in steps])
    for name in systems_with_networks(config):
        resolved = system_config(config, name)
        if resolved.segmentation.net.weights != FROM_CLIP:  # which is among the run's already
            yield from _of(resolved, ["segmentation.net.weights"])


def _of(config: RunConfig, wanted: Iterable[str]) -> list[NamedWeight]:
    return [one for one in weights_in(flat(config)) if one.setting in wanted]


def _used(one: NamedWeight, settings: tuple[str, ...]) -> UsedWeight:
    if one.weight is not None:
        known = one.weight
        return UsedWeight(known.title, settings, known.licence, known.users, known.is_permissive, known.instead)
    title = f"{one.value} of {one.architecture}" if one.architecture else one.value
    return UsedWeight(
        title,
        settings,
        UNKNOWN_LICENCE,
        "yours to know",
        False,
        f"weights whose licence is known, as --{settings[0].replace('_', '-')} (`qaclims fetch --list`)",
    )


def check_licences(config: RunConfig) -> None:
    """Refuse a run that may use only permissive licences and names other weights.

    Raises:
        ConfigError: names them all, with what can take their places.
    """
    if config.licences == "any":
        return
    refused = [used for used in weights_used(config) if not used.is_permissive]
    if refused:
        lines = [f"  {one.line}\n    instead: {one.instead}" for one in refused]
        raise ConfigError(
            "licences is permissive, so that what is made may be used commercially, and this run would use:\n"
            + "\n".join(lines)
            + "\nTake these instead, or set --licences any"
        )
