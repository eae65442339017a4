"""Every job and verb explains itself, and refuses what it does not know, without starting anything."""

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
JOBS = sorted(path.name for path in (ROOT / "jobs").glob("*.py") if path.name != "__init__.py")


def _run(*arguments: str) -> subprocess.CompletedProcess:
    return subprocess.run([sys.executable, *arguments], capture_output=True, text=True, timeout=120, cwd=ROOT)


@pytest.mark.parametrize("job", JOBS)
def test_job_help(job):
    outcome = _run(f"jobs/{job}", "--help")
    assert outcome.returncode == 0, outcome.stderr
    assert "--out" in outcome.stdout


def test_settings_are_listed_with_their_documentation():
    outcome = _run("-m", "qaclims_ray", "run", "miniature", "--help")
    assert outcome.returncode == 0
    assert "--ritc.omega" in outcome.stdout
    assert "Eq. 9" in outcome.stdout


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["run", "nosuch", "--out", "x"], "there is no preset 'nosuch'"),
        (["run", "voc12", "--out", "x"], "data.root is empty"),
        (["run", "miniature", "--out", "x", "--ritc.omega", "7"], "ritc.omega"),
        (["run", "miniature", "--out", "x", "--systems", "nosuch"], "there is no system 'nosuch'"),
        (["run", "miniature", "--out", "/proc/nowhere", "--systems", "baseline"], "cannot be written"),
        (["predict", "--run", "nowhere", "--images", "x.png", "--out", "y"], "there is no run at"),
        (["frobnicate"], "there is no verb"),
    ],
)
def test_mistakes_end_in_one_line(arguments, message, tmp_path):
    outcome = _run("-m", "qaclims_ray", *[str(tmp_path / "x") if a == "x" else a for a in arguments])
    assert outcome.returncode == 2
    assert message in outcome.stderr
    assert "Traceback" not in outcome.stderr
