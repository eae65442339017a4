"""Time everything that runs on a GPU, at full size with random weights, beside the plain way.

    python -m benchmarks.gpu [WORD ...] [--seconds 12] [--json FILE.json]

Needs neither Ray nor MLflow. WORDs choose components by parts of their names. Each component runs three ways in turns:

- product: as the package computes on a GPU by default: bfloat16 autocast in trainings, float16 where CAMs, IRN and
  final networks infer, batch norm folded there, TF32 for float32 products, channels last, CUDA graphs;
- uncaptured: the same without CUDA graphs;
- plain: float32 throughout, as PyTorch lays it out, without CUDA graphs.

Steps run backward too. Printed are the median of the milliseconds of a call (CUDA events on a GPU, CPU seconds on a
CPU) and its spread, images per second, how much faster the product is, launches and waits of a call, peak memory, the
share of the matmul peak that was measured first, and how far the results of the other two ways are from the product's:
with random weights it says that all compute the same thing, not how precision moves a trained network. Where functions
gave up their CUDA graphs, their remarks follow. Without a GPU sizes are tiny, nothing is captured, and uncaptured is
left out; this tries the script.
"""

import argparse
import contextlib
import json
import logging
import os
import platform
import statistics
import sys
import time
import warnings
from collections.abc import Callable, Iterator, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_leaves
from torch.utils.flop_counter import FlopCounterMode

from benchmarks.gpu_components import COMPONENTS
from qaclims_ray.models import graphs
from qaclims_ray.models.folding import without_batch_norm
from qaclims_ray.models.precision import Arithmetic

_AT_LEAST, _AT_MOST = 3, 50
"""Repeats of a call, each way."""


class Here:
    """This machine, as a place of components."""

    built_on = "cpu"

    def __init__(self, *, is_plain: bool, is_captured: bool = False) -> None:
        self._is_captured = is_captured
        has_gpu = torch.cuda.is_available()
        self.device, self.is_tiny, self.is_plain = torch.device("cuda" if has_gpu else "cpu"), not has_gpu, is_plain
        self._generator = torch.Generator().manual_seed(0)
        self.parameters: list[nn.Parameter] = []

    def tensor(self, *shape: int, dtype: torch.dtype = torch.float32) -> Tensor:
        """Return random numbers, the same both ways."""
        if dtype == torch.uint8:
            return torch.randint(0, 3, shape, generator=self._generator, dtype=dtype).to(self.device)
        return torch.randn(shape, generator=self._generator).to(self.device)

    def module(self, module: Any, dtype: torch.dtype | None = None) -> Any:
        """Bring a module there."""
        module = module.to(self.device, torch.float32 if self.is_plain else dtype)
        self.parameters += module.parameters()
        return module if self.is_plain else module.to(memory_format=torch.channels_last)

    def wrapped(self, network: Any, *, is_captured: bool = True) -> Any:
        """Return a network as the training loop wraps it."""
        network = graphs.CapturedModule(network) if self._is_captured and is_captured else network
        if self.is_plain or self.device.type == "cpu":
            return network

        def forward(*arguments: Any, **options: Any) -> Any:
            with torch.autocast("cuda", torch.bfloat16):
                return network(*arguments, **options)

        return forward

    def inferring(self, network: Any) -> Any:
        """Bring a network there that only infers."""
        return self.module(network.eval() if self.is_plain else without_batch_norm(network.eval()))

    def precision(self, auto: Arithmetic) -> Arithmetic:
        """Return what a network infers in."""
        return "fp32" if self.is_plain or self.is_tiny else auto

    @contextlib.contextmanager
    def arithmetic(self) -> Iterator[None]:
        """Compute this way for the time of the context."""
        cuda, cudnn = torch.backends.cuda.matmul, torch.backends.cudnn
        before = cuda.allow_tf32, cudnn.allow_tf32
        cuda.allow_tf32 = cudnn.allow_tf32 = not self.is_plain
        switch = os.environ.get(graphs.SWITCH, "1")
        os.environ[graphs.SWITCH] = switch if self._is_captured else "0"
        try:
            yield
        finally:
            cuda.allow_tf32, cudnn.allow_tf32 = before
            os.environ[graphs.SWITCH] = switch


