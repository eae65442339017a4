"""Pictures with label maps as a torch ``Dataset``: joint random crops for affinity and final networks (D1, D6, E8).

As in ``data/datasets``, all randomness depends on (seed, epoch, index) alone.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypedDict

import numpy as np
import torch
from jaxtyping import Float, UInt8
from PIL import Image
from torch import Tensor
from torch.utils.data import Dataset

from qaclims_ray.data.classes import IGNORE_VALUE
from qaclims_ray.data.config import JointCropConfig
from qaclims_ray.data.datasets import seed_of
from qaclims_ray.data.decoded import DecodedPictures
from qaclims_ray.data.epoch_order import EpochOrder
from qaclims_ray.data.images import Rgb, crop_offsets, load_image, random_integer, resize, torchvision_draws_from
from qaclims_ray.data.mask_files import load_mask
from qaclims_ray.errors import DataError

_HUE_SHARE = 0.1
"""Change of the hue, in turns, as a share of the change of brightness."""


@dataclass(frozen=True)
class LabelledImage:
    """A picture and where its label map lies."""

    image_id: str
    """The manifest's image identifier."""
    image_uri: str
    """Path or fsspec URI of the picture."""
    mask_uri: str
    """Path or fsspec URI of the label map, a PNG of the picture's size."""


class LabelMapItem(TypedDict):
    """One training crop."""

    image: Float[Tensor, "3 height width"] | UInt8[Tensor, "4 height width"]
    """Normalised; zero where the crop reaches beyond the picture. Packed: see `packed_labelled_crop`."""
    labels: UInt8[Tensor, "height width"]
    """Label values; 255 where the crop reaches beyond the picture."""
    index: int
    """Position of the picture in the list."""


class LabelMapDataset(Dataset[LabelMapItem]):
    """Random crops of pictures and their label maps."""

    def __init__(
        self,
        images: Sequence[LabelledImage],
        crop: JointCropConfig,
        mean: tuple[float, float, float],
        std: tuple[float, float, float],
        seed: int,
        *,
        items_per_epoch: int | None = None,
    ) -> None:
        """Take a list of pictures; they are read when they are asked for.

        Args:
            images: pictures and label maps.
            crop: scales, size of the crop in pixels, mirror images, colours.
            mean: of the network's normalisation, on the 0-1 scale.
            std: of the network's normalisation, on the 0-1 scale.
            seed: seed of the crops and of the order of the pictures.
            items_per_epoch: see `EpochOrder`.

        Raises:
            DataError: when there is no picture.
        """
        if not images:
            raise DataError("there is no image with a label map to train on: the training split is empty")
        self.images = tuple(images)
        self._crop = crop
        self._mean, self._std = mean, std
        self._seed = seed
        self._order = EpochOrder(len(self.images), items_per_epoch, seed)
        self._decoded = DecodedPictures()

    def set_epoch(self, epoch: int) -> None:
        """Choose the epoch whose crops come next; call it before iterating."""
        self._order.set_epoch(epoch)

    def __len__(self) -> int:
        return len(self._order)

    def __getitem__(self, index: int) -> LabelMapItem:
        """Return one item.

        Raises:
            DataError: when picture or label map cannot be read, or they differ in size.
        """
        position, image, labels, generator = self._drawn(index)
        pixels, labels = labelled_crop(image, labels, self._crop, self._mean, self._std, generator)
        return {"image": pixels, "labels": labels, "index": position}

    def image_id(self, index: int) -> str:
        """Return the identifier of the image of an item, by the item's `index`."""
        return self.images[index].image_id

    @property
    def normalisation(self) -> tuple[Rgb, Rgb]:
        """See `training.packing.PackableImages`."""
        return self._mean, self._std

    def packed_item(self, index: int) -> LabelMapItem:
        """Return one item as 8-bit pixels; see `training.packing.PackableImages`.

        Raises:
            DataError: as of an item.
        """
        position, image, labels, generator = self._drawn(index)
        pixels, labels = packed_labelled_crop(image, labels, self._crop, generator)
        return {"image": pixels, "labels": labels, "index": position}

    def _drawn(self, index: int) -> tuple[int, Tensor, Tensor, torch.Generator]:
        position, epoch = self._order.position(index), self._order.epoch
        image, labels = self._decoded.get(position, lambda: load_labelled(self.images[position]))
        return (
            position,
            image,
            labels,
            torch.Generator().manual_seed(seed_of("labelled crop", self._seed, epoch, index)),
        )


