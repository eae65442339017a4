"""Pictures that stay decoded from epoch to epoch, as far as a number of bytes goes."""

from collections.abc import Callable
from typing import Any

from torch import Tensor
from torch.utils.data import get_worker_info

LIMIT_BYTES = 256 << 20
"""What one training process keeps: some 480 pictures of 500 x 375 pixels, or all of the miniature world."""


class DecodedPictures:
    """What was decoded first is kept, for ever: passes are shuffled, so that no picture is likelier than another.

    Loading processes keep nothing: they end with the epoch, in which a picture is met once.
    """

    def __init__(self, limit_bytes: int = LIMIT_BYTES) -> None:
        """Take the number of bytes that may be kept."""
        self._bytes_left = self._limit_bytes = limit_bytes
        self._kept: dict[int, tuple[Tensor, ...]] = {}

    def __reduce__(self) -> tuple[type["DecodedPictures"], tuple[Any, ...]]:
        """Travel empty."""
        return DecodedPictures, (self._limit_bytes,)

    def get(self, position: int, decode: Callable[[], tuple[Tensor, ...]]) -> tuple[Tensor, ...]:
        """Return the tensors of a picture, which must not be changed in place; `decode` makes those not kept."""
        if get_worker_info() is not None:
            return decode()
        if position in self._kept:
            return self._kept[position]
        pictures = decode()
        size = sum(one.nbytes for one in pictures)
        if size <= self._bytes_left:
            self._bytes_left -= size
            self._kept[position] = pictures
        return pictures
