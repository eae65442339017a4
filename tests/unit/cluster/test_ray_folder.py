"""The temporary folder of a private Ray: where it goes, and what is left after runs that were killed."""

import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from qaclims_ray.cluster import ray_folder
from qaclims_ray.cluster.ray_folder import keep, new_ray_folder, remove, remove_left
from qaclims_ray.errors import ResourceError

_LEAVE = "from qaclims_ray.cluster.ray_folder import new_ray_folder; print(new_ray_folder())"
_SESSION = "session_2026-01-01_00-00-00_000000_4194304/sockets/plasma_store"


@pytest.fixture
def short(tmp_path_factory, monkeypatch):
    """A temporary directory of this test alone that is short enough for sockets."""
    folder = Path(f"/tmp/q{os.getpid()}")
    folder.mkdir()
    monkeypatch.setenv("TMPDIR", str(folder))
    monkeypatch.setattr(ray_folder.tempfile, "tempdir", None)
    yield folder
    for left in folder.iterdir():
        ray_folder.shutil.rmtree(left)
    folder.rmdir()


def _killed() -> Path:
    """Return the folder of a process that has ended without removing it."""
    return Path(subprocess.run([sys.executable, "-c", _LEAVE], capture_output=True, text=True, check=True).stdout[:-1])


def test_what_killed_runs_left_is_removed_at_the_next_start_and_nothing_else(short):
    living, kept = new_ray_folder(), _killed()
    keep(str(kept))
    killed = _killed()
    (killed / "session").mkdir()
    strange = short / "qaclims-ray-strange"
    strange.mkdir()
    remove_left(str(short))
    assert sorted(short.iterdir()) == sorted([Path(living), kept, strange])
    remove(living)
    remove(str(kept))
    assert sorted(short.iterdir()) == sorted([kept, strange])


def test_a_start_removes_what_is_left(short):
    killed = _killed()
    folder = new_ray_folder()
    assert not killed.exists()
    assert Path(folder).parent == short


def test_a_long_temporary_directory_gives_way_to_a_short_one(tmp_path, monkeypatch):
    long = tmp_path / ("x" * 70)
    long.mkdir()
    monkeypatch.setattr(ray_folder.tempfile, "tempdir", str(long))
    folder = new_ray_folder()
    try:
        path = f"{folder}/{_SESSION}"
        assert len(path.encode()) <= 107
        os.makedirs(os.path.dirname(path))
        with socket.socket(socket.AF_UNIX) as bound:
            bound.bind(path)
    finally:
        remove(folder)


@pytest.mark.parametrize("place", ["long", "a file"])
def test_without_a_short_place_one_line_says_what_to_do(tmp_path, monkeypatch, place):
    where = tmp_path / ("x" * 70)
    where.mkdir()
    if place == "a file":
        where = Path(f"/tmp/q{os.getpid()}")
        where.touch()
    monkeypatch.setattr(ray_folder, "_candidates", lambda: (str(where),))
    try:
        with pytest.raises(ResourceError, match="Set TMPDIR") as refused:
            new_ray_folder()
    finally:
        if place == "a file":
            where.unlink()
    assert str(where) in str(refused.value) and "\n" not in str(refused.value)
