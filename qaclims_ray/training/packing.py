"""Crops on their way to a GPU: 8-bit pixels, a third of the bytes, normalised where the network is (rows R18, D6).

Loading processes spare the arithmetic, and shared memory, pinned memory and the bus two of three bytes. On a CPU the
numbers are those of `data.images.training_crop` to the last bit, which a test holds; a training there without loading
processes is given those themselves.
"""

from typing import Any, Protocol, runtime_checkable

import torch
from jaxtyping import Float, UInt8
from torch import Tensor
from torch.utils.data import Dataset

from qaclims_ray.data.images import Rgb
from qaclims_ray.models.devices import constant


@runtime_checkable
class PackableImages(Protocol):
    """A data set whose crops can travel as 8-bit pixels."""

    @property
    def normalisation(self) -> tuple[Rgb, Rgb] | None:
        """Mean and standard deviation on the 0-1 scale; None where a crop is more than its normalised pixels."""
        ...

    def packed_item(self, index: int) -> Any:
        """Return an item whose `image` is red, green, blue, and 1 within the picture: 8 bits (4, height, width)."""
        ...

    def __len__(self) -> int: ...


class Packed(Dataset[Any]):
    """A data set with its crops packed."""

    def __init__(self, images: PackableImages) -> None:
        self._images = images

    def __len__(self) -> int:
        return len(self._images)

    def __getitem__(self, index: int) -> Any:
        """Return one item; see `PackableImages.packed_item`."""
        return self._images.packed_item(index)


def can_pack(images: Any) -> bool:
    """Whether crops of a data set can travel packed."""
    return isinstance(images, PackableImages) and images.normalisation is not None


def normalised_crops(
    packed: UInt8[Tensor, "batch 4 height width"], normalisation: tuple[Rgb, Rgb]
) -> Float[Tensor, "batch 3 height width"]:
    """Return normalised crops, 0 beyond the picture.

    Args:
        packed: on the network's device.
        normalisation: mean and standard deviation on the 0-1 scale.
    """
    mean, std = (constant(values, packed.device)[:, None, None] for values in normalisation)
    pixels = (packed[:, :3].float() / 255 - mean) / std
    return torch.where(packed[:, 3:].bool(), pixels, torch.zeros((), device=packed.device))
