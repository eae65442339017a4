"""Later trainings on a real local Ray: killed at work, they go on and end as if nothing had happened.

``make test-slow`` runs it: what goes on is the same code as for the classifier, which CI kills in test_pipeline.
"""

import json
import shutil
import threading
from pathlib import Path

import pytest

from qaclims_ray.cluster.rescue import SNAPSHOT_NAME
from qaclims_ray.data.artifacts import read_meta
from qaclims_ray.stages.layout import RunLayout
from qaclims_ray.stages.pipeline import run_pipeline
from tests.cluster.kills import MARK, kill_training_worker, kill_tree, mark_checkpoints, start, wait_for
from tests.cluster.small_run import SMALL, small_config

pytestmark = [pytest.mark.ray, pytest.mark.slow, pytest.mark.timeout(900), pytest.mark.usefixtures("shared_ray")]

FINAL = {
    "goal": "segmentation",
    "data.limit": 24,
    "systems": ["baseline"],
    "masks.steps": ["irn", "crf"],
    "masks.irn.optim.epochs": 24,  # long enough to be caught at work
    "masks.irn.optim.batch_size": 8,
    "segmentation.optim.epochs": 20,
    "segmentation.steps_per_epoch": 3,
    "segmentation.optim.batch_size": 8,
    "cluster.num_workers": 2,
}


def _config():
    return small_config(**{name.replace(".", "__"): value for name, value in FINAL.items()})


@pytest.fixture(scope="module")
def finished(tmp_path_factory) -> Path:
    out = tmp_path_factory.mktemp("final")
    run_pipeline(_config(), str(out))
    return out


def _copy_without(finished: Path, target: Path, *folders: str) -> Path:
    """Copy a finished run as it was before some of its artefacts were made."""
    shutil.copytree(finished, target)
    for folder in folders:
        shutil.rmtree(target / folder / "baseline")
    return target


def _has_checkpoint(runs: Path, kind: str) -> bool:
    """Whether Ray has taken note of a checkpoint, and not only received it."""
    return any('"checkpoint_dir_name"' in path.read_text() for path in runs.glob(f"{kind}-*/{SNAPSHOT_NAME}"))


def _weights(out: Path, kind: str) -> bytes:
    return (out / kind / "baseline" / "network.safetensors").read_bytes()


def _scores(out: Path, kind: str) -> str:
    return (out / kind / "baseline" / "scores.json").read_text()


def test_killed_worker_of_a_final_network_is_replaced_and_changes_nothing(finished, tmp_path):
    out = _copy_without(finished, tmp_path / "copy", "segmentation", "predictions")
    runs, victims = out / "training_runs", []

    def kill_one() -> None:
        wait_for(lambda: _has_checkpoint(runs, "segmentation"), 600, "a first checkpoint")
        victims.append(kill_training_worker())

    killer = threading.Thread(target=kill_one)
    killer.start()
    run_pipeline(_config(), str(out), until="segment")
    killer.join()
    assert victims
    assert _weights(out, "segmentation") == _weights(finished, "segmentation")
    assert _scores(out, "predictions") == _scores(finished, "predictions")


def test_killed_run_goes_on_with_its_affinity_network_from_the_checkpoint(finished, tmp_path):
    out = _copy_without(finished, tmp_path / "copy", "affinity", "masks", "segmentation", "predictions")
    process = start(out, "refine", {**SMALL, **FINAL})
    wait_for(lambda: _has_checkpoint(out / "training_runs", "affinity"), 600, "a first checkpoint")
    kill_tree(process)
    assert read_meta(RunLayout(str(out)).affinity("baseline")) is None
    mark_checkpoints(out / "training_runs")
    run_pipeline(_config(), str(out), until="refine")
    curve = json.loads((out / "affinity" / "baseline" / "curves.json").read_text())
    assert MARK in curve, "it went on from a checkpoint, and did not begin again"
    assert _weights(out, "affinity") == _weights(finished, "affinity")
    assert _scores(out, "masks") == _scores(finished, "masks")


def test_a_training_goes_on_though_the_list_of_systems_has_changed(tmp_path):
    """It shared its workers with the systems that were asked for; others make a Ray run of another name."""
    small = {**SMALL, "data.num_images": 48, "ritc.optim.epochs": 12}
    process = start(tmp_path, "train", {**small, "systems": ["qa_clims", "alias"]})
    wait_for(lambda: _has_checkpoint(tmp_path / "training_runs", "ritc"), 600, "a first checkpoint")
    kill_tree(process)
    layout = RunLayout(str(tmp_path))
    assert read_meta(layout.network("qa_clims")) is None
    mark_checkpoints(tmp_path / "training_runs")
    changed = {**small, "systems": ["ritc_class_names", "qa_clims"]}
    run_pipeline(
        small_config(**{name.replace(".", "__"): value for name, value in changed.items()}),
        str(tmp_path),
        until="train",
    )
    marked = {
        name: MARK in json.loads((tmp_path / "networks" / name / "curves.json").read_text())
        for name in changed["systems"]
    }
    assert marked == {"ritc_class_names": False, "qa_clims": True}
    assert not list((tmp_path / "training_runs").iterdir()), "checkpoints of both runs are gone"
