"""MLflow's pages: which port and which store; and a real server that leaves no process behind."""

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
import urllib.request

import psutil
import pytest

from qaclims_ray.errors import ConfigError, ResourceError
from qaclims_ray.tracking import ui_server as pages
from qaclims_ray.tracking.ui_server import free_port, ui_server


def test_a_port_that_is_taken_is_passed_over(monkeypatch):
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        assert free_port(port) > port
        monkeypatch.setattr(pages, "_PORTS_TRIED", 1)
        with pytest.raises(ConfigError, match=f"ports {port} to {port} are taken.*--port"):
            free_port(port)


def test_a_server_that_ends_is_told_with_its_last_words(tmp_path):
    with pytest.raises(ResourceError, match="ended with code"):
        with ui_server("nosuch://store", "qaclims", free_port(5600)):
            pass


@pytest.mark.ray  # as the other tests of a real server: a minute where little else runs
@pytest.mark.timeout(400)
def test_the_pages_come_up_with_one_worker_and_ctrl_c_leaves_no_process(tmp_path, empty_store):
    from mlflow import MlflowClient

    shutil.copyfile(empty_store, tmp_path / "mlflow.db")
    store = MlflowClient(f"sqlite:///{tmp_path}/mlflow.db")
    store.create_experiment("qaclims")
    command = [sys.executable, "-m", "qaclims_ray", "ui", str(tmp_path), "--port", str(free_port(5700))]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    assert process.stdout is not None
    lines = []
    try:
        for line in process.stdout:
            lines.append(line)
            if "http://" in line:
                break
        address = next(word for word in "".join(lines).split() if word.startswith("http://127.0.0.1:"))
        assert "workflowType=machine_learning" in address
        with urllib.request.urlopen(address.partition("#")[0], timeout=30) as answer:
            assert b"MLflow" in answer.read()
        key = address.partition("viewStateShareKey=")[2].partition("&")[0]
        experiment = store.get_experiment_by_name("qaclims")
        assert experiment is not None
        view = json.loads(experiment.tags[f"mlflow.sharedViewState.{key}"])
        assert view["selectedColumns"] == [f"metrics.`headline/{one}_miou`" for one in ("final", "mask", "seed")]
        assert [section["name"] for section in view["compareRunSections"]] == ["headline"]
        started = psutil.Process(process.pid).children(recursive=True)
        assert 1 <= len(started) <= 2, "mlflow's command, and its one worker"
    finally:
        os.kill(process.pid, signal.SIGINT)
        process.wait(60)
    deadline = time.monotonic() + 20
    while any(each.is_running() for each in started) and time.monotonic() < deadline:
        time.sleep(0.1)
    assert process.returncode == 130 and not [each for each in started if each.is_running()]
