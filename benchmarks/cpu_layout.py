"""Networks on a CPU as they are written, and as the product computes them: channels last, batch norm folded.

    OMP_NUM_THREADS=1 python -m benchmarks.cpu_layout [--repeats 5] [--threads 1]

A network with random weights looks at two photographs' worth of noise, and learns from a batch of crops. The ways take
turns; results are compared, and a row whose results differ ends the run.
"""

import argparse
import copy
import importlib.metadata
import os
import platform
import statistics
from datetime import date

import timm
import torch
from torch import Tensor, nn

from benchmarks.clock import in_turn, shown
from qaclims_ray.models.folding import for_inference
from qaclims_ray.models.generators.cam_net import MiniatureBackbone

NETWORKS = ("tf_efficientnet_lite2", "mobilenetv2_100", "resnet50", "miniature")
INFERENCE = {"2 images of 500x375": (2, 375, 500), "2 images of 750x563": (2, 563, 750)}
TRAINING = {"step of 8 crops of 320": (8, 320, 320)}
MINIATURE_INFERENCE = {"64 images of 64x64": (64, 64, 64)}
MINIATURE_TRAINING = {"step of 16 crops of 64": (16, 64, 64)}
_DIFFERENCE = 1e-3


def main() -> None:
    """Measure and print a table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--threads", type=int, default=1)
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    versions = ", ".join(f"{name} {importlib.metadata.version(name)}" for name in ("torch", "timm"))
    print(
        f"{date.today()}, {platform.machine()}, {os.cpu_count()} cores, {arguments.threads} threads, {versions}; CPU "
        f"milliseconds, median (least to most) of {arguments.repeats}.\n\n"
        "| network | work | as written | as computed | times |\n|---|---|---|---|---|"
    )
    for name in NETWORKS:
        inference, training = INFERENCE, TRAINING
        if name == "miniature":
            inference, training = MINIATURE_INFERENCE, MINIATURE_TRAINING
        network = _network(name)
        for work, (batch, height, width) in inference.items():
            _row(name, work, _inferring(network, torch.randn(batch, 3, height, width)), arguments.repeats)
        for work, (batch, height, width) in training.items():
            _row(name, work, _learning(network, torch.randn(batch, 3, height, width)), arguments.repeats)


def _network(name: str) -> nn.Module:
    torch.manual_seed(0)
    if name == "miniature":
        return MiniatureBackbone()
    return timm.create_model(name, pretrained=False, num_classes=20)


def _inferring(network: nn.Module, images: Tensor) -> dict:
    plain, computed = copy.deepcopy(network).eval(), for_inference(copy.deepcopy(network), torch.device("cpu"))
    return {
        "as written": lambda: torch.no_grad()(plain)(images),
        "as computed": lambda: torch.no_grad()(computed)(images),
    }


def _learning(network: nn.Module, images: Tensor) -> dict:
    plain, computed = copy.deepcopy(network).train(), copy.deepcopy(network).train()
    computed = computed.to(memory_format=torch.channels_last)

    def step(learner: nn.Module, layout: torch.memory_format) -> Tensor:
        learner.zero_grad()
        torch.manual_seed(0)
        found = learner(images.to(memory_format=layout))
        found.square().mean().backward()
        return found.detach()

    return {
        "as written": lambda: step(plain, torch.contiguous_format),
        "as computed": lambda: step(computed, torch.channels_last),
    }


def _row(network: str, work: str, ways: dict, repeats: int) -> None:
    results, seconds = in_turn(ways, repeats)
    plain, computed = results["as written"], results["as computed"]
    difference = float((plain - computed).abs().max() / plain.abs().max())
    if difference > _DIFFERENCE:
        raise SystemExit(f"{network}, {work}: results differ by {difference:.1e} of the largest")
    times = statistics.median(seconds["as written"]) / statistics.median(seconds["as computed"])
    cells = (network, work, *(shown(seconds[way]) for way in ways), f"{times:.2f}")
    print("| " + " | ".join(cells) + " |", flush=True)


if __name__ == "__main__":
    main()
