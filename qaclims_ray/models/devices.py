"""Ways between the CPU and a GPU on which the host does not wait, or waits once."""

import functools
import math
from collections.abc import Sequence

import torch
from jaxtyping import Float, Shaped
from torch import Tensor


def upload(values: Shaped[Tensor, "*any"], device: torch.device) -> Shaped[Tensor, "*any"]:
    """Copy to a device; the host does not wait for a GPU, since the copy is from pinned memory."""
    if device.type == "cuda" and values.device.type == "cpu":
        values = values.pin_memory()
    return values.to(device, non_blocking=True)


@functools.lru_cache(maxsize=256)
def constant(
    values: tuple[float | int, ...], device: torch.device, dtype: torch.dtype = torch.float32
) -> Shaped[Tensor, " value"]:
    """Return some numbers on a device, where they stay for the next call; never write to them."""
    with torch.inference_mode(False):  # made within inference, they would be refused by a training
        return upload(torch.tensor(values, dtype=dtype), device)


def download(values: Sequence[Float[Tensor, "..."]]) -> list[Float[Tensor, "..."]]:
    """Copy float32 tensors to the CPU with one wait for a GPU; there they share their memory."""
    if not values or values[0].device.type == "cpu":
        return list(values)
    together = torch.cat([value.flatten() for value in values]).cpu()
    sizes = [math.prod(value.shape) for value in values]
    return [part.view(value.shape) for part, value in zip(together.split(sizes), values, strict=True)]
