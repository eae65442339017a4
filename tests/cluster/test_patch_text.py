"""Seeds without training, from drawn scenes to scores: no network of the run is there at the end."""

from pathlib import Path

import pytest

from qaclims_ray.data.artifacts import read_meta
from qaclims_ray.stages.layout import RunLayout
from qaclims_ray.stages.pipeline import run_pipeline
from tests.cluster.small_run import small_config

pytestmark = pytest.mark.ray


def test_seeds_are_made_and_scored_without_a_training(tmp_path: Path, shared_ray: None) -> None:
    config = small_config(systems=("patch_text",), goal="seed", cluster__num_workers=0)
    layout = RunLayout(str(tmp_path))
    scores = run_pipeline(config, str(tmp_path), until="evaluate").results.scores["patch_text"]
    assert scores.seed.miou_best > 0.25, "0.4 on the whole miniature; a mask over everything has 0.1"
    assert read_meta(layout.classifier) is None and not Path(layout.network("patch_text")).exists()
    made = read_meta(layout.cams("patch_text"))
    assert made is not None and set(made.inputs) == {"clip", "texts", "manifest"}
    run_pipeline(config, str(tmp_path), until="evaluate")
    assert read_meta(layout.cams("patch_text")) == made, "what is there is not made again"
