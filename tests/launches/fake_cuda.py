"""A GPU that computes nothing: it counts what the host does to it. No driver is needed.

Tensors "on cuda:0" are PyTorch's fake tensors, which have shapes and types and no values; tensors on the CPU are real,
so that code that decides there runs as it is. Counted are, with the line of the package that they come from:

- launches: operations on the device that are no views, but for those of functions that a GPU would record
  (``models.graphs``), which are one launch and a copy of each argument and result;
- captured: operations inside of such functions;
- waits: the host reads a value or a size that depends on values, or copies to the CPU;
- uploads: copies to the device that do not say non_blocking, for which the host waits too.

Where a value is read a stand-in is given: true, 0, 1.0, and for a size that depends on values all that is possible.
What this cannot tell: values, time, memory, and what backward launches, for which autograd wants a real device; that
is counted by ``backward.py``. Only
for a process of its own: it changes PyTorch for good.
"""

import sys
from collections import Counter
from typing import Any, TypeVar

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensor, FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves, tree_map

from qaclims_ray.models.graphs import Captured

_Module = TypeVar("_Module", bound=nn.Module)
_ATEN = torch.ops.aten
_FAKE = FakeTensorMode(allow_non_fake_inputs=True)
_OF_VALUES = {_ATEN.nonzero.default, _ATEN._unique2.default, _ATEN.unique_dim.default, _ATEN.masked_select.default}
_INDEXING = {_ATEN.index.Tensor, _ATEN.index_put.default, _ATEN.index_put_.default, _ATEN._index_put_impl_.default}
NO_KERNEL = ("aten.empty", "aten.new_empty", "aten._unsafe_view", "aten.lift_fresh", "prim.")
_TOLIST = FakeTensor.tolist
_ATTENTION = F.scaled_dot_product_attention
_CALL = Captured.__call__


def pretend() -> None:
    """Let this process use the device."""
    torch.cuda._lazy_init = lambda: None
    # In inference mode composite operations are not taken apart, and nothing would be seen of them.
    torch.inference_mode = lambda mode=True: torch.no_grad()  # type: ignore[assignment,misc]
    # torch.tensor(values, device="cuda") is a CPU tensor that is moved, as on a real device.
    torch._C._set_only_lift_cpu_tensors(True)
    F.scaled_dot_product_attention = attention
    Captured.__call__ = _one_launch  # type: ignore[method-assign]
    Tensor.pin_memory = lambda self, *_: self  # type: ignore[assignment,method-assign]
    FakeTensor.tolist = _tolist  # type: ignore[method-assign]
    # Only of what was downloaded, for which the host has waited.
    FakeTensor.numpy = lambda self: np.zeros(self.shape, np.float32)  # type: ignore[method-assign]


def is_on_gpu(value: Any) -> bool:
    """Whether it is a tensor of the pretended device."""
    return isinstance(value, FakeTensor) and value.device.type == "cuda"


def on_gpu(*shape: int, dtype: torch.dtype = torch.float32) -> Tensor:
    """Return a tensor on the device."""
    with _FAKE:
        return torch.empty(shape, dtype=dtype, device="cuda")


def moved(module: _Module, dtype: torch.dtype | None = None) -> _Module:
    """Bring a module to the device, in place; its parameters may be on any, also "meta"."""
    known: dict[int, nn.Parameter] = {}
    for part in module.modules():
        for name, value in part._parameters.items():
            if value is not None:
                if id(value) not in known:
                    known[id(value)] = nn.Parameter(_like(value, dtype), requires_grad=value.requires_grad)
                part._parameters[name] = known[id(value)]
        for name, value in part._buffers.items():
            part._buffers[name] = value if value is None else _like(value, dtype)
    return module


