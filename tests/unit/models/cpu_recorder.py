"""What a CUDA graph is to a GPU, on a CPU: the operations of a recording, done again on the same tensors."""

import contextlib
from collections.abc import Callable
from typing import Any, TypeVar

import pytest
import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from qaclims_ray.models import graphs
from qaclims_ray.models.graphs import Captured

_Result = TypeVar("_Result")


class CpuRecorder:
    """A replay runs no Python of what was recorded; it reads and writes the same places in memory."""

    def aside(self) -> contextlib.AbstractContextManager[Any]:
        return contextlib.nullcontext()

    def record(self, work: Callable[[], _Result]) -> tuple[Callable[[], None], _Result]:
        with _Operations() as operations:
            result = work()
        return operations.replay, result


def record_on_cpu(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Let functions be recorded on the CPU; return a list that grows by the name of each that is."""
    found, record = [], Captured._record

    def noted(self: Captured, *arguments: Any) -> bool:
        is_recorded = record(self, *arguments)
        found.append(self._name if is_recorded else f"not {self._name}")
        return is_recorded

    monkeypatch.setattr(Captured, "_record", noted)
    monkeypatch.setitem(graphs.RECORDERS, "cpu", CpuRecorder)
    return found


class _Operations(TorchDispatchMode):
    def __init__(self) -> None:
        super().__init__()
        self._done: list[tuple[Any, Any, Any, list[Tensor]]] = []

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func is torch.ops.aten._local_scalar_dense.default:
            raise RuntimeError("operation not permitted when stream is capturing")
        kwargs = kwargs or {}
        found = func(*args, **kwargs)
        is_alias = any(each.alias_info is not None for each in func._schema.returns)
        outputs = [] if is_alias else [each for each in tree_leaves(found) if isinstance(each, Tensor)]
        is_view = is_alias and not func._schema.is_mutable
        if not is_view:
            self._done.append((func, args, kwargs, outputs))
        return found

    def replay(self) -> None:
        with torch.no_grad():
            for func, args, kwargs, outputs in self._done:
                found = [each for each in tree_leaves(func(*args, **kwargs)) if isinstance(each, Tensor)]
                for output, value in zip(outputs, found, strict=False):
                    output.copy_(value)
