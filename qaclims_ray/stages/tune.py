"""A search of settings by Ray Tune: every trial is a training beside others, in one run folder that they share.

Data, corpus, classifier and the network that a system starts from are made once, before the first trial. Ray Tune
keeps its state in the folder, so the same command goes on after the driver died.
"""

import functools
import json
from collections.abc import Callable, Sequence

from rich.console import Console

from qaclims_ray.cluster.dashboard import require_dashboard
from qaclims_ray.cluster.search import SearchPlan, TrialEnd, search_settings
from qaclims_ray.cluster.session import ray_session, runs_at_once
from qaclims_ray.data import storage
from qaclims_ray.data.partial_files import remove_abandoned
from qaclims_ray.errors import ConfigError, ResourceError
from qaclims_ray.report.console_text import print_line
from qaclims_ray.report.search import SearchResult, TrialRow, best_trial, write_search
from qaclims_ray.run_config import to_dict, with_overrides
from qaclims_ray.stages.ablate import pipeline_to_file
from qaclims_ray.stages.opening import try_networks
from qaclims_ray.stages.preflight import preflight
from qaclims_ray.stages.requests import Search
from qaclims_ray.stages.resources import needs_of_many
from qaclims_ray.stages.run_description import failure_tag, run_tags, without_password
from qaclims_ray.stages.tune_trial import must_take_turns, train_trial
from qaclims_ray.systems.needs import needs_corpus
from qaclims_ray.systems.planning import rated_epochs
from qaclims_ray.systems.search import best_config, checked_search, start_values, trial_config
from qaclims_ray.systems.table import system_of, with_systems
from qaclims_ray.tracking.mlflow_tracker import open_tracker
from qaclims_ray.tracking.store import tracking_uri
from qaclims_ray.tracking.tracker import Tracker

BEST_NAME = "best.json"
"""The run with the best values, a preset that can be run as it is."""
_SHARED = "shared"
_WHY_DASHBOARD = (
    "Ray frees what a trial stopped by ASHA had reserved through it alone, so later trials would wait for ever. Start "
    'Ray with it (`ray start --head --include-dashboard true`, with "ray[default]" installed), or set --scheduler none'
)


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
    try_networks(first)
    if not storage.is_remote(asked.out):
        remove_abandoned(asked.out)
    if search.concurrent not in (None, 1) and must_take_turns(asked.config, search):
        raise ConfigError(
            f"--concurrent is {search.concurrent}, but some phase of {search.system} depends on nothing that is "
            "searched (or on choices that trials may share), so two trials would train it at once; set --concurrent 1"
        )
    tracker = _tracker(asked)
    try:
        # One CPU more than the trials need, for what is theirs together.
        needs = needs_of_many(first, search.concurrent or 1, beside=1)
        # A trial without workers trains in its own process, which reserves nothing.
        needs_dashboard = search.scheduler == "asha" and asked.config.cluster.num_workers != 0
        with ray_session(needs, dashboard=needs_dashboard):
            if needs_dashboard:
                require_dashboard(_WHY_DASHBOARD)
            at_once = 1 if must_take_turns(asked.config, search) else runs_at_once(needs, search.concurrent)
            at_once = min(at_once, search.trials)
            print_line(console, f"{search.trials} trials, {at_once} at once -> {asked.folder}")
            prepare_shared(asked)
            epochs = sum(rated_epochs(first, "check"))
            work = functools.partial(train_trial, config=asked.config, search=search, out=asked.out)
            result = _result(asked, search_settings(work, _plan(asked, at_once, tracker, epochs)), epochs)
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
        tracker.set_tags(failure_tag(error))
        tracker.finish("KILLED" if isinstance(error, KeyboardInterrupt) else "FAILED")
        raise
    tracker.finish("FINISHED")
    _print(asked, result, files, console)
    return result


def prepare_shared(asked: Search) -> None:
    """Make what trials share: data, corpus, classifier, and the network that the system starts from."""
    config, system = asked.config, system_of(asked.config, asked.search.system)
    base = {"goal": "seed", "tracking.enabled": False}
    whole = with_overrides(with_systems(config, [asked.search.system]), base)
    if needs_corpus(whole):
        pipeline_to_file(whole, asked.out, until="corpus", trial=_SHARED)
    start = with_overrides(with_systems(config, [system.base or "baseline"]), base)
    pipeline_to_file(start, asked.out, until="train", trial=_SHARED)


def _plan(asked: Search, at_once: int, tracker: Tracker, epochs: int) -> SearchPlan:
    search = asked.search
    return SearchPlan(
        name=f"search-{asked.identity}",
        folder=storage.join(asked.folder, "state"),
        space=search.space,
        start=start_values(asked.config, search.system, search.space) if search.from_start else None,
        trials=search.trials,
        at_once=at_once,
        epochs=epochs,
        algorithm=search.algorithm,
        seed=search.search_seed,
        scheduler=search.scheduler,
        grace_epochs=search.grace_epochs,
        reduction_factor=search.reduction_factor,
        tracker=tracker.handle(),
    )


def _result(asked: Search, ends: Sequence[TrialEnd], epochs: int) -> SearchResult:
    return SearchResult(
        title=f"{asked.search.system} of {asked.preset}, {len(ends)} trials",
        objective=asked.search.objective + (f" on {asked.search.split}" if asked.search.split else ""),
        epochs=epochs,
        start=start_values(asked.config, asked.search.system, asked.search.space),
        scales={p.name: "log" if p.kind == "log" else "linear" for p in asked.search.space if p.kind != "choice"},
        rows=tuple(TrialRow(**vars(end)) for end in ends),
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
    tracker.log_params({"search": to_dict(asked.search), "config": without_password(to_dict(config))})
    return tracker


def _print(asked: Search, result: SearchResult, files: dict[str, str], console: Console) -> None:
    best = best_trial(result)
    assert best is not None and best.objective is not None
    show: Callable[[str], None] = functools.partial(print_line, console)
    stopped = sum(not row.failure and row.epochs < result.epochs for row in result.rows)
    failed = sum(bool(row.failure) for row in result.rows)
    show(f"{len(result.rows)} trials, {stopped} stopped early, {failed} failed")
    show(f"best     {best.name}, {result.objective} {best.objective:.4f}")
    for name, value in best.values.items():
        show(f"         {name} = {value:.4g}" if isinstance(value, float) else f"         {name} = {value}")
    show(f"report   {files['page']}")
    show(f"run it   qaclims run {storage.join(asked.folder, BEST_NAME)} --out DIR")