def load_labelled(
    labelled: LabelledImage,
) -> tuple[UInt8[Tensor, "3 height width"], UInt8[Tensor, "height width"]]:
    """Read a picture and its label map.

    Raises:
        DataError: when one of them cannot be read, or they differ in size.
    """
    image, labels = load_image(labelled.image_uri), load_mask(labelled.mask_uri)
    if image.shape[1:] != labels.shape:
        raise DataError(
            f"image {labelled.image_uri} has {image.shape[2]} x {image.shape[1]} pixels, its label map "
            f"{labelled.mask_uri} has {labels.shape[1]} x {labels.shape[0]}; expected equal sizes: make the label map "
            "of this image again"
        )
    return image, labels


def labelled_crop(
    image: UInt8[Tensor, "3 height width"],
    labels: UInt8[Tensor, "height width"],
    crop: JointCropConfig,
    mean: tuple[float, float, float],
    std: tuple[float, float, float],
    generator: torch.Generator,
) -> tuple[
    Float[Tensor, "3 {crop.crop_px} {crop.crop_px}"],
    UInt8[Tensor, "{crop.crop_px} {crop.crop_px}"],
]:
    """Cut out a random part of a picture and its label map, and normalise the picture.

    Both are scaled at random (picture: PIL's bicubic filter; label map: nearest pixel) and mirrored at random. The
    colours of the part that is cut out change at random. A picture smaller than the crop lies at a random place in
    it; around it the picture is zero after normalisation, and the label map 255.

    Args:
        image: RGB.
        labels: label values.
        crop: scales, size in pixels, whether to mirror, strength of the colour changes.
        mean: per channel, 0-1 scale.
        std: per channel, 0-1 scale.
        generator: the only source of randomness.
    """
    packed, cut = packed_labelled_crop(image, labels, crop, generator)
    pixels = (packed[:3].float() / 255 - torch.tensor(mean).view(3, 1, 1)) / torch.tensor(std).view(3, 1, 1)
    return torch.where(packed[3:].bool(), pixels, torch.zeros(())), cut


def packed_labelled_crop(
    image: UInt8[Tensor, "3 height width"],
    labels: UInt8[Tensor, "height width"],
    crop: JointCropConfig,
    generator: torch.Generator,
) -> tuple[
    UInt8[Tensor, "4 {crop.crop_px} {crop.crop_px}"],
    UInt8[Tensor, "{crop.crop_px} {crop.crop_px}"],
]:
    """Return the crop of `labelled_crop` before it is normalised, with a fourth channel: 1 within the picture.

    Args:
        image: RGB.
        labels: label values.
        crop: scales, size in pixels, whether to mirror, strength of the colour changes.
        generator: the only source of randomness.
    """
    side = crop.crop_px
    height, width = _random_size((image.shape[1], image.shape[2]), crop, generator)
    target_top, top = crop_offsets(height, side, generator)
    target_left, left = crop_offsets(width, side, generator)
    part = resize(image, width=width, height=height)[:, top : top + side, left : left + side]
    part_labels = _resize_labels(labels, width=width, height=height)[top : top + side, left : left + side]
    if crop.flip and random_integer(0, 1, generator):
        part, part_labels = part.flip(2), part_labels.flip(1)
    if crop.jitter:
        part = _jitter(part, crop.jitter, generator)
    rows = slice(target_top, target_top + part.shape[1])
    columns = slice(target_left, target_left + part.shape[2])
    packed = image.new_zeros(4, side, side)
    packed[:3, rows, columns], packed[3, rows, columns] = part, 1
    cut = labels.new_full((side, side), IGNORE_VALUE)
    cut[rows, columns] = part_labels
    return packed, cut


def _random_size(size: tuple[int, int], crop: JointCropConfig, generator: torch.Generator) -> tuple[int, int]:
    share = float(torch.rand((), generator=generator))
    scale = crop.min_scale + share * (crop.max_scale - crop.min_scale)
    return max(1, round(size[0] * scale)), max(1, round(size[1] * scale))


def _resize_labels(labels: Tensor, *, width: int, height: int) -> Tensor:
    picture = Image.fromarray(labels.contiguous().numpy()).resize((width, height), Image.Resampling.NEAREST)
    return torch.from_numpy(np.array(picture))


def _jitter(image: Tensor, strength: float, generator: torch.Generator) -> Tensor:
    from torchvision.transforms import v2  # takes two seconds to load

    change = v2.ColorJitter(strength, strength, strength, strength * _HUE_SHARE)
    with torchvision_draws_from(generator):
        return change(image)
