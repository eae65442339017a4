"""One trial of a search: a whole training by the pipeline, whose every epoch is rated and reported to Ray Tune."""

from collections.abc import Mapping
from typing import Any

from qaclims_ray.cluster.search import Report
from qaclims_ray.run_config import RunConfig
from qaclims_ray.settings import Parameter
from qaclims_ray.stages.ablate import pipeline_to_file
from qaclims_ray.systems.planning import artefacts_of, rated_epochs
from qaclims_ray.systems.search import SearchConfig, trial_config
from qaclims_ray.systems.table import system_of
from qaclims_ray.training.selection import EPOCH_SCORE


def train_trial(
    sampled: Mapping[str, Any], name: str, report: Report, *, config: RunConfig, search: SearchConfig, out: str
) -> None:
    """Train one trial to its end, or until the scheduler ends it; runs in a process of Ray Tune.

    Args:
        sampled: value of everything that is searched.
        name: of the trial, and of its system.
        report: takes what Ray Tune is told.
        config: the preset with the user's settings.
        search: the search.
        out: run folder that all trials share.
    """
    one = trial_config(config, search, name, sampled)
    pipeline_to_file(one, out, until="train", trial=name, on_epoch=EpochCount(rated_epochs(one, name), report))


class EpochCount:
    """Counts rated epochs over the phases of a training, and hands each on once.

    Args:
        lengths: rated epochs of each phase, in order.
        report: takes what Ray Tune is told.
    """

    def __init__(self, lengths: list[int], report: Report) -> None:
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
        self._report(sum(self._lengths[: self._phase]) + epoch, float(metrics[EPOCH_SCORE]))


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
