"""Where networks work: which device, how many items at once, and ways to it on which the host does not wait."""

import contextlib
import functools
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TypeVar

import torch
from jaxtyping import Float, Shaped
from torch import Tensor

from qaclims_ray.errors import ResourceError
from qaclims_ray.models.precision import Arithmetic

_Result = TypeVar("_Result")


def device_of_worker(gpus: float | int) -> torch.device:
    """Return where an actor or a task works: on a GPU where it has one, or a share of one.

    There products of float32 matrices are computed in TF32, as PyTorch's convolutions are by default.
    ``NVIDIA_TF32_OVERRIDE=0`` in the environment, NVIDIA's own switch, keeps all of them to float32.
    """
    if gpus <= 0:
        return torch.device("cpu")
    use_tf32()
    return torch.device("cuda")


def use_tf32() -> None:
    """Let products of float32 matrices be computed in TF32 on GPUs; CPUs do not change what they do."""
    # Not set_float32_matmul_precision: on CPUs that know bfloat16 it would round there, too.
    torch.backends.cuda.matmul.allow_tf32 = True


def dtype_of(found: Arithmetic, device: torch.device | str) -> torch.dtype:
    """Return the type of weights, or of an autocast, on a device.

    Raises:
        ResourceError: when the device is a GPU that only imitates bf16, at many times the cost.
    """
    is_gpu = torch.device(device).type == "cuda"
    if found == "bf16" and is_gpu and not torch.cuda.is_bf16_supported(including_emulation=False):
        raise ResourceError(
            f"{torch.cuda.get_device_name()} does not compute in bf16, which the precision of this stage asks for "
            "(auto does in trainings and for the corpus); set it to fp32, or to fp16 where nothing is trained"
        )
    return {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}[found]


def autocast(found: Arithmetic, device: torch.device) -> contextlib.AbstractContextManager[object]:
    """Return a context in which networks compute in an arithmetic; their weights stay as they are.

    Weights are brought to it once for as long as the context lasts.

    Raises:
        ResourceError: see `dtype_of`.
    """
    if found == "fp32":
        return contextlib.nullcontext()
    return torch.autocast(device.type, dtype=dtype_of(found, device))


@dataclass(frozen=True)
class ItemsAtOnce:
    """How many items go through a network at once where a setting leaves it open."""

    on_cpu: int
    """On a CPU."""
    per_gib: float
    """On a GPU, for each GiB of its memory."""
    most: int
    """On a GPU."""

    def chosen(self, asked: int | None, device: torch.device, gpus: float | int = 1) -> int:
        """Return the number of an actor or task.

        Args:
            asked: as the setting says.
            device: where it works.
            gpus: GPUs that it has, or the share of one.
        """
        if asked is not None:
            return asked
        if device.type != "cuda":
            return self.on_cpu
        gib = torch.cuda.get_device_properties(device).total_memory / 2**30 * min(gpus, 1)
        return max(1, min(self.most, int(self.per_gib * gib)))


class BatchSize:
    """How many items go through a network at once: the number that is set, or half of it where memory is short."""

    def __init__(self, size: int, setting: str) -> None:
        """Start with a setting's number.

        Args:
            size: the number.
            setting: its dotted name.
        """
        self.size, self.remark = size, ""
        self._setting = setting

    def run(self, work: Callable[[int], _Result]) -> _Result:
        """Return what `work` makes of a number of items at once; where memory runs out, once more with half as many.

        Raises:
            ResourceError: when it runs out again.
        """
        try:
            return work(self.size)
        except torch.OutOfMemoryError as error:
            if self.remark or self.size == 1:
                raise ResourceError(
                    f"memory of the GPU ran out with {self._setting} {self.size} ({str(error).splitlines()[0]}); lower "
                    "it, or let fewer actors share a GPU"
                ) from error
            self.remark = f"{self._setting} {self.size} did not fit the GPU's memory; went on with {self.size // 2}"
            self.size //= 2
        torch.cuda.empty_cache()
        return self.run(work)


def upload(values: Shaped[Tensor, "*any"], device: torch.device) -> Shaped[Tensor, "*any"]:
    """Copy to a device; the host does not wait for a GPU, since the copy is from pinned memory."""
    if device.type == "cuda" and values.device.type == "cpu":
        values = values.pin_memory()
    return values.to(device, non_blocking=True)


@functools.cache
def constant(
    values: tuple[float | int, ...], device: torch.device, dtype: torch.dtype = torch.float32
) -> Shaped[Tensor, " value"]:
    """Return some numbers of the settings on a device; never write to them.

    They stay there for good: CUDA graphs (`models.graphs`) read them where they are.
    """
    with torch.inference_mode(False):  # made within inference, they would be refused by a training
        return upload(torch.tensor(values, dtype=dtype), device)


def download(values: Sequence[Float[Tensor, "..."]]) -> list[Float[Tensor, "..."]]:
    """Copy float32 tensors to the CPU with one wait for a GPU; there they share their memory."""
    if not values or values[0].device.type == "cpu":
        return list(values)
    together = torch.cat([value.flatten() for value in values]).cpu()
    sizes = [math.prod(value.shape) for value in values]
    return [part.view(value.shape) for part, value in zip(together.split(sizes), values, strict=True)]
