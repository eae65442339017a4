"""An ablation: every row of a paper's table, for every seed, as trials that run beside each other.

A seed has one run folder. Its data, corpus and classifier are made once; each row is a system in that folder. So
running the same command again repeats nothing that is finished, and tables share the rows they have in common.
"""

import contextlib
import functools
import os
import tempfile
import traceback
from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, TextIO

from rich.console import Console

from qaclims_ray.cluster.session import ray_session, resources_there, runs_at_once
from qaclims_ray.cluster.trials import Trial, run_trials
from qaclims_ray.cluster.workers import OnEpoch
from qaclims_ray.data import artifacts, storage, trees
from qaclims_ray.data.manifest import read_manifest
from qaclims_ray.data.splits import scored_images
from qaclims_ray.errors import DataError, QaclimsError
from qaclims_ray.evaluation.scored_figures import FIGURES
from qaclims_ray.presets.table import preset
from qaclims_ray.report.ablation import (
    AblationResult,
    ResultRow,
    SeedFigures,
    ablation_markdown,
    failures,
    mean_and_deviation,
    table_cells,
    write_ablation,
)
from qaclims_ray.report.console_text import print_line
from qaclims_ray.run_config import RunConfig, flat, to_dict
from qaclims_ray.stages.evaluate import can_score
from qaclims_ray.stages.layout import RunLayout
from qaclims_ray.stages.opening import try_networks
from qaclims_ray.stages.pipeline import RunOutcome, run_pipeline
from qaclims_ray.stages.preflight import preflight
from qaclims_ray.stages.report_contents import environment, supervision
from qaclims_ray.stages.requests import Ablation
from qaclims_ray.stages.resources import needs_of_many
from qaclims_ray.stages.run_description import failure_tag, run_tags
from qaclims_ray.systems.planning import artefacts_of
from qaclims_ray.systems.table import with_systems
from qaclims_ray.tracking.mlflow_tracker import open_tracker
from qaclims_ray.tracking.tracker import Tracker

CLASSIFIER_TRIAL = "shared"
"""Trial under which a seed's classifier is trained."""


def run_ablation(ablation: Ablation, console: Console) -> AblationResult:
    """Run a table's trials and write the table; trials that fail are in the result with their reasons.

    Raises:
        QaclimsError: for what can be known before any work starts.
    """
    for seed in ablation.seeds:
        preflight(ablation.run(seed, ablation.table.rows), ablation.folder(seed))
    one = ablation.run(ablation.seeds[0], ablation.table.rows)
    try_networks(one)  # seeds have the same
    tracker = _tracker(ablation, one)
    try:
        needs = needs_of_many(one, ablation.concurrent)
        with ray_session(needs):
            at_once = runs_at_once(needs, ablation.concurrent)
            handle = tracker.handle()
            trials = plan_trials(ablation, handle.run_id if handle else "")
            print_line(console, f"{len(trials)} trials, {at_once} at once")
            ended = run_trials(trials, at_once=at_once, on_end=functools.partial(_tell, console))
            result = gather(ablation, ended, _conditions(ablation, resources_there()))
        files = write_ablation(ablation.out, result)
        _log(tracker, result, files)
    except BaseException as error:
        tracker.set_tags(failure_tag(error))
        tracker.finish("KILLED" if isinstance(error, KeyboardInterrupt) else "FAILED")
        raise
    tracker.finish("FAILED" if failures(result) else "FINISHED")
    print_line(console, ablation_markdown(result))
    for uri in files.values():
        print_line(console, uri)
    return result


def plan_trials(ablation: Ablation, run_id: str = "") -> list[Trial]:
    """Return the trials: what all rows of a seed share first, then the rows.

    Args:
        ablation: what is asked for.
        run_id: the ablation's own run of the tracker, which theirs are parts of; empty where there is none.
    """
    trials, rows, seeds = [], ablation.table.rows, ablation.seeds
    for seed in seeds:
        # The miniature draws other images for every seed; elsewhere one corpus serves all seeds.
        first = seeds[0] if ablation.config.data.dataset != "miniature" and seed != seeds[0] else None
        source = None if first is None else ablation.folder(first)
        work = functools.partial(prepare_seed, ablation.run(seed, rows), ablation.folder(seed), source, run_id)
        needs = () if first is None else (_trial_name(CLASSIFIER_TRIAL, first),)
        trials.append(Trial(name=_trial_name(CLASSIFIER_TRIAL, seed), work=work, needs=needs))
    for row in rows:
        for seed in seeds:
            config, folder = ablation.run(seed, (row,)), ablation.folder(seed)
            trials.append(
                Trial(
                    name=_trial_name(row.name, seed),
                    work=functools.partial(score_row, config, folder, row.name, run_id),
                    needs=(_trial_name(CLASSIFIER_TRIAL, seed),),
                    makes=frozenset(f"{folder} {name}" for name in artefacts_of(config, row.name)),
                )
            )
    return trials


