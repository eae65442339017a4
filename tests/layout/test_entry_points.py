"""What an entry point loads: help, version and typos answer at once, because nothing loads what it does not run."""

import subprocess
import sys

import pytest

HEAVY = (
    *("torch", "torchvision", "transformers", "timm", "open_clip", "accelerate", "ray", "mlflow", "pyarrow", "numpy"),
    *("pandas", "scipy", "matplotlib"),
)
"""Libraries that take from a tenth of a second to seconds."""
LINES = (
    "",
    "--help",
    "--version",
    "rum miniature",
    "help",
    "help rnu",
    "help run",
    "run --help",
    "run miniature --help",
    "run miniature --help-all",
    "run runs/nowhere",
    "fetch --help",
    "fetch --lst",
    "run miniatur --out x",
    "run miniature --otu x",
    "run miniature --out x --ritc.omegga 0.1",
    "ablate nosuch miniature",
    "tune miniature --out x --trails 3",
    "predict --imagse x",
    "prompts --rum x",
    "compare --otu x",
    "export-network --help",
    "export-network runs/mine --otu x",
    "ui --help",
    "ui --prot 5000",
    "sync --help",
    "start --help",
    "start pictures --drry-run",
    "run folder --help",
)
_REPORT = """
import sys
from qaclims_ray.cli import main
try:
    main()
finally:
    print("LOADED", *(name for name in %r if name in sys.modules))
"""
_MINIATURE = """
import dataclasses
import sys
import torch
import qaclims_ray.cams.inference, qaclims_ray.refine.refinement, qaclims_ray.segmentation.inference
import qaclims_ray.methods.classifier.task, qaclims_ray.segmentation.task
from qaclims_ray.models.folding import for_inference
from qaclims_ray.models.generators.mask_generator import build_mask_generator
from qaclims_ray.presets.table import preset
from qaclims_ray.segmentation.networks.network import build_segmentation_network

config = preset("miniature")
net = for_inference(build_mask_generator(config.cam_net, 8), torch.device("cpu"))
assert net(torch.zeros(1, 3, 64, 64)).shape == (1, 8, 16, 16)
build_segmentation_network(dataclasses.replace(config.segmentation.net, weights="random"), 9)
print("LOADED", *(name for name in ("timm", "torchvision", "open_clip", "transformers", "ray") if name in sys.modules))
"""


@pytest.mark.parametrize("line", LINES)
def test_it_loads_no_library_that_it_does_not_need(line):
    ended = subprocess.run([sys.executable, "-c", _REPORT % (HEAVY,), *line.split()], capture_output=True, text=True)
    assert ended.returncode in (0, 2) and "Traceback" not in ended.stderr
    assert ended.stdout.splitlines()[-1].split() == ["LOADED"]


def test_the_miniature_trains_and_infers_without_the_libraries_of_other_networks():
    ended = subprocess.run([sys.executable, "-c", _MINIATURE], capture_output=True, text=True)
    assert ended.returncode == 0, ended.stderr
    assert ended.stdout.splitlines()[-1].split() == ["LOADED"]
