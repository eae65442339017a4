"""Runs in processes of their own, and killing them."""

import contextlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psutil

from tests.cluster.small_run import as_flags

_RUN = """
import sys
from qaclims_ray.commands.main import run_verb
from qaclims_ray.data import shards
shards.IMAGES_PER_SHARD = int(sys.argv[2]) or shards.IMAGES_PER_SHARD
sys.exit(run_verb(sys.argv[1], sys.argv[3:]))
"""


def start(out: Path, until: str, overrides: dict[str, Any], *, images_per_shard: int = 0) -> subprocess.Popen:
    """Start a run of the miniature; 0 images per shard leaves their number as it is."""
    arguments = [until, str(images_per_shard), "miniature", "--out", str(out), *as_flags(overrides)]
    return subprocess.Popen(
        [sys.executable, "-c", _RUN, *arguments],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    )


def wait_for(condition: Callable[[], bool], seconds: float, what: str) -> None:
    """Wait until a condition holds; fail after some seconds."""
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, f"waited {seconds} s for {what}"
        time.sleep(0.02)


def kill_tree(process: subprocess.Popen) -> None:
    """Kill a run with everything it started."""
    children = psutil.Process(process.pid).children(recursive=True)
    os.killpg(process.pid, signal.SIGKILL)
    for child in children:
        with contextlib.suppress(psutil.NoSuchProcess):  # it ended with its parent, or had just done its work
            child.kill()
    process.wait()


def kill_training_worker() -> int:
    """Kill one training worker of this process's Ray; return its process id."""
    workers = [p for p in psutil.Process().children(recursive=True) if "RayTrainWorker" in _command_line(p)]
    workers[-1].kill()
    return workers[-1].pid


def _command_line(process: psutil.Process) -> str:
    try:
        return " ".join(process.cmdline())
    except psutil.NoSuchProcess:  # it has just ended
        return ""


MARK = "0"
"""A step that no training counts."""


def mark_checkpoints(runs: Path) -> None:
    """Put a point at `MARK` into the curves of all checkpoints there: a training that goes on from one keeps it."""
    for note in runs.rglob("training.json"):
        note.write_text(note.read_text().replace('"curves": {', f'"curves": {{"{MARK}": {{"mark": 1.0}}, '))
