"""An end for what hangs, in this process."""

import signal
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType


class TookTooLong(BaseException):
    """No error of a file, such as `TimeoutError` is: readers turn those into errors of ours."""


@contextmanager
def within(seconds: int) -> Iterator[None]:
    """Raise `TookTooLong` in the main thread where the context takes longer."""

    def stop(_signal: int, _frame: FrameType | None) -> None:
        raise TookTooLong(f"took more than {seconds} s")

    before = signal.signal(signal.SIGALRM, stop)
    signal.alarm(seconds)
    try:
        yield
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)
