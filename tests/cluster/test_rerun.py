"""A run repeated on a real local Ray makes the same files, byte for byte."""

import json
from pathlib import Path

import pytest

from qaclims_ray.commands.main import run_verb
from qaclims_ray.stages.pipeline import run_pipeline
from tests.cluster.small_run import small_config

pytestmark = [pytest.mark.ray, pytest.mark.timeout(1800), pytest.mark.usefixtures("shared_ray")]

_SHORT = {
    "goal": "segmentation",
    "cluster__num_workers": 2,
    "masks__irn__optim__epochs": 1,
    "segmentation__optim__epochs": 1,
    "segmentation__steps_per_epoch": 2,
}


@pytest.mark.parametrize("more", [{}, pytest.param(_SHORT, marks=pytest.mark.slow)], ids=["seeds", "final networks"])
def test_all_files_are_the_same(tmp_path: Path, more: dict[str, object]) -> None:
    out = tmp_path / "first"
    run_pipeline(small_config(**more), str(out))
    assert run_verb("rerun", [str(out)]) == 0
    record = json.loads((tmp_path / "first-again" / "rerun.json").read_text())
    compared = {one["name"]: one["files"]["num_files"] for one in record["artefacts"]}
    assert {"corpus", "text_banks/qa_clims", "classifier", "networks/qa_clims", "cams/qa_clims"} <= compared.keys()
    assert record["is_same"] and record["surroundings"] == []
    if more:
        assert {"masks/qa_clims", "segmentation/qa_clims", "predictions/qa_clims"} <= compared.keys()
        assert compared["predictions/qa_clims"] > 150
