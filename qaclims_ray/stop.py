"""How this process is stopped: by Ctrl-C, by SIGTERM, or because some thread found that nothing can go on.

The first time one line is said at once and the main thread gets a KeyboardInterrupt, so everything closes as it does
after an error. A second signal, or work that does not close in time, ends the process there and then. Python code that
uses the package without the command keeps its own handlers.
"""

import contextlib
import os
import signal
import socket
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping

import psutil

EXIT_CODES = {signal.SIGINT: 130, signal.SIGTERM: 143, signal.SIGHUP: 129}
"""What stops a run, and the exit codes by which a shell knows it."""
KEPT = "what is finished is kept, the same command goes on"
GRACE_S = 20.0
"""Seconds that everything has to close by itself."""
ECHO_S = 0.2
"""A signal so soon after the first is the same wish once more: some wrappers pass on what a terminal sends anyway."""


class Stop:
    """Whether and why this process is being stopped; `handled` makes it.

    Args:
        prog: what the line to the user starts with.
    """

    def __init__(self, prog: str) -> None:
        self.prog = prog
        self.code = 0
        """Exit code; 0 while nothing has asked for a stop."""
        self._is_interrupted = False
        self._is_over = False
        self._own_signals = 0
        self._first = 0.0
        self._lock = threading.Lock()

    def interrupt(self, signum: int, frame: object) -> None:
        """Handle a signal, or `end`, in the main thread: once."""
        self.begin(f"stopped; {KEPT}", EXIT_CODES[signal.Signals(signum)], GRACE_S)
        if not self._is_interrupted:
            self._is_interrupted = True
            raise KeyboardInterrupt

    def listen(self, arrivals: socket.socket) -> None:
        """Stop at the first signal and end at the second, also while the main thread waits in a library's C code."""
        while arrived := arrivals.recv(1):
            code = EXIT_CODES.get(signal.Signals(arrived[0]))
            if code is not None and self._own_signals:
                self._own_signals = 0
                continue
            if code is None or self.begin(f"stopped; {KEPT}", code, GRACE_S) or self._is_over:
                continue
            if time.monotonic() - self._first > ECHO_S:
                _end_at_once(code)

    def begin(self, message: str, code: int, grace_s: float) -> bool:
        """Say a line and start the clock; return whether this was the first time."""
        with self._lock:
            if self.code or self._is_over:
                return False
            self.code, self._first = code, time.monotonic()
        self._say(message)
        threading.Thread(target=self._end_after, args=(grace_s,), daemon=True).start()
        return True

    def release(self) -> None:
        """Take back what is under way; a signal that is heard from now on stops nothing."""
        with self._lock:
            self.code, self._is_over = 0, True

    def wake(self) -> None:
        """Interrupt whatever the main thread waits for."""
        self._own_signals = 1
        signal.pthread_kill(threading.main_thread().ident or 0, signal.SIGTERM)

    def _say(self, message: str) -> None:
        # Straight to the descriptor: a signal may come while Python's own stream is being written. In a terminal "^C",
        # or a progress bar, stands where the line would begin.
        start = "\n" if os.isatty(2) else ""
        with contextlib.suppress(OSError):
            os.write(2, f"{start}{self.prog}: {message}\n".encode(errors="replace"))

    def _end_after(self, grace_s: float) -> None:
        time.sleep(grace_s)
        if not self._is_over:
            _end_at_once(self.code)


_current: Stop | None = None
_undone_at_last: list[Callable[[], object]] = []


@contextlib.contextmanager
def handled(prog: str) -> Iterator[Stop]:
    """Let signals stop the process in one line for the time of the context, which the main thread has to enter.

    Once stopped the handlers stay, because what is left of the process is its end. A signal that is ignored when the
    context begins, as in a shell's background job or under nohup, stays ignored.
    """
    global _current
    stop = Stop(prog)
    if threading.current_thread() is not threading.main_thread():
        yield stop
        return
    arrivals, announced = socket.socketpair()
    announced.setblocking(False)
    threading.Thread(target=stop.listen, args=(arrivals,), daemon=True).start()
    announced_before = signal.set_wakeup_fd(announced.fileno(), warn_on_full_buffer=False)
    before = {number: signal.getsignal(number) for number in EXIT_CODES}
    for number, handler in before.items():
        if handler is not signal.SIG_IGN:
            signal.signal(number, stop.interrupt)
    _current = stop
    try:
        yield stop
    finally:
        if not stop.code:
            stop.release()
            _put_back(before)
            signal.set_wakeup_fd(announced_before)
            announced.close()
            _current = None


def end(message: str, code: int, *, grace_s: float = GRACE_S) -> bool:
    """Stop the process from any thread, for a reason other than a signal.

    Args:
        message: the line to the user.
        code: exit code.
        grace_s: seconds that everything has to close by itself.

    Returns:
        Whether a verb of the command is at work here, and so stops.
    """
    stop = _current
    if stop is None:
        return False
    if stop.begin(message, code, grace_s):
        stop.wake()
    return True


def is_under_way() -> bool:
    """Whether a signal, or `end`, has begun to stop this process: errors that come then follow from it."""
    return _current is not None and _current.code != 0


def as_line(message: str) -> str:
    """Return a message as the line that `end` would say: behind the name of the verb at work."""
    return message if _current is None else f"{_current.prog}: {message}"


def end_at_once(message: str, code: int) -> None:
    """End the process from any thread without closing anything, where closing would end it without a word.

    Returns where no verb of the command is at work here.
    """
    if _current is not None:
        _current.begin(message, code, GRACE_S)
        _end_at_once(_current.code)


@contextlib.contextmanager
def undone_at_last(undo: Callable[[], object]) -> Iterator[None]:
    """Call `undo` if the process is ended at once within the context; what closes in its own time does it itself."""
    _undone_at_last.append(undo)
    try:
        yield
    finally:
        _undone_at_last.remove(undo)


@contextlib.contextmanager
def keeping_handlers() -> Iterator[None]:
    """Put back, at the end of the context, the handlers that a library has put in their place in the meantime."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = {number: signal.getsignal(number) for number in EXIT_CODES}
    try:
        yield
    except SystemExit as ended:
        _put_back(before)
        # Ray's handler, in place while Ray starts, ends a process with the signal's number.
        if ended.code in set(EXIT_CODES):
            signal.raise_signal(signal.Signals(ended.code))
        raise
    finally:
        _put_back(before)


def _put_back(handlers: Mapping[signal.Signals, object]) -> None:
    for number, handler in handlers.items():
        if handler is not None:  # None: set by C code, which Python cannot set again
            signal.signal(number, handler)  # type: ignore[arg-type]


def _end_at_once(code: int) -> None:
    """End this process, and with it what it has started, without waiting for anything."""
    with contextlib.suppress(psutil.Error):
        for child in psutil.Process().children(recursive=True):
            with contextlib.suppress(psutil.Error):
                child.kill()
    for undo in reversed(_undone_at_last):
        # Whatever this meets, the process ends.
        with contextlib.suppress(Exception):
            undo()
    with contextlib.suppress(Exception):
        sys.stdout.flush()
    os._exit(code)
