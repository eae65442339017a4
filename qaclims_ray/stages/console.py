"""Stage lines and progress bars on the console."""

import time
from collections.abc import Callable, Iterable, Mapping

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from rich.progress import Progress as Bars
from rich.text import Text

from qaclims_ray.stages.stage import StageProgress


class ConsoleProgress(StageProgress):
    """One bar for the stage at work, one line for each that ended; keeps the seconds of each, of earlier calls too."""

    def __init__(
        self,
        console: Console | None = None,
        seconds: dict[str, float] | None = None,
        on_epoch: Callable[[Mapping[str, float]], None] | None = None,
    ) -> None:
        self.console = console or Console()
        self.seconds = dict(seconds or {})
        self._on_epoch = on_epoch
        self._name, self._started = "", 0.0
        self._bars: Bars | None = None

    def start(self, name: str) -> None:
        """See `StageProgress.start`."""
        self._name, self._started = name, time.perf_counter()
        self._close()
        if self.console.is_terminal:
            self._bars = Bars(
                TextColumn("{task.description:<28}", style="bold", markup=False),
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

    def epoch(self, metrics: Mapping[str, float]) -> None:
        """See `StageProgress.epoch`."""
        if self._on_epoch is not None:
            self._on_epoch(metrics)

    def remake(self, message: str) -> None:
        """See `StageProgress.remake`."""
        self.console.print(message, highlight=False, soft_wrap=True, markup=False)

    def note(self, message: str) -> None:
        """See `StageProgress.note`."""
        self.console.print(f"  {message}", highlight=False, soft_wrap=True, markup=False)

    def remarks(self, texts: Iterable[str]) -> None:
        """Say what a user should know of the settings."""
        for text in texts:
            self.console.print(f"remark: {text}", highlight=False, soft_wrap=True, markup=False)

    def finish(self, message: str, *, is_new: bool = True) -> None:
        """See `StageProgress.finish`."""
        self._close()
        seconds = time.perf_counter() - self._started
        if is_new or self._name not in self.seconds:
            self.seconds[self._name] = seconds
        self.console.print(
            Text.assemble((f"{self._name:<28}", "bold"), f" {seconds:6.1f} s  {message}"),
            highlight=False,
            soft_wrap=True,
        )

    def abort(self) -> None:
        """Remove the bar of a stage that failed."""
        self._close()

    def _close(self) -> None:
        if self._bars is not None:
            self._bars.stop()
            self._bars = None
