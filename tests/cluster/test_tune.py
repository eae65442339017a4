"""A search on a real local Ray: the driver is killed, the same command goes on, and a trial that fails ends nothing."""

import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from qaclims_ray.presets.table import preset
from qaclims_ray.systems.table import system_config
from tests.cluster.kills import kill_tree, wait_for
from tests.cluster.small_run import SMALL, as_flags

pytestmark = [pytest.mark.ray, pytest.mark.timeout(600)]

SETTINGS: dict[str, Any] = {
    **SMALL,
    "systems": ["qa_clims"],
    "ritc.optim.epochs": 2,
    "tracking.enabled": True,
}
SPACE = [
    {"name": "ritc.omega", "low": 0.0, "high": 0.6},
    {"name": "ritc.optim.lr", "kind": "choice", "choices": [1e-3, 1e30]},
]
"""The second rate makes the loss infinite: that trial fails."""


def _start(out: Path, space: Path) -> subprocess.Popen:
    search = ["--space-file", str(space), "--trials", "4", "--num-images", "4", "--algorithm", "random"]
    return subprocess.Popen(
        [sys.executable, "-m", "qaclims_ray", "tune", "miniature", "--out", str(out), *as_flags(SETTINGS), *search],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    )


def _complete(out: Path) -> dict[str, float]:
    """Return the trained networks in their place -> when each ended; one in a workshop is about to take its place."""
    metas = [path for path in out.glob("networks/trial_*/meta.json") if ".making-" not in path.parent.name]
    return {path.parent.name: path.stat().st_mtime for path in metas}


def test_a_search_outlives_its_driver_and_a_trial_that_fails(tmp_path, empty_store):
    shutil.copyfile(empty_store, tmp_path / "mlflow.db")
    space, out = tmp_path / "space.json", tmp_path / "run"
    space.write_text(json.dumps(SPACE))
    process = _start(out, space)
    wait_for(lambda: bool(_complete(out)) or process.poll() is not None, 240, "the first trial")
    assert process.poll() is None, process.communicate()[0]
    kill_tree(process)
    before = _complete(out)
    classifier = (out / "classifier" / "meta.json").stat().st_mtime
    process = _start(out, space)
    printed, _ = process.communicate(timeout=400)
    assert process.returncode == 0, printed
    found = json.loads((out / "tune" / "search.json").read_text())
    whole = [row for row in found["rows"] if not row["failure"]]
    failed = [row for row in found["rows"] if row["failure"]]
    assert len(found["rows"]) == 4
    assert {row["values"]["ritc.optim.lr"] for row in failed} == {1e30}
    assert {row["values"]["ritc.optim.lr"] for row in whole} == {1e-3}
    assert "loss became" in failed[0]["failure"]
    after = _complete(out)
    assert {name: after[name] for name in before} == before, "a trial that had ended was trained again"
    assert set(before) <= {row["name"] for row in whole}
    assert (out / "classifier" / "meta.json").stat().st_mtime == classifier
    best = preset(str(out / "tune" / "best.json"))
    top = max(whole, key=lambda row: row["objective"])
    assert system_config(best, "qa_clims").ritc.omega == top["values"]["ritc.omega"]
    _check_tracking(out, [row["name"] for row in whole])


def _check_tracking(out: Path, names: list[str]) -> None:
    """Every trial is a run below the search's, with what was searched as its parameters."""
    from mlflow import MlflowClient

    client = MlflowClient(f"sqlite:///{out.parent / 'mlflow.db'}")
    experiments = [experiment.experiment_id for experiment in client.search_experiments()]
    runs = {run.info.run_name: run for run in client.search_runs(experiments)}
    assert set(names) <= set(runs), sorted(runs)
    for name in names:
        run = runs[name]
        assert set(run.data.params) == {"ritc.omega", "ritc.optim.lr"}
        assert "tune/objective" in run.data.metrics
        assert client.get_run(run.data.tags["mlflow.parentRunId"]).info.run_name == "run/tune"
