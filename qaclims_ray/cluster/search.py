"""Searches on Ray Tune: many trials of one function, which Optuna proposes and ASHA stops.

Ray Tune keeps its state in the search's folder, so the same search goes on after the driver died.
"""

import functools
import math
import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Literal

import optuna
import ray
from ray import tune
from ray.tune.schedulers import ASHAScheduler, FIFOScheduler
from ray.tune.search import BasicVariantGenerator
from ray.tune.search.optuna import OptunaSearch

from qaclims_ray.data import storage
from qaclims_ray.settings import Parameter
from qaclims_ray.tracking.mlflow_tracker import attach
from qaclims_ray.tracking.tracker import Tracker, TrackerHandle

EPOCH, OBJECTIVE = "epoch", "objective"
"""What a trial reports: rated epochs so far, over all its phases, and the figure of the last of them."""

Report = Callable[[int, float], None]
"""Receives the rated epochs so far and the figure of the last of them."""
Work = Callable[[Mapping[str, Any], str, Report], None]
"""Runs one trial: sampled values by name, name of the trial, and where to report; picklable."""


@dataclass(frozen=True, kw_only=True)
class SearchPlan:
    """What Ray Tune is told of a search."""

    name: str
    """Names its state; with other settings it is another search."""
    folder: str
    """Folder or URI where the state is kept."""
    space: tuple[Parameter, ...]
    """What is varied."""
    start: dict[str, Any] | None
    """Values of the first trial, where it is given."""
    trials: int
    """Trials in all."""
    at_once: int
    """Trials at work together."""
    epochs: int
    """Rated epochs of a whole trial."""
    algorithm: Literal["optuna", "random"]
    """What proposes values."""
    seed: int
    """Seed of what is proposed."""
    scheduler: Literal["asha", "none"]
    """What stops trials."""
    grace_epochs: int
    """ASHA: no trial is stopped before so many epochs."""
    reduction_factor: int
    """ASHA: one in so many goes on at each rung."""
    tracker: TrackerHandle | None
    """The search's run in MLflow; None logs nothing."""


@dataclass(frozen=True, kw_only=True)
class TrialEnd:
    """How a trial ended."""

    name: str
    """Its name."""
    values: dict[str, Any]
    """Sampled values by name."""
    objective: float | None
    """Figure of its last rated epoch."""
    epochs: int
    """Rated epochs."""
    seconds: float
    """How long it took."""
    failure: str
    """Why it failed; empty where it did not."""


def search_settings(work: Work, plan: SearchPlan) -> list[TrialEnd]:
    """Run a search, or go on with one that was stopped; trials that failed are tried again."""
    grid = _tuner(work, plan).fit()
    ends = []
    for result in grid:
        metrics, config = result.metrics or {}, result.config or {}
        ends.append(
            TrialEnd(
                name=os.path.basename(result.path),
                values={parameter.name: config.get(parameter.name) for parameter in plan.space},
                objective=metrics.get(OBJECTIVE),
                epochs=int(metrics.get(EPOCH, 0)),
                seconds=float(metrics.get("time_total_s", 0.0)),
                failure=str(result.error).strip().splitlines()[-1] if result.error else "",
            )
        )
    return ends


def _tuner(work: Work, plan: SearchPlan) -> tune.Tuner:
    trainable = tune.with_resources(functools.partial(_trial, work=work), _share_of_node(plan.at_once))
    # Seconds between two writings of Tune's state: what a killed driver forgets at most.
    os.environ.setdefault("TUNE_GLOBAL_CHECKPOINT_S", "5")
    filesystem, path = storage.arrow_filesystem(plan.folder)
    space = {parameter.name: _domain(parameter) for parameter in plan.space}
    experiment = f"{path.rstrip('/')}/{plan.name}"
    if tune.Tuner.can_restore(experiment, storage_filesystem=filesystem):
        return tune.Tuner.restore(
            experiment,
            trainable=trainable,
            storage_filesystem=filesystem,
            param_space=space,
            resume_unfinished=True,
            # Under their own names, for what their stages had finished lies there. Restarted, they would get new ones,
            # which Optuna does not know: their first result would end the search.
            resume_errored=True,
        )
    return tune.Tuner(
        trainable,
        param_space=space,
        tune_config=tune.TuneConfig(
            metric=OBJECTIVE,
            mode="max",
            num_samples=plan.trials,
            max_concurrent_trials=plan.at_once,
            search_alg=_algorithm(plan),
            scheduler=_scheduler(plan),
            trial_name_creator=_name_of,
            trial_dirname_creator=_name_of,
        ),
        run_config=tune.RunConfig(
            name=plan.name,
            storage_path=path,
            storage_filesystem=filesystem,
            callbacks=[TrialLog(plan.tracker, plan.epochs)],
            verbose=0,
        ),
    )


