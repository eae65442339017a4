"""A method of forty lines from outside the package runs through the whole pipeline, under Ray."""

import importlib
import json
import shutil
from pathlib import Path

import pytest

from qaclims_ray.data.artifacts import read_meta
from qaclims_ray.methods.table import METHODS
from qaclims_ray.run_config import System
from qaclims_ray.stages.layout import RunLayout
from qaclims_ray.stages.pipeline import run_pipeline
from qaclims_ray.systems.table import with_systems
from tests.cluster.small_run import small_config

pytestmark = [pytest.mark.ray, pytest.mark.timeout(900)]

SOURCE = Path(__file__).with_name("pull_method.py")


def test_a_method_of_forty_lines_comes_to_scored_cams_and_a_row_of_the_report(
    shared_ray, outside, tmp_path, monkeypatch
):
    assert len(SOURCE.read_text().splitlines()) <= 40
    # Ray's workers import what they are handed by name: the driver's path and theirs lead to the folder.
    shutil.copy(SOURCE, outside / "brought_method.py")
    importlib.invalidate_caches()
    method = importlib.import_module("brought_method").PULL
    monkeypatch.setitem(METHODS, method.name, method)
    pulled = System(name="pulled", label="Pull", description="Pulled to the class text.", method="pull")
    config = with_systems(
        small_config(selection__criterion="clip_score", cluster__num_workers=1), ["baseline", "pulled"], [pulled]
    )

    outcome = run_pipeline(config, str(tmp_path / "run"))

    layout = RunLayout(str(tmp_path / "run"))
    network, cams = read_meta(layout.network("pulled")), read_meta(layout.cams("pulled"))
    assert network is not None and cams is not None
    assert network.kind == "pull" and cams.inputs["network"] == network.fingerprint
    assert {"loss/pull", "loss/area", "pairs", "selection/score"} <= network.summary.keys()
    scores = outcome.results.scores
    assert scores.keys() == {"baseline", "pulled"}
    assert scores["pulled"].seed.miou_best > 0 and scores["pulled"].seed != scores["baseline"].seed
    row = json.loads((tmp_path / "run" / "report" / "report.json").read_text())["systems"]["pulled"]
    assert row["label"] == "Pull" and row["seed"]["miou_fixed"] == scores["pulled"].seed.miou_fixed
    assert "Pulled to the class text." in (tmp_path / "run" / "report" / "report.html").read_text()
