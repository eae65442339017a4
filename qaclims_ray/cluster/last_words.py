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
import os, select, sys
message, *pids = sys.argv[1:]
others, was_first = [], False
for pid in pids:
    try:
        others.append(os.pidfd_open(int(pid)))
    except ProcessLookupError:
        was_first = True
while 0 not in (ready := select.select([0, *others], [], [])[0]):
    others, was_first = [one for one in others if one not in ready], True
if not os.read(0, 1) and was_first:
    os.write(2, (message + "\\n").encode(errors="replace"))
"""


@contextlib.contextmanager
def last_words(message: str, pids: Sequence[int]) -> Iterator[Callable[[], None]]:
    """Have a message said on stderr if this process ends within the context, after one of some others has.

    It is not said when this process is killed while the others run: they end with it then, and what is seen first tells
    which came first. Linux alone.

    Args:
        message: a line.
        pids: of the others.

    Yields:
        What takes the message back: for a process that is about to say it itself.
    """
    if not hasattr(os, "pidfd_open") or not pids:
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
