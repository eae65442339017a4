"""Data sets and models in MLflow, and that a kept model answers a request over HTTP with a mask."""

import base64
import io
import json
import os
import shutil
import socket
import threading
import time
import urllib.request
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from qaclims_ray.data.classes import Classes
from qaclims_ray.deployment.hub_folder import write_hub_folder
from qaclims_ray.deployment.network_facts import NetworkFacts
from qaclims_ray.segmentation.config import SegmentationNetConfig, SegmentationTestConfig
from qaclims_ray.segmentation.networks.network import build_segmentation_network
from qaclims_ray.stages.log_network import tracked_model
from qaclims_ray.stages.trained import load
from qaclims_ray.tracking import spooled_tracker
from qaclims_ray.tracking.config import TrackingConfig
from qaclims_ray.tracking.mlflow_tracker import open_tracker
from qaclims_ray.tracking.tracker import TrackedData

NAMES = ("cat", "dog")


@pytest.fixture
def runs(tmp_path, empty_store):
    shutil.copyfile(empty_store, tmp_path / "mlflow.db")
    return tmp_path


def client_of(runs):
    from mlflow import MlflowClient

    return MlflowClient(f"sqlite:///{runs}/mlflow.db")


def open_quiet(runs, **more):
    return open_tracker(TrackingConfig(), run_name="a", out_dir=str(runs / "a"), system_metrics=False, **more)


def run_of(runs, name):
    client = client_of(runs)
    experiment_id = client.get_experiment_by_name("qaclims").experiment_id
    return next(run for run in client.search_runs([experiment_id]) if run.info.run_name == name)


def test_a_data_set_is_listed_once_with_its_counts(runs):
    for _ in range(2):  # the run goes on, and says it again
        tracker = open_quiet(runs)
        tracker.log_data(
            TrackedData(
                name="voc12/train", digest="a" * 50, source="/data", counts={"images": 3, "cat": 2}, use="train"
            )
        )
        tracker.finish("FINISHED")
    (found,) = run_of(runs, "a").inputs.dataset_inputs
    assert (found.dataset.name, len(found.dataset.digest)) == ("voc12/train", 36)
    assert json.loads(found.dataset.profile) == {"images": 3, "cat": 2}
    assert json.loads(found.dataset.source) == {"uri": "/data"} and found.tags[0].value == "train"


def test_why_a_run_failed_is_forgotten_when_it_goes_on(runs):
    tracker = open_quiet(runs)
    stage = tracker.child("train")
    for each in (stage, tracker):
        each.set_tags({"failure": "DataError: no"})
        each.finish("FAILED")
    assert {run_of(runs, name).data.tags["failure"] for name in ("a", "train")} == {"DataError: no"}
    tracker = open_quiet(runs)
    tracker.child("train").finish("FINISHED")
    tracker.finish("FINISHED")
    assert not any("failure" in run_of(runs, name).data.tags for name in ("a", "train"))


def test_a_run_is_shown_under_the_one_it_is_part_of(runs):
    tracker = open_quiet(runs, parent_run_id="0123")
    tracker.finish("FINISHED")
    assert run_of(runs, "a").data.tags["mlflow.parentRunId"] == "0123"


def folder_of_network(path: Path) -> str:
    torch.manual_seed(0)
    config = SegmentationNetConfig(backbone="miniature", weights="random", width=16)
    network = build_segmentation_network(config, len(NAMES) + 1)
    facts = NetworkFacts(
        name="a, qa_clims",
        kind="final",
        architecture="encoder",
        classes=Classes(NAMES),
        normalisation=(config.image_mean, config.image_std),
        threshold=0.5,
        mirrored=True,
        example_size=(32, 40),
        data={},
        metrics={},
        licence="mit",
        version="0.1.0",
    )
    write_hub_folder(network, SegmentationTestConfig(), facts, str(path))
    return str(path)


def served(model_uri: str, row: dict[str, str]) -> list[dict[str, str]]:
    """Ask MLflow's own scoring server, the application that `mlflow models serve` runs."""
    import mlflow.pyfunc
    import uvicorn
    from mlflow.pyfunc.scoring_server import init

    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    app = init(mlflow.pyfunc.load_model(model_uri))
    server = uvicorn.Server(
        uvicorn.Config(app, host="127.0.0.1", port=port, log_level="critical", timeout_keep_alive=1)
    )
    thread = threading.Thread(target=server.run, daemon=True)
    thread.start()
    try:
        deadline = time.monotonic() + 60
        while not server.started and time.monotonic() < deadline:
            time.sleep(0.05)
        body = json.dumps({"dataframe_records": [row]}).encode()
        headers = {"Content-Type": "application/json"}
        request = urllib.request.Request(f"http://127.0.0.1:{port}/invocations", body, headers)
        with urllib.request.urlopen(request, timeout=60) as answer:
            return json.load(answer)["predictions"]
    finally:
        server.should_exit = True
        thread.join(30)


def test_a_model_is_kept_once_and_answers_a_request_with_a_mask(runs, monkeypatch):
    monkeypatch.setattr(spooled_tracker, "_FLUSH_TIMEOUT_S", 120.0)  # a busy machine may be slow to send it
    folder = folder_of_network(runs / "network")
    on = TrackedData(name="voc12/val", digest="b" * 50, source="/data", counts={"images": 3}, use="val")
    scored = {"scores": {"model/miou": 0.5}, "scored_on": on, "scored_by": "qa_clims/segment"}
    said = {"note": "ask `models:/MODEL_ID`", "params": {"system": "qa_clims"}}
    for _ in range(2):
        tracker = open_quiet(runs)
        stage = tracker.child("qa_clims/segment")
        tracker.log_model(folder, replace(tracked_model("qa_clims", "fingerprint"), **scored, **said))
        stage.finish("FINISHED")
        tracker.finish("FINISHED")
    run, client = run_of(runs, "a"), client_of(runs)
    (model,) = client.search_logged_models([run.info.experiment_id])
    (metric,) = model.metrics
    assert (metric.key, metric.value, metric.run_id) == (
        "model/miou",
        0.5,
        run_of(runs, "qa_clims/segment").info.run_id,
    )
    assert (metric.dataset_name, metric.dataset_digest) == ("voc12/val", "b" * 36)
    assert model.params == {"system": "qa_clims"} and "model/miou" not in run.data.metrics
    assert model.tags["mlflow.note.content"] == f"ask `models:/{model.model_id}`"
    assert (model.name, str(model.status), model.source_run_id) == ("qa_clims-final", "READY", run.info.run_id)
    assert [output.model_id for output in run.outputs.model_outputs] == [model.model_id]
    place = Path(model.artifact_location.removeprefix("file://"))
    assert "saved_input_example_info" in (place / "MLmodel").read_text()

    pixels = np.random.default_rng(0).integers(0, 256, (30, 40, 3), dtype=np.uint8)
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, format="PNG")
    monkeypatch.setitem(os.environ, "MLFLOW_TRACKING_URI", f"sqlite:///{runs}/mlflow.db")
    (answer,) = served(str(place), {"image": base64.b64encode(buffer.getvalue()).decode()})
    mask = np.asarray(Image.open(io.BytesIO(base64.b64decode(answer["mask"]))))
    assert (mask == load(folder, device="cpu").predict(pixels).labels).all()
    assert set(json.loads(answer["found"])) <= set(NAMES)
