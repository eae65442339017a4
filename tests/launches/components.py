"""Counts what the host does to a GPU: ``python -m tests.launches.components [WORD ...]``.

Prints a line per component of ``benchmarks/gpu_components.py`` (launches, captured ones, waits, uploads) and below it
where the host waits or uploads; then, forward and backward, the launches of some steps the plain way and with CUDA
graphs. With ``--json`` it prints the counts alone.
"""

import json
import sys
import warnings
from typing import Any

import torch
from torch import Tensor

from benchmarks.gpu_components import COMPONENTS
from qaclims_ray.models.folding import without_batch_norm
from qaclims_ray.models.graphs import CapturedModule
from qaclims_ray.models.precision import Arithmetic
from tests.launches import backward, fake_cuda
from tests.launches.fake_cuda import Autocast, FakeGpu, moved, on_gpu


class Pretended:
    """A GPU that is none, as a place of components."""

    device = torch.device("cuda:0")
    is_tiny = False
    built_on = "meta"

    def tensor(self, *shape: int, dtype: torch.dtype = torch.float32) -> Tensor:
        """Return a tensor without values."""
        return on_gpu(*shape, dtype=dtype)

    def module(self, module: Any, dtype: torch.dtype | None = None) -> Any:
        """Bring a module there."""
        return moved(module, dtype)

    def wrapped(self, network: Any, *, is_captured: bool = True) -> Any:
        """Return a network as the training loop wraps it."""
        return Autocast(CapturedModule(network) if is_captured else network)

    def inferring(self, network: Any) -> Any:
        """Bring a network there that only infers."""
        return moved(without_batch_norm(network.eval()))

    def precision(self, auto: Arithmetic) -> Arithmetic:
        """Return what a network infers in: an autocast is not pretended here."""
        return "fp32"


def counted(name: str) -> FakeGpu:
    """Return what is counted in a component's second call: the first makes what is kept."""
    with FakeGpu():
        call = COMPONENTS[name].prepare(Pretended())
        call()
    with FakeGpu() as counts:
        call()
    return counts


def main(words: list[str]) -> None:
    """Count and print."""
    warnings.simplefilter("ignore")
    fake_cuda.pretend()
    is_json = "--json" in words
    words = [word for word in words if word != "--json"]
    names = [name for name in COMPONENTS if not words or any(word in name for word in words)]
    found = {}
    for name in names:
        counts = counted(name)
        found[name] = (counts.launches, counts.captured, counts.count("wait"), counts.count("upload"))
        if not is_json:
            print("{:28} {:6} launches {:6} captured {:4} waits {:4} uploads".format(name, *found[name]), flush=True)
            for (kind, place), number in counts.places.most_common():
                print(f"    {number:4} {kind:7} {place}")
    steps = {name: backward.counted(name) for name in backward.STEPS if name in names}
    if is_json:
        print(json.dumps({"forward": found, "steps": steps}))
    for name, figures in () if is_json else steps.items():
        print("{:28} with backward: {:6} launches plain, {:6} with graphs, {:6} captured".format(name, *figures))


if __name__ == "__main__":
    main(sys.argv[1:])
