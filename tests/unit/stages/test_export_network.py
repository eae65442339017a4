"""Taking a network away: what is written, that it says what the run's says, and what is refused."""

import base64
import io
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from rich.console import Console

import qaclims_ray
from qaclims_ray.data.artifacts import Artifact
from qaclims_ray.data.folder_owner import owning
from qaclims_ray.data.manifest import ImageRecord, Manifest, manifest_artifact, write_manifest
from qaclims_ray.errors import ArtifactError, ConfigError, DataError, ModelError
from qaclims_ray.evaluation.sweep import SeedScores, SweepCurve
from qaclims_ray.models.generators.mask_generator import build_mask_generator, save_mask_generator
from qaclims_ray.presets.table import preset
from qaclims_ray.run_config import to_dict, with_overrides
from qaclims_ray.segmentation.networks.network import build_segmentation_network, save_segmentation_network
from qaclims_ray.stages import export_network
from qaclims_ray.stages.export_network import run_export_network
from qaclims_ray.stages.layout import RunLayout
from qaclims_ray.stages.log_network import log_network, tracked_model
from qaclims_ray.stages.requests import ExportNetworkArguments
from qaclims_ray.stages.served import ServedNetwork, _load_pyfunc
from qaclims_ray.stages.stage import Stage
from qaclims_ray.systems.table import system_config
from qaclims_ray.tracking.tracker import NullTracker, TrackedModel, TrackerHandle
from tests.finished_artifacts import finished

NAMES = ("cat", "dog", "bird")
SYSTEM = "qa_clims"


@pytest.fixture(scope="module")
def run(tmp_path_factory) -> str:
    """A finished run with random networks."""
    folder = tmp_path_factory.mktemp("runs") / "mine"
    overrides = {"segmentation.net.weights": "random", "segmentation.test.scales": [1.0, 0.75]}
    config = with_overrides(preset("miniature"), overrides)
    layout = RunLayout(str(folder))
    folder.mkdir()
    (folder / "config.json").write_text(json.dumps(to_dict(config)))
    records = tuple(
        ImageRecord(
            image_id=name, image_uri=f"{name}.png", width=40, height=33, labels=(0,), mask_uri="", splits=("train",)
        )
        for name in "ab"
    )
    write_manifest(Manifest(NAMES, records), manifest_artifact(layout.manifest, {}))
    torch.manual_seed(0)
    network = build_segmentation_network(config.segmentation.net, len(NAMES) + 1)
    save_segmentation_network(network, layout.segmentation(SYSTEM))
    finished(Artifact(uri=layout.segmentation(SYSTEM), kind="segmentation", settings={}, verb="segment"))
    for uri, kind in ((layout.classifier, "classifier"), (layout.network(SYSTEM), "network")):
        save_mask_generator(build_mask_generator(config.cam_net, len(NAMES)), uri)
        finished(Artifact(uri=uri, kind=kind, settings={}, verb="train"))
    return str(folder)


def asked(run: str, out: Any, **more: Any) -> ExportNetworkArguments:
    return ExportNetworkArguments(**({"run": run, "out": str(out), "system": SYSTEM} | more))


def quiet() -> Console:
    return Console(quiet=True)


@pytest.fixture(scope="module")
def hub(run, tmp_path_factory) -> Any:
    folder = tmp_path_factory.mktemp("taken") / "hub"
    run_export_network(asked(run, folder, to=("hub",)), quiet())
    return folder


def picture() -> Image.Image:
    values = np.random.default_rng(0).integers(0, 256, (6, 9, 3), dtype=np.uint8)
    return Image.fromarray(values).resize((45, 30), Image.Resampling.BICUBIC)


def test_a_hub_folder_says_what_the_run_says(run, hub) -> None:
    ours, theirs = (qaclims_ray.load(run, system=SYSTEM), qaclims_ray.load(hub))
    assert theirs.class_names == NAMES
    assert (ours.predict(picture()).labels == theirs.predict(picture()).labels).all()
    assert np.allclose(ours.predict(picture()).scores, theirs.predict(picture()).scores)
    with pytest.raises(ConfigError, match="holds one exported network"):
        qaclims_ray.load(hub, system=SYSTEM)