def prepare_seed(config: RunConfig, out: str, source: str | None, run_id: str = "") -> None:
    """Make what a seed's rows share: data, corpus, classifier.

    Args:
        config: the run with all rows.
        out: the seed's run folder.
        source: run folder of another seed on the same data, whose corpus is taken over.
        run_id: the ablation's own run of the tracker.

    Raises:
        DataError: when no image could be scored, before anything is trained.
    """
    if source is not None:
        take_over_corpus(source, out)
    pipeline_to_file(config, out, until="corpus", parent_run_id=run_id)
    if not can_score(scored_images(read_manifest(RunLayout(out).manifest), config.data)):
        raise DataError(f"no image of the split {config.data.eval_split} has a mask: an ablation needs some to score")
    baseline = with_systems(config, ["baseline"])
    pipeline_to_file(baseline, out, until="train", trial=CLASSIFIER_TRIAL, parent_run_id=run_id)


def score_row(config: RunConfig, out: str, name: str, run_id: str = "") -> SeedFigures:
    """Train and score one row in a prepared folder."""
    outcome = pipeline_to_file(config, out, until="evaluate", trial=name, parent_run_id=run_id)
    seed = outcome.results.scores[name].seed
    return SeedFigures(
        miou_fixed=seed.miou_fixed,
        miou_label_free=seed.miou_label_free,
        miou_best=seed.miou_best,
        threshold_best=seed.threshold_best,
    )


def gather(ablation: Ablation, ended: Mapping[str, Any], conditions: Mapping[str, str]) -> AblationResult:
    """Return the table of what the trials returned."""
    table, rows = ablation.table, []
    mark = " (epoch chosen with pixel labels)" if ablation.config.selection.criterion == "oracle" else ""
    for row in table.rows:
        results = {seed: ended[_trial_name(row.name, seed)] for seed in ablation.seeds}
        rows.append(
            ResultRow(
                label=f"{row.label}{mark}",
                system=row.name,
                published=table.published.get(row.name),
                scores={seed: found for seed, found in results.items() if isinstance(found, SeedFigures)},
                failures={seed: str(found) for seed, found in results.items() if isinstance(found, QaclimsError)},
            )
        )
    return AblationResult(
        name=table.name,
        title=f"{table.paper}: {table.title}",
        what=table.what,
        note=table.note,
        rows=tuple(rows),
        seeds=ablation.seeds,
        conditions=conditions,
    )


def _trial_name(row: str, seed: int) -> str:
    return f"seed {seed}, {row}"


def pipeline_to_file(
    config: RunConfig,
    out: str,
    *,
    until: str,
    trial: str = "",
    on_epoch: OnEpoch | None = None,
    parent_run_id: str = "",
) -> RunOutcome:
    """Run the pipeline; its lines go into a file, since several run at once.

    Args:
        config: the run.
        out: run folder.
        until: last stage.
        trial: name under which its records are kept.
        on_epoch: see `Stage.on_epoch`.
        parent_run_id: see `run_pipeline`.
    """
    with _log_file(storage.join(RunLayout(out, trial).records, "log.txt")) as lines:
        console = Console(file=lines, width=160)
        return run_pipeline(
            config, out, until=until, trial=trial, console=console, on_epoch=on_epoch, parent_run_id=parent_run_id
        )


