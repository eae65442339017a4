"""What the script says of two precisions, on masks whose difference is known."""

from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import nn

from benchmarks.precision import ROUNDED, Run, _compared, _network_in
from qaclims_ray.cams.inference import ImageCam
from qaclims_ray.data.manifest import ImageRecord, Manifest
from qaclims_ray.presets.table import preset
from qaclims_ray.stages.layout import RunLayout


def test_differing_pixels_and_scores_are_those_of_the_masks(tmp_path: Path) -> None:
    truth = np.zeros((4, 8), np.uint8)
    truth[:, :4] = 1
    Image.fromarray(truth).save(tmp_path / "a.png")
    records = [ImageRecord("a", "a.jpg", 8, 4, (0,), str(tmp_path / "a.png"), None, ("train",))]
    run = Run(RunLayout(str(tmp_path)), preset("miniature"), Manifest(("cat",), tuple(records)), 5)
    assert run.records("train") == records and run.records("val") == []

    def maps(precision: str):
        full = torch.from_numpy(truth).float()[None].clone()
        if precision == "fp16":
            full[0, :2, 4:] = 1  # 8 of 32 pixels
        yield ImageCam("a", (0,), full, None, 4, 8)

    found = {row.precision: row for row in _compared("any", run, records, 0.5, maps)}
    assert found["bf16"].differs.startswith("0.000%") and found["bf16"].score == "100.00% -> 100.00%"
    assert found["fp16"].differs.startswith("25.000%") and found["fp16"].score == "100.00% -> 58.33%"


def test_norms_are_folded_but_in_fp32() -> None:
    network = nn.Sequential(nn.Conv2d(3, 2, 3), nn.BatchNorm2d(2))
    network_in = _network_in(network)
    assert network_in("fp32") is network and all(isinstance(network_in(each)[1], nn.Identity) for each in ROUNDED)
