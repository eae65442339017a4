"""Runs that are stopped at any moment, and second runs in one folder: one line, an exit code, and nothing left."""

import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest

from tests.cluster.kills import wait_for
from tests.cluster.small_run import SMALL, as_flags

pytestmark = [pytest.mark.ray, pytest.mark.timeout(900)]

STOPPED = "qaclims {}: stopped; what is finished is kept, the same command goes on\n"
MANY_EPOCHS = 500
"""So many that the training is still at work when it is stopped."""


class Run:
    """A run in a process group of its own, as a terminal starts one."""

    def __init__(
        self,
        folder: Path,
        epochs: int,
        line: str = "cams miniature --systems baseline",
        own: dict[str, Any] | None = None,
        **environment: str,
    ) -> None:
        settings = (
            SMALL | {"data.num_images": 8, "classifier.optim.epochs": epochs, "cluster.num_workers": 1} | (own or {})
        )
        del settings["systems"]  # which a table names itself
        self.out = folder / "run"
        self.log = folder / "log.txt"
        self.errors = folder / "errors.txt"
        self.process = subprocess.Popen(
            [sys.executable, "-m", "qaclims_ray", *line.split(), "--out", str(self.out), *as_flags(settings)],
            stdout=self.log.open("w"),
            stderr=self.errors.open("w"),
            env={**os.environ, **environment},
            preexec_fn=_as_in_a_terminal,
        )

    def reaches(self, condition: Callable[[], bool], what: str) -> None:
        """Wait for a moment of the run, and note what it has started by then."""
        wait_for(lambda: condition() or self.process.poll() is not None, 400, what)
        assert self.process.poll() is None, self.errors.read_text()
        self.started = psutil.Process(self.process.pid).children(recursive=True)

    def is_training(self) -> bool:
        """Whether an epoch of the training has ended."""
        return any(self.out.glob("training_runs/*/checkpoint*"))

    def has_workers(self) -> bool:
        """Whether a worker of the training lives, also one that goes on from checkpoints which were there."""
        return any("RayTrainWorker" in _line_of(child) for child in psutil.Process(self.process.pid).children(True))

    def ends(self) -> tuple[int, str]:
        """Return the exit code and what stood on stderr, once nothing of the run lives any more."""
        code = self.process.wait(300)
        code = 128 - code if code < 0 else code  # as a shell tells the end by a signal, in the last moments of Python
        _, alive = psutil.wait_procs(self.started, timeout=30)
        assert not [process for process in alive if process.status() != psutil.STATUS_ZOMBIE]
        if code != 1:  # 1 is Ray's own end of the process, after which nothing of ours has its turn
            assert not list(self.out.glob(".owner-*"))
        return code, self.errors.read_text()


def _line_of(process: psutil.Process) -> str:
    """Return a process's command line, which is empty when it has ended in the meantime."""
    try:
        return " ".join(process.cmdline())
    except psutil.Error:
        return ""


def _as_in_a_terminal() -> None:
    os.setsid()
    signal.signal(signal.SIGINT, signal.SIG_DFL)  # a background job's children would ignore it


@pytest.fixture(autouse=True)
def no_run_left() -> Iterator[None]:
    """End the runs of a test that has failed."""
    yield
    for child in psutil.Process().children():
        if child.status() != psutil.STATUS_ZOMBIE and "qaclims_ray" in child.cmdline():
            for process in [*child.children(recursive=True), child]:
                process.kill()


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    """Where all runs of this module work, each going on from what the ones before have finished."""
    return tmp_path_factory.mktemp("stopping")


@pytest.fixture
def temporary() -> Iterator[Path]:
    """A temporary directory of one run alone, short enough for Ray's sockets."""
    place = Path(f"/tmp/q{os.getpid()}")
    place.mkdir()
    yield place
    shutil.rmtree(place)


def test_ctrl_c_while_the_package_is_imported(folder, temporary):
    run = Run(folder, MANY_EPOCHS, TMPDIR=str(temporary))
    run.reaches(lambda: "torch" in Path(f"/proc/{run.process.pid}/maps").read_text(), "the imports")
    os.killpg(run.process.pid, signal.SIGINT)
    assert run.ends() == (130, STOPPED.format("cams"))


