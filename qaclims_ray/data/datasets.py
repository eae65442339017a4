"""Training images as a torch ``Dataset``, and the batches that every number of workers shares.

All randomness depends on (seed, epoch, index) alone: neither the number of training workers, nor that of loading
processes, nor the order in which they finish changes what the network sees.
"""

import hashlib
from collections.abc import Iterator
from typing import TypedDict

import torch
from jaxtyping import Float, UInt8
from torch import Tensor
from torch.utils.data import Dataset

from qaclims_ray.data.config import AugmentConfig
from qaclims_ray.data.decoded import DecodedPictures
from qaclims_ray.data.images import Rgb, load_image, packed_crop, training_crop
from qaclims_ray.data.manifest import Manifest
from qaclims_ray.errors import ConfigError, DataError


def label_matrix(manifest: Manifest) -> Float[Tensor, "image class"]:
    """Return 1 where an image of a manifest shows a class and 0 elsewhere."""
    matrix = torch.zeros(len(manifest.records), len(manifest.class_names))
    for row, record in enumerate(manifest.records):
        matrix[row, list(record.labels)] = 1.0
    return matrix


class TrainingItem(TypedDict):
    """One training image."""

    image: Float[Tensor, "3 height width"]
    """Normalised crop."""
    labels: Float[Tensor, " class"]
    """1 for the classes that the whole image shows; the crop may miss them."""
    index: int
    """Position in the manifest."""


class PackedItem(TypedDict):
    """One training image, not normalised yet."""

    image: UInt8[Tensor, "4 height width"]
    """See `data.images.packed_crop`."""
    labels: Float[Tensor, " class"]
    """As of `TrainingItem`."""
    index: int
    """As of `TrainingItem`."""


class ImageLabelDataset(Dataset[TrainingItem]):
    """Random crops of a manifest's images with their image-level labels."""

    def __init__(
        self,
        manifest: Manifest,
        augment: AugmentConfig,
        mean: tuple[float, float, float],
        std: tuple[float, float, float],
        seed: int,
    ) -> None:
        self.manifest = manifest
        self._augment = augment
        self._mean, self._std = mean, std
        self._seed = seed
        self._labels = label_matrix(manifest)
        self._decoded = DecodedPictures()
        # Shared memory: loading processes that outlive an epoch must see the next one.
        self._epoch = torch.zeros((), dtype=torch.int64).share_memory_()

    def __setstate__(self, state: dict) -> None:
        self.__dict__.update(state)
        # An unpickled copy has memory of its own, which its loading processes have to share.
        self._epoch.share_memory_()

    def set_epoch(self, epoch: int) -> None:
        """Choose the epoch whose crops come next; call it before iterating."""
        self._epoch.fill_(epoch)

    def __len__(self) -> int:
        return len(self.manifest.records)

    def __getitem__(self, index: int) -> TrainingItem:
        """Return one item.

        Raises:
            DataError: when the image cannot be read.
        """
        image, generator = self._drawn(index)
        crop = training_crop(image, self._augment, self._mean, self._std, generator)
        return {"image": crop, "labels": self._labels[index], "index": index}

    def image_id(self, index: int) -> str:
        """Return the identifier of the image of an item, by the item's `index`."""
        return self.manifest.records[index].image_id

    @property
    def normalisation(self) -> tuple[Rgb, Rgb] | None:
        """See `training.packing.PackableImages`."""
        return None if self._augment.erasing_probability else (self._mean, self._std)

    def packed_item(self, index: int) -> PackedItem:
        """Return one item as 8-bit pixels; see `training.packing.PackableImages`.

        Raises:
            DataError: when the image cannot be read.
        """
        image, generator = self._drawn(index)
        crop = packed_crop(image, self._augment, self._mean, generator)
        return {"image": crop, "labels": self._labels[index], "index": index}

    def _drawn(self, index: int) -> tuple[UInt8[Tensor, "3 height width"], torch.Generator]:
        generator = torch.Generator().manual_seed(seed_of("crop", self._seed, int(self._epoch), index))
        (image,) = self._decoded.get(index, lambda: (load_image(self.manifest.records[index].image_uri),))
        return image, generator


class GlobalBatchSampler:
    """One worker's share of global batches that do not depend on the number of workers.

    The order of an epoch depends on (seed, epoch) only; step s takes positions s*B .. (s+1)*B of it and rank r
    every ``world_size``-th of them, from r. Shares may differ by one image and are never empty.
    """

    def __init__(
        self, num_images: int, batch_size: int, rank: int, world_size: int, seed: int, drop_last: bool = True
    ) -> None:
        """Check the shares.

        Args:
            num_images: images of the split.
            batch_size: images of one step over all workers together.
            rank: this worker, from 0.
            world_size: number of workers.
            seed: seed of the order.
            drop_last: leave out a last batch that is not full, unless it is the only one.

        Raises:
            DataError: when there is no image.
            ConfigError: when a worker would get no image in some step, or the numbers are out of range.
        """
        if num_images < 1:
            raise DataError("there is no image to train on: the training split is empty")
        if batch_size < 1 or not 0 <= rank < world_size:
            raise ConfigError(f"batch size {batch_size}, rank {rank} of {world_size} workers: out of range")
        tail = num_images % batch_size
        self._num_batches = max(1, num_images // batch_size if drop_last or not tail else num_images // batch_size + 1)
        smallest = tail if tail and self._num_batches * batch_size > num_images else batch_size
        if smallest < world_size:
            raise ConfigError(
                f"{num_images} images in batches of {batch_size} give a batch of {smallest}, fewer than the "
                f"{world_size} workers: raise optim.batch_size or lower cluster.num_workers"
            )
        self._num_images, self._batch_size = num_images, batch_size
        self._rank, self._world_size = rank, world_size
        self._seed, self._epoch, self._first = seed, 0, 0

    def set_epoch(self, epoch: int, first_batch: int = 0) -> None:
        """Choose the epoch whose order comes next, and its batch to begin with."""
        self._epoch, self._first = epoch, first_batch

    def __len__(self) -> int:
        return self._num_batches

    def __iter__(self) -> Iterator[list[int]]:
        generator = torch.Generator().manual_seed(seed_of("order", self._seed, self._epoch))
        order = torch.randperm(self._num_images, generator=generator).tolist()
        for step in range(self._first, self._num_batches):
            batch = order[step * self._batch_size : (step + 1) * self._batch_size]
            yield batch[self._rank :: self._world_size]


def seed_of(purpose: str, *parts: int) -> int:
    """Return a 63-bit seed from a purpose and integers; other parts give an unrelated seed."""
    # Not hash(): Python's own differs from process to process.
    digest = hashlib.sha256("/".join([purpose, *map(str, parts)]).encode()).digest()
    return int.from_bytes(digest[:8], "big") >> 1
