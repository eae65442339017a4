"""How one MLflow store grows with the runs in it: CPU milliseconds of what a run and ``qaclims ui`` ask of it.

    python -m benchmarks.mlflow_store [--runs 500 5000]

One pipeline of the miniature with its stages is logged by the tracker itself; the other pipelines are copies of its
rows in SQLite with ids, keys and folders of their own, so that five thousand runs take seconds to make. Each figure is
the median of five calls in this process. ``qaclims compare`` reads run folders alone and asks no store.
"""

import argparse
import sqlite3
import statistics
import tempfile
import time
import uuid
from collections.abc import Callable, Sequence
from contextlib import closing
from pathlib import Path
from typing import Any

from qaclims_ray.presets.miniature import miniature
from qaclims_ray.run_config import to_dict
from qaclims_ray.stages.run_description import run_tags
from qaclims_ray.tracking.mlflow_runs import FOLDER_TAG, KEY_TAG, PARENT_TAG, connected, find_run
from qaclims_ray.tracking.mlflow_tracker import open_tracker
from qaclims_ray.tracking.tracker import Tracker

_STAGES = ("corpus", "text", "train classifier", "train qa_clims", "cams", "evaluate", "refine", "segment", "report")
"""Runs below that of a pipeline."""
_EPOCHS, _FIGURES = 20, 12
"""Points of a stage's run, and curves."""
_TABLES = ("runs", "tags", "params", "metrics", "latest_metrics")
_REPEATS = 5


def logged(folder: Path, name: str = "run") -> Tracker:
    """Log one pipeline with its stages as a run does; return its tracker, still open."""
    config = miniature()
    out = folder / name
    out.mkdir(exist_ok=True)
    tracker = open_tracker(
        config.tracking, run_name=name, out_dir=str(out), identity="same", tags=run_tags(config), system_metrics=False
    )
    tracker.log_params({"config": to_dict(config)})
    for stage in _STAGES:
        child = tracker.child(stage)
        child.log_params({"config": to_dict(config.ritc)})
        for epoch in range(1, _EPOCHS + 1):
            child.log_metrics({f"{stage}/figure_{at}": epoch / (at + 1) for at in range(_FIGURES)}, step=epoch)
        child.finish("FINISHED")
    tracker.log_metrics({"qa_clims/miou_fixed": 0.5, "qa_clims/miou_best": 0.6})
    return tracker


def grown(store: Path, num_runs: int) -> None:
    """Copy the rows of the first pipeline until a store holds so many runs."""
    with closing(sqlite3.connect(store)) as opened, opened:
        (there,) = opened.execute("SELECT count(*) FROM runs").fetchone()
        children = "SELECT run_uuid, value FROM tags WHERE key = ? ORDER BY rowid LIMIT ?"
        found = opened.execute(children, (PARENT_TAG, len(_STAGES))).fetchall()
        parent = found[0][1]
        known = ", ".join(f"'{run}'" for run in (parent, *(run for run, _ in found)))
        opened.execute("CREATE TEMP TABLE copies (number INTEGER)")
        numbers = range(there, num_runs, 1 + len(_STAGES))
        opened.executemany("INSERT INTO copies VALUES (?)", ((number,) for number in numbers))
        # Ids have 32 hex digits: those of a copy end in its number. Keys and marks of parents hold the parent's.
        new = "substr({}, 1, 24) || printf('%08x', number)"
        for name in _TABLES:
            columns = [column for _, column, *_ in opened.execute(f"PRAGMA table_info({name})")]
            values = {column: column for column in columns} | {"run_uuid": new.format("run_uuid")}
            if name == "tags":
                is_folder, copied = f"key = '{FOLDER_TAG}'", f"replace(value, '{parent}', {new.format(repr(parent))})"
                values["value"] = f"CASE WHEN {is_folder} THEN value || number ELSE {copied} END"
            chosen = ", ".join(values[column] for column in columns)
            opened.execute(
                f"INSERT INTO {name} ({', '.join(columns)}) SELECT {chosen} FROM {name}, copies "
                f"WHERE run_uuid IN ({known})"
            )


def asked(folder: Path) -> dict[str, Callable[[], Any]]:
    """Return what a run and the pages ask of a store: name -> call."""
    uri = f"sqlite:///{folder / 'mlflow.db'}"
    client = connected(uri)
    experiment = client.get_experiment_by_name(miniature().tracking.experiment)
    assert experiment is not None
    number = experiment.experiment_id
    newest = client.search_runs([number], f"tags.`{PARENT_TAG}` != ''", max_results=1)[0]
    key = newest.data.tags[KEY_TAG]
    columns = ["attributes.start_time DESC"], ["metrics.`qa_clims/miou_fixed` DESC"]

    def begin() -> None:
        logged_nothing = folder / uuid.uuid4().hex
        logged_nothing.mkdir()
        tracker = open_tracker(miniature().tracking, run_name="new", out_dir=str(logged_nothing), system_metrics=False)
        tracker.close()

    def go_on() -> None:
        (folder / "run" / "tracking.json").unlink(missing_ok=True)
        tracker = open_tracker(
            miniature().tracking,
            run_name="run",
            out_dir=str(folder / "run"),
            identity="same",
            was_begun=True,
            system_metrics=False,
        )
        tracker.close()

    return {
        "begin the run of a new folder": begin,
        "find the run of a folder by its tag": go_on,
        "find a stage's run by its key": lambda: find_run(client, number, key),
        "read a curve of a run that goes on": lambda: client.get_metric_history(newest.info.run_id, "cams/figure_1"),
        "pages: the newest 100 runs": lambda: client.search_runs([number], max_results=100, order_by=columns[0]),
        "pages: the best 100 runs of a figure": lambda: client.search_runs(
            [number], max_results=100, order_by=columns[1]
        ),
        "pages: one run": lambda: client.get_run(newest.info.run_id),
    }


def milliseconds(call: Callable[[], Any]) -> float:
    """Return the median of a call's CPU milliseconds."""
    took = []
    for _ in range(_REPEATS):
        started = time.process_time()
        call()
        took.append(1000 * (time.process_time() - started))
    return statistics.median(took)


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=int, nargs="+", default=[500, 5000], help="runs in the store, rising")
    sizes = sorted(parser.parse_args(arguments).runs)
    found: dict[str, list[float]] = {}
    with tempfile.TemporaryDirectory() as made:
        folder = Path(made)
        logged(folder).finish("FINISHED")
        for size in sizes:
            grown(folder / "mlflow.db", size)
            for name, call in asked(folder).items():
                found.setdefault(name, []).append(milliseconds(call))
            found.setdefault("size of the store, MiB", []).append((folder / "mlflow.db").stat().st_size / 2**20)
    print(f"{'CPU milliseconds, runs in the store':40}" + "".join(f"{size:>12,}" for size in sizes))
    for name, took in found.items():
        print(f"{name:40}" + "".join(f"{value:12.1f}" for value in took))


if __name__ == "__main__":
    main()
