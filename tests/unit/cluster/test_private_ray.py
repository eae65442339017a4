"""The pieces of a private Ray's start: what passes to the console, where the store lies, which errors come."""

import errno
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

import psutil
import pytest
import ray

from qaclims_ray.cluster import private_ray, ray_deaths, ray_folder
from qaclims_ray.cluster.private_ray import LEVEL_LINE, without_level_line
from qaclims_ray.cluster.session import Needs, ray_session, require_reachable
from qaclims_ray.errors import ResourceError
from qaclims_ray.training.checkpoint import SCRATCH_VARIABLE, new_checkpoint_folder


def test_stderr_passes_at_once_but_for_the_line_of_the_level(capfd):
    with without_level_line():
        os.write(2, b"first\n[I] " + LEVEL_LINE + b" to 3\nsecond\n")
        heard, deadline = "", time.monotonic() + 60
        while "second\n" not in heard and time.monotonic() < deadline:
            heard += capfd.readouterr().err
    assert heard == "first\nsecond\n"
    os.write(2, b"after\n")
    assert capfd.readouterr().err == "after\n"


def test_the_last_words_of_a_process_that_aborts_are_passed_on():
    code = (
        "import os; from qaclims_ray.cluster.private_ray import without_level_line\n"
        "with without_level_line(): os.write(2, b'last words\\n'); os.abort()"
    )
    outcome = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert outcome.returncode == -signal.SIGABRT
    assert outcome.stderr == "last words\n"


def test_with_little_shared_memory_the_store_lies_in_the_folder_and_a_line_says_so(tmp_path, monkeypatch, caplog):
    monkeypatch.setattr(private_ray.sys, "platform", "linux")
    monkeypatch.setattr(private_ray, "SHARED_MEMORY", str(tmp_path))
    monkeypatch.setattr(os, "statvfs", _statvfs(os.statvfs, free=64 << 20))
    assert private_ray._store_folder("/folder", 200 << 20) == "/folder"
    assert "--shm-size" in caplog.text and "/folder" in caplog.text
    assert private_ray._store_folder("/folder", 60 << 20) is None


def test_no_shared_memory_at_all_is_one_line(tmp_path, monkeypatch):
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    monkeypatch.setattr(private_ray.sys, "platform", "linux")
    monkeypatch.setattr(private_ray, "SHARED_MEMORY", str(tmp_path / "none"))
    with pytest.raises(ResourceError, match=r"there is no .*none.*--shm-size") as refused:
        require_reachable()
    assert "\n" not in str(refused.value)
    with pytest.raises(ResourceError, match=r"there is no .*none"), ray_session(Needs(cpus=1)):
        pass


def test_checkpoints_of_a_private_ray_begin_in_its_folder(tmp_path, monkeypatch):
    monkeypatch.delenv(SCRATCH_VARIABLE, raising=False)
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    folder = tmp_path / "qaclims-ray-1"
    folder.mkdir()
    with private_ray._keeping_scratch_in(str(folder)):
        assert Path(new_checkpoint_folder()).parent == folder
    assert Path(new_checkpoint_folder()).parent == tmp_path
    # The user has chosen the temporary directory, which may be the only large one.
    with private_ray._keeping_scratch_in("/elsewhere/qaclims-ray-1"):
        assert Path(new_checkpoint_folder()).parent == tmp_path


def _statvfs(real, *, free: int):
    def found(path):
        real(path)
        return SimpleNamespace(f_bavail=free, f_frsize=1)

    return found


def test_whatever_a_start_raises_is_one_line_and_its_folder_is_kept(tmp_path, monkeypatch, caplog):
    def init(**options):
        raise RuntimeError("The current node timed out during startup.\nThis could happen because\n the raylet failed")

    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    monkeypatch.setattr(ray, "init", init)
    monkeypatch.setattr(ray_folder, "_candidates", lambda: ("/tmp",))
    with pytest.raises(ResourceError, match=r"timed out during startup\. This could happen") as refused:
        with ray_session(Needs(cpus=1)):
            pass
    assert "\n" not in str(refused.value)
    kept = caplog.records[-1].args
    assert isinstance(kept, tuple)
    os.rmdir(str(kept[0]))  # no owner is named in it any more, and Ray has written nothing


def test_a_start_that_fails_is_tried_once_more_when_what_it_left_has_ended(tmp_path, monkeypatch, caplog):
    started: list[subprocess.Popen] = []
    other = _sleeping("of another")

    def init(**options):
        if started:
            assert started[0].poll() is not None, "two services of one kind side by side"
            return
        started.append(_sleeping(options["_temp_dir"]))
        raise TimeoutError("The current node timed out during startup.")

    monkeypatch.setattr(ray, "init", init)
    try:
        private_ray._start(str(tmp_path), 1, 80 << 20, dashboard=False)
        assert other.poll() is None, "it is no process of this Ray"
    finally:
        for process in (*started, other):
            process.kill()
            process.wait()
    (line,) = caplog.messages
    assert line.startswith("Ray did not start and is tried once more: TimeoutError: The current node timed out")


