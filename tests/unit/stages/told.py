"""A stage's progress that remembers what it was told."""

from collections.abc import Mapping

from qaclims_ray.stages.stage import StageProgress


class Told(StageProgress):
    """Everything that a stage said, in order: (what, words or figures)."""

    def __init__(self) -> None:
        self.lines: list[tuple[str, str]] = []
        self.epochs: list[dict[str, float]] = []

    def start(self, name: str) -> None:
        """See `StageProgress.start`."""
        self.lines.append(("start", name))

    def advance(self, done: int, total: int) -> None:
        """See `StageProgress.advance`."""
        self.lines.append(("advance", f"{done} of {total}"))

    def epoch(self, metrics: Mapping[str, float]) -> None:
        """See `StageProgress.epoch`."""
        self.epochs.append(dict(metrics))

    def remake(self, message: str) -> None:
        """See `StageProgress.remake`."""
        self.lines.append(("remake", message))

    def note(self, message: str) -> None:
        """See `StageProgress.note`."""
        self.lines.append(("note", message))

    def finish(self, message: str, *, is_new: bool = True) -> None:
        """See `StageProgress.finish`."""
        self.lines.append(("finish" if is_new else "there", message))