class Way:
    """A component, prepared to be computed one way."""

    def __init__(self, name: str, *, is_plain: bool, is_captured: bool = False) -> None:
        torch.manual_seed(0)
        self.place = Here(is_plain=is_plain, is_captured=is_captured)
        self.call = COMPONENTS[name].prepare(self.place)
        self.times_ms: list[float] = []

    def once(self) -> Any:
        """Call it, backward too where there is a loss."""
        with self.place.arithmetic():
            result = self.call()
            loss = getattr(result, "loss", None)
            if isinstance(loss, Tensor) and loss.requires_grad:
                loss.backward()
                for parameter in self.place.parameters:
                    parameter.grad = None
        return result

    def timed(self) -> None:
        """Call it once more and keep how long it took."""
        if self.place.device.type == "cpu":
            started = time.process_time()
            self.once()
            self.times_ms.append(1000 * (time.process_time() - started))
            return
        start, end = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
        torch.cuda.synchronize()
        start.record()
        self.once()
        end.record()
        torch.cuda.synchronize()
        self.times_ms.append(start.elapsed_time(end))


def measure(name: str, seconds: float) -> dict[str, Any]:
    """Measure one component all ways, in turns."""
    ways = {"product": Way(name, is_plain=False, is_captured=True), "plain": Way(name, is_plain=True)}
    if graphs.are_used(ways["product"].place.device):
        ways["uncaptured"] = Way(name, is_plain=False)
    for way in ways.values():
        way.once()
        way.once()  # functions are recorded when a shape comes for the second time
    results = {which: _figure(way.once()) for which, way in ways.items()}
    until = time.perf_counter() + seconds
    while len(ways["plain"].times_ms) < _AT_LEAST or (
        time.perf_counter() < until and len(ways["plain"].times_ms) < _AT_MOST
    ):
        for way in ways.values():
            way.timed()
    product, plain = (statistics.median(ways[which].times_ms) for which in ("product", "plain"))
    uncaptured = statistics.median(ways["uncaptured"].times_ms) if "uncaptured" in ways else None
    images = COMPONENTS[name].images[ways["product"].place.is_tiny]
    counter = FlopCounterMode(display=False)
    with counter:
        ways["plain"].once()  # a replay is not seen
    return {
        "ms": product,
        "spread_ms": _spread(ways["product"].times_ms),
        "images_per_s": 1000 * images / product,
        "plain_ms": plain,
        "plain_spread_ms": _spread(ways["plain"].times_ms),
        "faster": plain / product,
        "uncaptured_ms": uncaptured,
        "tflop_per_s": counter.get_total_flops() / product / 1e9,
        "difference": _far(results["product"], results["plain"]),
        "uncaptured_difference": _far(results["product"], results.get("uncaptured", results["product"])),
        "repeats": len(ways["product"].times_ms),
        **_on_gpu(ways["product"]),
    }


def _far(one: float, other: float) -> float:
    """Return a relative difference."""
    return abs(one - other) / max(abs(other), 1e-9)


def _on_gpu(way: Way) -> dict[str, Any]:
    """Return what only a GPU shows: launches, waits, memory."""
    if way.place.device.type == "cpu":
        return {"launches": None, "waits": None, "gib": None}
    torch.cuda.reset_peak_memory_stats()
    torch.cuda.set_sync_debug_mode("warn")
    with warnings.catch_warnings(record=True) as seen:
        warnings.simplefilter("always")
        way.once()
    torch.cuda.set_sync_debug_mode("default")
    gib = torch.cuda.max_memory_allocated() / 2**30
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CUDA]) as profile:
        way.once()
        torch.cuda.synchronize()
    launches = sum(event.count for event in profile.key_averages() if "Launch" in event.key)  # of kernels and graphs
    return {"launches": launches, "waits": sum("synchroniz" in str(one.message) for one in seen), "gib": gib}


