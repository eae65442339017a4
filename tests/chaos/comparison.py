"""What a run left behind, held against what an undisturbed one left: row for row, bit for bit, and no rest."""

import contextlib
import hashlib
import json
import re
import sqlite3
from collections.abc import Collection
from pathlib import Path
from typing import Any

_RECORDS = ("meta.json", "files.json", "timings.json", "training.json", "progress.json", "log.txt")
"""They hold times of day, seconds and images a second, or hashes of what does; the next run reads and checks them."""
_OWN_TIMES = {"created", "made_from", "timings", "environment", "seal", "page"}
"""Fields of the report that differ from run to run."""
_TRIAL = re.compile(r"trial_[0-9a-f]{5}_(\d{5})")
"""What Ray Tune calls a trial: five digits that nobody chooses, and its number."""
_HALF = re.compile(r"\.(partial|making|old|arriving)-|/arriving(/|$)")


def content_of(out: Path) -> dict[str, str]:
    """Return a hash of every file of a run that two runs with one seed have in common, by its place."""
    found = {}
    for path in sorted(out.rglob("*")):
        name = path.relative_to(out).as_posix()
        if not path.is_file() or path.name in _RECORDS or _is_aside(name):
            continue
        found[_TRIAL.sub(r"trial_\1", name)] = hashlib.sha256(_comparable(path, out)).hexdigest()
    return found


def _is_aside(name: str) -> bool:
    """Whether a file is no part of what a run made: records of MLflow, checkpoints, what was set aside as damaged."""
    is_record = name.rpartition("/")[2] in ("tracking.json", "tracked_models.json") or name.startswith(".owner-")
    is_passing = re.search(r"(^|/)(training_runs|tracking-spool)/", name) or name.startswith("tune/state/")
    return bool(is_record or is_passing or ".damaged-" in name or _HALF.search(name))


def _comparable(path: Path, out: Path) -> bytes:
    """Return what of a file two runs have in common."""
    # A copy of a run names the place where it was made.
    content = re.sub(re.escape(str(out.parents[1]).encode()) + rb"/[\w-]+", b"{place}", path.read_bytes())
    content = re.sub(_TRIAL.pattern.encode(), rb"trial_\1", content)
    try:
        match path.name:
            case "curves.json":
                return _canonical({step: _figures(point) for step, point in json.loads(content).items()})
            case "report.json":
                return _canonical(_of_report(json.loads(content)))
            case "search.json":
                return _canonical(_without_seconds(json.loads(content)))
            case "report.html":
                # It shows the time of day; report.json beside it holds its figures, and the hash of it as written.
                figures = json.loads(path.with_name("report.json").read_text())
                return b"whole" if figures["page"] == hashlib.sha256(path.read_bytes()).hexdigest() else b"other"
            case _:
                return content
    except (ValueError, AttributeError, KeyError, OSError, TypeError):
        return content


def _of_report(report: dict[str, Any]) -> Any:
    for system in report["systems"].values():
        for name in [name for name in system["curves"] if name.endswith("images_per_s")]:
            del system["curves"][name]
    return {name: value for name, value in report.items() if name not in _OWN_TIMES}


def _without_seconds(search: dict[str, Any]) -> Any:
    rows = [{name: value for name, value in row.items() if name != "seconds"} for row in search["rows"]]
    return {**search, "rows": rows}


def _figures(point: dict[str, float]) -> dict[str, float]:
    return {name: value for name, value in point.items() if not name.endswith("images_per_s")}


def _canonical(value: Any) -> bytes:
    return json.dumps(value, sort_keys=True).encode()


def differences(expected: dict[str, str], out: Path) -> list[str]:
    """Return the files of a run that are others than expected, more, or not there."""
    found = content_of(out)
    return [name for name in sorted({*expected, *found}) if expected.get(name) != found.get(name)]


def half_files(out: Path) -> list[str]:
    """Return what lies below a run's folder that a finished run does not leave: half files, workshops, marks."""
    names = [path.relative_to(out).as_posix() for path in out.rglob("*")]
    left = [name for name in names if _HALF.search(name) or name.startswith(".owner-")]
    return left + [name for name in names if re.search(r"(^|/)(training_runs|tracking-spool)/", name)]


Point = tuple[str, str, int]
"""Run (behind the one it is part of), metric and step of a value in MLflow."""


def points_of(store: Path) -> set[Point]:
    """Return run, metric and step of every point in MLflow's store, but for those of the machine."""
    with contextlib.closing(sqlite3.connect(store)) as opened:
        found = opened.execute(
            "SELECT coalesce(parent.name || '/', '') || runs.name, metrics.key, metrics.step "
            "FROM metrics JOIN runs USING (run_uuid) "
            "LEFT JOIN tags ON tags.run_uuid = runs.run_uuid AND tags.key = 'mlflow.parentRunId' "
            "LEFT JOIN runs AS parent ON parent.run_uuid = tags.value "
            "WHERE metrics.key NOT LIKE 'system/%' AND runs.lifecycle_stage = 'active'"
        ).fetchall()
    return {(_TRIAL.sub(r"trial_\1", name), _TRIAL.sub(r"trial_\1", key), step) for name, key, step in found}


def faults_of_tracking(store: Path, expected: Collection[Point] = ()) -> list[str]:
    """Say what is wrong with MLflow's store of one run: several runs of the pipeline, doubled steps, no right end.

    Args:
        store: SQLite file.
        expected: points that have to be there, see `points_of`.
    """
    if not store.is_file():
        return ["there is no store"]
    with contextlib.closing(sqlite3.connect(store)) as opened:
        runs = opened.execute("SELECT run_uuid, name, status FROM runs WHERE lifecycle_stage = 'active'").fetchall()
        below = dict(opened.execute("SELECT run_uuid, value FROM tags WHERE key = 'mlflow.parentRunId'").fetchall())
        doubled = opened.execute(
            "SELECT key, step, count(*) FROM metrics WHERE key NOT LIKE 'system/%' "
            "GROUP BY run_uuid, key, step HAVING count(*) > 1"
        ).fetchall()
    whole = [name for run, name, _ in runs if run not in below]
    names = [(below.get(run, ""), name) for run, name, _ in runs]
    lost = sorted({*expected} - points_of(store))
    return [
        *([f"{len(whole)} runs of the pipeline"] if len(whole) != 1 else []),
        *([f"runs twice: {sorted(name for _, name in names)}"] if len(names) != len(set(names)) else []),
        *([f"doubled points: {doubled[:3]}"] if doubled else []),
        *([f"{len(lost)} points are lost: {lost[:3]}"] if lost else []),
        *(f"{name} is {status}" for _, name, status in runs if status != "FINISHED"),
    ]