class Autocast(nn.Module):
    """A network as the training loop wraps it: bfloat16 inside, float32 outside."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, *arguments: Any, **options: Any) -> Any:
        """Call the network."""
        # torch.autocast refuses where there is no driver.
        before = torch.is_autocast_enabled("cuda")
        torch.set_autocast_enabled("cuda", True)
        torch.set_autocast_dtype("cuda", torch.bfloat16)
        try:
            found = self.network(*arguments, **options)
        finally:
            torch.clear_autocast_cache()
            torch.set_autocast_enabled("cuda", before)
        return tree_map(lambda v: v.float() if isinstance(v, Tensor) and v.is_floating_point() else v, found)


class FakeGpu(TorchDispatchMode):
    """Counts while it is entered."""

    def __init__(self) -> None:
        super().__init__()
        self.launches = self.captured = 0
        self.places: Counter[tuple[str, str]] = Counter()
        """(wait or upload, place) -> how often."""

    def count(self, kind: str) -> int:
        """Return how often the host waited, or uploaded."""
        return sum(number for (found, _), number in self.places.items() if found == kind)

    def note(self, kind: str) -> None:
        """Count a wait or an upload at the innermost line of the package."""
        self.places[kind, _place()] += 1

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Run one operation on shapes alone where the device takes part in it."""
        kwargs = kwargs or {}
        leaves = tree_leaves((args, kwargs))
        to_gpu = kwargs.get("device") is not None and torch.device(kwargs["device"]).type == "cuda"
        has_gpu = any(is_on_gpu(leaf) for leaf in leaves)
        if not to_gpu and not any(isinstance(leaf, FakeTensor) for leaf in leaves):
            return func(*args, **kwargs)
        if func in (_ATEN._local_scalar_dense.default, _ATEN.is_nonzero.default):
            if has_gpu:
                self.note("wait")
            kind = args[0].dtype
            return True if kind == torch.bool else 1.0 if kind.is_floating_point else 0
        if func in _OF_VALUES:
            if has_gpu:
                self.note("wait")
            return _all_rows(func, args[0])
        if func in _INDEXING:
            args = (args[0], [self._index(args[0], index) for index in args[1]], *args[2:])
        if func in (_ATEN._to_copy.default, _ATEN.copy_.default):
            self._note_copy(func, args, kwargs, to_gpu)
        is_view = any(found.alias_info is not None and not found.alias_info.is_write for found in func._schema.returns)
        if (has_gpu or to_gpu) and not is_view and not any(word in str(func) for word in NO_KERNEL):
            self.launches += 1
        with _FAKE:
            return func(*args, **kwargs)

    def _note_copy(self, func: Any, args: Any, kwargs: Any, to_gpu: bool) -> None:
        if func is _ATEN.copy_.default:
            (target, source), waits_not = args[:2], len(args) > 2 and args[2]
            to_gpu = is_on_gpu(target) and source.ndim > 0
            from_gpu = not is_on_gpu(target)
        else:
            source, waits_not = args[0], False
            from_gpu = kwargs.get("device") is not None and not to_gpu
        if to_gpu and not is_on_gpu(source) and not (waits_not or kwargs.get("non_blocking")):
            self.note("upload")
        if from_gpu and is_on_gpu(source):
            self.note("wait")

    def _index(self, target: Any, index: Any) -> Any:
        if index is None:
            return None
        if is_on_gpu(index) and not is_on_gpu(target):
            raise RuntimeError("indices on cuda for a tensor on the CPU")
        if is_on_gpu(target) and not is_on_gpu(index):
            self.note("upload")
        if index.dtype != torch.bool:
            return index
        assert index.ndim == 1, "masks of several dimensions are several indices"
        self.note("wait")
        with _FAKE:
            return torch.empty(index.numel(), dtype=torch.int64, device=target.device)


def _like(value: Tensor, dtype: torch.dtype | None) -> Tensor:
    chosen = dtype if dtype is not None and value.is_floating_point() else value.dtype
    with _FAKE:
        return torch.empty_strided(value.shape, value.stride(), dtype=chosen, device="cuda")


def _all_rows(func: Any, value: Tensor) -> Any:
    with _FAKE:
        if func is _ATEN.nonzero.default:
            return torch.empty(value.numel(), value.ndim, dtype=torch.int64, device=value.device)
        if func is _ATEN.masked_select.default:
            return value.new_empty(value.numel())
        numbers = torch.empty(value.shape, dtype=torch.int64, device=value.device)
        return value.flatten(), numbers, numbers.flatten()


def _tolist(value: Any) -> Any:
    """One wait for a whole tensor, as on a real device; element by element it would be many."""
    mode = torch.utils._python_dispatch._get_current_dispatch_mode()
    if is_on_gpu(value) and isinstance(mode, FakeGpu):
        mode.note("wait")
    if not isinstance(value, FakeTensor):
        return _TOLIST(value)
    return torch.full(value.shape, value.dtype == torch.bool, dtype=value.dtype, device="cpu").tolist()


def attention(
    query: Tensor, key: Tensor, value: Tensor, attn_mask: Tensor | None = None, *rest: Any, **options: Any
) -> Tensor:
    """Attention as a few operations: without a driver PyTorch does not know its kernels."""
    if not is_on_gpu(query) and query.device.type != "meta":
        return _ATTENTION(query, key, value, attn_mask, *rest, **options)
    if torch.is_autocast_enabled("cuda"):  # attention is on its list
        query, key, value = (each.to(torch.bfloat16) for each in (query, key, value))
    scores = query @ key.transpose(-2, -1)
    if attn_mask is not None:
        scores = scores.masked_fill(~attn_mask, 0) if attn_mask.dtype == torch.bool else scores + attn_mask
    return scores.softmax(-1).to(value.dtype) @ value


def _one_launch(self: Captured, *arguments: Any, **options: Any) -> Any:
    """A recorded function, as if it had been called often enough.

    A replay runs no Python: what it did the second time for some shapes it does for them from then on. The first time
    makes what is made only once.
    """
    mode = torch.utils._python_dispatch._get_current_dispatch_mode()
    if not isinstance(mode, FakeGpu):
        return _CALL(self, *arguments, **options)
    seen = self.__dict__.setdefault("_pretended", {})
    values = [*arguments, *options.values()]
    devices = [value.device for value in values if isinstance(value, Tensor)]
    key = self._key(values, tuple(options), devices[0] if devices else torch.device("cuda:0"))
    before = mode.launches, mode.captured, mode.places.copy()
    if seen.get(key) is not None:
        result, inside, places = seen[key]
        mode.places += places
    else:
        result = self.function(*arguments, **options)
        # A function inside of another one is part of the recording.
        inside = mode.launches - before[0] + mode.captured - before[1]
        seen[key] = (result, inside, mode.places - before[2]) if key in seen else None
    copied = [leaf for leaf in tree_leaves((arguments, options, result)) if is_on_gpu(leaf)]
    mode.launches, mode.captured = before[0] + 1 + len(copied), before[1] + inside
    return result


def _place() -> str:
    frame: Any = sys._getframe(2)
    while frame is not None:
        _, package, path = frame.f_code.co_filename.rpartition("/qaclims_ray/")
        if package:
            return f"{path}:{frame.f_lineno}"
        frame = frame.f_back
    return "?"
