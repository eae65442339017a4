import contextlib
import json
import logging
import resource
import subprocess
import sys
import threading
import time

import pytest

from qaclims_ray.tracking.journal import Journal, take_over
from qaclims_ray.tracking.spool import DeliveryPostponed, DeliveryRefused, Outbox, keep_copy


class Receiver:
    """A server in miniature: can go away, and refuses some calls."""

    def __init__(self):
        self.away = False
        self.batches = []
        self.attempted = threading.Event()

    def __call__(self, entries):
        self.attempted.set()
        if self.away:
            raise DeliveryPostponed("connection refused")
        if any(entry.get("bad") for entry in entries):
            raise DeliveryRefused("no such metric")
        self.batches.append(list(entries))

    @property
    def values(self):
        return [entry["value"] for batch in self.batches for entry in batch]


def metric(value, run="r", **more):
    return {"kind": "metrics", "run": run, "time": 0, "value": value, **more}


def test_calls_arrive_in_order_and_leave_no_trace(tmp_path):
    receiver = Receiver()
    outbox = Outbox(tmp_path / "spool", receiver, "server")
    for value in range(500):
        outbox.put(metric(value))
    assert outbox.close(10) == 0
    assert receiver.values == list(range(500))
    assert not (tmp_path / "spool").exists()


def test_putting_does_not_wait_for_a_slow_server(tmp_path):
    release = threading.Event()
    outbox = Outbox(tmp_path, lambda entries: release.wait(20), "server")
    started = time.monotonic()
    for value in range(1000):
        outbox.put(metric(value))
    elapsed_s = time.monotonic() - started
    release.set()
    assert outbox.close(10) == 0
    assert elapsed_s < 5


def test_metrics_of_one_run_travel_together(tmp_path):
    receiver = Receiver()
    receiver.away = True
    outbox = Outbox(tmp_path, receiver, "server")
    outbox.put({"kind": "tags", "run": "r", "value": "t"})
    for value, run in enumerate("rrssr"):
        outbox.put(metric(value, run))
    assert receiver.attempted.wait(10)
    receiver.away = False
    outbox.close(10)
    assert [[entry["value"] for entry in batch] for batch in receiver.batches] == [["t"], [0, 1], [2, 3], [4]]


def test_what_a_server_misses_is_sent_when_it_is_back(tmp_path, caplog):
    receiver = Receiver()
    outbox = Outbox(tmp_path, receiver, "server")
    outbox.put(metric(0))
    assert outbox.flush(10) == 0
    receiver.away = True
    with caplog.at_level(logging.WARNING):
        for value in range(1, 5):
            outbox.put(metric(value))
            assert outbox.flush(10) > 0
        assert outbox.is_away
        receiver.away = False
        assert outbox.flush(10) == 0
        assert outbox.close(10) == 0
    assert receiver.values == [0, 1, 2, 3, 4]
    said = [record.getMessage() for record in caplog.records]
    assert len(said) == 2
    assert "does not answer (connection refused)" in said[0] and str(tmp_path) in said[0]
    assert "is back" in said[1]


def test_what_cannot_be_sent_is_kept_and_sent_by_the_next(tmp_path):
    receiver = Receiver()
    receiver.away = True
    outbox = Outbox(tmp_path, receiver, "server")
    for value in range(3):
        outbox.put(metric(value))
    assert outbox.close(10) == 3
    receiver.away = False
    following = Outbox(tmp_path, receiver, "server")
    following.put(metric(3))
    assert following.close(10) == 0
    assert receiver.values == [0, 1, 2, 3]
    assert list(tmp_path.glob("*")) == []


KILLED = """
import os, sys
from pathlib import Path
from qaclims_ray.tracking.spool import DeliveryPostponed, Outbox
def away(entries):
    raise DeliveryPostponed("no server")
outbox = Outbox(Path(sys.argv[1]), away, "server")
for value in range(20):
    kind = "metrics" if value < 5 else "tags"  # the first few may travel together
    outbox.put({"kind": kind, "run": "r", "time": 0, "value": value})
outbox.flush(5)
os.kill(os.getpid(), 9)
"""


def test_a_killed_process_loses_nothing(tmp_path):
    killed = subprocess.run([sys.executable, "-c", KILLED, str(tmp_path)], check=False, capture_output=True, text=True)
    assert killed.returncode == -9, killed.stderr
    receiver = Receiver()
    assert Outbox(tmp_path, receiver, "server").close(10) == 0
    assert receiver.values == list(range(20))


def test_what_was_delivered_before_a_kill_is_not_sent_again(tmp_path):
    killed = KILLED.replace('raise DeliveryPostponed("no server")', DELIVER_TEN)
    result = subprocess.run([sys.executable, "-c", killed, str(tmp_path)], check=False, capture_output=True, text=True)
    assert result.returncode == -9, result.stderr
    receiver = Receiver()
    assert Outbox(tmp_path, receiver, "server").close(10) == 0
    sent = [int(line) for line in (tmp_path / "sent.txt").read_text().split()]
    assert sent
    assert sent + receiver.values == list(range(20))


