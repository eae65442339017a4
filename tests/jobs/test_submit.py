"""`ray job submit` to a local head that the test starts and stops itself, with token authentication."""

import json
import os
import secrets
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from qaclims_ray.corpus.table import read_corpus
from tests.cluster.small_run import SMALL, as_flags

pytestmark = [pytest.mark.ray, pytest.mark.timeout(900)]
ROOT = Path(__file__).resolve().parents[2]
RAY = str(Path(sys.executable).parent / "ray")
SETTINGS = {**SMALL, "cluster.num_workers": 1}


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
        env["RAY_GRACEFUL_SHUTDOWN_DRAIN_TIMEOUT_S"] = "0"  # nothing is at work when it ends
        arguments = {
            "port": 0,  # its own choice: one found free here may be taken by then
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
    while not (_answers(env["RAY_API_SERVER_ADDRESS"]) and _job(env, "list").returncode == 0):
        assert process.poll() is None, log.read_text()
        assert time.monotonic() < deadline, log.read_text()
        time.sleep(0.3)


def _answers(address: str) -> bool:
    """Whether anything answers there, also with a refusal: each `ray job` takes seconds to import Ray."""
    try:
        urllib.request.urlopen(address, timeout=10).close()
    except urllib.error.HTTPError:
        return True
    except OSError:
        return False
    return True


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


@pytest.fixture(scope="module")
def run_dir(head, tmp_path_factory) -> Path:
    """Output folder of a run that the first two jobs made: the corpus, then everything else."""
    out = tmp_path_factory.mktemp("jobs") / "run"
    arguments = ["--preset", "miniature", "--out", str(out), *as_flags(SETTINGS)]
    built = _submit(head, "jobs/build_corpus.py", *arguments)
    assert built.returncode == 0, built.stdout + built.stderr
    assert not (out / "classifier").exists(), "the corpus job stops at the corpus"
    corpus = read_corpus(str(out / "corpus" / "answers"))
    assert corpus["image_id"].nunique() == SMALL["data.num_images"]
    assert set(corpus["status"]) == {"ok"}
    trained = _submit(head, "jobs/train_voc.py", *arguments)
    assert trained.returncode == 0, trained.stdout + trained.stderr
    assert _line(trained, "corpus").endswith("(there already)")
    return out


def _line(outcome: subprocess.CompletedProcess, stage: str) -> str:
    return next(line.rstrip() for line in outcome.stdout.splitlines() if line.startswith(stage + " "))


def test_corpus_and_training_jobs_leave_a_whole_run(run_dir):
    report = json.loads((run_dir / "report" / "report.json").read_text())
    assert set(report["systems"]) == {"baseline", "qa_clims"}
    assert (run_dir / "report" / "report.html").stat().st_size > 10_000
    for artefact in ("manifest", "corpus", "classifier", "text_banks/qa_clims", "networks/qa_clims", "cams/qa_clims"):
        assert (run_dir / artefact / "meta.json").is_file()


def test_resubmission_finds_everything_there(head, run_dir):
    again = _submit(head, "jobs/train_voc.py", "--preset", "miniature", "--out", str(run_dir), *as_flags(SETTINGS))
    assert again.returncode == 0, again.stdout + again.stderr
    assert again.stdout.count("there already") >= 9


def test_evaluation_job_scores_a_run_by_its_own_settings(head, run_dir):
    scores = run_dir / "evaluations" / "qa_clims" / "scores.json"
    before, report = json.loads(scores.read_text()), run_dir / "report" / "report.json"
    shutil.rmtree(scores.parent)
    report.unlink()
    outcome = _submit(head, "jobs/evaluate.py", "--out", str(run_dir))
    assert outcome.returncode == 0, outcome.stdout + outcome.stderr
    assert json.loads(scores.read_text()) == before
    seed = json.loads(report.read_text())["systems"]["qa_clims"]["seed"]
    assert seed["miou_best"] == pytest.approx(before["seed"]["miou_best"])
    assert _line(outcome, "train qa_clims").endswith("(there already)")
    assert not _line(outcome, "evaluate qa_clims").endswith("(there already)")


def test_prediction_job_writes_masks_and_overlays(head, run_dir, tmp_path):
    images = sorted((run_dir / "data" / "JPEGImages").iterdir())[:3]
    out = tmp_path / "predicted"
    outcome = _submit(head, "jobs/predict.py", "--run", str(run_dir), "--images", *map(str, images), "--out", str(out))
    assert outcome.returncode == 0, outcome.stdout + outcome.stderr
    index = json.loads((out / "predictions.json").read_text())
    assert index["system"] == "qa_clims"
    assert [row["labels_from"] for row in index["images"]] == ["classifier"] * 3
    for image in images:
        mask = Image.open(out / "masks" / image.name)
        assert mask.mode == "P" and mask.size == Image.open(image).size
        assert np.asarray(mask).max() <= 8
        assert Image.open(out / "overlays" / image.name).mode == "RGB"


def test_user_mistake_ends_the_job_with_one_line(head, tmp_path):
    outcome = _submit(head, "jobs/train_voc.py", "--preset", "voc12", "--out", str(tmp_path / "bad"))
    assert outcome.returncode != 0
    assert "ConfigError: data.root is empty" in outcome.stdout + outcome.stderr
