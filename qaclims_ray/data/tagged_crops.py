"""Random crops of images with their tags, and where a crop shows the image: for trainings that make their own masks."""

from typing import TypedDict

import torch
from jaxtyping import Float, UInt8
from torch import Tensor
from torch.utils.data import Dataset

from qaclims_ray.data.config import JointCropConfig
from qaclims_ray.data.datasets import label_matrix, seed_of
from qaclims_ray.data.decoded import DecodedPictures
from qaclims_ray.data.epoch_order import EpochOrder
from qaclims_ray.data.images import Rgb, load_image
from qaclims_ray.data.label_map_dataset import labelled_crop, packed_labelled_crop
from qaclims_ray.data.manifest import Manifest
from qaclims_ray.errors import DataError


class TaggedCrop(TypedDict):
    """A crop."""

    image: Tensor
    """Normalised (3, side, side), or packed (`data.label_map_dataset.packed_labelled_crop`)."""
    tags: Float[Tensor, " class"]
    """1 for the classes that the whole image shows; the crop may miss them."""
    outside: UInt8[Tensor, "height width"]
    """255 beyond the image, 0 within."""
    index: int
    """Position in the manifest."""


class TaggedCrops(Dataset[TaggedCrop]):
    """A manifest's images as random crops; randomness depends on (seed, epoch, index) alone."""

    def __init__(
        self, manifest: Manifest, crop: JointCropConfig, mean: Rgb, std: Rgb, seed: int, *, items_per_epoch: int | None
    ) -> None:
        """Take the images.

        Args:
            manifest: images and tags.
            crop: scales, size, mirroring, colours.
            mean: of the normalisation, on the 0-1 scale.
            std: of the normalisation, on the 0-1 scale.
            seed: of the crops, and of the order where epochs are no passes.
            items_per_epoch: see `EpochOrder`.

        Raises:
            DataError: when there is no image.
        """
        if not manifest.records:
            raise DataError("there is no image to train on: the training split is empty")
        self.manifest = manifest
        self._crop, self._mean, self._std, self._seed = crop, mean, std, seed
        self._tags = label_matrix(manifest)
        self._order = EpochOrder(len(manifest.records), items_per_epoch, seed)
        self._decoded = DecodedPictures()

    def set_epoch(self, epoch: int) -> None:
        """Choose the epoch whose crops come next; call it before iterating."""
        self._order.set_epoch(epoch)

    @property
    def epoch(self) -> int:
        """The epoch whose crops are drawn."""
        return self._order.epoch

    def __len__(self) -> int:
        return len(self._order)

    def __getitem__(self, index: int) -> TaggedCrop:
        """Return one item.

        Raises:
            DataError: when the image cannot be read.
        """
        position, image, inside, generator = self._drawn(index)
        pixels, outside = labelled_crop(image, inside, self._crop, self._mean, self._std, generator)
        return {"image": pixels, "tags": self._tags[position], "outside": outside, "index": position}

    def image_id(self, index: int) -> str:
        """Return the identifier of the image of an item, by the item's `index`."""
        return self.manifest.records[index].image_id

    @property
    def normalisation(self) -> tuple[Rgb, Rgb]:
        """See `training.packing.PackableImages`."""
        return self._mean, self._std

    def packed_item(self, index: int) -> TaggedCrop:
        """Return one item as 8-bit pixels; see `training.packing.PackableImages`.

        Raises:
            DataError: as of an item.
        """
        position, image, inside, generator = self._drawn(index)
        pixels, outside = packed_labelled_crop(image, inside, self._crop, generator)
        return {"image": pixels, "tags": self._tags[position], "outside": outside, "index": position}

    def _drawn(self, index: int) -> tuple[int, Tensor, Tensor, torch.Generator]:
        position, epoch = self._order.position(index), self.epoch
        (image,) = self._decoded.get(position, lambda: (load_image(self.manifest.records[position].image_uri),))
        generator = torch.Generator().manual_seed(seed_of("tagged crop", self._seed, epoch, index))
        # A label map that is 0 everywhere: cropped with the image it says where the crop shows none.
        return position, image, image.new_zeros(image.shape[1:]), generator
