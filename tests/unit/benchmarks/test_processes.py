"""CPU seconds by process, on commands of a second."""

import sys

import pytest

from benchmarks import processes

BUSY = (
    "import time\nend = time.process_time() + 0.8\nprint('first', flush=True)\nwhile time.process_time() < end: pass\n"
)
PARENT = f"""
import subprocess, sys
child = subprocess.Popen([sys.executable, "-c", {BUSY!r}], start_new_session=True)
sys.exit(3 + child.wait())
"""


def test_processes_that_left_the_group_are_counted_and_the_exit_code_is_handed_on():
    found = processes.watch([sys.executable, "-c", PARENT], every_s=0.05)
    assert found.code == 3
    assert len(found.processes) == 2 and all(process.is_python for process in found.processes)
    assert found.processes[1].cpu_s == pytest.approx(0.8, abs=0.3)
    assert found.first_line_s is not None and found.first_line_s < found.wall_s
    assert "2 of them Python" in processes.table(found)


@pytest.mark.parametrize(
    ("words", "title"),
    [
        ("ray::RayTrainWorker.execute()", "RayTrainWorker.execute"),
        ("ray::MapBatches(_ShardActor)", "MapBatches"),
        ("ray::IDLE", "IDLE"),
        ("/x/ray/core/src/ray/raylet/raylet --raylet_socket_name=/x", "ray: raylet"),
        ("/x/python -u /x/ray/dashboard/agent.py --node-ip-address=1", "ray: dashboard/agent"),
        ("/x/bin/python /x/bin/qaclims run miniature", "python qaclims run"),
    ],
)
def test_a_kind_of_process_has_one_name(words, title):
    assert processes.title_of(words) == title


def test_a_timeline_is_drawn(tmp_path):
    found = processes.watch([sys.executable, "-c", BUSY], every_s=0.05)
    processes.draw(found, str(tmp_path / "timeline.png"))
    assert (tmp_path / "timeline.png").stat().st_size > 1000