def test_no_start_is_tried_again_while_the_run_is_being_stopped(tmp_path, monkeypatch):
    tried = []

    def init(**options):
        tried.append(options)
        raise RuntimeError("the services have ended")

    monkeypatch.setattr(ray, "init", init)
    monkeypatch.setattr(private_ray.stop, "is_under_way", lambda: True)
    with pytest.raises(ResourceError, match="the services have ended"):
        private_ray._start(str(tmp_path), 1, 80 << 20, dashboard=False)
    assert len(tried) == 1


def _sleeping(word: str) -> subprocess.Popen:
    return subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)", word])


@pytest.fixture
def told(monkeypatch) -> list[tuple[str, int]]:
    """What a user would be told at the end of the run, and the exit codes."""
    found: list[tuple[str, int]] = []
    monkeypatch.setattr(ray_deaths.stop, "end", lambda message, code, grace_s: found.append((message, code)))
    monkeypatch.setattr(ray_deaths.stop, "end_at_once", lambda message, code: found.append((message, code)))
    return found


@pytest.fixture
def service(monkeypatch) -> Iterator[subprocess.Popen]:
    """A process that stands for an agent of Ray's."""
    process = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"])
    watched = {psutil.Process(process.pid): "dashboard agent"}
    monkeypatch.setattr(ray_deaths, "_services", lambda: watched)
    yield process
    process.kill()
    process.wait()


def _wait_for(told: list[tuple[str, int]]) -> None:
    deadline = time.monotonic() + 60
    while not told:
        assert time.monotonic() < deadline
        time.sleep(0.01)


@pytest.mark.parametrize("by_descriptor", [True, False])
def test_the_end_of_a_service_ends_the_run(by_descriptor, told, service, tmp_path, monkeypatch):
    """Noticed when it happens, or where a system cannot tell, at the next look."""
    (tmp_path / ray_folder.OWNER_NAME).touch()
    if by_descriptor and not hasattr(os, "pidfd_open"):
        pytest.skip("ends of processes are looked for at intervals here")
    monkeypatch.setattr(ray_deaths, "EVERY_S", 600.0 if by_descriptor else 0.01)
    if not by_descriptor:
        monkeypatch.setattr(os, "pidfd_open", _refuse, raising=False)
    with ray_deaths.watching_services(str(tmp_path)):
        time.sleep(0.1)
        assert not told
        service.kill()
        _wait_for(told)
    ((message, code),) = told
    assert code == 2 and f"dashboard agent (process {service.pid}) has ended" in message and str(tmp_path) in message
    assert not list(tmp_path.iterdir()), "its folder is kept"


def _refuse(pid: int) -> int:
    raise OSError(errno.ENOSYS, "not implemented")


def test_an_error_that_a_dead_service_has_caused_is_told_as_the_death(told, service, tmp_path, monkeypatch):
    monkeypatch.setattr(ray_deaths, "EVERY_S", 600.0)
    monkeypatch.setattr(os, "pidfd_open", _refuse, raising=False)  # the watch sees nothing
    with pytest.raises(ResourceError, match="the owner has died"), ray_deaths.watching_services(str(tmp_path)):
        service.kill()
        service.wait()
        raise ResourceError("the owner has died")
    ((message, code),) = told
    assert code == 2 and f"dashboard agent (process {service.pid}) has ended" in message


def test_services_are_children_and_agents_those_of_the_node_service(monkeypatch):
    def process(name: str, line: str = "", children: tuple = ()) -> SimpleNamespace:
        return _Process(name=lambda: name, cmdline=lambda: [line], children=lambda: list(children))

    agents = (
        process("python", "x/dashboard/agent.py"),
        process("ray", "ray::RuntimeEnvAgent"),
        process("ray", "ray::W"),
    )
    children = (process("gcs_server"), process("raylet", children=agents), process("python", "x/dashboard/agent.py"))
    monkeypatch.setattr(ray_deaths.psutil, "Process", lambda: process("qaclims", children=children))
    expected = ["control service", "node service", "dashboard agent", "agent for environments"]
    assert list(ray_deaths._services().values()) == expected


class _Process(SimpleNamespace):
    __hash__ = object.__hash__  # type: ignore[assignment]


def test_an_error_of_a_ray_that_lives_is_told_as_itself(told, service, tmp_path):
    with pytest.raises(ResourceError, match="a mistake"), ray_deaths.watching_services(str(tmp_path)):
        raise ResourceError("a mistake")
    assert not told


def test_the_log_of_a_lost_node_of_a_joined_ray_is_not_printed(monkeypatch, capfd):
    monkeypatch.setattr(ray._private.worker, "print_to_stdstream", lambda *given, **more: print("ninety lines"))
    monkeypatch.setattr(ray, "get_runtime_context", lambda: SimpleNamespace(gcs_address="127.0.0.1:1"))
    monkeypatch.setattr(ray_deaths, "JOINED_EVERY_S", 600.0)
    with ray_deaths.watching_cluster():
        ray._private.worker.print_to_stdstream({"lines": ["state-dump"]})
    assert "ninety lines" not in capfd.readouterr().out
