"""The sizing table: its arithmetic, its settings and its page."""

import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from benchmarks import sizing
from qaclims_ray.cams.store import ImageCam, write_cam_shard
from qaclims_ray.presets.table import preset
from qaclims_ray.run_config import with_overrides

ROOT = Path(__file__).resolve().parents[3]
VOC = sizing.Workload(preset("voc12"), 10_582, 1.5)
RATES = {name: row["value"] for name, row in json.loads(sizing.THROUGHPUTS.read_text()).items()}


def _hours(load: sizing.Workload, stage: str, gpus: int = 1) -> float | None:
    return next(cost for cost in sizing.stage_costs(load) if cost.name.startswith(stage)).hours(gpus, RATES)


def test_hours_are_those_worked_out_by_hand():
    assert _hours(VOC, "corpus") == pytest.approx(10_582 * 1.5 * 16 / 2043 / 3600)
    # Two systems, 15 epochs; 192 + 1.5 * 644 GFLOP an image.
    assert _hours(VOC, "RITC") == pytest.approx(2 * 15 * 10_582 * 1.158 / 184 / 3600)
    assert _hours(VOC, "CAMs") == pytest.approx(3 * 10_582 / 104 / 3600)
    # Three systems, 30,000 steps of 10 images; the bound where it is asked for.
    assert _hours(VOC, "final") == pytest.approx(3 * 300_000 * 0.801 / 150 / 3600)
    with_bound = replace(VOC, config=with_overrides(VOC.config, {"supervised_bound": True}))
    assert _hours(with_bound, "final network, 4 (with the bound)") == pytest.approx(4 * 300_000 * 0.801 / 150 / 3600)
    assert _hours(VOC, "CAMs", 4) == pytest.approx(_hours(VOC, "CAMs") / 4)


def test_settings_are_those_of_the_preset():
    longer = replace(VOC, config=with_overrides(VOC.config, {"ritc.optim.epochs": 30, "cluster.precision": "fp32"}))
    assert _hours(longer, "RITC") == pytest.approx(2 * _hours(VOC, "RITC") * 184 / 41)
    assert _hours(longer, "final") is None, "no rate of a backbone was measured in fp32"
    other = replace(VOC, config=with_overrides(VOC.config, {"corpus.num_beams": 1, "cams.flip": False}))
    assert _hours(other, "corpus") is None and _hours(other, "CAMs") is None
    fewer = replace(VOC, config=with_overrides(VOC.config, {"systems": ["baseline", "qa_clims"]}))
    assert _hours(fewer, "RITC") == pytest.approx(_hours(VOC, "RITC") / 2)


def test_what_nobody_measured_has_no_hours():
    assert _hours(VOC, "IRN") is None and _hours(VOC, "label maps") is None
    table = sizing.sizing_table(VOC, [1])
    assert table.count("not measured |") == 2 and "derived" in table


def test_cams_take_no_more_than_said(tmp_path):
    height, width = 375, 500
    maps = torch.rand(2, height, width)
    grid = torch.rand(2, -(-height // 4), -(-width // 4))
    write_cam_shard(str(tmp_path / "cams.parquet"), [ImageCam("a", (0, 1), maps, grid, height, width)], "float16")
    one_system = sizing.Workload(with_overrides(VOC.config, {"systems": ["baseline"]}), 1, 2)
    said = sizing.storage_gib(one_system)["CAMs, 1 systems, at most"] * sizing.GIB
    # Noise hardly compresses, so the bound is met nearly.
    assert 0.8 * said < (tmp_path / "cams.parquet").stat().st_size < 1.02 * said


def test_the_page_holds_what_the_command_prints():
    text = (ROOT / "docs" / "cluster" / "sizing.md").read_text()
    assert text.split(sizing.START)[1].split(sizing.END)[0].strip() == sizing.page_tables([1, 2, 4, 8])


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--images", "0"], "expected at least one image"),
        (["--gpus", "0"], "expected one or more numbers of at least 1"),
        (["--images", "9", "--preset", "voc12_weaktr"], "not sized here"),
    ],
)
def test_what_cannot_be_sized_is_said(arguments, message, monkeypatch):
    monkeypatch.setattr(sys, "argv", ["sizing.py", *arguments])
    with pytest.raises(SystemExit, match=message):
        sizing.main()


def test_it_runs_as_a_command():
    command = [sys.executable, "benchmarks/sizing.py", "--images", "100", "--gpus", "2"]
    printed = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout
    assert "100 images" in printed and "hours, 2 GPUs" in printed
