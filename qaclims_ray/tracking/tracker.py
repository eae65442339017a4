"""What the rest of the service knows of experiment tracking: a small protocol, and a tracker that does nothing.

Drivers open the run of a pipeline, take one child per stage from it and hand a picklable `TrackerHandle` to the
workers, which attach to the same run. Only ``mlflow_tracker.py`` knows MLflow.
"""

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, Protocol

import numpy as np
from jaxtyping import UInt8

from qaclims_ray.settings import dotted

RunStatus = Literal["FINISHED", "FAILED", "KILLED"]
FAILURE_TAG = "failure"
"""Tag that says why a run failed."""
MACHINES = "machines"
"""Name of the run, below the pipeline's, that has the load of all machines: MLflow shows it before what was scored."""
MAX_PARAM_CHARS = 500
"""Longest parameter value, in characters: what every MLflow store keeps and a table of runs can show."""


@dataclass(frozen=True, kw_only=True)
class TrackerHandle:
    """All that another process needs to log into the same run; small and picklable."""

    uri: str
    """Tracking server or store."""
    experiment: str
    """Experiment name."""
    run_id: str
    """MLflow's run id, or ``pending:KEY`` when the server was away when the run was begun."""
    spool_dir: str
    """Folder or URI where calls are kept while they cannot be sent."""
    started_ms: int
    """Start of the run, milliseconds since 1970."""
    load_run_id: str = ""
    """The run that the load of machines is logged to: `MACHINES` below the pipeline's."""
    load_started_ms: int = 0
    """The pipeline's start: system metrics count their steps in seconds from here."""


@dataclass(frozen=True, kw_only=True)
class TrackedData:
    """A data set that a run read."""

    name: str
    """Its name."""
    digest: str
    """Fingerprint of what was read of it, at most 36 characters."""
    source: str
    """Where it lies."""
    counts: Mapping[str, int]
    """Numbers to show: images of a split, images of a class."""
    use: str
    """What for: a split's name."""


@dataclass(frozen=True, kw_only=True)
class TrackedModel:
    """A network to be served."""

    name: str
    """Its name in the list of models."""
    fingerprint: str
    """Of the network: the same one is kept once for each run."""
    loader: str
    """Module of this package that reads the folder, by its `_load_pyfunc`."""
    inputs: Mapping[str, str]
    """Columns of a request, and their types as MLflow calls them."""
    outputs: Mapping[str, str]
    """Columns of an answer."""
    example: Mapping[str, Any]
    """A request of one row."""
    requirement: str
    """The package that has to be installed where it is served, with its version."""
    note: str = ""
    """What stands above its page, as Markdown; ``MODEL_ID`` becomes its number."""
    params: Mapping[str, str] = field(default_factory=dict)
    """What it is, by name."""
    scores: Mapping[str, float] = field(default_factory=dict)
    """What it scored, by name of the metric."""
    scored_on: TrackedData | None = None
    """The images that it was scored on, with masks."""
    scored_by: str = ""
    """Name of the stage's run that scored it."""


class Tracker(Protocol):
    """One run. No call waits for the network; no call fails because a server is away."""

    def log_params(self, params: Mapping[str, Any]) -> None:
        """Record settings; nested mappings become dotted names. A parameter cannot change its value later."""
        ...

    def log_metrics(self, metrics: Mapping[str, float], step: int | None = None) -> None:
        """Record figures, at a step of a curve or once."""
        ...

    def set_tags(self, tags: Mapping[str, Any]) -> None:
        """Record labels that runs are searched and grouped by; a later value replaces an earlier one."""
        ...

    def log_image(self, image: UInt8[np.ndarray, "height width 3"], key: str, step: int | None = None) -> None:
        """Keep a picture: as one of a series when `step` is given, else as the file ``<key>.png``."""
        ...

    def log_artifact(self, local_path: str, folder: str = "") -> None:
        """Keep a file or folder as it is now (it is copied, so the caller may change or remove it)."""
        ...

    def log_table(self, columns: Mapping[str, Sequence[Any]], name: str) -> None:
        """Keep a table as ``tables/<name>.csv``; the columns are of one length."""
        ...

    def log_data(self, data: TrackedData) -> None:
        """Record a data set that the run read."""
        ...

    def log_model(self, folder: str, model: TrackedModel) -> bool:
        """Keep a network that can be served; the folder is copied, so the caller may change or remove it.

        Returns:
            Whether it was copied: a full disk stops no run.
        """
        ...

    def child(self, name: str) -> "Tracker":
        """Begin the run of a stage under this one, or go on with it when it was begun before."""
        ...

    def finish(self, status: RunStatus) -> None:
        """Say how the run ended; the tracker that was opened or attached also sends what is waiting."""
        ...

    def close(self) -> None:
        """Send what is waiting and leave the run as it is: the end of a worker that took part in it."""
        ...

    def handle(self) -> TrackerHandle | None:
        """Return what another process attaches with; None where nothing is tracked."""
        ...


class NullTracker:
    """A `Tracker` that keeps nothing: tracking is off, or this worker does not track."""

    def log_params(self, params: Mapping[str, Any]) -> None:
        """Keep nothing."""

    def log_metrics(self, metrics: Mapping[str, float], step: int | None = None) -> None:
        """Keep nothing."""

    def set_tags(self, tags: Mapping[str, Any]) -> None:
        """Keep nothing."""

    def log_image(self, image: UInt8[np.ndarray, "height width 3"], key: str, step: int | None = None) -> None:
        """Keep nothing."""

    def log_artifact(self, local_path: str, folder: str = "") -> None:
        """Keep nothing."""

    def log_table(self, columns: Mapping[str, Sequence[Any]], name: str) -> None:
        """Keep nothing."""

    def log_data(self, data: TrackedData) -> None:
        """Keep nothing."""

    def log_model(self, folder: str, model: TrackedModel) -> bool:
        """Keep nothing."""
        return False

    def child(self, name: str) -> Tracker:
        """Return this tracker."""
        return self

    def finish(self, status: RunStatus) -> None:
        """Do nothing."""

    def close(self) -> None:
        """Do nothing."""

    def handle(self) -> TrackerHandle | None:
        """Return None: there is no run."""
        return None


def flatten_params(params: Mapping[str, Any]) -> dict[str, str]:
    """Return nested settings as dotted names and short strings.

    Lists become JSON. A value over `MAX_PARAM_CHARS` is cut and ends in a hash of the whole, so that two runs whose
    values differ behind the cut still differ.
    """
    return {name: _short_text(value) for name, value in dotted(params).items()}


def _short_text(value: Any) -> str:
    text = value if isinstance(value, str) else json.dumps(value, default=str)
    if len(text) <= MAX_PARAM_CHARS:
        return text
    digest = hashlib.sha256(text.encode()).hexdigest()[:8]
    mark = f"... [{len(text)} characters, sha256 {digest}]"
    return text[: MAX_PARAM_CHARS - len(mark)] + mark