def test_a_second_run_is_refused_and_ctrl_c_stops_the_first_in_its_training(folder, temporary):
    run = Run(folder, MANY_EPOCHS, TMPDIR=str(temporary))
    run.reaches(run.is_training, "the training")
    command = [sys.executable, "-m", "qaclims_ray", "data", "--out", str(run.out)]
    second = subprocess.run(command, capture_output=True, text=True)
    assert second.returncode == 2 and second.stdout == ""
    assert f"on {socket.gethostname()}, process {run.process.pid}, since " in second.stderr
    assert second.stderr.count("\n") == 1
    os.killpg(run.process.pid, signal.SIGINT)
    assert run.ends() == (130, STOPPED.format("cams"))
    assert run.is_training(), "its checkpoints are kept"
    assert not list(temporary.glob("qaclims-*"))


def test_a_second_ctrl_c_ends_at_once(folder, temporary):
    run = Run(folder, MANY_EPOCHS, TMPDIR=str(temporary))
    run.reaches(lambda: any(temporary.glob("qaclims-ray-*/session_*/sockets/raylet")), "Ray's start")
    os.killpg(run.process.pid, signal.SIGINT)
    time.sleep(0.5)
    os.killpg(run.process.pid, signal.SIGINT)
    assert run.ends() == (130, STOPPED.format("cams"))
    assert not list(temporary.glob("qaclims-ray-*"))


def _has_checkpoint_of_ritc(out: Path) -> bool:
    # Not glob, which fails where a folder goes away that it is about to look into.
    found = (folder for folder, _, files in os.walk(out) if "progress.json" in files)
    return any("ritc" in folder.partition("training_runs")[2] for folder in found)


@pytest.mark.parametrize(
    "line",
    [
        "tune miniature --systems qa_clims --algorithm random --num-images 4 --trials 2",
        "ablate qa_clims_fat miniature",
    ],
)
def test_ctrl_c_in_a_search_and_in_a_table(line, tmp_path, temporary):
    own = {"ritc.optim.epochs": MANY_EPOCHS, "cluster.num_workers": 0}
    run = Run(tmp_path, 1, line, own, TMPDIR=str(temporary))
    run.reaches(lambda: _has_checkpoint_of_ritc(run.out), "a training of RITC")
    os.killpg(run.process.pid, signal.SIGINT)
    assert run.ends() == (130, STOPPED.format(line.split()[0]))
    assert any(run.out.glob("**/classifier/meta.json")), "what is finished is kept"
    assert not list(temporary.glob("qaclims-*"))


def test_a_ray_that_loses_its_agent_is_told_in_one_line(folder, temporary):
    run = Run(folder, MANY_EPOCHS, TMPDIR=str(temporary))
    run.reaches(run.has_workers, "the training")
    (agent,) = [process for process in run.started if "ray::DashboardAgent" in _line_of(process)]
    agent.kill()
    code, told = run.ends()
    # The node service follows its agent, and Ray's core may end the process, with 1, before anything here has its turn.
    assert code in (1, 2)
    lines = re.findall(r"qaclims cams: ResourceError: (?:Ray's|one of Ray's).*has ended.*its logs are in ", told)
    assert len(lines) == 1, told


def test_a_ray_that_loses_its_control_service_is_told_in_one_line(folder, temporary):
    run = Run(folder, MANY_EPOCHS, TMPDIR=str(temporary))
    run.reaches(run.has_workers, "the training")
    (service,) = [process for process in run.started if process.name() == "gcs_server"]
    service.kill()
    code, told = run.ends()
    (kept,) = temporary.glob("qaclims-*")
    expected = f"qaclims cams: ResourceError: Ray's control service (process {service.pid}) has ended; its logs are in "
    assert code == 2
    assert told == f"{expected}{kept}; what is finished is kept, the same command goes on\n"


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_signal_after_the_training_in_a_long_temporary_directory(folder, number, code):
    long = folder / ("x" * 70)
    long.mkdir(exist_ok=True)
    run = Run(folder, 1, TMPDIR=str(long))
    # A line that begins so: a slow training is told of in between ("still in train classifier").
    run.reaches(lambda: "\ntrain classifier" in run.log.read_text(), "the end of the training")
    run.process.send_signal(number) if number == signal.SIGTERM else os.killpg(run.process.pid, number)
    assert run.ends() == (code, STOPPED.format("cams"))
    assert (run.out / "classifier" / "meta.json").is_file()
    assert not list(long.glob("qaclims-ray-*"))


def test_an_address_where_no_ray_is_any_more(folder):
    with socket.socket() as held:  # bound and not listening
        held.bind(("", 0))
        address = f"127.0.0.1:{held.getsockname()[1]}"
        run = Run(folder, 1, RAY_ADDRESS=address)
        run.started = []
        code, told = run.ends()
    assert code == 2
    assert told.startswith(f"qaclims cams: ResourceError: cannot join the Ray cluster at RAY_ADDRESS={address}: ")
    assert told.count("\n") == 1
