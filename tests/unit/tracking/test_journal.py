import random
import signal
import sqlite3
import subprocess
import sys
import time

import pytest

from qaclims_ray.tracking import journal as journal_module
from qaclims_ray.tracking.journal import Journal, take_over
from qaclims_ray.tracking.spool import Outbox


def call(value, kind="tags"):
    return {"kind": kind, "run": "r", "time": 0, "value": value}


def values_of(journals):
    return [entry["value"] for journal in journals for entry in journal.calls.values()]


def kept(path, *values):
    journal = Journal(path)
    for value in values:
        journal.add(call(value))
    journal.close(keep=True)


def run_killed(script, *arguments):
    done = subprocess.run([sys.executable, "-c", script, *map(str, arguments)], check=False, capture_output=True)
    assert done.returncode == -signal.SIGKILL, done.stderr.decode()


def test_calls_come_back_in_order_and_say_that_they_are_another_process_s(tmp_path):
    kept(tmp_path / "1.sqlite", 0, 1, float("inf"))
    kept(tmp_path / "2.sqlite", 3)
    journals, unreadable = take_over(tmp_path)
    assert values_of(journals) == [0, 1, float("inf"), 3]
    assert all(entry["adopted"] for journal in journals for entry in journal.calls.values())
    assert unreadable == {}


def test_delivered_calls_do_not_come_back(tmp_path):
    journal = Journal(tmp_path / "1.sqlite")
    for value in range(4):
        journal.add(call(value))
    journal.remove([1, 3])
    assert values_of([journal]) == [1, 3]
    journal.close(keep=True)
    assert values_of(take_over(tmp_path)[0]) == [1, 3]


def test_nothing_is_written_before_the_first_call_nor_left_after_the_last(tmp_path):
    journal = Journal(tmp_path / "spool" / "1.sqlite")
    assert not (tmp_path / "spool").exists()
    journal.add(call(0))
    journal.close(keep=False)
    assert list((tmp_path / "spool").iterdir()) == []


KILLED_WHILE_IT_CLOSES = """
import os, sys
from pathlib import Path
from qaclims_ray.tracking.journal import Journal
journal = Journal(Path(sys.argv[1]))
journal.add({"kind": "tags"})
journal.path.unlink()
os.kill(os.getpid(), 9)
"""


def test_what_a_process_leaves_that_is_killed_while_it_closes_goes_with_the_next(tmp_path):
    run_killed(KILLED_WHILE_IT_CLOSES, tmp_path / "1.sqlite")
    assert [path.name for path in tmp_path.iterdir()] == ["1.sqlite-journal"]
    living = Journal(tmp_path / "2.sqlite")
    living.add(call(0))
    assert take_over(tmp_path) == ([], {})
    assert sorted(path.name for path in tmp_path.iterdir()) == ["2.sqlite", "2.sqlite-journal"]
    living.close(keep=False)


HOLDS = """
import sys, time
from pathlib import Path
from qaclims_ray.tracking.journal import Journal, take_over
folder = Path(sys.argv[1])
held = take_over(folder)[0]
own = Journal(folder / "own.sqlite")
own.add({"kind": "tags", "run": "r", "time": 0, "value": "own"})
own.content()
print(len(held), flush=True)
time.sleep(60)
"""


