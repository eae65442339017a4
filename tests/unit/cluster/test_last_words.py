"""What is said for a process that ends without a word: tried on processes of our own."""

import os
import signal
import subprocess
import sys
import textwrap
import time
from pathlib import Path

import pytest

from qaclims_ray.cluster import last_words

SLEEPER = [sys.executable, "-S", "-c", "import time; time.sleep(60)"]
DRIVER = """
import os, signal, sys
from qaclims_ray.cluster.last_words import last_words
other = int(sys.argv[1])
with last_words("the other has ended", [other]) as take_back:
    {end}
"""


def told_by(end: str, *, kill_other: bool) -> str:
    """Run a process that ends in some way, with another one beside it; return its stderr."""
    other = subprocess.Popen(SLEEPER)
    if kill_other:
        other.kill()
        other.wait()
    script = textwrap.dedent(DRIVER.format(end=end))
    ended = subprocess.run([sys.executable, "-c", script, str(other.pid)], capture_output=True, text=True, timeout=60)
    other.kill()
    other.wait()
    return ended.stderr


@pytest.mark.skipif(not hasattr(os, "pidfd_open"), reason="a system without descriptors of processes")
@pytest.mark.parametrize("end", ["os._exit(1)", "os.kill(os.getpid(), signal.SIGKILL)"])
def test_it_is_said_for_a_process_that_follows_another_without_a_word(end):
    assert told_by(end, kill_other=True) == "the other has ended\n"


@pytest.mark.parametrize("end", ["pass", "sys.exit(3)", "take_back(); os._exit(2)"])
def test_an_ordinary_end_needs_no_words(end):
    assert told_by(end, kill_other=True) == ""


@pytest.mark.parametrize("end", ["os._exit(1)", "os.kill(os.getpid(), signal.SIGKILL)"])
def test_the_other_is_not_blamed_while_it_runs(end):
    assert told_by(end, kill_other=False) == ""


@pytest.mark.skipif(not hasattr(os, "pidfd_open"), reason="a system without descriptors of processes")
@pytest.mark.parametrize(("killed_first", "told"), [("it", b""), ("the other", b"the other has ended\n")])
def test_who_ended_first_is_known_also_where_the_speaker_has_its_turn_late(killed_first, told):
    other = subprocess.Popen(SLEEPER)
    line = [sys.executable, "-S", "-E", "-c", last_words._SPEAKER, "the other has ended", str(other.pid)]
    speaker = subprocess.Popen(line, stdin=subprocess.PIPE, stderr=subprocess.PIPE)
    assert speaker.stdin is not None and speaker.stderr is not None
    descriptors, deadline = Path(f"/proc/{speaker.pid}/fd"), time.monotonic() + 60
    while not any("pidfd" in os.readlink(one) for one in descriptors.iterdir()):
        assert time.monotonic() < deadline
        time.sleep(0.01)
    if killed_first == "it":
        speaker.send_signal(signal.SIGSTOP)
        speaker.stdin.close()
    other.kill()
    other.wait()
    if killed_first == "the other":
        time.sleep(1)
        speaker.stdin.close()
    speaker.send_signal(signal.SIGCONT)
    assert speaker.stderr.read() == told
    speaker.stderr.close()
    speaker.wait()
