"""MLflow behind the `Tracker` protocol; it is imported only when a run is opened.

Logging calls go into an `Outbox` and return at once; its thread sends them here, each with the time at which it was
made, so that a call that is sent twice is stored once. A stage's run carries `KEY_TAG`, chosen here and not by the
server: with it a stage begun while the server is away and a pipeline submitted again find their own run.
"""

import logging
import posixpath
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

import PIL.Image

from qaclims_ray.data import storage
from qaclims_ray.data.addresses import without_credentials
from qaclims_ray.errors import DataError, ResourceError
from qaclims_ray.tracking.config import TrackingConfig
from qaclims_ray.tracking.journal import Entry
from qaclims_ray.tracking.logged_points import LoggedPoints, all_points
from qaclims_ray.tracking.mlflow_records import send_data, send_model
from qaclims_ray.tracking.mlflow_runs import (
    KEY_TAG,
    PARENT_TAG,
    REFUSALS,
    connected,
    experiment_of,
    find_run,
    go_on,
    pipeline_run,
)
from qaclims_ray.tracking.spool import DeliveryPostponed, DeliveryRefused, Outbox
from qaclims_ray.tracking.spooled_tracker import PENDING, Connection, SpooledTracker
from qaclims_ray.tracking.store import (
    SPOOL_NAME,
    artifact_root,
    first_line,
    follow_move,
    one_at_a_time,
    opening_failure,
    prepare_environment,
    spool_folder,
    tracking_uri,
)
from qaclims_ray.tracking.system_metrics import mlflow_samplers
from qaclims_ray.tracking.tracker import NullTracker, Tracker, TrackerHandle

if TYPE_CHECKING:
    from mlflow import MlflowClient

# What MLflow takes in one batch.
_MAX_METRICS = 1000
_MAX_PARAMS_TAGS = 100
_log = logging.getLogger(__name__)


def open_tracker(
    config: TrackingConfig,
    *,
    run_name: str,
    out_dir: str,
    identity: str = "",
    tags: Mapping[str, str] | None = None,
    parent_run_id: str = "",
    was_begun: bool = False,
    system_metrics: bool = True,
    system_metrics_interval_s: float = 10.0,
) -> Tracker:
    """Open the run of a pipeline, or go on with it when the same outputs were begun before.

    Args:
        config: where and whether to track.
        run_name: name of a new run in the UI.
        out_dir: output folder or URI; remembers its run in `RECORD_NAME`.
        identity: fingerprint of what decides the results; the run is continued only where it is the same, since a
            run's parameters cannot change.
        tags: tags of the run.
        parent_run_id: run of the same store under which the UI shows this one; empty for none.
        was_begun: a call has been at work in these outputs before: its run is looked for where the record is gone.
        system_metrics: log CPU, memory, disk, network and GPU of this machine, to a run `MACHINES` below this one.
        system_metrics_interval_s: seconds between two samples.

    Raises:
        ConfigError: when the address is none that MLflow takes, or the experiment was deleted.
        ResourceError: when the server does not answer now, before any work is done.
    """
    uri = tracking_uri(config, out_dir) if config.enabled else ""
    if not uri:
        if config.enabled:
            _log.warning("%s is not a local folder and tracking.uri is empty: this run is not tracked", out_dir)
        return NullTracker()
    try:
        with one_at_a_time(uri):
            client = connected(uri)
            experiment_id = experiment_of(client, config.experiment, artifact_root(uri, config.experiment, out_dir))
            follow_move(config, uri, out_dir)
        marks = {**(tags or {}), **({PARENT_TAG: parent_run_id} if parent_run_id else {})}
        run, resumed = pipeline_run(client, uri, experiment_id, config, run_name, out_dir, identity, marks, was_begun)
    except Exception as error:
        raise opening_failure(uri, error) from error
    tracker = _tracker(
        uri=uri,
        experiment=config.experiment,
        run=run.info.run_id,
        spool_dir=storage.join(storage.absolute(out_dir), SPOOL_NAME),
        started_ms=run.info.start_time,
        resumed=resumed,
    )
    if system_metrics:
        tracker.begin_machines(tags or {})
        tracker.watch_system(mlflow_samplers(), node="", interval_s=system_metrics_interval_s)
    return tracker


