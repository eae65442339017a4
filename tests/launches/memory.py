"""Counts the memory of a GPU that stages take: ``python -m tests.launches.memory [WORD ...] [--json FILE]``.

Components are those of ``benchmarks/gpu_components.py`` at full size. Tensors have shapes and types and no values: each
one's bytes count from when it is made until the last name for it is gone. What infers runs on the pretended GPU
(``fake_cuda.py``); what trains runs with its backward pass and two updates on PyTorch's device "meta", under an
autocast made here, since PyTorch's own knows neither. Attention keeps its output alone, as its kernels on a GPU do.

Left out, since only a GPU has it: the context (about half a GiB), workspaces of cuDNN and cuBLAS, memory that is kept
for CUDA graphs or lies in pieces that are too small.
"""

import argparse
import contextlib
import dataclasses
import functools
import json
import logging
import warnings
import weakref
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves, tree_map

from benchmarks.gpu_components import COMPONENTS
from qaclims_ray.models.precision import Arithmetic
from tests.launches import fake_cuda
from tests.launches.backward import Nowhere
from tests.launches.components import Pretended
from tests.launches.fake_cuda import FakeGpu, is_on_gpu

ADAM = ("semples_prompt_step", "semples_refine_step")
"""Steps whose recipes use AdamW, with two states a parameter; the others use SGD with momentum, one."""
TRAINING: dict[str, tuple[int, ...]] = {
    "classifier_step": (16,),
    "ritc_step": (4, 8, 16),
    "ritc_step_as_printed": (8,),
    "clims_step": (16, 32),
    "semples_refine_step": (64,),
    "semples_prompt_step": (128,),
    "irn_step": (16, 32),
    "deeplab_v2_step": (10,),
}
"""Steps -> batches. Mask2Former's reads values on its way; a step of the online decoder infers as well."""
INFERENCE = ("blip", "cams", "crf", "pamr", "final_network")
_HALF = {
    *(F.conv1d, F.conv2d, F.linear, torch.conv2d, torch.matmul, torch.bmm, torch.mm, torch.addmm, torch.einsum),
    *(Tensor.matmul, Tensor.__matmul__, Tensor.__rmatmul__, F.scaled_dot_product_attention),
}
_FULL = {F.softmax, F.log_softmax, F.layer_norm, F.cross_entropy, torch.softmax, Tensor.softmax, torch.exp, torch.log}


class Memory(TorchDispatchMode):
    """Counts bytes while it is entered."""

    def __init__(self) -> None:
        super().__init__()
        self.now = self.most = 0
        self._sizes: dict[int, int] = {}

    def note(self, values: Any) -> None:
        """Count the memory of tensors that is not counted yet."""
        for leaf in tree_leaves(values):
            if isinstance(leaf, Tensor) and (leaf.is_meta or is_on_gpu(leaf)):
                storage = leaf.untyped_storage()
                key = storage._cdata
                if key not in self._sizes:
                    self._sizes[key] = storage.nbytes()
                    self.now += storage.nbytes()
                    self.most = max(self.most, self.now)
                    weakref.finalize(storage, self._drop, key)

    def _drop(self, key: int) -> None:
        self.now -= self._sizes.pop(key)

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Run one operation."""
        result = func(*args, **(kwargs or {}))
        self.note(result)
        return result


class HalfPrecision(TorchFunctionMode):
    """bfloat16 where CUDA's autocast takes it, casts of parameters kept; float32 where it does not."""

    def __init__(self) -> None:
        super().__init__()
        self.casts: dict[int, Tensor] = {}

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Call a function of PyTorch."""
        if func in _HALF:
            args, kwargs = tree_map(self._half, (args, kwargs or {}))
        elif func in _FULL:
            args, kwargs = tree_map(_full, (args, kwargs or {}))
        return func(*args, **(kwargs or {}))

    def _half(self, value: Any) -> Any:
        if not isinstance(value, Tensor) or value.dtype != torch.float32:
            return value
        if not isinstance(value, nn.Parameter):
            return value.to(torch.bfloat16)
        if id(value) not in self.casts:
            self.casts[id(value)] = value.to(torch.bfloat16)
        return self.casts[id(value)]


def _full(value: Any) -> Any:
    is_half = isinstance(value, Tensor) and value.dtype == torch.bfloat16
    return value.float() if is_half else value


class _Half(nn.Module):
    """A network as the training loop wraps it: bfloat16 inside, float32 outside."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, *arguments: Any, **options: Any) -> Any:
        """Call the network."""
        with HalfPrecision():
            found = self.network(*arguments, **options)
        return tree_map(_full, found)