def _share_of_node(at_once: int) -> dict[str, float]:
    """Return what a trial asks for: so much that no more of them than allowed are at work together.

    What a trial's trainings ask for is counted beforehand (`session.runs_at_once`). The trial itself asks for next to
    no CPU, because what it held would be missing for them; Tune refuses 0. Its share of the one unit that every node
    has of its own name is what keeps their number: Tune's own limit holds back new trials alone, and when a search goes
    on, all that had failed or were at work begin together. So trials are at work on the driver's node, where a SQLite
    tracking store may lie.
    """
    here = ray.get_runtime_context().get_node_id()
    of_node = next(node["Resources"] for node in ray.nodes() if node["NodeID"] == here)
    name = next(name for name in of_node if name.startswith("node:") and not name.endswith("__"))
    return {"cpu": 0.01, name: _share_of(at_once)}


def _share_of(at_once: int) -> float:
    # Ray counts resources in units of 1/10,000.
    return math.floor(10_000 / at_once) / 10_000


def _trial(sampled: Mapping[str, Any], *, work: Work) -> None:
    name = trial_name(tune.get_context().get_trial_id() or "")
    work(sampled, name, lambda epoch, objective: tune.report({EPOCH: epoch, OBJECTIVE: objective}))


def trial_name(trial_id: str) -> str:
    """Return the name of a trial, and of its system."""
    return f"trial_{trial_id}"


def _name_of(trial: Any) -> str:
    return trial_name(trial.trial_id)


def _algorithm(plan: SearchPlan) -> Any:
    start = [plan.start] if plan.start is not None else None
    if plan.algorithm == "random":
        # Tune ignores `max_concurrent_trials` for its own generator.
        return BasicVariantGenerator(points_to_evaluate=start, random_state=plan.seed, max_concurrent=plan.at_once)
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    return OptunaSearch(metric=OBJECTIVE, mode="max", points_to_evaluate=start, seed=plan.seed)


def _scheduler(plan: SearchPlan) -> Any:
    if plan.scheduler == "none":
        return FIFOScheduler()
    # Beyond the last epoch: a trial that reached it ends by itself, with its network kept.
    return ASHAScheduler(
        time_attr=EPOCH,
        max_t=plan.epochs + 1,
        grace_period=min(plan.grace_epochs, plan.epochs),
        reduction_factor=plan.reduction_factor,
    )


def _domain(parameter: Parameter) -> Any:
    match parameter.kind:
        case "uniform":
            return tune.uniform(parameter.low, parameter.high)
        case "log":
            return tune.loguniform(parameter.low, parameter.high)
        case "int":
            # Tune's upper end is exclusive.
            return tune.randint(int(parameter.low), int(parameter.high) + 1)
        case "choice":
            return tune.choice(list(parameter.choices))


class TrialLog(tune.Callback):
    """Logs trials from the driver; Ray Tune pickles it with its state, so it opens its tracker when it is needed.

    Args:
        handle: of the search's run; None logs nothing.
        epochs: rated epochs of a whole trial.
    """

    def __init__(self, handle: TrackerHandle | None, epochs: int) -> None:
        self._handle, self._epochs = handle, epochs
        self._parent: Tracker | None = None
        self._children: dict[str, Tracker] = {}

    def __getstate__(self) -> dict[str, Any]:
        return {"_handle": self._handle, "_epochs": self._epochs, "_parent": None, "_children": {}}

    def on_trial_result(
        self, iteration: int, trials: list[Any], trial: Any, result: dict[str, Any], **info: Any
    ) -> None:
        """Log an epoch."""
        self._child(trial).log_metrics({f"tune/{OBJECTIVE}": float(result[OBJECTIVE])}, step=int(result[EPOCH]))

    def on_trial_complete(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        """Say how the trial ended."""
        done = int((trial.last_result or {}).get(EPOCH, 0))
        child = self._child(trial)
        child.log_metrics({f"tune/{EPOCH}s": float(done)})
        child.set_tags({"trial": "complete" if done == self._epochs else "stopped early"})
        child.finish("FINISHED")

    def on_trial_error(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        """Say that the trial failed."""
        self._child(trial).finish("FAILED")

    def on_experiment_end(self, trials: list[Any], **info: Any) -> None:
        """Send what is waiting."""
        if self._parent is not None:
            self._parent.close()

    def _child(self, trial: Any) -> Tracker:
        if self._parent is None:
            self._parent = attach(self._handle)
        if trial.trial_id not in self._children:
            child = self._parent.child(trial_name(trial.trial_id))
            child.log_params(trial.config)
            self._children[trial.trial_id] = child
        return self._children[trial.trial_id]