def attach(
    handle: TrackerHandle | None,
    *,
    system_metrics_node: str = "",
    system_metrics_interval_s: float = 10.0,
) -> Tracker:
    """Go on with a run from another process; never waits for the server.

    What the run already holds at a step is not logged again, so a restarted worker that repeats steps leaves one curve.

    Args:
        handle: from `Tracker.handle`; None gives a `NullTracker`.
        system_metrics_node: log this machine's load as ``system/<node>/...``, where the driver logs its own; empty
            logs none.
        system_metrics_interval_s: seconds between two samples.
    """
    if handle is None:
        return NullTracker()
    tracker = _tracker(
        uri=handle.uri,
        experiment=handle.experiment,
        run=handle.run_id,
        spool_dir=handle.spool_dir,
        started_ms=handle.started_ms,
        resumed=True,
        load=(handle.load_run_id, handle.load_started_ms) if handle.load_run_id else None,
    )
    if system_metrics_node:
        prepare_environment()
        tracker.watch_system(mlflow_samplers(), node=system_metrics_node, interval_s=system_metrics_interval_s)
    return tracker


def replay(spool_dir: str, uri: str, *, timeout_s: float = 60.0) -> int:
    """Send the calls that a run kept while its server was away.

    Args:
        spool_dir: folder or URI that the run named.
        uri: tracking server or store that holds the run.
        timeout_s: give up when nothing has moved for so long.

    Returns:
        The number of calls that were sent.

    Raises:
        DataError: when there is no such folder, or a file in it is no journal; the others are sent.
        ResourceError: when the server does not answer; nothing is lost.
    """
    with storage.local_copy(spool_dir) as folder:
        outbox = Outbox(Path(folder), Delivery(uri, Path(folder)), without_credentials(uri))
        num_calls = outbox.num_waiting
        if num_left := outbox.close(timeout_s):
            raise ResourceError(
                f"{num_left} of {num_calls} calls in {spool_dir} could not be sent: {without_credentials(uri)} does "
                "not answer. They are still there; start the server and run the command again"
            )
        if outbox.unreadable:
            path, reason = min(outbox.unreadable.items())
            raise DataError(f"{num_calls} calls were sent, but not {path.name} in {spool_dir}, which is kept: {reason}")
    if storage.is_remote(spool_dir):
        storage.remove_tree(spool_dir)
    return num_calls


