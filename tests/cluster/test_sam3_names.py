"""SAM 3 by class names, a tiny one with random weights, from drawn scenes to scored masks without a training."""

from pathlib import Path

import pytest

from qaclims_ray.data.artifacts import read_meta
from qaclims_ray.stages.layout import RunLayout
from qaclims_ray.stages.pipeline import run_pipeline
from tests.cluster.small_run import small_config
from tests.unit.refine import tiny_sams

pytestmark = pytest.mark.ray


def test_maps_are_made_and_masks_are_those_maps_cut_at_a_half(tmp_path: Path, shared_ray: None) -> None:
    model = tiny_sams.save_sam3_detector(tmp_path / "sam3")
    config = small_config(systems=("sam3_names",), goal="mask", cluster__num_workers=0, sam3_names__model=model)
    layout = RunLayout(str(tmp_path / "run"))
    found = run_pipeline(config, layout.out, until="refine").results
    made, masks = read_meta(layout.cams("sam3_names")), read_meta(layout.masks("sam3_names"))
    assert made is not None and set(made.inputs) == {"sam3", "manifest"}
    assert (
        masks is not None
        and masks.settings["masks"]["steps"] == []
        and masks.settings["masks"]["seed_threshold"] == 0.5
    )
    assert read_meta(layout.classifier) is None
    assert found.scores["sam3_names"].seed.miou_fixed == found.masks["sam3_names"].scores.miou_fixed
    run_pipeline(config, layout.out, until="refine")
    assert read_meta(layout.cams("sam3_names")) == made, "what is there is not made again"
