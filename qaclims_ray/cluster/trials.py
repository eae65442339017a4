"""Many runs at once: each is one Ray task on the driver's node, which asks the cluster for what its stages need.

The task itself holds no CPU. How many are at work together is settled beforehand (`session.runs_at_once`), because
trials that share too few CPUs wait for one another for ever, and no error says so.
"""

import logging
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import ray
from ray.exceptions import RayError, RayTaskError

from qaclims_ray.cluster.session import on_this_node
from qaclims_ray.errors import QaclimsError, ResourceError

logger = logging.getLogger(__name__)

FAREWELL_S = 10.0
"""Seconds that trials have to end their own business when the driver is stopped."""


@dataclass(frozen=True, kw_only=True)
class Trial:
    """One piece of work and what it waits for."""

    name: str
    """Unique name."""
    work: Callable[[], Any]
    """Picklable; returns what is kept, or raises."""
    needs: tuple[str, ...] = ()
    """Earlier trials without whose success it is not started."""
    makes: frozenset[str] = frozenset()
    """Names of artefacts it makes if they are not there. Two trials never make the same one at once: the second waits
    until one that makes it has succeeded, or none is at work."""


OnEnd = Callable[[Trial, Any, float], None]


def run_trials(trials: Sequence[Trial], *, at_once: int, on_end: OnEnd) -> dict[str, Any]:
    """Run trials, as many together as asked; one that fails does not stop the others.

    Args:
        trials: each after those it waits for.
        at_once: how many may be at work together.
        on_end: told of each trial's end: the trial, its result or error, its seconds.

    Returns:
        Name -> what the work returned, or the `QaclimsError` that says why it failed.
    """
    names = [trial.name for trial in trials]
    for position, trial in enumerate(trials):
        assert set(trial.needs) <= set(names[:position]), f"{trial.name} needs what is not before it"
    waiting, ended = list(trials), {}
    running: dict[Any, tuple[Trial, float]] = {}
    made: set[str] = set()

    def end(trial: Trial, result: Any, seconds: float) -> None:
        ended[trial.name] = result
        if not isinstance(result, QaclimsError):
            made.update(trial.makes)
        on_end(trial, result, seconds)

    def is_free(trial: Trial) -> bool:
        at_work = frozenset[str]().union(*(other.makes for other, _ in running.values()))
        # What has been made is only read from then on, so that any number of trials may share it.
        return len(running) < at_once and not (trial.makes & at_work) - made

    try:
        while waiting or running:
            for trial in [t for t in waiting if set(t.needs) <= ended.keys()]:
                if failed := [name for name in trial.needs if isinstance(ended[name], QaclimsError)]:
                    waiting.remove(trial)
                    end(trial, _not_started(failed[0], ended[failed[0]]), 0.0)
                elif is_free(trial):
                    waiting.remove(trial)
                    running[_start(trial)] = trial, time.perf_counter()
            for reference in ray.wait(list(running), num_returns=1)[0] if running else ():
                trial, started = running.pop(reference)
                end(trial, _result(reference), time.perf_counter() - started)
    except BaseException:
        _stop(list(running))
        raise
    return ended


def _not_started(needed: str, error: QaclimsError) -> QaclimsError:
    return ResourceError(f"not started, because {needed} failed: {error}")


def _start(trial: Trial) -> Any:
    # Outputs and a SQLite tracking store may lie on this node's disk.
    here = on_this_node()
    return _work.options(scheduling_strategy=here, name=trial.name).remote(trial.work)


# No retry by Ray: a worker killed for memory would be tried for ever. The command is run again instead.
@ray.remote(num_cpus=0, max_retries=0)
def _work(work: Callable[[], Any]) -> Any:
    try:
        return work()
    except QaclimsError as error:
        return error


def _result(reference: Any) -> Any:
    try:
        return ray.get(reference)
    except RayTaskError as error:
        logger.warning("%s", error)  # the trial's own traceback
        return ResourceError(f"{type(error.cause).__name__}: {error.cause}")
    except RayError as error:
        return ResourceError(f"{type(error).__name__}: {str(error).strip().splitlines()[0]}")


def _stop(references: list[Any]) -> None:
    for reference in references:
        # Not by force: the task gets a KeyboardInterrupt, and can close what it has opened.
        ray.cancel(reference)
    if references:
        ray.wait(references, num_returns=len(references), timeout=FAREWELL_S)