def _figure(result: Any) -> float:
    """Return one number that stands for a result: the loss, or the mean of all maps."""
    loss = getattr(result, "loss", None)
    if isinstance(loss, Tensor):
        return float(loss.detach())
    leaves = tree_leaves([getattr(one, "full", one) for one in result] if isinstance(result, list) else result)
    tensors = [leaf for leaf in leaves if isinstance(leaf, Tensor) and leaf.is_floating_point()]
    tensors += [leaf.full for leaf in getattr(result, "cams", ())]
    return float(sum(tensor.double().mean().item() for tensor in tensors))


def _spread(times_ms: Sequence[float]) -> float:
    """Return the distance between the quartiles."""
    if len(times_ms) < 2:
        return 0.0
    low, _, high = statistics.quantiles(times_ms, n=4)
    return high - low


def matmul_peak(device: torch.device) -> float:
    """Return TFLOP/s of a large product of matrices: bfloat16 on a GPU, float32 on a CPU."""
    is_gpu = device.type == "cuda"
    size, dtype = (8192, torch.bfloat16) if is_gpu else (1024, torch.float32)
    left, right = (torch.randn(size, size, dtype=dtype, device=device) for _ in range(2))
    wait: Callable[[], None] = torch.cuda.synchronize if is_gpu else lambda: None
    for repeats in (3, 10):
        wait()
        started = time.perf_counter()
        for _ in range(repeats):
            left @ right
        wait()
    return 10 * 2 * size**3 / (time.perf_counter() - started) / 1e12


def row(name: str, found: dict[str, Any], peak: float) -> str:
    """Return a component's line of the table."""
    if "error" in found:
        return f"{name:22} {found['error']}"
    gpu = "".join(f" {'-' if found[key] is None else format(found[key], form):>8}" for key, form in _GPU_COLUMNS)
    return (
        f"{name:22} {found['ms']:9.2f} {found['spread_ms']:7.2f} {found['images_per_s']:9.1f} {found['plain_ms']:9.2f} "
        f"{found['faster']:6.2f}x {found['tflop_per_s'] / peak:6.1%}{gpu} {found['uncaptured_difference']:9.1e} "
        f"{found['difference']:9.1e}"
    )


_GPU_COLUMNS = (("uncaptured_ms", ".2f"), ("launches", "d"), ("waits", "d"), ("gib", ".1f"))
_HEAD = (
    f"{'component':22} {'ms':>9} {'spread':>7} {'images/s':>9} {'plain ms':>9} {'faster':>7} {'peak':>6}"
    f" {'no graph':>8} {'launches':>8} {'waits':>8} {'GiB':>8} {'from it':>9} {'plain':>9}"
)


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure, print, keep; end with 1 where a component failed."""
    parser = argparse.ArgumentParser(description="time everything that runs on a GPU beside the plain way")
    parser.add_argument("words", nargs="*", help="parts of components' names; all of them by default")
    parser.add_argument("--seconds", type=float, default=12.0, help="of repeats per component")
    parser.add_argument("--json", type=Path, help="file for the figures, written after every component")
    options = parser.parse_args(arguments)
    warnings.simplefilter("ignore")
    logging.getLogger(graphs.__name__).addHandler(logging.StreamHandler(sys.stdout))
    place = Here(is_plain=False)
    if place.is_tiny:
        torch.set_num_threads(1)
    device = torch.cuda.get_device_name() if not place.is_tiny else f"{platform.machine()} CPU, tiny sizes"
    peak = matmul_peak(place.device)
    print(f"{device}, torch {torch.__version__}, {datetime.now(UTC):%Y-%m-%d}, matmul peak {peak:.2f} TFLOP/s\n{_HEAD}")
    found: dict[str, dict[str, Any]] = {}
    for name in COMPONENTS:
        if options.words and not any(word in name for word in options.words):
            continue
        try:
            found[name] = measure(name, options.seconds)
        except Exception as error:  # the others are measured all the same
            found[name] = {"error": f"{type(error).__name__}: {error}"}
        if not place.is_tiny:
            torch.cuda.empty_cache()
        print(row(name, found[name], peak), flush=True)
        if options.json:
            content = {"device": device, "torch": torch.__version__, "peak_tflop_per_s": peak, "components": found}
            options.json.write_text(json.dumps(content, indent=1))
    return int(any("error" in one for one in found.values()))


if __name__ == "__main__":
    sys.exit(main())
