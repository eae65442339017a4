"""One owner per folder: who is refused, whose mark is taken over, and what races end in."""

import dataclasses
import json
import os
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from qaclims_ray.data import folder_owner, storage
from qaclims_ray.data.folder_owner import STALE_S, owning
from qaclims_ray.data.process_identity import this_process
from qaclims_ray.errors import ResourceError
from tests.s3_server import s3_server

_OWN = """
import sys, time
from qaclims_ray.data.folder_owner import owning
from qaclims_ray.errors import ResourceError
print("ready", flush=True)
sys.stdin.readline()
try:
    with owning(sys.argv[1], "qaclims run"):
        print("owner", flush=True)
        sys.stdin.readline()
except ResourceError as error:
    print("refused", error, flush=True)
"""


@pytest.fixture
def bucket():
    with s3_server() as uri:
        yield uri


def _processes(folder: Path | str, number: int) -> list[subprocess.Popen]:
    """Start processes that are about to take a folder."""
    command = [sys.executable, "-c", _OWN, str(folder)]
    started = [
        subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) for _ in range(number)
    ]
    for process in started:
        assert process.stdout is not None and process.stdout.readline() == "ready\n"
    return started


def _say(process: subprocess.Popen) -> None:
    assert process.stdin is not None
    process.stdin.write("\n")
    process.stdin.flush()


def _hear(process: subprocess.Popen) -> str:
    assert process.stdout is not None
    return process.stdout.readline()


def _marks(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.glob(".owner-*"))


def _leave_mark(folder: Path, number: int = 1, *, renewed: float = 0.0, **process: object) -> None:
    """Leave a mark of some process."""
    folder.mkdir(exist_ok=True)
    mark = {
        "process": {**dataclasses.asdict(this_process()), **process},
        "since": "2026-01-01 00:00:00 UTC",
        "command": "qaclims run voc12",
        "token": "another",
        "renewed": renewed,
    }
    (folder / f".owner-{number}.json").write_text(json.dumps(mark))


def _ended_pid() -> int:
    process = subprocess.Popen([sys.executable, "-c", ""])
    process.wait()
    return process.pid


def test_a_second_one_is_told_who_owns_the_folder(tmp_path):
    with owning(str(tmp_path / "run"), "qaclims run miniature"):
        with pytest.raises(ResourceError) as refused, owning(str(tmp_path / "run"), "qaclims tune"):
            pass
        told = str(refused.value)
        assert "`qaclims run miniature`" in told and f"process {os.getpid()}, since 20" in told and "--out" in told
        assert _marks(tmp_path / "run") == [".owner-1.json"]
    assert not (tmp_path / "run").exists(), "what was made for the mark alone is gone with it"


def test_a_folder_keeps_what_was_written_in_it_and_is_free_after_an_error(tmp_path):
    with pytest.raises(KeyError), owning(str(tmp_path / "run"), "first"):
        (tmp_path / "run" / "config.json").write_text("{}")
        raise KeyError
    with owning(str(tmp_path / "run"), "second"):
        pass
    assert [path.name for path in (tmp_path / "run").iterdir()] == ["config.json"]


@pytest.mark.parametrize("dead", ["none", "its mark", "its empty mark"])
def test_of_several_that_start_together_one_owns_the_folder(tmp_path, dead):
    folder = tmp_path / "run"
    if dead == "its mark":
        _leave_mark(folder, 3, pid=_ended_pid())
    elif dead == "its empty mark":
        folder.mkdir()
        (folder / ".owner-3.json").touch()
    racing = _processes(folder, 4)
    for process in racing:
        _say(process)
    heard = [_hear(process) for process in racing]
    assert sorted(line.split()[0] for line in heard) == ["owner", "refused", "refused", "refused"]
    owner = racing[[line.split()[0] for line in heard].index("owner")]
    assert all(f"process {owner.pid}," in line for line in heard if line.startswith("refused"))
    _say(owner)
    for process in racing:
        process.communicate()
    assert not folder.exists() or not _marks(folder)


def test_a_killed_owner_is_followed_at_once(tmp_path):
    (owner,) = _processes(tmp_path, 1)
    _say(owner)
    assert _hear(owner) == "owner\n"
    owner.kill()
    owner.communicate()
    assert _marks(tmp_path) == [".owner-1.json"]
    with owning(str(tmp_path), "the same command"):
        assert _marks(tmp_path) == [".owner-2.json"]
    assert not _marks(tmp_path)


def test_a_process_id_that_is_used_again_is_no_owner(tmp_path):
    _leave_mark(tmp_path, started=this_process().started - 60)
    with owning(str(tmp_path), "next"):
        pass


ELSEWHERE = pytest.mark.parametrize("elsewhere", [{"host": "node-7"}, {"pid_space": "pid:[1]"}])


