"""Work on Ray that hangs without a word ends with one sentence, and Ray goes on."""

import dataclasses
import os
import time
from pathlib import Path

import psutil
import pytest
import ray

from qaclims_ray.cluster.config import ClusterConfig
from qaclims_ray.cluster.patience import patient_for
from qaclims_ray.cluster.shards import as_it_is, run_shards
from qaclims_ray.cluster.tasks import run_task
from qaclims_ray.data.artifacts import Artifact
from qaclims_ray.errors import ResourceError
from qaclims_ray.training.context import WorkerContext
from qaclims_ray.training.group import Training
from qaclims_ray.training.meter import OnStep

pytestmark = [pytest.mark.ray, pytest.mark.timeout(900)]
LONG_S = 3000
SILENCE = r"has given no sign of progress for 0\.\d+ minutes \(cluster\.no_progress_minutes\)"


class Hanging:
    """Never ends a shard."""

    def __call__(self, shard: int) -> dict[str, int]:
        time.sleep(LONG_S)
        return {"shard": shard}


def hang() -> None:
    """Never end."""
    time.sleep(LONG_S)


@dataclasses.dataclass(frozen=True)
class HangingWork:
    """A training that begins and never reports a step."""

    mark: str

    def __call__(self, context: WorkerContext, on_step: OnStep) -> dict[str, float]:
        Path(self.mark).write_text(str(os.getpid()))
        time.sleep(LONG_S)
        return {"loss": 0.0}


def _seven() -> int:
    return 7


def _answers() -> bool:
    return ray.get(ray.remote(num_cpus=0)(_seven).remote(), timeout=300) == 7


def test_a_stage_of_which_no_shard_ends_is_told(shared_ray) -> None:
    with patient_for(0.1), pytest.raises(ResourceError, match=f"the stage, with 0 of 2 shards done, {SILENCE}"):
        run_shards(range(2), decode=as_it_is, actor=Hanging, actor_kwargs={})
    assert _answers()


def test_a_task_that_hangs_is_told_and_ended(shared_ray) -> None:
    with patient_for(0.1), pytest.raises(ResourceError, match=f"hang, which is one task of Ray, {SILENCE}"):
        run_task(hang)
    assert _answers()


def test_a_training_that_reports_nothing_is_told_and_its_workers_end(shared_ray, tmp_path: Path) -> None:
    from qaclims_ray.cluster.workers import fit_on_workers

    artifact = Artifact(uri=str(tmp_path / "network"), kind="classifier", settings={}, verb="train")
    training = Training(
        artifact=artifact, label="baseline", work=HangingWork(str(tmp_path / "pid")), epochs=1, num_steps=1,
        length="", lr=0.1,
    )  # fmt: skip
    told: list[tuple[int, int]] = []
    cluster = ClusterConfig(num_workers=1, cpus_per_worker=1, loader_workers=0)
    with patient_for(1.0), pytest.raises(ResourceError, match="the training of baseline has given no sign of progress"):
        fit_on_workers(
            [training], name="hanging", runs_uri=str(tmp_path / "runs"), cluster=cluster,
            on_position=lambda index, steps: told.append((index, steps)), on_epoch=lambda metrics: None,
        )  # fmt: skip
    assert artifact.current() is None and _answers()
    if told:  # it had begun: on a machine at its limit the silence may be that of the start
        worker = int((tmp_path / "pid").read_text())
        deadline = time.monotonic() + 60
        while psutil.pid_exists(worker) and time.monotonic() < deadline:
            time.sleep(0.2)
        assert not psutil.pid_exists(worker)
