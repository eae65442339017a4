"""A real MLflow server that is killed while a run logs, and started again. About a minute: marked as integration."""

import os
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from pathlib import Path

import numpy as np
import pytest

from qaclims_ray.tracking.config import TrackingConfig
from qaclims_ray.tracking.mlflow_tracker import attach, open_tracker

pytestmark = [pytest.mark.ray, pytest.mark.timeout(400)]


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


class Server:
    """``mlflow server`` on the loopback address, as docs/cluster/aws.md starts it."""

    def __init__(self, folder: Path):
        self.folder = folder
        self.port = free_port()
        self.uri = f"http://127.0.0.1:{self.port}"
        self.process = None

    def start(self):
        store = f"sqlite:///{self.folder}/server.db"
        command = [sys.executable, "-m", "mlflow", "server", "--backend-store-uri", store]
        command += ["--artifacts-destination", str(self.folder / "artifacts")]
        command += ["--host", "127.0.0.1", "--port", str(self.port), "--workers", "1"]
        environment = os.environ | {"MLFLOW_DISABLE_TELEMETRY": "true", "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false"}
        with (self.folder / "server.log").open("a") as log:
            self.process = subprocess.Popen(
                command, stdout=log, stderr=log, env=environment, start_new_session=True, cwd=self.folder
            )
        deadline = time.monotonic() + 150
        while time.monotonic() < deadline:
            try:
                with urllib.request.urlopen(f"{self.uri}/health", timeout=2) as answer:
                    if answer.status == 200:
                        return
            except OSError:
                time.sleep(0.3)
        raise AssertionError((self.folder / "server.log").read_text())

    def kill(self):
        if self.process is not None:
            # The server's own process group: its workers too, and nothing else.
            os.killpg(self.process.pid, signal.SIGKILL)
            self.process.wait()
            self.process = None


@pytest.fixture
def server(tmp_path):
    server = Server(tmp_path)
    server.start()
    yield server
    server.kill()


def wait_until(claim, timeout_s=60.0):
    deadline = time.monotonic() + timeout_s
    while not claim():
        assert time.monotonic() < deadline, "nothing happened in time"
        time.sleep(0.05)


def log_steps(tracker, first, last):
    slowest_s = 0.0
    for step in range(first, last):
        started = time.monotonic()
        tracker.log_metrics({"train/loss": 1.0 / (1 + step), "train/lr": 0.1}, step=step)
        slowest_s = max(slowest_s, time.monotonic() - started)
    return slowest_s


def test_a_server_that_goes_away_and_comes_back(server, tmp_path, caplog):
    from mlflow import MlflowClient

    out_dir = tmp_path / "runs" / "a"
    tracker = open_tracker(TrackingConfig(uri=server.uri), run_name="a", out_dir=str(out_dir), system_metrics=False)
    stage = tracker.child("train qa_clims")
    handle = stage.handle()
    worker = attach(handle)
    log_steps(worker, 0, 50)
    wait_until(lambda: MlflowClient(server.uri).get_run(handle.run_id).data.metrics)

    server.kill()
    slowest_s = log_steps(worker, 50, 200)
    worker.log_image(np.zeros((8, 8, 3), np.uint8), "cam/overlay", step=4)
    late = tracker.child("evaluate qa_clims")  # a stage that begins while the server is away
    late_handle = late.handle()
    assert late_handle.run_id.startswith("pending:")
    late.log_params({"evaluation": {"fixed_threshold": 0.15}})
    late_worker = attach(late_handle)
    late_worker.log_metrics({"cam/miou_best": 0.5})
    wait_until(lambda: "does not answer" in caplog.text)
    # A worker that ends without a server leaves its calls to the driver.
    closing = time.monotonic()
    late_worker.close()
    closing_s = time.monotonic() - closing
    assert "qaclims sync" in caplog.text

    server.start()
    slowest_s = max(slowest_s, log_steps(worker, 200, 300))
    worker.close()
    late.finish("FINISHED")
    stage.finish("FINISHED")
    tracker.finish("FINISHED")

    client = MlflowClient(server.uri)
    for key in ("train/loss", "train/lr"):
        assert [point.step for point in client.get_metric_history(handle.run_id, key)] == list(range(300))
    losses = [point.value for point in client.get_metric_history(handle.run_id, "train/loss")]
    assert losses == [1.0 / (1 + step) for step in range(300)]
    times = [point.timestamp for point in client.get_metric_history(handle.run_id, "train/loss")]
    assert times == sorted(times)

    found = {
        run.info.run_name: run for run in client.search_runs([client.get_experiment_by_name("qaclims").experiment_id])
    }
    assert sorted(found) == ["a", "evaluate qa_clims", "train qa_clims"]
    assert {run.info.status for run in found.values()} == {"FINISHED"}
    evaluated = found["evaluate qa_clims"]
    assert evaluated.data.metrics == {"cam/miou_best": 0.5}
    assert evaluated.data.params == {"evaluation.fixed_threshold": "0.15"}
    assert evaluated.data.tags["mlflow.parentRunId"] == found["a"].info.run_id
    pictures = [file.path for file in client.list_artifacts(handle.run_id, "images") if file.path.endswith(".png")]
    assert len(pictures) == 1
    assert not (out_dir / "tracking-spool").exists()

    assert slowest_s < 2.0, "a logging call waited for the server"
    assert closing_s < 40.0
