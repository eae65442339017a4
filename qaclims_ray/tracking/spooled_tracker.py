"""The `Tracker` whose calls go through an `Outbox`: what a call becomes, and how a run is named before it exists."""

import csv
import json
import logging
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import PIL.Image
from jaxtyping import UInt8

from qaclims_ray.data import storage
from qaclims_ray.data.addresses import without_credentials
from qaclims_ray.errors import ResourceError
from qaclims_ray.tracking import metric_names, spool
from qaclims_ray.tracking.system_metrics import SystemMetrics
from qaclims_ray.tracking.tracker import (
    MACHINES,
    RunStatus,
    TrackedData,
    TrackedModel,
    Tracker,
    TrackerHandle,
    flatten_params,
)

PENDING = "pending:"
"""Prefix of the name of a run that is known by its key until the server has given it an id."""
REPLAY_COMMAND = "qaclims sync --spool {spool} --uri {uri}"
_FLUSH_TIMEOUT_S = 15.0
_HANDLE_TIMEOUT_S = 3.0
_log = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class Connection:
    """What the trackers of one process share."""

    uri: str
    """Tracking server or store."""
    experiment: str
    """Experiment name."""
    spool_dir: str
    """Folder or URI of the spool."""
    outbox: spool.Outbox
    """Where calls go."""
    known_run_id: Callable[[str], str | None]
    """Name of a run -> its id, as soon as the server has given one."""