def test_a_hub_folder_has_what_hubs_read(hub) -> None:
    config = json.loads((hub / "config.json").read_text())
    assert config["id2label"] == {"0": "background", "1": "cat", "2": "dog", "3": "bird"}
    assert config["label2id"]["bird"] == 3
    assert json.loads((hub / "preprocessor_config.json").read_text())["image_mean"] == [0.5] * 3
    card = (hub / "README.md").read_text()
    assert card.startswith('---\nlicense: "') and "Not scored" in card and "train 2" in card and "## Licences" in card
    assert (hub / "model.safetensors").stat().st_size > 1000


def test_a_broken_hub_folder_is_told(hub, tmp_path) -> None:
    for file in hub.iterdir():
        (tmp_path / file.name).write_bytes(file.read_bytes())
    (tmp_path / "model.safetensors").write_bytes(b"x" * 50)
    with pytest.raises(ArtifactError, match="broken"):
        qaclims_ray.load(tmp_path)


def test_what_the_file_cannot_do_is_said(run) -> None:
    overrides = {"segmentation.test.scales": [1.0, 0.75], "segmentation.test.window_px": 64}
    whole = with_overrides(preset("miniature"), overrides)
    segmentation = system_config(whole, SYSTEM).segmentation
    told = " ".join(export_network._final_differs(segmentation, (64, 64)))
    assert "scales 1, 0.75" in told and "windows of 64" in told and "64x64" in told and "CRF" in told


@pytest.mark.parametrize(
    ("more", "message"),
    [
        ({"network": "cam", "to": ("hub",)}, "--to hub is for final networks"),
        ({"network": "cam", "size": (64, 64)}, "--size is for final networks"),
        ({"network": "final", "threshold": 0.4, "to": ("hub",)}, "--threshold is a background score of CAMs"),
        ({"network": "final", "size": (64, 64), "to": ("hub",)}, "--size is the size inside network.onnx"),
        ({"network": "final", "label_threshold": 0.9, "to": ("hub",)}, "--label-threshold is for CAMs"),
    ],
)
def test_options_that_do_not_go_together_are_refused(run, tmp_path, more, message) -> None:
    with pytest.raises(ConfigError, match=message):
        run_export_network(asked(run, tmp_path / "out", **more), quiet())
    with pytest.raises(ConfigError, match="multiples of 32"):
        asked(run, tmp_path, size=(50, 64))
    with pytest.raises(ConfigError, match="expected a probability"):
        asked(run, tmp_path, label_threshold=50.0)


def test_a_folder_of_other_things_is_refused_and_an_export_of_before_is_not(run, tmp_path) -> None:
    (tmp_path / "README.md").write_text("mine")
    for out in (run, tmp_path):
        with pytest.raises(ConfigError, match="holds other things, which an export could replace"):
            run_export_network(asked(run, out, to=("hub",)), quiet())
    assert (tmp_path / "README.md").read_text() == "mine"
    for _ in range(2):
        with owning(
            str(tmp_path / "taken"), "qaclims export-network"
        ):  # as the command does, which leaves a mark there
            run_export_network(asked(run, tmp_path / "taken", to=("hub",)), quiet())


def test_absent_packages_are_told_before_anything_is_written(run, tmp_path, monkeypatch) -> None:
    def refuse() -> None:
        raise ModelError('pip install "qaclims-ray[onnx]"')

    monkeypatch.setattr(export_network, "require_onnx", refuse)
    with pytest.raises(ModelError, match="pip install"):
        run_export_network(asked(run, tmp_path / "out"), quiet())
    assert not (tmp_path / "out").exists()


SCORES = SeedScores(
    threshold_fixed=0.5, miou_fixed=0.6, false_positive_rate=0.1, false_negative_rate=0.1, iou={"cat": 0.6},
    threshold_label_free=0.5, miou_label_free=0.6, threshold_best=0.5, miou_best=0.6, false_positive_rate_best=0.1,
    false_negative_rate_best=0.1, iou_best={"cat": 0.6}, num_images=1,
    curve=SweepCurve(thresholds=(0.5,), miou=(0.6,), false_positive_rate=(0.1,), false_negative_rate=(0.1,)),
)  # fmt: skip