@contextlib.contextmanager
def _log_file(uri: str) -> Iterator[TextIO]:
    """Open a file that grows line by line; in a bucket it appears at the end."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "log.txt") if storage.is_remote(uri) else Path(uri)
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            with path.open("a", buffering=1, encoding="utf-8", errors="backslashreplace") as lines:
                try:
                    yield lines
                except BaseException:
                    traceback.print_exc(file=lines)
                    raise
        finally:
            if storage.is_remote(uri):
                storage.write_bytes(uri, path.read_bytes())


def take_over_corpus(source: str, out: str) -> None:
    """Copy the corpus of another seed's folder, where there is one and none here; the corpus stage checks it."""
    there, here = RunLayout(source), RunLayout(out)
    found = artifacts.readable_meta(there.corpus)
    if artifacts.readable_meta(here.corpus) is None and found is not None:
        aside = artifacts.workshop_of(here.corpus, found.fingerprint)
        with storage.local_copy(there.corpus) as folder:
            storage.upload_tree(folder, aside)
        trees.put_in_place(aside, here.corpus)


def _tell(console: Console, trial: Trial, result: Any, seconds: float) -> None:
    text = "done"
    if isinstance(result, QaclimsError):
        text = f"FAILED: {result}"
    elif isinstance(result, SeedFigures):
        text = f"mIoU {result.miou_fixed:.1%} at the fixed threshold, {result.miou_best:.1%} at the best (pixel labels)"
    print_line(console, f"{trial.name:<40} {seconds:7.1f} s  {text}")


def _conditions(ablation: Ablation, resources: Mapping[str, float]) -> dict[str, str]:
    config, found = ablation.config, environment()
    default, changed = flat(preset(ablation.preset)), flat(config)
    settings = [f"{name}={value}" for name, value in changed.items() if default.get(name) != value]
    nodes = sum(name.startswith("node:") and not name.endswith("__") for name in resources)
    cluster = f"{nodes} node{'s' if nodes > 1 else ''}, {resources.get('CPU', 0):g} logical CPU"
    kinds = [name.removeprefix("accelerator_type:") for name in resources if name.startswith("accelerator_type:")]
    gpus = f", {resources['GPU']:g} GPU ({', '.join(kinds)})" if resources.get("GPU") else ""
    packages: Any = found["packages"]
    return {
        "preset": ablation.preset,
        "settings": ", ".join(settings) or "the preset's own",
        "supervision": supervision(ablation.run(ablation.seeds[0], ablation.table.rows)),
        "seeds": ", ".join(map(str, ablation.seeds)),
        "date": datetime.now(UTC).date().isoformat(),
        "machine": f"{cluster}{gpus}; driver {found['machine']}, {found['cores']} cores, {found['memory_gib']} GiB",
        "versions": ", ".join(
            [f"qaclims_ray {found['qaclims_ray']} ({found['source_hash']})", f"Python {found['python']}"]
            + [f"{name} {number}" for name, number in packages.items()]
        ),
    }


def _tracker(ablation: Ablation, one: RunConfig) -> Tracker:
    asked = {"table": ablation.table.name, "seeds": list(ablation.seeds), "config": to_dict(ablation.config)}
    tags = run_tags(one) | {"ablation": ablation.table.name, "seed": ", ".join(map(str, ablation.seeds))}
    tracker = open_tracker(
        one.tracking,
        run_name=f"{ablation.out.rstrip('/').rsplit('/', 1)[-1]}/{ablation.table.name}",
        out_dir=storage.join(ablation.out, "ablations", ablation.table.name),
        identity=artifacts.fingerprint_of(asked),
        tags=tags,
        system_metrics=False,
    )
    tracker.log_params(asked)
    return tracker


def _log(tracker: Tracker, result: AblationResult, files: Mapping[str, str]) -> None:
    for row in result.rows:
        means = {
            FIGURES["seed_fixed"].metric: mean_and_deviation(row, "miou_fixed")[0],
            FIGURES["seed_best"].metric: mean_and_deviation(row, "miou_best")[0],
        }
        tracker.log_metrics({f"{row.system}/{name}": mean / 100 for name, mean in means.items() if mean is not None})
    header: Sequence[str] = ("row", "paper", "paper_to_first", "fixed", "fixed_to_first", "best", "best_to_first")
    tracker.log_table(dict(zip(header, zip(*table_cells(result), strict=True), strict=True)), result.name)
    with tempfile.TemporaryDirectory() as folder:
        for uri in files.values():
            local = os.path.join(folder, uri.rsplit("/", 1)[-1])
            with open(local, "wb") as handle:
                handle.write(storage.read_bytes(uri))
            tracker.log_artifact(local)
