"""Figures of a training: gathered on the device without waiting for it, added over workers when they are read."""

import functools
import operator
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from qaclims_ray.training.context import WorkerContext, all_reduce_sum
from qaclims_ray.training.divergence import RecentBatches

OnStep = Callable[[int, dict[str, float]], None]
"""Receives the number of steps done and the figures since the last call."""


@dataclass(frozen=True)
class StepResult:
    """What a task's step gives back; everything is this worker's share, and the shares add up over workers."""

    loss: Float[Tensor, ""]
    """Share of the loss of the global batch; must depend on the network even where it is zero (R21)."""
    means: Mapping[str, Float[Tensor, ""]] = field(default_factory=dict)
    """Detached shares of further figures; logged as means over steps."""
    counts: Mapping[str, int] = field(default_factory=dict)
    """Counts; logged as sums over the epoch."""
    untaught: Sequence[nn.Parameter] = ()
    """Parameters that the loss depends on by nothing in this step: the optimiser leaves them alone, and its own figures
    of them. Zeros would count as gradients, after which AdamW's first real steps are several times too long."""


def weighted(
    terms: Mapping[str, Float[Tensor, ""]], weights: Mapping[str, float], counts: Mapping[str, int] | None = None
) -> StepResult:
    """Return the weighted sum of a loss's terms, each of them a figure ``loss/<name>`` before weighting.

    Terms are added one by one in the order of `weights`. The order is part of the result: floating point sums depend
    on it, and a stacked sum takes one of its own from five terms on.

    Args:
        terms: this worker's shares. Every worker gives the same ones in the same order, also where a batch has nothing
            to say: workers add up their figures by position.
        weights: of every term; others, of terms that this step does not have, are passed over.
        counts: see `StepResult`.
    """
    assert terms.keys() <= weights.keys(), f"terms without a weight: {sorted(terms.keys() - weights.keys())}"
    first, *others = (weight * terms[name] for name, weight in weights.items() if name in terms)
    return StepResult(
        loss=functools.reduce(operator.add, others, first),
        means={f"loss/{name}": value.detach() for name, value in terms.items()},
        counts=counts or {},
    )


class Meter:
    """Figures of one epoch."""

    def __init__(
        self,
        context: WorkerContext,
        on_step: OnStep | None,
        log_every: int,
        images_per_step: int,
        seen: RecentBatches,
        epoch: int,
    ) -> None:
        self._context, self._on_step, self._log_every = context, on_step, log_every
        self._images_per_step, self._seen, self._epoch = images_per_step, seen, epoch
        self._window: dict[str, Any] = {}
        self._losses: list[Tensor] = []
        self._totals: dict[str, float] = {}
        self._counted: set[str] = set()
        self._window_steps = self._steps = self._steps_done = 0
        self._started = self._window_started = time.perf_counter()
        self._lr = 0.0

    def add(self, result: StepResult, steps_done: int, lr: float, index: Tensor) -> None:
        """Take in one step; every `log_every` steps of the training all workers add up and rank 0 logs.

        Args:
            result: of this worker.
            steps_done: this one among them.
            lr: learning rate.
            index: of this worker's items.

        Raises:
            DivergedError: when all have added up and a loss since the last time is not finite.
        """
        for name, value in {"loss": result.loss.detach(), **result.means, **result.counts}.items():
            self._window[name] = self._window.get(name, 0) + value
        self._losses.append(result.loss.detach())
        self._seen.add(steps_done, index)
        self._counted.update(result.counts)
        self._window_steps += 1
        self._steps_done, self._lr = steps_done, lr
        if steps_done % self._log_every == 0:
            self._close_window()

    def epoch_metrics(self) -> dict[str, float]:
        """Return the figures of the whole epoch, equal on all workers.

        Raises:
            DivergedError: as `add`.
        """
        if self._window_steps:
            self._close_window()
        rate = self._steps * self._images_per_step / (time.perf_counter() - self._started)
        # Rank 0's clock, so that all workers return the same.
        shared = torch.tensor(rate if self._context.rank == 0 else 0.0, device=self._context.device)
        return self._as_metrics(self._totals, self._steps, float(all_reduce_sum(shared)))

    def _close_window(self) -> None:
        """Add up the steps since the last call over all workers: the only place that waits for the device."""
        # In float64, so that counts stay whole numbers beyond 2^24.
        values = [
            torch.as_tensor(value, dtype=torch.float64, device=self._context.device)
            for value in (*self._window.values(), *self._losses)
        ]
        sums = all_reduce_sum(torch.stack(values)).tolist()
        figures = dict(zip(self._window, sums, strict=False))
        for name, value in figures.items():
            self._totals[name] = self._totals.get(name, 0.0) + value
        now, steps = time.perf_counter(), self._window_steps
        rate = steps * self._images_per_step / (now - self._window_started)
        self._window, self._losses, self._window_steps, self._window_started = {}, [], 0, now
        self._steps += steps
        if self._context.rank == 0 and self._on_step is not None:
            self._on_step(self._steps_done, self._as_metrics(figures, steps, rate))
        self._seen.require_finite(sums[-steps:], figures, self._epoch)

    def _as_metrics(self, figures: Mapping[str, float], steps: int, images_per_s: float) -> dict[str, float]:
        means = {name: value if name in self._counted else value / steps for name, value in figures.items()}
        return {**means, "lr": self._lr, "images_per_s": images_per_s}
