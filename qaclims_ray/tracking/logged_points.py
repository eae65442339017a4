"""What a run holds already: whoever goes on with it repeats steps and figures, which must not become second points."""

import math
import sys
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace

from qaclims_ray.tracking.journal import Entry

History = Callable[[str, str], Iterable[tuple[int, float]]]
"""Run id and name of a metric -> (step, value) of its points."""


@dataclass(frozen=True)
class Point:
    """One point of a metric, to be stored."""

    name: str
    """Name of the metric."""
    value: float
    """Its value."""
    time: int
    """When it was logged, milliseconds since 1970."""
    step: int
    """Where it stands on the curve."""


def all_points(entries: Sequence[Entry]) -> list[Point]:
    """Return all points of calls of kind ``metrics``; figures without a step stand at step 0."""
    return [
        Point(name, value, entry["time"], entry["step"] or 0)
        for entry in entries
        for name, value in entry["values"].items()
    ]


class LoggedPoints:
    """The points of metrics that the server is known to have, asked for once."""

    def __init__(self) -> None:
        self._known: dict[tuple[str, str], dict[int, float]] = {}

    def missing(self, run_id: str, entries: Sequence[Entry], history: History) -> list[Point]:
        """Return the points that a run which was begun before lacks; `note` them when it has them.

        A step that is there stays as it is. A figure without a step is one point, at step 0, however often it is
        logged; where its value has changed, the new one follows at the next step, since MLflow replaces no point.

        Args:
            run_id: the run.
            entries: calls of kind ``metrics``.
            history: asks the server.
        """
        there: dict[str, dict[int, float]] = {}
        for name in dict.fromkeys(name for entry in entries for name in entry["values"]):
            # Where another process wrote the calls, others may have logged since this one asked last.
            if (run_id, name) not in self._known or any("adopted" in entry for entry in entries):
                self._known[run_id, name] = dict(history(run_id, name))
            there[name] = dict(self._known[run_id, name])
        points = []
        for entry in entries:
            for point in all_points([entry]):
                own = there[point.name]
                step = _next_step(own, point.value) if entry["step"] is None else point.step
                if step is not None and step not in own:
                    own[step] = point.value
                    points.append(replace(point, step=step))
        return points

    def note(self, run_id: str, points: Sequence[Point]) -> None:
        """Remember points that are stored now, of the metrics that were asked for."""
        for point in points:
            if (run_id, point.name) in self._known:
                self._known[run_id, point.name][point.step] = point.value


def _next_step(there: dict[int, float], value: float) -> int | None:
    """Return where a figure without a step goes; None where its last point says the same."""
    if not there:
        return 0
    last = max(there)
    return None if _in_database(there[last]) == _in_database(value) else last + 1


def _in_database(value: float) -> float | str:
    """Return a value as it compares after a database kept it, which has no infinity."""
    return "NaN" if math.isnan(value) else max(-sys.float_info.max, min(sys.float_info.max, value))
