"""What MLflow shows under Datasets and Models: data sets that runs read, and networks that it can serve.

A call may be sent twice (`spool.py`): MLflow keeps one data set of a name and digest, and a model is looked for first.
"""

import json
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pandas as pd

from qaclims_ray.tracking.journal import Entry
from qaclims_ray.tracking.spool import DeliveryRefused
from qaclims_ray.tracking.store import first_line

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities import Metric
    from mlflow.models import ModelSignature

FINGERPRINT_TAG = "qaclims.network"
"""Tag of a model: which network it holds."""
_DIGEST_CHARS = 36
_AGAIN = (408, 429)
"""Answers of 400 to 499 that say: later."""


def send_data(client: "MlflowClient", run_id: str, entry: Entry) -> None:
    """Record a data set (`tracker.TrackedData`) as read by a run."""
    from mlflow.entities import Dataset, DatasetInput, InputTag

    dataset = Dataset(
        name=entry["name"],
        digest=_digest(entry),
        source_type="local" if "://" not in entry["source"] else entry["source"].partition("://")[0],
        source=json.dumps({"uri": entry["source"]}),
        profile=json.dumps(entry["counts"]),
    )
    client.log_inputs(run_id, [DatasetInput(dataset, [InputTag("mlflow.data.context", entry["use"])])])


def send_model(client: "MlflowClient", run_id: str, entry: Entry, folder: Path, scored_by: str = "") -> None:
    """Keep a network (`tracker.TrackedModel`) as an MLflow model of a run, unless the run has it.

    Args:
        client: of the store.
        run_id: the run that made it.
        entry: the call.
        folder: what its loader reads.
        scored_by: the run that scored it; empty where none did.

    Raises:
        DeliveryRefused: when the server keeps no models, or none so large.
    """
    import mlflow.pyfunc
    from mlflow.entities import LoggedModelOutput
    from mlflow.models import Model

    experiment_id = client.get_run(run_id).info.experiment_id
    tags = {FINGERPRINT_TAG: entry["fingerprint"]}
    there = client.search_logged_models([experiment_id], f"tags.`{FINGERPRINT_TAG}` = '{entry['fingerprint']}'")
    own = {str(model.status): model for model in there if model.source_run_id == run_id}
    if "READY" in own:
        return
    try:
        # One that a process left half sent, or is still sending, is filled again.
        logged = own.get("PENDING") or client.create_logged_model(
            experiment_id, entry["name"], run_id, tags, entry.get("params"), model_type="segmentation"
        )
        if entry.get("note"):
            note = entry["note"].replace("MODEL_ID", logged.model_id)
            client.set_logged_model_tags(logged.model_id, {"mlflow.note.content": note})
        with tempfile.TemporaryDirectory() as scratch:
            path = Path(scratch, "model")
            mlflow.pyfunc.save_model(
                path,
                loader_module=entry["loader"],
                data_path=str(folder),
                signature=_signature(entry),
                input_example=pd.DataFrame([entry["example"]]),
                pip_requirements=[entry["requirement"]],
                mlflow_model=Model(model_id=logged.model_id, run_id=run_id),
            )
            client.log_model_artifacts(logged.model_id, str(path))
        if scored_by:
            client.log_batch(scored_by, metrics=_model_metrics(entry, logged.model_id))
        client.finalize_logged_model(logged.model_id, "READY")
        client.log_outputs(run_id, [LoggedModelOutput(logged.model_id, step=0)])
    except Exception as error:
        # The calls behind it wait for this one: what the server will never take must not be sent for ever.
        if _is_refusal(error):
            raise DeliveryRefused(first_line(error)) from error
        raise


def _model_metrics(entry: Entry, model_id: str) -> "list[Metric]":
    """Return what a model scored; the time is the call's own, so that one that is sent twice is stored once."""
    from mlflow.entities import Metric

    on = entry["scored_on"]
    data = {"dataset_name": on["name"], "dataset_digest": _digest(on)} if on else {}
    return [Metric(name, value, entry["time"], 0, model_id=model_id, **data) for name, value in entry["scores"].items()]


def _digest(data: Mapping[str, Any]) -> str:
    return data["digest"][:_DIGEST_CHARS]


def _is_refusal(error: Exception) -> bool:
    """Whether a server says that it has no models (before MLflow 3), or takes no body of that size."""
    status = getattr(getattr(error, "response", None), "status_code", None) or 0
    return getattr(error, "error_code", "") == "ENDPOINT_NOT_FOUND" or (400 <= status < 500 and status not in _AGAIN)


def _signature(entry: Entry) -> "ModelSignature":
    from mlflow.models import ModelSignature
    from mlflow.types import ColSpec, Schema

    inputs, outputs = (
        Schema([ColSpec(kind, name) for name, kind in entry[side].items()]) for side in ("inputs", "outputs")
    )
    return ModelSignature(inputs, outputs)
