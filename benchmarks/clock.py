"""How benchmarks take time: CPU seconds on a CPU, CUDA events on a GPU, the ways in turn, median and spread.

Seconds on the clock mean nothing on a busy machine. CPU seconds count all threads of the process, and mean about the
same there; ways that take turns meet the same neighbours.
"""

import statistics
import time
from collections.abc import Callable, Mapping
from typing import Any

import torch


def timed(work: Callable[[], Any], device: torch.device | str = "cpu") -> tuple[Any, float]:
    """Do a piece of work; return its result and its seconds."""
    if torch.device(device).type != "cuda":
        started = time.process_time()
        result = work()
        return result, time.process_time() - started
    start, end = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
    start.record()
    result = work()
    end.record()
    end.synchronize()
    return result, start.elapsed_time(end) / 1000


def in_turn(
    ways: Mapping[str, Callable[[], Any]], repeats: int, device: torch.device | str = "cpu"
) -> tuple[dict[str, Any], dict[str, list[float]]]:
    """Do each piece of work several times, in turn and in changing order, after once to warm up.

    Returns:
        By way the first result, and the seconds of each repeat.
    """
    results = {way: work() for way, work in ways.items()}
    seconds: dict[str, list[float]] = {way: [] for way in ways}
    for repeat in range(repeats):
        for way in list(ways) if repeat % 2 else list(ways)[::-1]:
            seconds[way].append(timed(ways[way], device)[1])
    return results, seconds


def shown(seconds: list[float]) -> str:
    """Return median, least and most in milliseconds."""
    median, least, most = (1000 * value for value in (statistics.median(seconds), min(seconds), max(seconds)))
    return f"{median:.1f} ({least:.1f} to {most:.1f})"
