"""A thread that samples CPU, memory, disk, network and GPU and hands the figures to a tracker.

MLflow's own `SystemMetricsMonitor` stops for good at the first call that its server does not answer; its samplers are
used here, and what they measure takes the same way as every other metric.
"""

import contextlib
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Protocol


class Sampler(Protocol):
    """One of MLflow's samplers (CPUMonitor, DiskMonitor, ...)."""

    def collect_metrics(self) -> None:
        """Take a sample."""
        ...

    def aggregate_metrics(self) -> dict[str, float]:
        """Return the mean of the samples since the last `clear_metrics`."""
        ...

    def clear_metrics(self) -> None:
        """Forget the samples."""
        ...


class SystemMetrics:
    """Samples at an interval until `stop`; the first sample comes after one second, so that short runs have one."""

    def __init__(
        self,
        samplers: Sequence[Sampler],
        log: Callable[[Mapping[str, float], int], None],
        *,
        started_ms: int,
        node: str = "",
        interval_s: float = 10.0,
    ) -> None:
        self._samplers = samplers
        self._log = log
        self._started_ms = started_ms
        self._prefix = f"system/{node}/" if node else "system/"
        self._interval_s = interval_s
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="system-metrics", daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """End the thread."""
        self._stop.set()
        self._thread.join(timeout=5)

    def _run(self) -> None:
        wait_s = min(1.0, self._interval_s)
        while not self._stop.wait(wait_s):
            self._sample()
            wait_s = self._interval_s

    def _sample(self) -> None:
        metrics: dict[str, float] = {}
        for sampler in self._samplers:
            sampler.collect_metrics()
            metrics |= {self._prefix + name: float(value) for name, value in sampler.aggregate_metrics().items()}
            sampler.clear_metrics()
        # Seconds since the run began: goes on without a gap or a repeat when a restarted process continues the run.
        step = max(0, int(time.time() * 1000) - self._started_ms) // 1000
        self._log(metrics, step)


def mlflow_samplers() -> Sequence[Any]:
    """Return MLflow's own samplers of this machine; that of GPUs where there are any."""
    from mlflow.system_metrics.metrics.cpu_monitor import CPUMonitor
    from mlflow.system_metrics.metrics.disk_monitor import DiskMonitor
    from mlflow.system_metrics.metrics.gpu_monitor import GPUMonitor
    from mlflow.system_metrics.metrics.network_monitor import NetworkMonitor

    samplers: list[Any] = [CPUMonitor(), DiskMonitor(), NetworkMonitor()]
    # ImportError: nvidia-ml-py is not installed; RuntimeError: there is no GPU.
    with contextlib.suppress(ImportError, RuntimeError):
        samplers.append(GPUMonitor())
    return samplers