@ELSEWHERE
def test_an_owner_on_another_machine_that_gives_a_sign_lives(tmp_path, monkeypatch, elsewhere):
    now, looks = 1_800_000_000.0, []

    def give_a_sign_at_the_third(seconds: float) -> None:
        looks.append(seconds)
        if len(looks) == 3:
            _leave_mark(tmp_path, renewed=now, **elsewhere)

    monkeypatch.setattr(folder_owner.time, "sleep", give_a_sign_at_the_third)
    _leave_mark(tmp_path, renewed=now - 20, **elsewhere)
    with pytest.raises(ResourceError, match="It lives: it gave a sign"), owning(str(tmp_path), "x", clock=lambda: now):
        pass
    assert len(looks) == 3


@ELSEWHERE
def test_an_owner_on_another_machine_that_stays_silent_is_followed(tmp_path, monkeypatch, elsewhere, caplog):
    now = 1_800_000_000.0
    monkeypatch.setattr(folder_owner, "_LOOK_S", 0.0)
    ticks = iter(range(10_000))
    _leave_mark(tmp_path, renewed=now, **elsewhere)
    with owning(str(tmp_path), "x", clock=lambda: now + next(ticks)):
        assert next(ticks) > STALE_S
        assert "waiting for a sign that it lives" in caplog.text and "is taken over from" in caplog.text
        assert _marks(tmp_path) == [".owner-2.json"]


@ELSEWHERE
def test_an_owner_whose_last_sign_lies_ahead_of_this_clock_is_waited_for_no_longer(
    tmp_path, monkeypatch, elsewhere, caplog
):
    """This machine's clock was set back by an hour, or the other's was ahead."""
    now, passed = 1_800_000_000.0, [0.0]
    monkeypatch.setattr(folder_owner.time, "sleep", lambda seconds: passed.append(passed[-1] + seconds))
    monkeypatch.setattr(folder_owner.time, "monotonic", lambda: passed[-1])
    _leave_mark(tmp_path, renewed=now + 3600, **elsewhere)
    with owning(str(tmp_path), "x", clock=lambda: now + passed[-1]):
        assert STALE_S <= passed[-1] < STALE_S + 60
        assert _marks(tmp_path) == [".owner-2.json"]
    assert f"until {folder_owner._utc(now + STALE_S)} at most" in caplog.text


def test_signs_of_life_are_given_until_the_end(tmp_path, monkeypatch):
    monkeypatch.setattr(folder_owner, "RENEW_S", 0.01)
    ticks = iter(range(100, 10_000))
    with owning(str(tmp_path), "x", clock=lambda: float(next(ticks))):
        mark = tmp_path / ".owner-1.json"
        deadline = time.monotonic() + 60
        while json.loads(mark.read_text())["renewed"] < 105:
            assert time.monotonic() < deadline
    assert not _marks(tmp_path)


def test_an_owner_that_was_silent_for_too_long_stops_and_leaves_the_new_mark(tmp_path, monkeypatch):
    monkeypatch.setattr(folder_owner, "RENEW_S", 0.01)
    stopped, told = threading.Event(), []
    monkeypatch.setattr(folder_owner.stop, "end", lambda message, code: (told.append((message, code)), stopped.set()))
    with owning(str(tmp_path), "x"):
        _leave_mark(tmp_path, 2, host="node-7")
        assert stopped.wait(60)
    assert told[0][1] == 2 and "taken over" in told[0][0]
    assert _marks(tmp_path) == [".owner-2.json"]


def test_a_place_that_cannot_be_written_is_refused(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(ResourceError, match="cannot be written"), owning(str(tmp_path / "file" / "run"), "x"):
        pass


def test_one_owns_a_folder_of_an_object_store(bucket, caplog):
    folder = f"{bucket}/runs/one"
    with owning(folder, "first"):
        (other,) = _processes(folder, 1)
        _say(other)
        assert _hear(other).startswith(f"refused {folder} is in use by another run: `first`")
        other.communicate()
        assert not folder_owner._create(f"{folder}/.owner-1.json", b""), "the store itself refuses a second one"
    assert not storage.list_files(folder)
    assert "does not promise" not in caplog.text


def test_a_bucket_that_is_not_there_is_named(bucket):
    with pytest.raises(ResourceError, match="nowhere"), owning("s3://nowhere/run", "x"):
        pass


def test_a_store_that_overwrites_in_spite_of_the_condition_promises_nothing(monkeypatch, caplog):
    monkeypatch.setattr(folder_owner, "_READ_BACK_S", 0.0)
    filesystem, _ = storage.resolve("memory://runs")
    write = type(filesystem).pipe_file
    monkeypatch.setattr(type(filesystem), "pipe_file", lambda self, path, value, mode="": write(self, path, value))
    with owning("memory://runs/one", "x"):
        assert "does not promise" in caplog.text
    assert not storage.list_files("memory://runs/one")
