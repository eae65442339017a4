"""The script for a GPU, tried on a CPU with tiny sizes."""

import json

import torch

from benchmarks import gpu
from tests.unit.models.cpu_recorder import record_on_cpu


def test_components_run_both_ways_and_agree(tmp_path, capsys):
    threads = torch.get_num_threads()
    code = gpu.main(
        ["classifier_step", "irn_walk", "crf", "blip", "--seconds", "0", "--json", str(tmp_path / "gpu.json")]
    )
    torch.set_num_threads(threads)
    printed = capsys.readouterr().out
    assert code == 0, printed
    found = json.loads((tmp_path / "gpu.json").read_text())
    assert list(found["components"]) == ["classifier_step", "irn_walk", "crf", "blip"]
    for name, one in found["components"].items():
        assert name in printed
        assert one["ms"] > 0 and one["images_per_s"] > 0 and one["repeats"] >= 3
        assert one["difference"] < 1e-3 and one["launches"] is None and one["uncaptured_ms"] is None
    assert found["components"]["classifier_step"]["tflop_per_s"] > 0


def test_what_is_captured_is_measured_beside_what_is_not(monkeypatch):
    recorded = record_on_cpu(monkeypatch)
    found = gpu.measure("classifier_step", 0)
    assert recorded == ["CamNet"] and found["uncaptured_ms"] > 0
    assert found["uncaptured_difference"] == 0 and found["difference"] < 1e-3 and found["tflop_per_s"] > 0


def test_one_that_fails_ends_nothing(monkeypatch, capsys):
    def broken(name, seconds):
        raise RuntimeError("no such kernel")

    monkeypatch.setattr(gpu, "measure", broken)
    assert gpu.main(["crf", "pamr"]) == 1
    assert capsys.readouterr().out.count("RuntimeError: no such kernel") == 2
