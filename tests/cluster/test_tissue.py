"""Tissue without a background, from its published layout to final network, report and prediction, on a real Ray."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from rich.console import Console

from qaclims_ray.data.classes import LUAD_CLASSES
from qaclims_ray.errors import ConfigError
from qaclims_ray.presets.tissue import luad_histoseg
from qaclims_ray.run_config import RunConfig, with_overrides
from qaclims_ray.stages.pipeline import run_pipeline
from qaclims_ray.stages.predict import run_predict
from qaclims_ray.stages.requests import PredictArguments
from qaclims_ray.stages.results_console import print_results
from tests.tiny_tissue import write_luad

pytestmark = [pytest.mark.ray, pytest.mark.timeout(900), pytest.mark.usefixtures("shared_ray")]

TINY: dict[str, Any] = {
    "systems": ["baseline"],
    "corpus.gpus_per_actor": 0.0,
    "cam_net.backbone": "miniature",
    "cam_net.weights": "",
    "cam_net.output_stride": 4,
    "augment.crop_px": 32,
    "classifier.optim.name": "adamw",
    "classifier.optim.lr": 3e-3,
    "classifier.optim.head_lr_factor": 1.0,
    "classifier.optim.epochs": 6,
    "classifier.optim.batch_size": 16,
    "classifier.freeze_batch_norm": False,
    "cams.scales": [1.0],
    "cams.gpus_per_actor": 0.0,
    "masks.gpus_per_actor": 0.0,
    "masks.white_above": 235,  # brighter than any tissue of the drawn one
    "segmentation.net.architecture": "encoder",
    "segmentation.net.backbone": "miniature",
    "segmentation.net.weights": "random",
    "segmentation.crop.crop_px": 32,
    "segmentation.optim.name": "adamw",
    "segmentation.optim.lr": 3e-3,
    "segmentation.optim.head_lr_factor": 1.0,
    "segmentation.optim.epochs": 1,
    "segmentation.steps_per_epoch": 40,
    "segmentation.optim.batch_size": 8,
    "segmentation.accumulation": 1,
    "segmentation.freeze_batch_norm": False,
    "segmentation.optim.schedule_every": 1,
    "evaluation.contact_sheet_images": 2,
    "cluster.num_workers": 0,
    "cluster.cpus_per_worker": 1.0,
    "cluster.use_gpu": False,
    "cluster.precision": "fp32",
    "cluster.loader_workers": 0,
    "tracking.enabled": False,
}


@pytest.fixture(scope="module")
def config(tmp_path_factory) -> RunConfig:
    root = write_luad(tmp_path_factory.mktemp("tissue") / "LUAD-HistoSeg", num_train=64, num_val=8, num_test=8, side=32)
    return with_overrides(luad_histoseg(), {**TINY, "data.root": str(root)})


def _values(folder: Path) -> set[int]:
    return {int(value) for path in folder.glob("*.png") for value in np.unique(np.array(Image.open(path)))}


def test_tissue_goes_all_the_way_without_a_background(config, tmp_path) -> None:
    console = Console(record=True, width=100)
    outcome = run_pipeline(config, str(tmp_path), console=console)
    print_results(outcome, console)
    assert "Dice" in console.export_text() and "threshold" not in console.export_text()
    report = json.loads((tmp_path / "report" / "report.json").read_text())["systems"]["baseline"]
    for stage in ("seed", "mask", "segmentation", "segmentation_crf", "segmentation_on_seeds"):
        assert list(report[stage]["iou"]) == list(report[stage]["dice"]) == list(LUAD_CLASSES)
        # Drawn tissue is easy, and one class taken for another somewhere on the way would halve this.
        assert report[stage]["miou_fixed"] > 0.6 and report[stage]["mdice_fixed"] > report[stage]["miou_fixed"]
    assert _values(tmp_path / "masks" / "baseline") == {1, 2, 3, 4, 255}
    assert _values(tmp_path / "predictions" / "baseline") == {1, 2, 3, 4}
    network = json.loads((tmp_path / "segmentation" / "baseline" / "network.json").read_text())
    assert network["num_labels"] == 4
    _check_prediction(config, tmp_path)


def _check_prediction(config: RunConfig, run: Path) -> None:
    images = (f"{config.data.root}/test/img",)
    for network in ("cam", "final"):
        out = run / network
        # No probability exceeds 1: every image is left without a label but for its most probable one.
        arguments = PredictArguments(run=str(run), images=images, out=str(out), network=network, label_threshold=1.1)
        run_predict(arguments)
        assert _values(out / "masks") <= {1, 2, 3, 4}
        rows = json.loads((out / "predictions.json").read_text())["images"]
        assert len(rows) == 8 and all(row["labels"] for row in rows)
    with pytest.raises(ConfigError, match="luad_histoseg has none"):
        run_predict(PredictArguments(run=str(run), images=images, out=str(run / "x"), threshold=0.5))