class _Attention(torch.autograd.Function):
    """Keeps its inputs and its output, as the kernels of a GPU do."""

    @staticmethod
    def forward(ctx: Any, query: Tensor, key: Tensor, value: Tensor) -> Tensor:
        out = query.new_empty(*query.shape[:-1], value.shape[-1])
        ctx.save_for_backward(query, key, value, out)
        return out

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> Any:
        query, key, value, _ = ctx.saved_tensors
        return torch.empty_like(query), torch.empty_like(key), torch.empty_like(value)


def _attention(query: Tensor, key: Tensor, value: Tensor, *_: Any, **__: Any) -> Tensor:
    if not (query.is_meta or is_on_gpu(query)):
        return fake_cuda._ATTENTION(query, key, value, *_, **__)
    return _Attention.apply(query, key, value)


class _Training(Nowhere):
    """No values, as a place of what trains in bfloat16."""

    def wrapped(self, network: Any, *, is_captured: bool = True) -> Any:
        """Return a network as the training loop wraps it."""
        return _Half(network)


def of_training(name: str, batch: int) -> int:
    """Return the most bytes that a step takes, its backward pass and update with it.

    Args:
        name: of the component.
        batch: images of a step.
    """
    place, memory = _Training(), Memory()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(F, "scaled_dot_product_attention", _attention)
        patch.setattr(torch, "is_autocast_enabled", lambda *_: False)
        patch.setattr(torch, "autocast", lambda *_, **__: contextlib.nullcontext())
        patch.setitem(COMPONENTS, name, dataclasses.replace(COMPONENTS[name], images=(batch, batch)))
        with memory:
            call = COMPONENTS[name].prepare(place)
            memory.note(place.parameters)
            trained = [each for each in place.parameters if each.requires_grad]
            optimiser = torch.optim.AdamW(trained) if name in ADAM else torch.optim.SGD(trained, 0.1, momentum=0.9)
            for _ in range(2):  # the second step has the optimiser's states
                call().loss.backward()
                optimiser.step()
                optimiser.zero_grad()
    return memory.most


class _Inferring(Pretended):
    """A pretended GPU that knows what came to it."""

    def __init__(self) -> None:
        self.modules: list[nn.Module] = []

    def module(self, module: Any, dtype: torch.dtype | None = None) -> Any:
        """Bring a module there."""
        self.modules.append(super().module(module, dtype))
        return self.modules[-1]

    def inferring(self, network: Any) -> Any:
        """Bring a network there that only infers."""
        self.modules.append(super().inferring(network))
        return self.modules[-1]

    def precision(self, auto: Arithmetic) -> Arithmetic:
        """Return what a network infers in."""
        return auto


def of_inference(name: str) -> int:
    """Return the most bytes that a call takes at its batch; only where `fake_cuda.pretend` was called."""
    place, memory = _Inferring(), Memory()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(F, "scaled_dot_product_attention", _attention)
        patch.setattr(torch, "autocast", lambda *_, **__: HalfPrecision())
        with memory, FakeGpu():  # the inner mode takes operations first; what it makes comes by the outer one
            call = COMPONENTS[name].prepare(place)
            for module in place.modules:
                memory.note([*module.parameters(), *module.buffers()])
            call()
    return memory.most


def main() -> None:
    """Count and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("words", nargs="*", help="only components whose names contain one of these")
    parser.add_argument("--json", type=Path, help="write GiB by component and batch into this file")
    arguments = parser.parse_args()
    warnings.simplefilter("ignore")
    logging.disable(logging.WARNING)
    words = arguments.words
    found: dict[str, dict[str, float]] = {}

    def note(name: str, batch: int, count: Callable[[], int]) -> None:
        if not words or any(word in name for word in words):
            gib = round(count() / 2**30, 1)
            found.setdefault(name, {})[str(batch)] = gib
            print(f"{name:24} {batch:4} at a time {gib:6.1f} GiB", flush=True)

    for name, batches in TRAINING.items():
        for batch in batches:
            note(name, batch, functools.partial(of_training, name, batch))
    fake_cuda.pretend()  # for good, so trainings come first
    for name in INFERENCE:
        note(name, COMPONENTS[name].images[0], functools.partial(of_inference, name))
    if arguments.json:
        arguments.json.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