class SpooledTracker:
    """One run, by id or by ``pending:KEY``. `owns_connection` marks the one that was opened or attached."""

    def __init__(
        self,
        connection: Connection,
        run: str,
        *,
        started_ms: int,
        owns_connection: bool,
        load: tuple[str, int] | None = None,
    ) -> None:
        self._connection = connection
        self._run = run
        self._started_ms = started_ms
        self._load_run, self._load_started_ms = load or (run, started_ms)
        self._machines: Tracker | None = None
        self._owns_connection = owns_connection
        self._system_metrics: SystemMetrics | None = None
        self._closed = False

    def begin_machines(self, tags: Mapping[str, str]) -> None:
        """Begin the run `MACHINES` below this one, or go on with it: `watch_system` and the workers log to it."""
        machines = SpooledTracker(self._connection, self._below(MACHINES), started_ms=0, owns_connection=False)
        machines._put("create", parent=self._run, name=MACHINES, experiment=self._connection.experiment)
        machines.set_tags({**tags, "stage": MACHINES})
        self._machines, self._load_run = machines, machines._run

    def watch_system(self, samplers: Sequence[Any], *, node: str, interval_s: float) -> None:
        """Log this machine's CPU, memory, disk, network and GPU until the tracker is closed."""

        def log(metrics: Mapping[str, float], step: int) -> None:
            entry = {"kind": "metrics", "run": self._load_run, "time": _now_ms(), "step": step}
            self._connection.outbox.put({**entry, "values": dict(metrics)})

        self._system_metrics = SystemMetrics(
            samplers, log, started_ms=self._load_started_ms, node=node, interval_s=interval_s
        )

    def log_params(self, params: Mapping[str, Any]) -> None:
        """See `Tracker.log_params`."""
        values = {metric_names.legal_name(name): text for name, text in flatten_params(params).items()}
        self._put("params", values=values)

    def log_metrics(self, metrics: Mapping[str, float], step: int | None = None) -> None:
        """See `Tracker.log_metrics`."""
        values = {metric_names.legal_name(name): float(value) for name, value in metrics.items()}
        self._put("metrics", values=values, step=step)

    def set_tags(self, tags: Mapping[str, Any]) -> None:
        """See `Tracker.set_tags`."""
        self._put("tags", values={name: str(value) for name, value in tags.items()})

    def log_image(self, image: UInt8[np.ndarray, "height width 3"], key: str, step: int | None = None) -> None:
        """See `Tracker.log_image`."""
        key = metric_names.legal_file(key)
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / f"{key.rpartition('/')[2]}.png"
            PIL.Image.fromarray(np.ascontiguousarray(image)).save(path)
            if step is None:
                self._put_file("artifact", str(path), folder=key.rpartition("/")[0])
            else:
                self._put_file("image", str(path), key=key, step=step)

    def log_artifact(self, local_path: str, folder: str = "") -> None:
        """See `Tracker.log_artifact`.

        Raises:
            FileNotFoundError: when there is nothing at `local_path`.
        """
        if not Path(local_path).exists():
            raise FileNotFoundError(local_path)
        self._put_file("artifact", local_path, folder=folder)

    def log_table(self, columns: Mapping[str, Sequence[Any]], name: str) -> None:
        """See `Tracker.log_table`."""
        # CSV: the UI shows it as a table, and a call that is sent twice leaves one (MLflow's own log_table appends).
        folder, _, file_name = f"tables/{metric_names.legal_file(name)}.csv".rpartition("/")
        with tempfile.TemporaryDirectory() as local_dir:
            path = Path(local_dir) / file_name
            with path.open("w", newline="", encoding="utf-8") as handle:
                writer = csv.writer(handle)
                writer.writerow(columns)
                writer.writerows(zip(*columns.values(), strict=True))
            self._put_file("artifact", str(path), folder=folder)

    def log_data(self, data: TrackedData) -> None:
        """See `Tracker.log_data`."""
        self._put("data", **asdict(data))

    def log_model(self, folder: str, model: TrackedModel) -> bool:
        """See `Tracker.log_model`."""
        return self._put_file("model", folder, **asdict(model) | {"scored_by": self._below(model.scored_by)})

    def child(self, name: str) -> Tracker:
        """See `Tracker.child`."""
        run, load = self._below(name), (self._load_run, self._load_started_ms)
        tracker = SpooledTracker(self._connection, run, started_ms=_now_ms(), owns_connection=False, load=load)
        tracker._put("create", parent=self._run, name=name, experiment=self._connection.experiment)
        return tracker

    def finish(self, status: RunStatus) -> None:
        """See `Tracker.finish`."""
        if self._machines is not None:
            self._stop_watching()
            self._machines.finish(status)
        self._put("status", status=status)
        self.close()

    def close(self) -> None:
        """See `Tracker.close`."""
        self._stop_watching()
        if not self._owns_connection or self._closed:
            return
        self._closed = True
        outbox = self._connection.outbox
        outbox.adopt()
        kept_in = [self._connection.spool_dir]

        def place(path: Path) -> str:
            return storage.join(self._connection.spool_dir, path.relative_to(outbox.folder).as_posix())

        def rescue(journals: dict[Path, bytes], files: list[Path]) -> bool:
            try:
                for path in files:
                    _upload(path, place(path))
                for path, content in journals.items():
                    storage.write_bytes(place(path), content)
            except ResourceError as error:
                _log.warning("%s", error)
                kept_in[0] = str(outbox.folder)
                return False
            return True

        is_remote = storage.is_remote(self._connection.spool_dir)
        if num_left := outbox.close(_FLUSH_TIMEOUT_S, rescue if is_remote else None):
            self._tell_what_is_left(num_left, kept_in[0])

    def handle(self) -> TrackerHandle | None:
        """See `Tracker.handle`."""
        deadline = time.monotonic() + _HANDLE_TIMEOUT_S
        while (run_id := self._connection.known_run_id(self._run)) is None and time.monotonic() < deadline:
            if self._connection.outbox.is_away:
                break
            time.sleep(0.02)
        return TrackerHandle(
            uri=self._connection.uri,
            experiment=self._connection.experiment,
            run_id=run_id or self._run,
            spool_dir=self._connection.spool_dir,
            started_ms=self._started_ms,
            load_run_id=self._connection.known_run_id(self._load_run) or self._load_run,
            load_started_ms=self._load_started_ms,
        )

    def _below(self, name: str) -> str:
        """Return the run of a stage: its key says which it is, so that the same one, begun again, is the same run."""
        return f"{PENDING}{self._run.removeprefix(PENDING)}/{name}"

    def _stop_watching(self) -> None:
        if self._system_metrics is not None:
            self._system_metrics.stop()

    def _put(self, kind: str, **what: Any) -> None:
        # The time goes with the call: sent later, or twice, it is the same point of the same curve.
        self._connection.outbox.put({"kind": kind, "run": self._run, "time": _now_ms(), **what})

    def _put_file(self, kind: str, local_path: str, **what: Any) -> bool:
        try:
            kept = spool.keep_copy(self._connection.outbox.folder, local_path)
        except OSError as error:
            _log.warning("%s is not tracked: it cannot be copied (%s)", local_path, error)
            return False
        self._put(kind, file=kept, **what)
        return True

    def _tell_what_is_left(self, num_left: int, kept_in: str) -> None:
        uri = without_credentials(self._connection.uri)
        _log.warning(
            "%d tracking calls could not be sent to %s; they are kept in %s. Send them when the server is back: %s",
            num_left, uri, kept_in, REPLAY_COMMAND.format(spool=kept_in, uri=uri),
        )  # fmt: skip


def _upload(path: Path, uri: str) -> None:
    if path.is_dir():
        storage.upload_tree(str(path), uri)
    else:
        storage.write_bytes(uri, path.read_bytes())


def _now_ms() -> int:
    return int(time.time() * 1000)


def read_json(content: bytes) -> dict[str, Any]:
    """Return a JSON object, or an empty one when the bytes are none."""
    try:
        value = json.loads(content)
    except (ValueError, RecursionError):
        return {}
    return value if isinstance(value, dict) else {}
