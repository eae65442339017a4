"""IRN's random walk: the sparse operator applied 2^8 times (`refine/irn/random_walk.py`) beside the dense power.

Run: `python benchmarks/random_walk.py [--cells 32 48 94x125 125] [--classes 2] [--threads 1]`. Each way runs in a
process of its own, so that the peak memory is its own too. The dense way is the published one: a matrix of all pairs
of cells, squared eight times; it is left out where it would need more than `--dense-gb`. Both must agree, or the
benchmark fails.
"""

import argparse
import json
import os
import platform
import resource
import subprocess
import sys
import time

import torch
from torch import Tensor

from qaclims_ray.refine.irn.losses import grid_pairs, most_entries, path_maximum
from qaclims_ray.refine.irn.random_walk import random_walk

RADIUS, BETA, LOG2_STEPS = 5, 10.0, 8
_MATRICES = 3
"""Dense matrices that are alive together: the power, its square and what the product works with."""


def make_maps(height: int, width: int, num_classes: int) -> tuple[Tensor, Tensor]:
    """Return smooth maps and a boundary map of a few closed contours."""
    generator = torch.Generator().manual_seed(0)
    coarse = torch.rand(1, num_classes + 1, 6, 8, generator=generator)
    smooth = torch.nn.functional.interpolate(coarse, (height, width), mode="bicubic", align_corners=False)[0]
    return smooth[:-1].clamp(0, 1), (-300 * (smooth[-1] - 0.5) ** 2).exp()


def dense_power(maps: Tensor, boundary: Tensor) -> Tensor:
    """Square the dense transition matrix, as published."""
    height, width = boundary.shape
    matrix = torch.eye(height * width)
    for pairs in grid_pairs(RADIUS, height, width, boundary.device, most_entries(boundary.device, 1)):
        affinity = (1 - path_maximum(boundary.flatten()[None], pairs)[0])[pairs.is_pair] ** BETA
        start, end = pairs.is_pair.nonzero()[:, 1], pairs.ends[pairs.is_pair]
        matrix[start, end] = affinity
        matrix[end, start] = affinity
    matrix /= matrix.sum(dim=0, keepdim=True)
    for _ in range(LOG2_STEPS):
        matrix = matrix @ matrix
    return ((maps * (1 - boundary)).flatten(1) @ matrix).view_as(maps)


def sparse_operator(maps: Tensor, boundary: Tensor) -> Tensor:
    """Walk as the service does."""
    return random_walk(maps[None], boundary[None], radius=RADIUS, beta=BETA, log2_steps=LOG2_STEPS)[0]


WAYS = {"sparse_operator": sparse_operator, "dense_power": dense_power}


def measure(way: str, height: int, width: int, num_classes: int, threads: int) -> None:
    """Run one way in this process and print CPU seconds, peak memory and the result as JSON."""
    torch.set_num_threads(threads)
    WAYS[way](*make_maps(8, 8, num_classes))  # warm up
    maps, boundary = make_maps(height, width, num_classes)
    before = peak_mb()
    start = time.process_time()
    walked = WAYS[way](maps, boundary)
    seconds = time.process_time() - start
    figures = {"seconds": seconds, "extra_mb": peak_mb() - before, "values": walked.flatten()[::7].tolist()}
    print(json.dumps(figures))


def peak_mb() -> float:
    """Return the highest memory of this process so far."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / (2**20 if sys.platform == "darwin" else 2**10)


def in_own_process(way: str, height: int, width: int, arguments: argparse.Namespace) -> dict:
    """Return what `measure` prints in a fresh process."""
    numbers = [str(number) for number in (height, width, arguments.classes, arguments.threads)]
    command = [sys.executable, __file__, "--measure", way, *numbers]
    environment = {**os.environ, "OMP_NUM_THREADS": str(arguments.threads)}
    return json.loads(subprocess.run(command, check=True, capture_output=True, text=True, env=environment).stdout)


def compare(height: int, width: int, arguments: argparse.Namespace) -> None:
    """Print the figures of one grid size."""
    sparse = in_own_process("sparse_operator", height, width, arguments)
    print(f"{height:4}x{width:<4} sparse_operator {sparse['seconds']:8.2f} CPU s {sparse['extra_mb']:9.1f} MB")
    needed_gb = _MATRICES * 4 * (height * width) ** 2 / 2**30
    if needed_gb > arguments.dense_gb:
        print(f"{height:4}x{width:<4} dense_power     left out: {needed_gb:.1f} GB needed")
        return
    dense = in_own_process("dense_power", height, width, arguments)
    found, expected = torch.tensor(sparse["values"]), torch.tensor(dense["values"])
    difference = float((found - expected).abs().max() / expected.max())
    if difference > 1e-3:
        raise SystemExit(f"the two ways differ by {difference:.1e} of the maximum")
    print(
        f"{height:4}x{width:<4} dense_power     {dense['seconds']:8.2f} CPU s {dense['extra_mb']:9.1f} MB  = "
        f"{dense['seconds'] / sparse['seconds']:.0f} times the time, "
        f"{dense['extra_mb'] / sparse['extra_mb']:.0f} times the memory; "
        f"largest difference {difference:.0e} of the maximum"
    )


def main() -> None:
    """Compare both ways on grids of several sizes."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cells", nargs="+", default=["32", "48", "94x125", "125"], help="side, or height x width")
    parser.add_argument("--classes", type=int, default=2)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--dense-gb", type=float, default=1.0)
    parser.add_argument("--measure", nargs=5, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.measure:
        measure(arguments.measure[0], *(int(number) for number in arguments.measure[1:]))
        return
    print(f"machine: {platform.machine()}, {os.cpu_count()} cores, {arguments.threads} thread(s), {platform.system()}")
    print(f"versions: python {platform.python_version()}, torch {torch.__version__}")
    print(f"radius {RADIUS}, beta {BETA}, 2^{LOG2_STEPS} steps, {arguments.classes} classes; memory beyond the inputs")
    for cells in arguments.cells:
        height, _, width = cells.partition("x")
        compare(int(height), int(width or height), arguments)


if __name__ == "__main__":
    main()
