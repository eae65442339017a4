"""What a stage is given, and what all stages do alike: skip what is there, say why not, declare what is whole."""

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from qaclims_ray.data.artifacts import Artifact, ArtifactMeta
from qaclims_ray.report.wording import duration
from qaclims_ray.run_config import RunConfig
from qaclims_ray.stages.layout import RunLayout
from qaclims_ray.tracking.tracker import NullTracker, Tracker

if TYPE_CHECKING:
    from qaclims_ray.stages.resources import Room


def _beside_others() -> "Room":
    """Return what a stage has that nobody opened anything for: Ray is there, and other runs may be at work on it."""
    from qaclims_ray.stages.resources import SHARED

    return SHARED


class StageProgress:
    """Silent progress; ``stages.console`` has one that draws bars."""

    def start(self, name: str) -> None:
        """A stage starts."""

    def advance(self, done: int, total: int) -> None:
        """So many of so many steps are done."""

    def epoch(self, metrics: Mapping[str, float]) -> None:
        """An epoch of a training ended: its figures, and its number as `epoch`; for one there already, its last."""

    def remake(self, message: str) -> None:
        """What is there does not serve, and why."""

    def note(self, message: str) -> None:
        """Something a person should know before the work goes on."""

    def finish(self, message: str, *, is_new: bool = True) -> None:
        """The stage ended; one line says what it did, or that there was nothing to do."""

    def abort(self) -> None:
        """The stage failed; no more is said of it."""


@dataclass(frozen=True)
class Stage:
    """The surroundings of one stage of one run."""

    config: RunConfig
    """Resolved configuration (of one system, where the stage belongs to one)."""
    layout: RunLayout
    """Where things are."""
    tracker: Tracker = field(default_factory=NullTracker)
    """MLflow run of this stage."""
    progress: StageProgress = field(default_factory=StageProgress)
    """Where to say how far it is."""
    opening: "Callable[[], Room]" = _beside_others
    """Makes sure, the first time, that work can begin; returns what workers and actors may share out."""

    @property
    def room(self) -> "Room":
        """What workers and actors may share out whose number is left open; a run's Ray is there from now on."""
        return self.opening()

    def make(
        self,
        artifact: Artifact,
        name: str,
        work: Callable[[], Mapping[str, Any]],
        describe: Callable[[ArtifactMeta], str],
        *,
        goes_on: bool = False,
    ) -> ArtifactMeta:
        """Return an artefact's meta, and make the artefact first where it is not there for these settings.

        Args:
            artifact: what is made.
            name: of the stage on the console.
            work: writes all of it but its meta into the artefact's workshop; returns the summary.
            describe: says in a line what is there.
            goes_on: whether `work` takes up the finished parts of a call that was stopped.
        """
        meta = artifact.current()
        if meta is None:
            self.opening()
        self.progress.start(name)
        if meta is not None:
            self.progress.finish(f"{describe(meta)} (there already)", is_new=False)
            return meta
        self.say_why(artifact)
        artifact.begin(goes_on=goes_on)
        started = time.monotonic()
        summary = work()
        meta = artifact.complete(summary, took_s=time.monotonic() - started)
        self.progress.finish(f"{describe(meta)} -> {artifact.uri}")
        return meta

    def say_why(self, artifact: Artifact) -> None:
        """Say in one line why what lies in an artefact's place is made again, and what it took, where anything does."""
        if reason := artifact.differs():
            place = "/".join(artifact.uri.rstrip("/").rsplit("/", 2)[-2:])
            took = artifact.took_s()
            self.progress.remake(
                f"{place} is made again: {reason}" + (f"; it took {duration(took)}" if took >= 1 else "")
            )
