"""Which image an item of an epoch is, in whatever process it is drawn."""

from typing import Any

import torch

from qaclims_ray.data.datasets import seed_of


class EpochOrder:
    """The epoch at hand, and the images of its items: they depend on (seed, epoch, index) alone."""

    def __init__(self, num_images: int, items_per_epoch: int | None, seed: int) -> None:
        """Begin with epoch 0.

        Args:
            num_images: of the data set, at least one.
            items_per_epoch: length of an epoch; epochs then walk on through shuffled passes over the images, so that
                after any number of epochs no image was seen more than once oftener than another. None makes every epoch
                one pass, in which item i is image i.
            seed: of the passes.
        """
        assert items_per_epoch is None or items_per_epoch >= 1
        self._num_images, self._items_per_epoch, self._seed = num_images, items_per_epoch, seed
        # Shared memory: loading processes that outlive an epoch must see the next one.
        self._epoch = torch.zeros((), dtype=torch.int64).share_memory_()
        self._pass: tuple[int, list[int]] = (-1, [])

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        # An unpickled copy has memory of its own, which its loading processes have to share.
        self._epoch.share_memory_()

    @property
    def epoch(self) -> int:
        """The epoch at hand."""
        return int(self._epoch)

    def set_epoch(self, epoch: int) -> None:
        """Choose the epoch."""
        self._epoch.fill_(epoch)

    def __len__(self) -> int:
        """Return the number of items of an epoch."""
        return self._num_images if self._items_per_epoch is None else self._items_per_epoch

    def position(self, index: int) -> int:
        """Return which image an item is.

        Raises:
            IndexError: beyond the epoch.
        """
        if not 0 <= index < len(self):
            raise IndexError(index)
        if self._items_per_epoch is None:
            return index
        number, place = divmod(self.epoch * self._items_per_epoch + index, self._num_images)
        if self._pass[0] != number:  # the last pass is kept: items of one epoch mostly share it
            generator = torch.Generator().manual_seed(seed_of("pass", self._seed, number))
            self._pass = (number, torch.randperm(self._num_images, generator=generator).tolist())
        return self._pass[1][place]