DELIVER_TEN = """
    path = Path(sys.argv[1]) / "sent.txt"
    if any(entry["value"] >= 10 for entry in entries):
        raise DeliveryPostponed("no server")
    with path.open("a") as handle:
        handle.writelines(f"{entry['value']}\\n" for entry in entries)
"""


def test_a_living_process_keeps_its_journal(tmp_path):
    journal = Journal(tmp_path / "theirs.sqlite")
    journal.add(metric("theirs"))
    receiver = Receiver()
    outbox = Outbox(tmp_path, receiver, "server")
    outbox.put(metric("ours"))
    assert outbox.close(10) == 0
    assert receiver.values == ["ours"]
    assert journal.path.exists()


def test_runs_are_begun_before_calls_that_were_taken_over(tmp_path):
    worker = Journal(tmp_path / "worker.sqlite")
    worker.add(metric("worker", run="pending:x"))
    worker.close(keep=True)
    receiver = Receiver()
    receiver.away = True
    driver = Outbox(tmp_path / "other", receiver, "server")
    driver.put(metric("driver"))
    driver.put({"kind": "create", "run": "pending:x", "time": 0, "value": "begin"})
    driver.folder = tmp_path
    driver.adopt()
    receiver.away = False
    assert driver.close(10) == 0
    assert receiver.values == ["begin", "worker", "driver"]


def test_a_refused_call_does_not_hold_up_the_others(tmp_path, caplog):
    receiver = Receiver()
    outbox = Outbox(tmp_path, receiver, "server")
    copy = tmp_path / "x.txt"
    copy.write_text("x")
    outbox.put(metric(0))
    outbox.put(metric(1, bad=True, file=keep_copy(tmp_path, str(copy))))
    outbox.put(metric(2))
    assert outbox.close(10) == 0
    assert receiver.values == [0, 2]
    refused = [json.loads(line) for line in (tmp_path / "refused-calls.log").read_text().splitlines()]
    assert [entry["value"] for entry in refused] == [1]
    assert (tmp_path / refused[0]["file"]).exists()
    assert "no such metric" in caplog.text


def test_copies_are_removed_once_sent(tmp_path):
    source = tmp_path / "a.txt"
    source.write_text("first")
    spool = tmp_path / "spool"
    seen = []
    outbox = Outbox(spool, lambda entries: seen.append((spool / entries[0]["file"]).read_text()), "server")
    kept = keep_copy(spool, str(source))
    source.write_text("second")
    outbox.put({"kind": "artifact", "run": "r", "time": 0, "file": kept})
    assert outbox.close(10) == 0
    assert seen == ["first"]
    assert not spool.exists()


@contextlib.contextmanager
def full_disk(num_bytes):
    """Every file of this process ends at a length: what is written beyond fails, as on a full disk."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (num_bytes, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


# From the start; in the middle of the calls.
@pytest.mark.parametrize("num_bytes", [100, 20_000])
def test_a_full_disk_does_not_stop_the_run(tmp_path, caplog, num_bytes):
    receiver = Receiver()
    receiver.away = True
    outbox = Outbox(tmp_path, receiver, "server")
    with full_disk(num_bytes):
        for value in range(300):
            outbox.put(metric(value, padding="x" * 200))
        receiver.away = False
        assert outbox.close(10) == 0
    assert receiver.values == list(range(300))
    assert caplog.text.count("cannot be kept on disk") == 1
    assert not tmp_path.exists()


def test_calls_are_kept_again_once_the_disk_has_space(tmp_path):
    receiver = Receiver()
    receiver.away = True
    first = Outbox(tmp_path, receiver, "server")
    with full_disk(100):
        first.put(metric("only in memory"))
    first.put(metric("kept"))
    assert first.close(10) == 2
    receiver.away = False
    assert Outbox(tmp_path, receiver, "server").close(10) == 0
    assert receiver.values == ["kept"]


@pytest.mark.parametrize("can_rescue", [False, True])
def test_what_is_left_can_be_taken_to_a_safer_place(tmp_path, can_rescue):
    receiver = Receiver()
    receiver.away = True
    spool = tmp_path / "spool"
    source = tmp_path / "a.txt"
    source.write_text("x")
    outbox = Outbox(spool, receiver, "server")
    outbox.put({"kind": "artifact", "run": "r", "time": 0, "file": keep_copy(spool, str(source))})
    offered = []

    def rescue(journals, files):
        offered.extend([*journals.values(), *(path.read_text() for path in files)])
        assert take_over(spool) == ([], {}), "still locked"
        return can_rescue

    assert outbox.close(10, rescue) == 1
    assert spool.exists() is not can_rescue
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    content, text = offered
    (elsewhere / "0.sqlite").write_bytes(content)
    assert text == "x"
    assert [call["kind"] for journal in take_over(elsewhere)[0] for call in journal.calls.values()] == ["artifact"]


@pytest.mark.parametrize("is_folder", [False, True])
def test_files_and_folders_are_kept_under_their_names(tmp_path, is_folder):
    source = tmp_path / "thing"
    if is_folder:
        source.mkdir()
        (source / "inside.txt").write_text("x")
    else:
        source.write_text("x")
    kept = tmp_path / "spool" / keep_copy(tmp_path / "spool", str(source))
    assert kept.name == "thing"
    assert (kept / "inside.txt" if is_folder else kept).read_text() == "x"