class Delivery:
    """Turns entries of the spool into MLflow calls; used by the thread of one `Outbox`.

    Args:
        uri: tracking server or store.
        folder: local folder of the spool, where the copies of files lie.
        resumed: id or name of a run that another process may have logged to before.
    """

    def __init__(self, uri: str, folder: Path, *, resumed: str | None = None) -> None:
        self._uri = uri
        self._folder = folder
        self._client: MlflowClient | None = None
        self._run_ids: dict[str, str] = {}
        self._resumed = {resumed} if resumed else set()
        self._logged = LoggedPoints()

    def __call__(self, entries: list[Entry]) -> None:
        """Send calls of one kind and run.

        Raises:
            DeliveryPostponed: when the server does not answer.
            DeliveryRefused: when it will never take one of them.
        """
        # Broad on purpose: this is the edge of a thread, and whatever a client library raises must end in one of two
        # answers, or the calls behind it would never be sent.
        try:
            if self._client is None:
                self._client = connected(self._uri)
            self._send(self._client, entries)
        except (DeliveryPostponed, DeliveryRefused):
            raise
        except OSError as error:
            raise DeliveryPostponed(first_line(error)) from error
        except Exception as error:
            code = getattr(error, "error_code", "BAD_REQUEST")
            raise (DeliveryRefused if code in REFUSALS else DeliveryPostponed)(first_line(error)) from error

    def known_run_id(self, run: str) -> str | None:
        """Return the id of a run, when the server has given it one."""
        return self._run_ids.get(run) if run.startswith(PENDING) else run

    def _send(self, client: "MlflowClient", entries: list[Entry]) -> None:
        first = entries[0]
        match first["kind"]:
            case "create":
                self._begin(client, first)
            case "metrics":
                self._send_metrics(client, entries)
            case "params" | "tags":
                self._send_names(client, first)
            case "artifact":
                self._send_file(client, first)
            case "image":
                run_id = self._run_id(client, first["run"])
                with PIL.Image.open(self._kept_file(first)) as image:
                    client.log_image(run_id, image, key=first["key"], step=first["step"], timestamp=first["time"])
            case "data":
                send_data(client, self._run_id(client, first["run"]), first)
            case "model":
                scored_by = self._run_id(client, first["scored_by"]) if first.get("scores") else ""
                send_model(client, self._run_id(client, first["run"]), first, self._kept_file(first), scored_by)
            case "status":
                run_id = self._run_id(client, first["run"])
                client.set_terminated(run_id, status=first["status"], end_time=first["time"])
            case kind:
                raise DeliveryRefused(f"there is no call {kind!r}; was the spool written by another version?")

    def _begin(self, client: "MlflowClient", entry: Entry) -> None:
        key = entry["run"].removeprefix(PENDING)
        experiment_id = experiment_of(client, entry["experiment"], None)
        run = find_run(client, experiment_id, key)
        if run is None:
            tags = {KEY_TAG: key, PARENT_TAG: self._run_id(client, entry["parent"])}
            run = client.create_run(experiment_id, start_time=entry["time"], tags=tags, run_name=entry["name"])
        else:
            self._resumed.add(run.info.run_id)
            go_on(client, run)
        self._run_ids[entry["run"]] = run.info.run_id

    def _run_id(self, client: "MlflowClient", run: str) -> str:
        if not run.startswith(PENDING):
            return run
        if run not in self._run_ids:
            key = run.removeprefix(PENDING)
            experiments = [experiment.experiment_id for experiment in client.search_experiments()]
            found = next((hit for experiment_id in experiments if (hit := find_run(client, experiment_id, key))), None)
            if found is None:
                raise DeliveryPostponed(f"the run {key} is not begun yet")
            self._run_ids[run] = found.info.run_id
        return self._run_ids[run]

    def _send_metrics(self, client: "MlflowClient", entries: list[Entry]) -> None:
        from mlflow.entities import Metric

        run = entries[0]["run"]
        run_id = self._run_id(client, run)
        if run_id in self._resumed or run in self._resumed or any("adopted" in entry for entry in entries):

            def history(run_id: str, name: str) -> list[tuple[int, float]]:
                points = sorted(client.get_metric_history(run_id, name), key=lambda point: point.timestamp)
                return [(point.step, point.value) for point in points]

            points = self._logged.missing(run_id, entries, history)
        else:
            points = all_points(entries)
        metrics = [Metric(point.name, point.value, point.time, point.step) for point in points]
        for start in range(0, len(metrics), _MAX_METRICS):
            client.log_batch(run_id, metrics=metrics[start : start + _MAX_METRICS])
        self._logged.note(run_id, points)

    def _send_names(self, client: "MlflowClient", entry: Entry) -> None:
        from mlflow.entities import Param, RunTag

        run_id = self._run_id(client, entry["run"])
        values = list(entry["values"].items())
        for start in range(0, len(values), _MAX_PARAMS_TAGS):
            chunk = values[start : start + _MAX_PARAMS_TAGS]
            if entry["kind"] == "params":
                client.log_batch(run_id, params=[Param(name, value) for name, value in chunk])
            else:
                client.log_batch(run_id, tags=[RunTag(name, value) for name, value in chunk])

    def _send_file(self, client: "MlflowClient", entry: Entry) -> None:
        run_id, path = self._run_id(client, entry["run"]), self._kept_file(entry)
        if path.is_dir():  # keeps its own name, as a file does
            client.log_artifacts(run_id, str(path), posixpath.join(entry["folder"], path.name))
        else:
            client.log_artifact(run_id, str(path), entry["folder"] or None)

    def _kept_file(self, entry: Entry) -> Path:
        path = self._folder / entry["file"]
        if not path.exists():
            raise DeliveryRefused(f"its copy {path} is gone")
        return path


def _tracker(
    *,
    uri: str,
    experiment: str,
    run: str,
    spool_dir: str,
    started_ms: int,
    resumed: bool,
    load: tuple[str, int] | None = None,
) -> SpooledTracker:
    folder = spool_folder(spool_dir)
    delivery = Delivery(uri, folder, resumed=run if resumed else None)
    connection = Connection(
        uri=uri,
        experiment=experiment,
        spool_dir=spool_dir,
        outbox=Outbox(folder, delivery, without_credentials(uri)),
        known_run_id=delivery.known_run_id,
    )
    return SpooledTracker(connection, run, started_ms=started_ms, owns_connection=True, load=load)
