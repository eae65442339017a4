"""A process beside this one that says what it could not say itself.

Ray's core ends its process with code 1 and without a word at the first call to a node service that is gone. That may
come before the thread that watches the services has had its turn.
"""

import contextlib
import os
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence

_SPEAKER = """
import os, sys
message, *pids = sys.argv[1:]
def has_ended(pid):
    try:
        with open(f"/proc/{pid}/stat") as file:
            return file.read().rpartition(")")[2].split()[0] in "ZX"
    except OSError:
        return True
if not os.read(0, 1) and any(has_ended(pid) for pid in pids):
    os.write(2, (message + "\\n").encode(errors="replace"))
"""


@contextlib.contextmanager
def last_words(message: str, pids: Sequence[int]) -> Iterator[Callable[[], None]]:
    """Have a message said on stderr if this process ends within the context, after one of some others has.

    It is not said when this process is killed while the others run: then they end after it. Linux alone.

    Args:
        message: a line.
        pids: of the others.

    Yields:
        What takes the message back: for a process that is about to say it itself.
    """
    if sys.platform != "linux" or not pids:
        yield lambda: None
        return
    speaker = subprocess.Popen(
        [sys.executable, "-S", "-E", "-c", _SPEAKER, message, *map(str, pids)],
        stdin=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
        start_new_session=True,
    )
    assert speaker.stdin is not None
    descriptor = speaker.stdin.fileno()

    def take_back() -> None:
        with contextlib.suppress(OSError):  # it may be gone
            os.write(descriptor, b".")

    try:
        yield take_back
    finally:
        take_back()
        with contextlib.suppress(OSError):
            speaker.stdin.close()
        with contextlib.suppress(subprocess.TimeoutExpired):
            speaker.wait(1)
