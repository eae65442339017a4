"""A search of settings by Ray Tune: every trial is a training beside others, in one run folder that they share.

Data, corpus, classifier and the network that a system starts from are made once, before the first trial. Ray Tune
keeps its state in the folder, so the same command goes on after the driver died.
"""

import functools
import json
import math
import os
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import optuna
from ray import tune
from ray.tune.schedulers import ASHAScheduler, FIFOScheduler
from ray.tune.search import BasicVariantGenerator
from ray.tune.search.optuna import OptunaSearch
from rich.console import Console

from qaclims_ray.cluster.session import ray_session, required_cpus, runs_at_once
from qaclims_ray.cluster.tune_watch import TrialLog
from qaclims_ray.data import artifacts, storage
from qaclims_ray.errors import ConfigError, ResourceError
from qaclims_ray.report.search import SearchResult, TrialRow, best_trial, write_search
from qaclims_ray.run_config import RunConfig, to_dict, with_overrides
from qaclims_ray.stages.ablate import pipeline_to_file
from qaclims_ray.stages.preflight import preflight
from qaclims_ray.stages.tune_trial import (
    EPOCH,
    OBJECTIVE,
    must_take_turns,
    rated_epochs,
    train_trial,
    trial_name,
)
from qaclims_ray.systems.search import Parameter, SearchConfig, best_config, checked_search, start_values, trial_config
from qaclims_ray.systems.table import needs_corpus, system_of
from qaclims_ray.tracking.mlflow_tracker import open_tracker
from qaclims_ray.tracking.run_description import run_tags
from qaclims_ray.tracking.store import tracking_uri
from qaclims_ray.tracking.tracker import Tracker

BEST_NAME = "best.json"
"""The run with the best values, a preset that can be run as it is."""
_SHARED = "shared"


@dataclass(frozen=True, kw_only=True)
class Search:
    """What is asked for."""

    preset: str
    """Name of the preset the settings started from."""
    config: RunConfig
    """The preset with the user's settings."""
    search: SearchConfig
    """What is varied and how."""
    out: str
    """Run folder of all trials."""

    @property
    def folder(self) -> str:
        """Where results go."""
        return storage.join(self.out, "tune")

    @property
    def identity(self) -> str:
        """Names the search: with other settings it is another."""
        return artifacts.fingerprint_of([to_dict(self.config), to_dict(self.search)])


def run_search(asked: Search, console: Console) -> SearchResult:
    """Search, or go on with a search, and write its results; a trial that fails does not end it.

    Raises:
        ConfigError: for what does not fit together, before any work starts.
        ResourceError: when the cluster cannot hold the trials, or when no trial reached its last epoch.
    """
    search = checked_search(asked.config, asked.search)
    asked = Search(preset=asked.preset, config=asked.config, search=search, out=asked.out)
    first = trial_config(asked.config, search, "check", start_values(asked.config, search.system, search.space))
    preflight(first, asked.out)
    if search.concurrent not in (None, 1) and must_take_turns(asked.config, search):
        raise ConfigError(
            f"--concurrent is {search.concurrent}, but some phase of {search.system} depends on nothing that is "
            "searched (or on choices that trials may share), so two trials would train it at once; set --concurrent 1"
        )
    tracker = _tracker(asked)
    try:
        with ray_session(_session(asked, first), dashboard=search.scheduler == "asha"):
            at_once = 1 if must_take_turns(asked.config, search) else runs_at_once(first, search.concurrent)
            console.print(f"{search.trials} trials, {at_once} at once -> {asked.folder}", highlight=False)
            prepare_shared(asked)
            result = _gather(asked, _tuner(asked, at_once, tracker, first).fit(), sum(rated_epochs(first, "check")))
        files = write_search(asked.folder, result)
        best = best_trial(result)
        if best is None:
            raise ResourceError(f"no trial reached its last epoch; why is in {files['table']}; change space or preset")
        found = best_config(asked.config, search, best.values)
        storage.write_bytes(storage.join(asked.folder, BEST_NAME), json.dumps(to_dict(found), indent=2).encode())
        tracker.log_metrics({"tune/best": best.objective or 0.0})
        for uri in (*files.values(), storage.join(asked.folder, BEST_NAME)):
            with storage.local_copy(uri) as local:
                tracker.log_artifact(local)
    except BaseException as error:
        tracker.finish("KILLED" if isinstance(error, KeyboardInterrupt) else "FAILED")
        raise
    tracker.finish("FINISHED")
    _print(asked, result, files, console)
    return result


def prepare_shared(asked: Search) -> None:
    """Make what trials share: data, corpus, classifier, and the network that the system starts from."""
    config, system = asked.config, system_of(asked.config, asked.search.system)
    base = {"goal": "seed", "variants": [], "tracking.enabled": False}
    whole = with_overrides(config, {**base, "systems": [asked.search.system]})
    if needs_corpus(whole):
        pipeline_to_file(whole, asked.out, until="corpus", trial=_SHARED)
    start = with_overrides(config, {**base, "systems": [system.base or "baseline"]})
    pipeline_to_file(start, asked.out, until="train", trial=_SHARED)


