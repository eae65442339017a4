"""What is done to a command at work: kills, stops, a full disk, a locked store, a clock that jumps."""

import contextlib
import functools
import os
import signal
import sqlite3
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil

from tests.chaos.clock import JUMPS, let_jump
from tests.chaos.works import Command
from tests.cluster.kills import wait_for

WORKER = r"ray::.*(RayTrainWorker|Map\(|_ShardTask|MapWorker|map|ImplicitFunc|seed \d)"
"""A training worker, the process of a shard's task, of a search's trial, or of a row of a table."""
STOPPED_S = 6.0
"""Seconds that a stopped process stands still."""
LOCKED_S = 8.0
"""Seconds for which MLflow's store is locked."""


def _kill(words: str) -> Callable[[Command], None]:
    def strike(command: Command) -> None:
        wait_for(lambda: bool(command.workers(words)) or command.process.poll() is not None, 60, words)
        for process in command.workers(words)[-1:]:
            with contextlib.suppress(psutil.NoSuchProcess):
                process.kill()

    return strike


def _signal(number: int) -> Callable[[Command], None]:
    def strike(command: Command) -> None:
        command.process.send_signal(number)

    return strike


def _interrupt(command: Command) -> None:
    """As a terminal does: the command and all that it has started in its process group get the signal."""
    os.killpg(command.process.pid, signal.SIGINT)


def _kill_all(command: Command) -> None:
    """As a machine that loses its power."""
    os.killpg(command.process.pid, signal.SIGKILL)
    for process in command.workers(""):
        with contextlib.suppress(psutil.NoSuchProcess):
            process.kill()


def _stop_and_go_on(command: Command) -> None:
    stopped = command.workers(WORKER)[-1:] or [psutil.Process(command.process.pid)]
    for process in stopped:
        with contextlib.suppress(psutil.NoSuchProcess):
            process.suspend()
            time.sleep(STOPPED_S)
            process.resume()


def _stop_and_kill(command: Command) -> None:
    for process in command.workers(WORKER)[-1:]:
        with contextlib.suppress(psutil.NoSuchProcess):
            process.suspend()
            time.sleep(STOPPED_S)
            process.kill()


def _lock_store(command: Command) -> None:
    with contextlib.closing(sqlite3.connect(command.out.with_name("mlflow.db"), timeout=30)) as store:
        store.execute("BEGIN EXCLUSIVE")
        time.sleep(LOCKED_S)
        store.rollback()


def _fill_disk(command: Command) -> None:
    """Fill the small disk on which the output folder lies, and leave it so until the command has ended."""
    fill = command.out.with_name("fill")
    with fill.open("wb") as file, contextlib.suppress(OSError):
        while True:
            file.write(bytes(1 << 16))
            file.flush()


STRIKES: dict[str, Callable[[Command], None]] = {
    "kill -9 of a worker": _kill(WORKER),
    "kill -9 of Ray's control service": _kill(r"^gcs_server"),
    "kill -9 of Ray's node service": _kill(r"^raylet"),
    "kill -9 of the command": _signal(signal.SIGKILL),
    "kill -9 of the command and all its processes": _kill_all,
    "SIGTERM": _signal(signal.SIGTERM),
    "Ctrl-C": _interrupt,
    "SIGSTOP of a worker, then SIGCONT": _stop_and_go_on,
    "SIGSTOP of a worker, then kill -9": _stop_and_kill,
    "MLflow's store locked for some seconds": _lock_store,
    "a full disk": _fill_disk,
    **dict.fromkeys(JUMPS, let_jump),
}
"""Name -> what is done, once the command has begun what counts."""


@contextlib.contextmanager
def small_disk(place: Path, mib: int) -> Iterator[bool]:
    """Mount a small disk of memory for the time of the context; yields whether that is allowed here."""
    place.mkdir(parents=True, exist_ok=True)
    mount = ["mount", "-t", "tmpfs", "-o", f"size={mib}m", "tmpfs", str(place)]
    is_there = subprocess.run(mount, capture_output=True).returncode == 0
    try:
        yield is_there
    finally:
        if is_there:
            subprocess.run(["umount", "-l", str(place)], check=True)


@functools.cache
def can_mount() -> bool:
    """Whether a small disk can be mounted here, which takes the rights of root."""
    with tempfile.TemporaryDirectory() as folder, small_disk(Path(folder), 1) as is_there:
        return is_there
