"""Stage lines on the console; in a terminal bars, elsewhere a line now and then that says that the work goes on."""

import threading
import time
from collections.abc import Callable, Container, Iterable, Mapping

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from rich.progress import Progress as Bars

from qaclims_ray.report.console_text import print_line
from qaclims_ray.report.wording import duration
from qaclims_ray.stages.stage import StageProgress

ALIVE_INTERVAL_S = 30.0
"""Seconds between two lines of a stage at work, where no bar shows it."""
_NAME_WIDTH = 28


class ConsoleProgress(StageProgress):
    """How far the stage at work is, one line for each that ended; keeps the seconds of each, of earlier calls too.

    Args:
        console: where it goes; None takes the standard output.
        seconds: of stages that earlier calls ran.
        on_epoch: see `StageProgress.epoch`.
        on_seconds: told the seconds of all stages when one ended.
        alive_interval_s: see `ALIVE_INTERVAL_S`.
        said: notes and remarks that were printed before, and are not again.
    """

    def __init__(
        self,
        console: Console | None = None,
        seconds: dict[str, float] | None = None,
        on_epoch: Callable[[Mapping[str, float]], None] | None = None,
        on_seconds: Callable[[Mapping[str, float]], None] | None = None,
        alive_interval_s: float = ALIVE_INTERVAL_S,
        said: Container[str] = (),
    ) -> None:
        self.console = console or Console()
        self._said = said
        self.seconds = dict(seconds or {})
        self._on_epoch, self._on_seconds = on_epoch, on_seconds
        self._alive_interval_s = alive_interval_s
        self._name, self._started = "", 0.0
        self._bars: Bars | None = None
        self._alive: _AliveLines | None = None

    def start(self, name: str) -> None:
        """See `StageProgress.start`."""
        self._name, self._started = name, time.perf_counter()
        self._close()
        if not self.console.is_terminal:
            self._alive = _AliveLines(self.console, name, self._alive_interval_s)
            return
        self._bars = Bars(
            TextColumn(f"{{task.description:<{_NAME_WIDTH}}}", style="bold", markup=False),
            BarColumn(),
            MofNCompleteColumn(),
            TimeElapsedColumn(),
            TimeRemainingColumn(),
            console=self.console,
            transient=True,
        )
        self._bars.start()
        self._task = self._bars.add_task(self._name, total=None)

    def advance(self, done: int, total: int) -> None:
        """See `StageProgress.advance`."""
        if self._bars is not None:
            self._bars.update(self._task, completed=done, total=total)
        if self._alive is not None:
            self._alive.advance(done, total)

    def epoch(self, metrics: Mapping[str, float]) -> None:
        """See `StageProgress.epoch`."""
        if self._on_epoch is not None:
            self._on_epoch(metrics)

    def remake(self, message: str) -> None:
        """See `StageProgress.remake`."""
        print_line(self.console, message)

    def note(self, message: str) -> None:
        """See `StageProgress.note`."""
        if message not in self._said:
            print_line(self.console, f"  {message}")

    def remarks(self, texts: Iterable[str]) -> None:
        """Say what a user should know of the settings."""
        for text in texts:
            if text not in self._said:
                print_line(self.console, f"remark: {text}")

    def finish(self, message: str, *, is_new: bool = True) -> None:
        """See `StageProgress.finish`."""
        self._close()
        seconds = time.perf_counter() - self._started
        name = f"{self._name:<{_NAME_WIDTH}}"
        print_line(self.console, f"{name} {seconds:6.1f} s  {message}", bold=len(name))
        if is_new or self._name not in self.seconds:
            self.seconds[self._name] = seconds
            if self._on_seconds is not None:
                self._on_seconds(self.seconds)

    def abort(self) -> None:
        """See `StageProgress.abort`."""
        self._close()

    def _close(self) -> None:
        if self._bars is not None:
            self._bars.stop()
            self._bars = None
        if self._alive is not None:
            self._alive.stop()
            self._alive = None


class _AliveLines:
    """Says at an interval how far a stage is: its share and the time left, or else that it is still at work.

    A thread says it, since a stage may be silent for hours: between two shards, or while Ray waits for a node.
    """

    def __init__(self, console: Console, name: str, interval_s: float) -> None:
        self._console, self._name, self._interval_s = console, name, interval_s
        self._started = time.monotonic()
        self._first: tuple[float, int] | None = None
        self._position = (0, 0)
        self._stopped = threading.Event()
        # Reentrant: a signal may stop the stage while its own thread is just telling how far it is.
        self._lock = threading.RLock()
        threading.Thread(target=self._run, name="alive-lines", daemon=True).start()

    def advance(self, done: int, total: int) -> None:
        """So many of so many steps are done."""
        with self._lock:
            # Of a training that goes on, the steps of before took none of this call's time.
            self._first = self._first or (time.monotonic(), done)
            self._position = (done, total)

    def stop(self) -> None:
        """Say nothing after this."""
        with self._lock:
            self._stopped.set()

    def _run(self) -> None:
        while not self._stopped.wait(self._interval_s):
            with self._lock:
                if not self._stopped.is_set():
                    print_line(self._console, self._line(time.monotonic()))

    def _line(self, now: float) -> str:
        line = f"still in {self._name}, {now - self._started:.0f} s"
        done, total = self._position
        if self._first is None or not total:
            return line
        line += f": {done} of {total} ({done / total:.0%})"
        since, done_before = self._first
        # The first step is told when it ends, so all steps after it took the time since then.
        if done_before < done <= total:
            line += f", about {duration((now - since) * (total - done) / (done - done_before))} left"
        return line
