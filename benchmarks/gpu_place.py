"""Where components of ``gpu_components.py`` work, and the table of them."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol

import torch
from torch import Tensor

from qaclims_ray.models.precision import Arithmetic


class Place(Protocol):
    """Where components work."""

    device: torch.device
    """Its device."""
    is_tiny: bool
    """Whether sizes are those for a CPU."""
    built_on: str
    """Device on which large models are built before they come there; "meta" where weights have no values."""

    def tensor(self, *shape: int, dtype: torch.dtype = torch.float32) -> Tensor:
        """Return a tensor there, of random numbers where it holds any."""
        ...

    def module(self, module: Any, dtype: torch.dtype | None = None) -> Any:
        """Bring a module there."""
        ...

    def wrapped(self, network: Any, *, is_captured: bool = True) -> Any:
        """Return a network as the training loop wraps it."""
        ...

    def inferring(self, network: Any) -> Any:
        """Bring a network there that only infers."""
        ...

    def precision(self, auto: Arithmetic) -> Arithmetic:
        """Return what a network infers in, `auto` being what its stage takes on a GPU."""
        ...


@dataclass(frozen=True)
class Component:
    """One thing that is computed on a GPU."""

    prepare: Callable[[Place], Callable[[], Any]]
    """Makes all that it needs; returns the call."""
    images: tuple[int, int]
    """Images, texts or features of one call: at full size, and tiny."""


COMPONENTS: dict[str, Component] = {}


def component(full: int, tiny: int) -> Callable[[Callable[[Place], Callable[[], Any]]], Any]:
    """Register a component by its function's name.

    Args:
        full: images of a call at full size.
        tiny: and for a CPU.
    """

    def register(prepare: Callable[[Place], Callable[[], Any]]) -> Callable[[Place], Callable[[], Any]]:
        COMPONENTS[prepare.__name__] = Component(prepare, (full, tiny))
        return prepare

    return register