def _tuner(asked: Search, at_once: int, tracker: Tracker, first: RunConfig) -> tune.Tuner:
    """Return a new search, or the one that was stopped; trials that failed are tried again."""
    search = asked.search
    work = functools.partial(train_trial, config=asked.config, search=search, out=asked.out)
    trainable = tune.with_resources(work, {"cpu": 0.01})  # what the training asks for is counted in `runs_at_once`
    os.environ.setdefault("TUNE_GLOBAL_CHECKPOINT_S", "5")
    filesystem, path = storage.arrow_filesystem(storage.join(asked.folder, "state"))
    name, space = f"search-{asked.identity}", {parameter.name: _domain(parameter) for parameter in search.space}
    experiment = f"{path.rstrip('/')}/{name}"
    if tune.Tuner.can_restore(experiment, storage_filesystem=filesystem):
        return tune.Tuner.restore(
            experiment,
            trainable=trainable,
            storage_filesystem=filesystem,
            param_space=space,
            resume_unfinished=True,
            restart_errored=True,
        )
    epochs = sum(rated_epochs(first, "check"))
    return tune.Tuner(
        trainable,
        param_space=space,
        tune_config=tune.TuneConfig(
            metric=OBJECTIVE,
            mode="max",
            num_samples=search.trials,
            max_concurrent_trials=at_once,
            search_alg=_algorithm(asked),
            scheduler=_scheduler(search, epochs),
            trial_name_creator=_name,
            trial_dirname_creator=_name,
        ),
        run_config=tune.RunConfig(
            name=name,
            storage_path=path,
            storage_filesystem=filesystem,
            callbacks=[TrialLog(tracker.handle(), epochs)],
            verbose=0,
        ),
    )


def _name(trial: Any) -> str:
    return trial_name(trial.trial_id)


def _algorithm(asked: Search) -> Any:
    search = asked.search
    start = [start_values(asked.config, search.system, search.space)] if search.from_start else None
    if search.algorithm == "random":
        return BasicVariantGenerator(points_to_evaluate=start, random_state=search.search_seed)
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    return OptunaSearch(metric=OBJECTIVE, mode="max", points_to_evaluate=start, seed=search.search_seed)


def _scheduler(search: SearchConfig, epochs: int) -> Any:
    if search.scheduler == "none":
        return FIFOScheduler()
    # Beyond the last epoch: a trial that reached it ends by itself, with its network kept.
    return ASHAScheduler(
        time_attr=EPOCH,
        max_t=epochs + 1,
        grace_period=min(search.grace_epochs, epochs),
        reduction_factor=search.reduction_factor,
    )


def _domain(parameter: Parameter) -> Any:
    match parameter.kind:
        case "uniform":
            return tune.uniform(parameter.low, parameter.high)
        case "log":
            return tune.loguniform(parameter.low, parameter.high)
        case "int":
            return tune.randint(int(parameter.low), int(parameter.high) + 1)
        case "choice":
            return tune.choice(list(parameter.choices))


def _gather(asked: Search, grid: tune.ResultGrid, epochs: int) -> SearchResult:
    rows = []
    for result in grid:
        metrics = result.metrics or {}
        done = int(metrics.get(EPOCH, 0))
        rows.append(
            TrialRow(
                name=os.path.basename(result.path),
                values={p.name: (result.config or {}).get(p.name) for p in asked.search.space},
                objective=metrics.get(OBJECTIVE),
                epochs=done,
                seconds=float(metrics.get("time_total_s", 0.0)),
                failure=str(result.error).strip().splitlines()[-1] if result.error else "",
            )
        )
    return SearchResult(
        title=f"{asked.search.system} of {asked.preset}, {len(rows)} trials",
        objective=asked.search.objective + (f" on {asked.search.split}" if asked.search.split else ""),
        epochs=epochs,
        start=start_values(asked.config, asked.search.system, asked.search.space),
        scales={p.name: "log" if p.kind == "log" else "linear" for p in asked.search.space if p.kind != "choice"},
        rows=tuple(rows),
    )


def _session(asked: Search, one: RunConfig) -> RunConfig:
    """Return the settings of a Ray that this command starts itself: room for all trials at once."""
    if one.cluster.num_cpus is not None:
        return one
    needed, at_once = required_cpus(one), asked.search.concurrent or 1
    cpus = max(math.ceil(needed * at_once), os.cpu_count() or 1)
    return with_overrides(
        one, {"cluster.num_cpus": cpus + 1, "cluster.object_store_mib": one.cluster.object_store_mib * at_once}
    )


def _tracker(asked: Search) -> Tracker:
    config = asked.config
    uri = tracking_uri(config.tracking, asked.out) if config.tracking.enabled else ""
    tracked = with_overrides(config, {"tracking.uri": uri, "tracking.enabled": bool(uri)})
    tracker = open_tracker(
        tracked.tracking,
        run_name=f"{asked.out.rstrip('/').rsplit('/', 1)[-1]}/tune",
        out_dir=storage.join(asked.folder, "tracking"),
        identity=asked.identity,
        tags=run_tags(tracked) | {"search": asked.search.system, "objective": asked.search.objective},
        system_metrics=False,
    )
    tracker.log_params({"search": to_dict(asked.search), "config": to_dict(config)})
    return tracker


def _print(asked: Search, result: SearchResult, files: dict[str, str], console: Console) -> None:
    best = best_trial(result)
    assert best is not None and best.objective is not None
    show: Callable[[str], None] = functools.partial(console.print, highlight=False, markup=False, soft_wrap=True)
    stopped = sum(not row.failure and row.epochs < result.epochs for row in result.rows)
    failed = sum(bool(row.failure) for row in result.rows)
    show(f"{len(result.rows)} trials, {stopped} stopped early, {failed} failed")
    show(f"best     {best.name}, {result.objective} {best.objective:.4f}")
    for name, value in best.values.items():
        show(f"         {name} = {value:.4g}" if isinstance(value, float) else f"         {name} = {value}")
    show(f"report   {files['page']}")
    show(f"run it   qaclims run {storage.join(asked.folder, BEST_NAME)} --out DIR")
