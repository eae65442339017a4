"""What a search varies, how it is rated, and how long it goes on.

A search departs from any preset and varies settings of one of its systems. What lies outside the system (data,
corpus, CLIP, classifier) is the same in every trial and made once.
"""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any, Literal

from qaclims_ray.errors import ConfigError
from qaclims_ray.methods.table import method_of
from qaclims_ray.run_config import RunConfig, System, at, to_dict, with_overrides
from qaclims_ray.settings import Parameter, require, settings
from qaclims_ray.systems.needs import uses_given
from qaclims_ray.systems.table import known_system, system_config, with_systems

SHARED_SETTINGS = (
    "data", "corpus", "clip", "cam_net", "augment", "classifier", "selection", "cluster", "tracking", "masks",
    "segmentation", "seed", "goal", "systems", "variants", "name", "profile",
)  # fmt: skip
"""Settings that all trials share, or that the criterion does not see."""


@settings
class SearchConfig:
    """A search."""

    system: str = "qa_clims"
    """The system whose settings are searched."""
    space: tuple[Parameter, ...] = ()
    """What is varied; empty takes the system's default space."""
    objective: Literal["separation", "clip_score", "masks"] = "separation"
    """What rates a trial, at its last epoch. separation and clip_score need image labels only; masks is the mIoU at
    the best threshold against the masks of `split`."""
    split: str = ""
    """objective masks: the split whose masks rate trials; never one whose score is reported."""
    num_images: int = 200
    """Images that rate an epoch."""
    trials: int = 24
    """Trials in all."""
    algorithm: Literal["optuna", "random"] = "optuna"
    """Optuna's tree-structured Parzen estimator, or random search."""
    scheduler: Literal["asha", "none"] = "asha"
    """ASHA stops trials that are behind others of the same epoch; none trains all to the end."""
    grace_epochs: int = 2
    """ASHA: no trial is stopped before so many epochs."""
    reduction_factor: int = 3
    """ASHA: one in so many goes on at each rung."""
    from_start: bool = True
    """The first trial has the preset's own values."""
    concurrent: int | None = None
    """Trials at once; None takes as many as the cluster's CPUs and GPUs hold."""
    search_seed: int = 0
    """Seed of what is tried."""

    def __post_init__(self) -> None:
        require(bool(self.system.strip()), "--system is empty")
        least = {"num_images": 1, "trials": 1, "grace_epochs": 1, "reduction_factor": 2, "search_seed": 0}
        for name, value in least.items():
            found = getattr(self, name)
            require(found >= value, f"--{name.replace('_', '-')} is {found}, expected at least {value}")
        require(self.concurrent is None or self.concurrent >= 1, f"--concurrent is {self.concurrent}, expected 1 up")
        require(
            self.objective == "masks" or not self.split,
            f"--split is {self.split!r}, but --objective {self.objective} reads no masks; leave it out",
        )
        require(
            self.objective != "masks" or bool(self.split),
            "--objective is masks: say on which split with --split, one whose score is not reported",
        )
        names = [parameter.name for parameter in self.space]
        require(len(set(names)) == len(names), "space names one setting twice")


def threshold_setting(config: RunConfig, system: str) -> str:
    """Return the setting that cuts a system's CAMs where they are rated and scored: one moves the other along.

    Args:
        config: the preset with the user's settings.
        system: one of its systems.
    """
    is_pinned = system_config(config, system).evaluation.fixed_threshold is not None
    return "evaluation.fixed_threshold" if is_pinned else "masks.seed_threshold"


def default_space(config: RunConfig, system: str) -> tuple[Parameter, ...]:
    """Return the space of a system: what its method says, and the CAM threshold.

    Args:
        config: the preset with the user's settings.
        system: one of its systems.

    Raises:
        ConfigError: for systems without settings to search.
    """
    method = method_of(known_system(system).method)
    if not method.search_space:
        raise ConfigError(f"system {system} ({method.name}) learns nothing from CLIP that could be searched")
    return (*method.search_space, Parameter(name=threshold_setting(config, system), low=0.02, high=0.7))


def checked_search(config: RunConfig, search: SearchConfig) -> SearchConfig:
    """Return the search with its space filled in, once everything fits the run.

    Raises:
        ConfigError: naming what does not fit and why.
    """
    if uses_given(config, search.system):
        raise ConfigError(f"system {search.system} starts from CAMs made elsewhere, which searches do not import")
    space = search.space or default_space(config, search.system)
    reported = {config.data.eval_split, *([config.data.test_split] if config.goal == "segmentation" else [])}
    if search.objective == "masks" and search.split in reported:
        raise ConfigError(
            f"--split {search.split} is a split whose score is reported ({', '.join(sorted(reported))}); a search "
            "on it would report on what it was fitted to. Name another split, or use the label-free objective"
        )
    start = start_values(config, search.system, space)
    seen = threshold_setting(config, search.system)  # also where it is a setting of the masks
    for parameter in space:
        is_shared = parameter.name.split(".")[0] in SHARED_SETTINGS and parameter.name != seen
        if is_shared or parameter.name.endswith("epochs"):
            raise ConfigError(
                f"{parameter.name} cannot be searched: trials share it, the criterion does not see it, or trials of "
                "different length would be compared"
            )
        if search.from_start and not parameter.holds(start[parameter.name]):
            raise ConfigError(
                f"{parameter.name} starts at {start[parameter.name]}, outside of {parameter.ends()}: widen the space "
                "with --space-file FILE, or set --from-start False"
            )
        for value in parameter.ends():
            with_overrides(system_config(config, search.system), {parameter.name: value})
    return replace(search, space=space)


def start_values(config: RunConfig, system: str, space: tuple[Parameter, ...]) -> dict[str, Any]:
    """Return the run's own values of what is searched.

    Raises:
        ConfigError: for a setting that does not exist.
    """
    own = system_config(config, system)
    in_effect = replace(own, evaluation=own.scoring)
    return {parameter.name: at(in_effect, parameter.name) for parameter in space}


def trial_config(config: RunConfig, search: SearchConfig, name: str, sampled: Mapping[str, Any]) -> RunConfig:
    """Return the run of one trial: the system under the trial's name, rated after every epoch.

    Args:
        config: the preset with the user's settings.
        search: the search.
        name: of the trial.
        sampled: value of everything that is searched.
    """
    criterion = "oracle" if search.objective == "masks" else search.objective
    rated = {"selection": {"criterion": criterion, "num_images": search.num_images, "split": search.split}}
    trial = System(name=name, like=search.system, overrides={**sampled, **rated})
    return with_overrides(
        with_systems(config, [name], [trial]),
        {"goal": "seed", "tracking.enabled": False},
    )


def best_config(config: RunConfig, search: SearchConfig, sampled: Mapping[str, Any]) -> RunConfig:
    """Return the run with the found values for the system, as a preset that can be run.

    Args:
        config: the preset with the user's settings.
        search: the search.
        sampled: found values.
    """
    own = {variant.name: variant for variant in config.variants}
    found = own.get(search.system, System(name=search.system, like=search.system))
    own[search.system] = replace(found, overrides={**found.overrides, **sampled})
    systems = list(config.systems) if search.system in config.systems else [*config.systems, search.system]
    variants = [to_dict(variant) for variant in own.values()]
    return with_overrides(config, {"systems": systems, "variants": variants})
