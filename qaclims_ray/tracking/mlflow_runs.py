"""Runs of MLflow's store: opening a pipeline's own, finding a stage's, and the experiment they belong to."""

import json
import logging
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from qaclims_ray.data import storage
from qaclims_ray.data.artifacts import fingerprint_of
from qaclims_ray.errors import ConfigError
from qaclims_ray.tracking.config import TrackingConfig
from qaclims_ray.tracking.spooled_tracker import read_json
from qaclims_ray.tracking.store import prepare_environment, store_marks
from qaclims_ray.tracking.tracker import FAILURE_TAG

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities import Run

KEY_TAG = "qaclims.key"
"""Tag by which a stage's run is found: the parent's id and the stage's name."""
FOLDER_TAG = "qaclims.folder"
"""Tag by which a pipeline's run is found where its folder's record is damaged or another's: folder and settings."""
PARENT_TAG = "mlflow.parentRunId"
RECORD_NAME = "tracking.json"
"""File in the output folder that says which run tracks it."""
REFUSALS = {"INVALID_PARAMETER_VALUE", "RESOURCE_DOES_NOT_EXIST", "RESOURCE_ALREADY_EXISTS", "BAD_REQUEST"}
"""Errors that come again however often a call is sent. After any other the call is sent again."""
_log = logging.getLogger(__name__)


def pipeline_run(
    client: "MlflowClient",
    uri: str,
    experiment_id: str,
    config: TrackingConfig,
    run_name: str,
    out_dir: str,
    identity: str,
    tags: Mapping[str, str],
    was_begun: bool = False,
) -> tuple["Run", bool]:
    """Return the run that tracks an output folder, and whether it was begun before."""
    path = storage.join(out_dir, RECORD_NAME)
    store, earlier = store_marks(config, uri)
    expected = {"store": store, "experiment": config.experiment, "identity": identity}
    # By its name alone where the store lies beside it, since both may be moved together.
    folder = fingerprint_of([expected, out_dir if config.uri else out_dir.rstrip("/").rsplit("/", 1)[-1]])
    is_there = storage.exists(path)
    record = _sound(read_json(storage.read_bytes(path))) if is_there else {}
    if record.get("store") == earlier:
        record["store"] = store
    run = None
    if {name: record.get(name) for name in expected} == expected:
        run = _active_run(client, str(record["run_id"]))
    elif is_there or was_begun:  # damaged, gone, or of a call with other settings in between
        run = _run_with(client, experiment_id, FOLDER_TAG, folder)
        if is_there and not record:
            _log.warning(
                "%s is damaged: %s", path, "a new MLflow run is begun" if run is None else "it is written anew"
            )
    is_known = run is not None
    if run is not None:
        go_on(client, run)
        for name, value in {**tags, FOLDER_TAG: folder}.items():
            client.set_tag(run.info.run_id, name, value)
    else:
        run = client.create_run(experiment_id, tags={**tags, FOLDER_TAG: folder}, run_name=run_name)
    if {**expected, "run_id": run.info.run_id} != record:
        record = expected | {"run_id": run.info.run_id}
        content = json.dumps({**record, "seal": fingerprint_of(record)}, indent=2)
        storage.write_bytes(path, content.encode())
    return run, is_known


def _sound(record: dict[str, Any]) -> dict[str, Any]:
    """Return what a record says, or nothing where it is damaged; those of earlier versions have no seal."""
    seal = record.pop("seal", None)
    return record if "run_id" in record and seal in (None, fingerprint_of(record)) else {}


def go_on(client: "MlflowClient", run: "Run") -> None:
    """Open a run again; why it failed before is no more said of it."""
    client.update_run(run.info.run_id, status="RUNNING")
    if FAILURE_TAG in run.data.tags:
        client.delete_tag(run.info.run_id, FAILURE_TAG)


def _active_run(client: "MlflowClient", run_id: str) -> "Run | None":
    from mlflow.exceptions import MlflowException

    try:
        run = client.get_run(run_id)
    except MlflowException as error:
        if error.error_code in REFUSALS:
            return None
        raise
    return run if run.info.lifecycle_stage == "active" else None


def find_run(client: "MlflowClient", experiment_id: str, key: str) -> "Run | None":
    """Return a stage's run by its key."""
    return _run_with(client, experiment_id, KEY_TAG, key)


def _run_with(client: "MlflowClient", experiment_id: str, tag: str, value: str) -> "Run | None":
    quoted = value.replace("'", "''")
    runs = client.search_runs([experiment_id], filter_string=f"tags.`{tag}` = '{quoted}'", max_results=1)
    return runs[0] if runs else None


def experiment_of(client: "MlflowClient", name: str, root: str | None) -> str:
    """Return the id of an experiment, which is made where it is not there.

    Raises:
        ConfigError: when it was deleted.
    """
    from mlflow.exceptions import MlflowException

    experiment = client.get_experiment_by_name(name)
    if experiment is None:
        try:
            return client.create_experiment(name, artifact_location=root)
        except MlflowException as error:
            if error.error_code != "RESOURCE_ALREADY_EXISTS":
                raise
            experiment = client.get_experiment_by_name(name)  # another process made it in between
    if experiment is None or experiment.lifecycle_stage != "active":
        raise ConfigError(
            f"the MLflow experiment {name!r} was deleted; restore it or choose another: tracking.experiment"
        )
    return experiment.experiment_id


def connected(uri: str) -> "MlflowClient":
    """Return a client of a store."""
    prepare_environment()
    from mlflow import MlflowClient

    if uri.startswith("sqlite:///"):
        Path(uri.removeprefix("sqlite:///")).parent.mkdir(parents=True, exist_ok=True)
    return MlflowClient(tracking_uri=uri)
