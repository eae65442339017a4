"""`ray job submit` to a local head that the test starts and stops itself, with token authentication."""

import json
import os
import secrets
import signal
import socket
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import pytest

from tests.cluster.small_run import SMALL, as_flags

pytestmark = [pytest.mark.ray, pytest.mark.timeout(900)]
ROOT = Path(__file__).resolve().parents[2]
RAY = str(Path(sys.executable).parent / "ray")


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


@pytest.fixture(scope="module")
def head(tmp_path_factory):
    """Environment of a client of a running head; the head is ended by its process id."""
    token = tmp_path_factory.mktemp("token") / "token"
    token.write_text(secrets.token_hex(32))
    dashboard = _free_port()
    with tempfile.TemporaryDirectory(prefix="qr") as temp_dir:
        env = {**os.environ, "RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN_PATH": str(token)}
        env.pop("RAY_ADDRESS", None)
        arguments = {
            "port": _free_port(),
            "node-ip-address": "127.0.0.1",
            "dashboard-host": "127.0.0.1",
            "dashboard-port": dashboard,
            "dashboard-agent-listen-port": _free_port(),
            "ray-client-server-port": _free_port(),
            "min-worker-port": 0,
            "max-worker-port": 0,
            "temp-dir": temp_dir,
            "num-cpus": 4,
            "object-store-memory": 100_000_000,
        }
        command = [RAY, "start", "--head", "--block", "--disable-usage-stats"]
        command += [f"--{name}={value}" for name, value in arguments.items()]
        log = Path(temp_dir) / "head.log"
        with open(log, "w") as output:
            process = subprocess.Popen(command, env=env, stdout=output, stderr=subprocess.STDOUT)
            env["RAY_API_SERVER_ADDRESS"] = f"http://127.0.0.1:{dashboard}"
            _wait_until_answering(env, process, log)
            yield env
            process.send_signal(signal.SIGTERM)
            try:
                process.wait(40)
            except subprocess.TimeoutExpired:
                process.kill()


def _wait_until_answering(env, process, log) -> None:
    deadline = time.monotonic() + 300
    while _job(env, "list").returncode != 0:
        assert process.poll() is None, log.read_text()
        assert time.monotonic() < deadline, log.read_text()
        time.sleep(1)


def _job(env, *arguments: str, timeout: float = 800) -> subprocess.CompletedProcess:
    return subprocess.run([RAY, "job", *arguments], env=env, capture_output=True, text=True, timeout=timeout, cwd=ROOT)


def _submit(env, job: str, *arguments: str) -> subprocess.CompletedProcess:
    runtime_env = json.dumps({"excludes": [".venv/", "runs/", "dist/"], "env_vars": {"OMP_NUM_THREADS": "1"}})
    return _job(
        env, "submit", "--working-dir", ".", "--runtime-env-json", runtime_env, "--", sys.executable, job, *arguments
    )


def test_without_token_the_head_refuses(head):
    stranger = {**head, "RAY_AUTH_MODE": "disabled"}
    outcome = _job(stranger, "list", timeout=60)
    assert outcome.returncode != 0
    assert "auth" in (outcome.stdout + outcome.stderr).lower()


def test_training_job_runs_and_resubmission_resumes(head, tmp_path):
    settings = {**SMALL, "systems": ["baseline", "ritc_class_names"]}
    arguments = ["--preset", "miniature", "--out", str(tmp_path / "run"), *as_flags(settings)]
    first = _submit(head, "jobs/train_voc.py", *arguments)
    assert first.returncode == 0, first.stdout + first.stderr
    report = json.loads((tmp_path / "run" / "report" / "report.json").read_text())
    assert set(report["systems"]) == {"baseline", "ritc_class_names"}
    again = _submit(head, "jobs/train_voc.py", *arguments)
    assert again.returncode == 0
    assert again.stdout.count("there already") >= 6


def test_user_mistake_ends_the_job_with_one_line(head, tmp_path):
    outcome = _submit(head, "jobs/train_voc.py", "--preset", "voc12", "--out", str(tmp_path / "bad"))
    assert outcome.returncode != 0
    assert "ConfigError: data.root is empty" in outcome.stdout + outcome.stderr
