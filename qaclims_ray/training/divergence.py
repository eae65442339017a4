"""What a training says when its loss, or its network, stops being finite: which images it saw last.

A look at every step would wait for the device. Losses are looked at where figures leave it anyway, some steps later,
and until then it is kept which images each step saw.
"""

import json
import math
from collections import deque
from collections.abc import Callable, Mapping, Sequence

import torch
from torch import Tensor, nn

from qaclims_ray.errors import ConfigError
from qaclims_ray.training.context import WorkerContext, all_reduce_sum, gather_rows

DIVERGED_NAME = "diverged.json"
"""Beside what is made of a training that diverged: the images of its last batches."""
_NAMED = 8
"""Images that a message names."""
_REMEDY = "look at these images; lower optim.lr, set optim.clip_grad_norm or add optim.warmup_steps"


class DivergedError(ConfigError):
    """A training's loss, or its network, is not finite any more.

    Args:
        told: the message.
        batch: JSON values that say where, and which images the step and the one before it saw.
    """

    def __init__(self, told: str, batch: Mapping[str, object]) -> None:
        super().__init__(told, batch)  # by which it is pickled
        self.told, self.batch = told, batch

    def __str__(self) -> str:
        return self.told

    def adding(self, sentence: str) -> "DivergedError":
        """Return the same error with one more sentence."""
        return DivergedError(f"{self.told}. {sentence}", self.batch)

    def content(self) -> bytes:
        """Return what is kept of it in `DIVERGED_NAME`."""
        return json.dumps(self.batch, indent=2).encode()


class RecentBatches:
    """Which images the last steps saw."""

    def __init__(self, context: WorkerContext, image_id: Callable[[int], str], num_steps: int) -> None:
        """Begin with none.

        Args:
            context: this worker.
            image_id: from the ``index`` of an item to the identifier of its image.
            num_steps: the longest stretch of steps whose losses are looked at together.
        """
        self._context, self._image_id = context, image_id
        self._seen: deque[tuple[int, Tensor]] = deque(maxlen=num_steps + 1)

    def add(self, steps_done: int, index: Tensor) -> None:
        """Take in a step that is done, and the ``index`` of this worker's items."""
        self._seen.append((steps_done, index))

    def require_finite(self, losses: Sequence[float], figures: Mapping[str, float], epoch: int) -> None:
        """Make sure that the losses of the last steps are finite; every worker calls this with the same ones.

        Args:
            losses: over all workers, of the steps up to the last one that was added.
            figures: other figures of these steps; those that are not finite are named.
            epoch: from 0.

        Raises:
            DivergedError: naming the images of the first step whose loss is not.
        """
        broken = next((place for place, loss in enumerate(losses) if not math.isfinite(loss)), None)
        if broken is None:
            return
        step = self._seen[-1][0] - len(losses) + 1 + broken
        terms = [name for name, value in figures.items() if name != "loss" and not math.isfinite(value)]
        what = f"the loss became {losses[broken]} in epoch {epoch + 1}, at step {step}"
        raise self._error(what + (f" ({', '.join(terms)})" if terms else ""), step, epoch)

    def require_finite_network(self, network: nn.Module, epoch: int) -> None:
        """Make sure that what is about to be kept is finite: a gradient may not be where the last loss still was.

        Raises:
            DivergedError: naming the images of the last step.
        """
        held = [value for value in network.state_dict().values() if value.is_floating_point()]
        broken = torch.stack([~value.isfinite().all() for value in held]).any().float()
        if float(all_reduce_sum(broken)):
            step = self._seen[-1][0]
            what = f"the network is not finite after step {step} of epoch {epoch + 1}, the gradient of a finite loss"
            raise self._error(what, step, epoch)

    def _error(self, what: str, step: int, epoch: int) -> DivergedError:
        images, before = self._images_of(step), self._images_of(step - 1)
        more = f" and {len(images) - _NAMED} more" if len(images) > _NAMED else ""
        batch = {"epoch": epoch + 1, "step": step, "what": what, "images": images, "images_one_step_before": before}
        return DivergedError(f"{what}, on the images {', '.join(images[:_NAMED])}{more}: {_REMEDY}", batch)

    def _images_of(self, step: int) -> list[str]:
        """Return the images that a step saw on all workers, none where that is not known any more."""
        index = next((index for number, index in self._seen if number == step), torch.zeros(0))
        rows = gather_rows(index.reshape(-1, 1).double().cpu(), self._context)
        return [self._image_id(int(position)) for position in dict.fromkeys(rows.flatten().tolist())]
