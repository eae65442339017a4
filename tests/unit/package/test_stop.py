"""Stopping a process: a line and an exit code at the first signal, its end at the second or when it does not close."""

import signal
import socket
import subprocess
import sys
import threading
import time

import psutil
import pytest

from qaclims_ray import stop

LINE = "prog: stopped; what is finished is kept, the same command goes on\n"
_PROCESS = """
import subprocess, sys, time
from qaclims_ray import stop

stop.GRACE_S = float(sys.argv[2])
with stop.handled("prog") as stopped, stop.undone_at_last(lambda: print("undone at last", flush=True)):
    child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"])
    try:
        print("ready", child.pid, flush=True)
        time.sleep(600)
    except KeyboardInterrupt:
        print("closing", flush=True)
        while sys.argv[1] == "slow":
            time.sleep(0.01)
        child.kill()
        print("closed", flush=True)
sys.exit(stopped.code)
"""


def _started(how: str, grace_s: float = 600.0) -> tuple[subprocess.Popen, psutil.Process]:
    """Start a process that closes at once ("quick") or never ("slow"); return it, and the one that it started."""
    process = subprocess.Popen(
        [sys.executable, "-c", _PROCESS, how, str(grace_s)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )
    assert process.stdout is not None
    word, pid = process.stdout.readline().split()
    assert word == "ready"
    return process, psutil.Process(int(pid))


def _is_gone(process: psutil.Process) -> bool:
    gone, _ = psutil.wait_procs([process], timeout=30)
    return bool(gone) or process.status() == psutil.STATUS_ZOMBIE


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143), (signal.SIGHUP, 129)])
def test_the_first_signal_closes_everything_and_says_one_line(number, code):
    process, _ = _started("quick")
    process.send_signal(number)
    out, err = process.communicate(timeout=60)
    assert (process.returncode, out) == (code, "closing\nclosed\n")
    assert err == LINE


def test_the_second_signal_ends_the_process_where_it_is_and_what_it_started():
    process, child = _started("slow")
    process.send_signal(signal.SIGINT)
    assert process.stdout is not None and process.stdout.readline() == "closing\n"
    time.sleep(stop.ECHO_S * 2)
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=60)
    assert (process.returncode, out, err) == (130, "undone at last\n", LINE)
    assert _is_gone(child)


def test_what_does_not_close_in_time_is_ended():
    process, child = _started("slow", 0.2)
    process.send_signal(signal.SIGTERM)
    out, err = process.communicate(timeout=60)
    assert (process.returncode, out, err) == (143, "closing\nundone at last\n", LINE)
    assert _is_gone(child)


@pytest.fixture
def stopped():
    """A stop in this process, whose handlers are removed at the end."""
    before = {number: signal.getsignal(number) for number in stop.EXIT_CODES}
    with stop.handled("prog") as found:
        yield found
        found.release()
    assert {number: signal.getsignal(number) for number in stop.EXIT_CODES} == before


def test_a_thread_stops_the_process_for_its_own_reason(stopped, capfd):
    with pytest.raises(KeyboardInterrupt):
        threading.Timer(0.01, stop.end, ("nothing goes on", 2), {"grace_s": 600.0}).start()
        threading.Event().wait(60)
    assert stopped.code == 2
    assert capfd.readouterr().err == "prog: nothing goes on\n"
    assert stop.end("said once", 3, grace_s=600.0)
    assert (stopped.code, capfd.readouterr().err) == (2, "")


def test_without_a_verb_at_work_a_thread_stops_nothing():
    assert not stop.end("nobody is told", 2)


def test_a_library_does_not_keep_the_handlers_that_it_sets(stopped):
    with stop.keeping_handlers():
        signal.signal(signal.SIGINT, signal.SIG_IGN)
    assert signal.getsignal(signal.SIGINT) == stopped.interrupt


def test_a_librarys_exit_at_a_signal_is_a_stop_as_any_other(stopped, capfd):
    with pytest.raises(KeyboardInterrupt), stop.keeping_handlers():
        signal.signal(signal.SIGTERM, lambda number, frame: sys.exit(number))
        signal.raise_signal(signal.SIGTERM)
    assert stopped.code == 143
    assert capfd.readouterr().err == LINE


def test_a_signal_heard_after_the_verb_stops_nothing(capfd):
    stopped, (arrivals, announced) = stop.Stop("prog"), socket.socketpair()
    listener = threading.Thread(target=stopped.listen, args=(arrivals,))
    announced.send(bytes([signal.SIGTERM, signal.SIGTERM]))
    announced.close()
    stopped.release()
    listener.start()
    listener.join()
    assert (stopped.code, capfd.readouterr().err) == (0, "")


def test_a_signal_that_is_ignored_stays_ignored():
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        with stop.handled("prog"):
            assert signal.getsignal(signal.SIGHUP) == signal.SIG_IGN
    finally:
        signal.signal(signal.SIGHUP, before)
