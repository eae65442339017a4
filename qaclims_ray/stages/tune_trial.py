"""One trial of a search: a whole training by the pipeline, whose every epoch is rated and reported to Ray Tune."""

from collections.abc import Callable, Mapping
from typing import Any

from ray import tune

from qaclims_ray.methods.semples.phases import Phase, run_phases
from qaclims_ray.run_config import RunConfig
from qaclims_ray.stages.ablate import artefacts_of, pipeline_to_file
from qaclims_ray.systems.search import Parameter, SearchConfig, trial_config
from qaclims_ray.systems.table import system_config, system_of, uses_given
from qaclims_ray.training.selection import EPOCH_SCORE

EPOCH, OBJECTIVE = "epoch", "objective"
"""What a trial reports: rated epochs so far, over all its phases, and the figure of the last of them."""


def train_trial(sampled: Mapping[str, Any], *, config: RunConfig, search: SearchConfig, out: str) -> None:
    """Train one trial to its end, or until the scheduler ends it; runs in a process of Ray Tune.

    Args:
        sampled: value of everything that is searched.
        config: the preset with the user's settings.
        search: the search.
        out: run folder that all trials share.
    """
    name = trial_name(tune.get_context().get_trial_id() or "")
    one = trial_config(config, search, name, sampled)
    epochs = EpochCount(rated_epochs(one, name), lambda metrics: tune.report(dict(metrics)))
    pipeline_to_file(one, out, until="train", trial=name, on_epoch=epochs)


def trial_name(trial_id: str) -> str:
    """Return the name of a trial's system."""
    return f"trial_{trial_id}"


class EpochCount:
    """Counts rated epochs over the phases of a training, and hands each on once.

    Args:
        lengths: rated epochs of each phase, in order.
        report: takes what Ray Tune is told.
    """

    def __init__(self, lengths: list[int], report: Callable[[dict[str, float]], None]) -> None:
        self._lengths, self._report = lengths, report
        self._phase, self._last = 0, 0

    def __call__(self, metrics: Mapping[str, float]) -> None:
        """Take an epoch's figures; what is not rated, or was told before a restart, is left out."""
        if EPOCH_SCORE not in metrics:
            return
        if self._last == self._lengths[self._phase] and self._phase + 1 < len(self._lengths):
            self._phase, self._last = self._phase + 1, 0
        epoch = int(metrics["epoch"])
        if epoch <= self._last:
            return
        self._last = epoch
        self._report({EPOCH: sum(self._lengths[: self._phase]) + epoch, OBJECTIVE: float(metrics[EPOCH_SCORE])})


def rated_epochs(config: RunConfig, name: str) -> list[int]:
    """Return how many epochs are rated in each phase of a system's training."""
    system, resolved = system_of(config, name), system_config(config, name)
    if system.method != "semples":
        return [resolved.ritc.optim.epochs if system.method == "qa_clims" else resolved.clims.optim.epochs]
    lengths: list[int] = []

    def train(phase: Phase, start: str, prompts: str | None) -> str:
        if phase.kind != "prompts":
            lengths.append(phase.optim(resolved.semples).epochs)
        return phase.name

    run_phases(resolved.semples, "start", train, given="given" if uses_given(config, name) else None)
    return lengths


def must_take_turns(config: RunConfig, search: SearchConfig) -> bool:
    """Whether two trials could be at work on one artefact: a phase that does not depend on what differs between them.

    Args:
        config: the preset with the user's settings.
        search: the search, its space filled in.
    """
    made = []
    for name, end in (("first", 0), ("second", 1)):
        values = {
            parameter.name: parameter.ends()[end if _is_continuous(parameter) else 0] for parameter in search.space
        }
        made.append(artefacts_of(trial_config(config, search, name, values), name))
    base = system_of(config, search.system).base
    return bool((made[0] & made[1]) - {f"network {base}"})


def _is_continuous(parameter: Parameter) -> bool:
    """Whether two trials never get the same value."""
    return parameter.kind in ("uniform", "log")
