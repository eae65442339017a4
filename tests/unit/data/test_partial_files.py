"""Files that a killed process was writing go; those of living ones stay."""

import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from qaclims_ray.data import storage
from qaclims_ray.data.partial_files import partial_path, remove_abandoned

_WRITER = """
import sys, time
from qaclims_ray.data import storage
with storage.publishing(sys.argv[1]) as path:
    open(path, "w").write("half")
    print("writing", flush=True)
    time.sleep(300)
"""


def test_a_killed_writers_file_goes_and_a_living_ones_stays(tmp_path):
    target = tmp_path / "cams" / "qa_clims" / "shard-0.npz"
    writer = subprocess.Popen([sys.executable, "-c", _WRITER, str(target)], stdout=subprocess.PIPE, text=True)
    assert writer.stdout is not None
    try:
        assert writer.stdout.readline() == "writing\n"
        (partial,) = target.parent.iterdir()
        assert remove_abandoned(str(tmp_path)) == []
        assert partial.exists()
    finally:
        writer.kill()
        writer.communicate()
    assert remove_abandoned(str(tmp_path)) == [str(partial)]
    assert not list(target.parent.iterdir())


def test_a_file_of_this_process_stays_and_gets_its_name(tmp_path):
    with storage.publishing(str(tmp_path / "a.json")) as path:
        Path(path).write_text("{}")
        assert remove_abandoned(str(tmp_path)) == []
    assert (tmp_path / "a.json").read_text() == "{}"


@pytest.mark.parametrize("name", ["x.partial-0123abcd", "x.partial-00000000-1-0123abcd"])
def test_a_file_of_no_known_owner_goes_after_a_day(tmp_path, name):
    path = tmp_path / name
    path.touch()
    assert remove_abandoned(str(tmp_path)) == []
    yesterday = time.time() - 25 * 3600
    os.utime(path, (yesterday, yesterday))
    assert remove_abandoned(str(tmp_path)) == [str(path)]


def test_a_users_own_file_is_no_partial_one(tmp_path):
    names = ("my.partial-results.csv", "x.partial-", "notes.partial-0123abcd.txt")
    for name in names:
        (tmp_path / name).touch()
        os.utime(tmp_path / name, (0, 0))
    assert remove_abandoned(str(tmp_path)) == []
    assert remove_abandoned(str(tmp_path / "nothing")) == []


def test_two_writers_of_one_file_never_share_a_place(tmp_path):
    assert len({partial_path(str(tmp_path / "x")) for _ in range(50)}) == 50
