"""Counts launches of whole steps, forward and backward, on tensors without values (PyTorch's device "meta").

The components are those of ``benchmarks/gpu_components.py`` at full size. Each is called the plain way, then with
recorded functions (``models.graphs``): there a replay is one launch, and what the recording holds counts as captured.
Autocast does not know the device, so the casts of a step are missing: a plain one has more launches than this.
"""

import contextlib
import functools
from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from benchmarks.gpu_components import COMPONENTS
from qaclims_ray.models import graphs
from qaclims_ray.models.graphs import CapturedModule
from tests.launches.fake_cuda import NO_KERNEL, attention

STEPS = ("ritc_step", "semples_prompt_step", "irn_step", "deeplab_v2_step")


class Nowhere:
    """No values, as a place of components."""

    device = torch.device("meta")
    is_tiny = False
    built_on = "meta"

    def __init__(self) -> None:
        self.parameters: list[Tensor] = []

    def tensor(self, *shape: int, dtype: torch.dtype = torch.float32) -> Tensor:
        """Return a tensor without values."""
        return torch.empty(shape, dtype=dtype, device="meta")

    def module(self, module: Any, dtype: torch.dtype | None = None) -> Any:
        """Bring a module there."""
        module = module.to("meta", dtype)
        self.parameters += module.parameters()
        return module

    def wrapped(self, network: Any, *, is_captured: bool = True) -> Any:
        """Return a network as the training loop calls it."""
        return CapturedModule(network) if is_captured else network


class Launches(TorchDispatchMode):
    """Counts while it is entered."""

    def __init__(self) -> None:
        super().__init__()
        self.launches = self.captured = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Run one operation."""
        result = func(*args, **(kwargs or {}))
        is_view = any(found.alias_info is not None and not found.alias_info.is_write for found in func._schema.returns)
        leaves = [leaf for leaf in tree_leaves((args, kwargs, result)) if isinstance(leaf, Tensor)]
        if any(leaf.is_meta for leaf in leaves) and not is_view and not any(word in str(func) for word in NO_KERNEL):
            self.launches += 1
        return result


class Recorder:
    """Remembers how many launches a recording holds."""

    def __init__(self, counts: Launches) -> None:
        self.counts = counts

    def aside(self) -> contextlib.AbstractContextManager[Any]:
        """Return a context that does nothing."""
        return contextlib.nullcontext()

    def record(self, work: Callable[[], Any]) -> tuple[Callable[[], None], Any]:
        """Return a replay that counts as one launch."""
        before = self.counts.launches
        result = work()
        inside = self.counts.launches - before

        def replay() -> None:
            self.counts.launches += 1
            self.counts.captured += inside

        return replay, result


def counted(name: str) -> tuple[int, int, int]:
    """Return the launches of a plain step, and those of a recorded one: launched and captured."""
    place = Nowhere()
    counts = Launches()
    with pytest.MonkeyPatch.context() as patch, counts:
        patch.setattr(F, "scaled_dot_product_attention", attention)
        patch.setattr(torch, "is_autocast_enabled", lambda *_: False)
        patch.setattr(torch, "autocast", lambda *_, **__: contextlib.nullcontext())
        patch.setattr(graphs._Recording, "difference", lambda *_: 0.0)  # there are no values to compare
        patch.setitem(graphs.RECORDERS, "meta", functools.partial(Recorder, counts))
        call = COMPONENTS[name].prepare(place)

        def launches_of_step() -> tuple[int, int]:
            before = counts.launches, counts.captured
            call().loss.backward()
            for parameter in place.parameters:
                parameter.grad = None
            return counts.launches - before[0], counts.captured - before[1]

        plain, _ = launches_of_step()  # nothing is recorded at the first call
        launches_of_step()
        return plain, *launches_of_step()