class Kept(NullTracker):
    """Keeps the models it is given."""

    def __init__(self) -> None:
        self.models: list[TrackedModel] = []

    def log_model(self, folder: str, model: TrackedModel) -> bool:
        self.models.append(model)
        return True

    def handle(self) -> TrackerHandle:
        return TrackerHandle(uri="", experiment="x", run_id="1", spool_dir="", started_ms=0)


def test_the_tracker_gets_a_network_once_and_none_that_is_too_large(run) -> None:
    layout = RunLayout(run)
    manifest = Manifest(NAMES, (ImageRecord("a", "a.png", 40, 33, (0,), splits=("train",)),))
    tracker = Kept()
    for limit, number in ((0, 0), (1, 0), (500, 1), (500, 1)):  # it has 1.1 MB
        config = with_overrides(
            preset("miniature"), {"segmentation.net.weights": "random", "tracking.max_model_mb": limit}
        )
        stage = Stage(system_config(config, SYSTEM), layout)
        log_network(stage, tracker, config, SYSTEM, manifest, SCORES)
        assert len(tracker.models) == number
    (model,) = tracker.models
    assert (model.name, model.scored_by) == ("qa_clims-final", "qa_clims/segment")
    assert model.scores == pytest.approx({"model/miou": 0.6, "model/mdice": 0.75})
    assert model.scored_on is not None and model.scored_on.name == "miniature/val"
    assert model.params["system"] == SYSTEM and model.params["classes"] == str(len(NAMES))
    assert "models:/MODEL_ID" in model.note


def test_a_network_without_a_score_is_kept_without_figures(run) -> None:
    config, tracker = with_overrides(preset("miniature"), {"segmentation.net.weights": "random"}), Kept()
    manifest = Manifest(NAMES, (ImageRecord("a", "a.png", 40, 33, (0,), splits=("train",)),))
    Path(run, "tracked_models.json").unlink(missing_ok=True)
    log_network(Stage(system_config(config, SYSTEM), RunLayout(run)), tracker, config, SYSTEM, manifest, None)
    assert (tracker.models[0].scores, tracker.models[0].scored_on) == ({}, None)


@pytest.mark.parametrize("content", ["{half", "[]", '{"qa_clims": 3}'])
def test_a_damaged_record_of_what_the_tracker_has_is_written_anew(run, content: str) -> None:
    config = with_overrides(preset("miniature"), {"segmentation.net.weights": "random"})
    stage, tracker = Stage(system_config(config, SYSTEM), RunLayout(run)), Kept()
    manifest = Manifest(NAMES, (ImageRecord("a", "a.png", 40, 33, (0,), splits=("train",)),))
    record = Path(run, "tracked_models.json")
    record.write_text(content)
    for _ in range(2):
        log_network(stage, tracker, config, SYSTEM, manifest, SCORES)
    assert len(tracker.models) == 1 and list(json.loads(record.read_text())) == [SYSTEM]


def test_a_request_is_answered_with_a_mask(hub) -> None:
    served = _load_pyfunc(str(hub))
    assert isinstance(served, ServedNetwork)
    buffer = io.BytesIO()
    picture().save(buffer, format="PNG")
    (answer,) = served.predict({"image": [base64.b64encode(buffer.getvalue()).decode()]})
    mask = np.asarray(Image.open(io.BytesIO(base64.b64decode(answer["mask"]))))
    assert (mask == qaclims_ray.load(hub).predict(picture()).labels).all()
    assert set(json.loads(answer["found"])) <= set(NAMES)
    example = tracked_model(SYSTEM, "f").example
    assert len(served.predict({"image": [example["image"]]})) == 1
    with pytest.raises(DataError, match="row 0: column image is not an image"):
        served.predict({"image": ["no picture"]})
