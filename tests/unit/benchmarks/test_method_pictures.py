"""Pictures of the methods: which systems they show, and that they come out of a run folder."""

import json
import sys

import torch
from PIL import Image

from benchmarks import method_pictures
from qaclims_ray.cams.inference import ImageCam
from qaclims_ray.cams.store import write_cam_shard
from qaclims_ray.data.shards import shard_name
from qaclims_ray.presets.table import preset
from qaclims_ray.run_config import to_dict, with_overrides
from qaclims_ray.stages.data import run_data
from qaclims_ray.stages.layout import RunLayout
from qaclims_ray.stages.stage import Stage


def test_every_method_is_shown_with_the_baseline_in_front_of_it():
    config = with_overrides(preset("miniature_semples"), {"systems": ["baseline", "clims", "qa_clims", "no_fat"]})
    shown = {"classifier": ["baseline"], "clims": ["baseline", "clims"], "qa_clims": ["baseline", "qa_clims", "no_fat"]}
    assert method_pictures.systems_by_method(config) == shown


def test_a_method_without_a_baseline_in_its_run_is_shown_alone():
    config = with_overrides(preset("miniature"), {"systems": ["qa_clims", "fully_supervised"]})
    assert method_pictures.systems_by_method(config) == {"qa_clims": ["qa_clims"]}


def test_pictures_are_small_files_made_of_what_a_run_left(tmp_path, monkeypatch):
    changes = {"data.num_images": 8, "systems": ["baseline", "qa_clims"], "goal": "seed"}
    config, layout = with_overrides(preset("miniature"), changes), RunLayout(str(tmp_path / "run"))
    manifest = run_data(Stage(config, layout)).subset("train")
    cams = [
        ImageCam(one.image_id, one.labels, torch.rand(len(one.labels), 64, 64), None, 64, 64)
        for one in manifest.records
    ]
    for system in config.systems:
        write_cam_shard(f"{layout.cams(system)}/{shard_name(0)}", cams, "float16")
    (tmp_path / "run" / "config.json").write_text(json.dumps(to_dict(config)))

    monkeypatch.setattr(sys, "argv", ["pictures", str(tmp_path / "run"), "--out", str(tmp_path), "--images", "2"])
    method_pictures.main()

    sizes = {name: Image.open(tmp_path / f"{name}.png").size for name in ("classifier", "qa_clims")}
    assert sizes["classifier"][0] < sizes["qa_clims"][0] and sizes["classifier"][1] == sizes["qa_clims"][1]
    assert (tmp_path / "qa_clims.png").stat().st_size < 100_000