def test_what_a_living_process_holds_is_not_taken_until_it_is_killed(tmp_path):
    kept(tmp_path / "dead.sqlite", "taken over")
    with subprocess.Popen([sys.executable, "-c", HOLDS, str(tmp_path)], stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout.readline() == "1\n"
        assert take_over(tmp_path) == ([], {})
        process.kill()
    assert values_of(take_over(tmp_path)[0]) == ["taken over", "own"]


def test_what_this_process_holds_is_not_taken_twice(tmp_path):
    own = Journal(tmp_path / "1.sqlite")
    own.add(call("own"))
    kept(tmp_path / "2.sqlite", "dead")
    assert values_of(take_over(tmp_path)[0]) == ["dead"]
    assert take_over(tmp_path) == ([], {})


FORKS = """
import os, sys, time
from pathlib import Path
from qaclims_ray.tracking.journal import Journal
journal = Journal(Path(sys.argv[1]) / "1.sqlite")
journal.add({"kind": "tags", "run": "r", "time": 0, "value": "parent"})
if os.fork() == 0:  # as the workers of a data loader, which notice late that their parent is gone
    for descriptor in (0, 1, 2):
        os.close(descriptor)
    time.sleep(5)
    os._exit(0)
os.kill(os.getpid(), 9)
"""


def test_a_forked_child_does_not_hold_the_journal_of_its_killed_parent(tmp_path):
    run_killed(FORKS, tmp_path)
    assert values_of(take_over(tmp_path)[0]) == ["parent"]


def test_a_journal_that_another_process_sent_and_removed_in_between_is_not_sent_again(tmp_path, monkeypatch):
    kept(tmp_path / "1.sqlite", "sent by another")
    lock = journal_module._open

    def lock_too_late(path, mode):
        connection = lock(path, mode)
        path.unlink()
        return connection

    monkeypatch.setattr(journal_module, "_open", lock_too_late)
    assert take_over(tmp_path) == ([], {})


DIES_TAKING_OVER = """
import os, sys
from pathlib import Path
from qaclims_ray.tracking.spool import DeliveryPostponed, Outbox
def deliver(entries):
    if entries[0]["value"] == 5:
        os.kill(os.getpid(), 9)
Outbox(Path(sys.argv[1]), deliver, "server").flush(20)
"""


def test_a_process_killed_with_taken_over_calls_leaves_each_once(tmp_path):
    kept(tmp_path / "1.sqlite", *range(10))
    run_killed(DIES_TAKING_OVER, tmp_path)
    assert values_of(take_over(tmp_path)[0]) == list(range(5, 10))


DIES_WRITING = """
import os, sys
from pathlib import Path
from qaclims_ray.tracking.journal import Journal
journal = Journal(Path(sys.argv[1]) / "1.sqlite")
journal.add({"kind": "tags", "run": "r", "time": 0, "value": 0})
journal._db.execute("PRAGMA cache_spill = 1")
journal._db.execute("PRAGMA cache_size = 1")
journal._db.execute("BEGIN")
for value in range(1, 500):  # more than the cache holds: pages reach the file before the transaction ends
    journal.add({"kind": "tags", "run": "r", "time": 0, "value": value, "padding": "x" * 500})
os.kill(os.getpid(), 9)
"""


def test_a_write_that_a_kill_cut_short_is_undone(tmp_path):
    run_killed(DIES_WRITING, tmp_path)
    assert (tmp_path / "1.sqlite").stat().st_size > 100_000
    assert (tmp_path / "1.sqlite-journal").stat().st_size > 0
    assert values_of(take_over(tmp_path)[0]) == [0]


WRITER = """
import os, sys
from pathlib import Path
from qaclims_ray.tracking.spool import DeliveryPostponed, Outbox
def away(entries):
    raise DeliveryPostponed("no server")
folder, name = Path(sys.argv[1]), sys.argv[2]
acknowledged = os.open(folder.parent / name, os.O_CREAT | os.O_WRONLY | os.O_APPEND)
outbox = Outbox(folder, away, "server")
number = 0
while True:
    outbox.put({"kind": "tags", "run": "r", "time": 0, "value": [name, number]})
    os.write(acknowledged, f"{number}\\n".encode())
    number += 1
    if number % 20 == 0:
        outbox.adopt()
"""


def test_no_call_is_lost_or_doubled_when_writers_are_killed_at_any_moment(tmp_path):
    spool, names, moments = tmp_path / "spool", [], random.Random(0)
    for generation in range(3):  # each takes over what the one before left, while its fellows live and die
        writers = {f"{generation}-{index}": None for index in range(3)}
        for name in writers:
            writers[name] = subprocess.Popen([sys.executable, "-c", WRITER, str(spool), name])
        for name, writer in writers.items():
            deadline = time.monotonic() + 60
            while not (tmp_path / name).exists() or not (tmp_path / name).stat().st_size:
                assert time.monotonic() < deadline
                time.sleep(0.01)
            time.sleep(moments.uniform(0, 0.3))
            writer.kill()
            writer.wait()
        names += writers
    received = []
    assert Outbox(spool, lambda entries: received.extend(entry["value"] for entry in entries), "server").close(60) == 0
    assert not spool.exists()
    for name in names:
        numbers = [number for writer, number in received if writer == name]
        num_acknowledged = len((tmp_path / name).read_text().split())
        # The last may have been written and not acknowledged.
        assert len(numbers) in (num_acknowledged, num_acknowledged + 1)
        assert numbers == list(range(len(numbers)))


@pytest.mark.parametrize("kind", ["torn", "zeroed", "zeroed text", "text", "other database", "json lines"])
def test_what_is_no_whole_journal_is_told_once_and_kept(tmp_path, caplog, kind):
    path = tmp_path / ("1.jsonl" if kind == "json lines" else "1.sqlite")
    kept(path, *("x" * length for length in [1000] * 50 + [50_000]))
    content = path.read_bytes()
    match kind:
        case "torn":
            path.write_bytes(content[: len(content) // 2])
        case "zeroed":
            path.write_bytes(content[:4096] + bytes(8192) + content[12288:])
        case "zeroed text":  # in the middle of the long call
            path.write_bytes(content[:-20480] + bytes(4096) + content[-16384:])
        case "text":
            path.write_text("notes of somebody")
        case "other database":
            path.unlink()
            with sqlite3.connect(path) as database:
                database.execute("CREATE TABLE notes (text)")
            database.close()
    before = path.read_bytes()
    kept(tmp_path / "2.sqlite", "whole")
    received = []
    outbox = Outbox(tmp_path, lambda entries: received.extend(entry["value"] for entry in entries), "server")
    outbox.put(call("own"))
    outbox.adopt()
    assert outbox.close(10) == 0
    assert received == ["whole", "own"]
    assert list(outbox.unreadable) == [path]
    assert caplog.text.count(f"{path} is kept, but not sent: ") == 1
    assert [left.name for left in tmp_path.iterdir()] == [path.name]
    assert path.read_bytes() == before


def test_an_empty_file_is_left_to_the_process_that_is_about_to_lock_it(tmp_path):
    (tmp_path / "1.sqlite").touch()
    assert take_over(tmp_path) == ([], {})
    journal = Journal(tmp_path / "1.sqlite")
    journal.add(call("first"))
    journal.close(keep=True)
    assert values_of(take_over(tmp_path)[0]) == ["first"]
