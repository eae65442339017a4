"""Pictures and label maps as tensors: decoding, resizing, and the training crop (rows R18, S10).

Everything is read through ``data/storage`` and decoded with PIL, because the published figures were made with
PIL's bicubic filter (which antialiases). Photographs are turned upright as their EXIF says (`photographs`); label
maps are taken as they are stored. torchvision, which takes two seconds to load, is imported where it is used.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

import numpy as np
import torch
from jaxtyping import Float, UInt8
from PIL import Image
from torch import Tensor

from qaclims_ray.data import storage, whole_files
from qaclims_ray.data.classes import voc_palette
from qaclims_ray.data.config import AugmentConfig
from qaclims_ray.data.photographs import inspect_photograph, read_photograph

if TYPE_CHECKING:
    from torchvision.transforms import v2

Rgb = tuple[float, float, float]
"""One number for each of red, green and blue."""


def load_image(uri: str) -> UInt8[Tensor, "3 height width"]:
    """Decode a photograph to upright RGB of 8 bits; `photographs.read_photograph` says how.

    Args:
        uri: path or fsspec URI.

    Raises:
        DataError: when the file is missing, empty, truncated, too large, no image, or of more than 16 bits.
        DamagedError: when it was drawn for the run, and is not what was written.
    """
    with whole_files.laying_blame(uri):
        return _to_tensor(read_photograph(uri))


def save_label_map(labels: UInt8[Tensor, "height width"], uri: str) -> None:
    """Write a label map as a PNG with VOC's palette: pixel values are labels, viewers show colours.

    Raises:
        ResourceError: when the place cannot be written.
    """
    picture = Image.fromarray(labels.cpu().numpy(), mode="P")
    picture.putpalette(voc_palette())
    with storage.publishing(uri) as local_path:
        picture.save(local_path, format="PNG")


def image_size(uri: str) -> tuple[int, int]:
    """Return an image's width and height in pixels, upright, from its header alone.

    Raises:
        DataError: when the file is missing, empty, too large or no image.
    """
    header = inspect_photograph(uri, decode=False)
    return header.width, header.height


def resize_square(image: UInt8[Tensor, "3 height width"], size: int) -> UInt8[Tensor, "3 {size} {size}"]:
    """Resize to a square with PIL's bicubic filter; the aspect is not kept (row Q1).

    Args:
        image: RGB.
        size: side in pixels.
    """
    return resize(image, width=size, height=size)


def training_crop(
    image: UInt8[Tensor, "3 height width"],
    augment: AugmentConfig,
    mean: tuple[float, float, float],
    std: tuple[float, float, float],
    generator: torch.Generator,
) -> Float[Tensor, "3 {augment.crop_px} {augment.crop_px}"]:
    """Cut out a random part of an image, change it at random, and normalise it.

    `resize_crop`, as IRN does it (row R18): resized to a random long side, bicubic; the crop is zero padded after
    normalisation, so the padding has the mean colour; an image smaller than the crop lies at a random place in it.
    `random_resized_crop`, as SemPLeS does it (row S10): a part of random area and aspect (3/4 to 4/3), bicubic.
    Both are mirrored at random, before RandAugment; a box is erased last, after normalisation.

    Args:
        image: RGB.
        augment: kind, sizes in pixels, whether to mirror, strengths.
        mean: per channel, 0-1 scale.
        std: per channel, 0-1 scale.
        generator: the only source of randomness.
    """
    image = _changed(image, augment, mean, generator)
    pixels = (image.float() / 255 - torch.tensor(mean).view(3, 1, 1)) / torch.tensor(std).view(3, 1, 1)
    if augment.kind == "resize_crop":
        pixels = _random_crop(pixels, augment.crop_px, generator)
    if augment.erasing_probability:
        from torchvision.transforms import v2

        with torchvision_draws_from(generator):
            # torchvision's documentation allows "random", its annotation does not.
            erase = v2.RandomErasing(augment.erasing_probability, value="random")  # type: ignore[arg-type]
            pixels = erase(pixels)
    return pixels


def packed_crop(
    image: UInt8[Tensor, "3 height width"], augment: AugmentConfig, mean: Rgb, generator: torch.Generator
) -> UInt8[Tensor, "4 {augment.crop_px} {augment.crop_px}"]:
    """Return the crop of `training_crop` before it is normalised, with a fourth channel: 1 within the picture.

    Args:
        image: RGB.
        augment: without erasing, which puts noise of any value into normalised pixels.
        mean: per channel, 0-1 scale.
        generator: the only source of randomness.
    """
    assert not augment.erasing_probability
    image = _changed(image, augment, mean, generator)
    pixels = torch.cat([image, torch.ones_like(image[:1])])
    return _random_crop(pixels, augment.crop_px, generator) if augment.kind == "resize_crop" else pixels


def _changed(image: Tensor, augment: AugmentConfig, mean: Rgb, generator: torch.Generator) -> Tensor:
    """Resize, or cut, mirror and change an image at random; its pixels stay 8-bit numbers."""
    match augment.kind:
        case "resize_crop":
            image = _random_long_side(image, augment, generator)
        case "random_resized_crop":
            image = _random_part(image, augment, generator)
    if augment.flip and random_integer(0, 1, generator):
        image = image.flip(2)
    if augment.rand_augment_magnitude:
        with torchvision_draws_from(generator):
            image = _rand_augment(augment.rand_augment_magnitude, mean)(image)
    return image


def _random_long_side(image: Tensor, augment: AugmentConfig, generator: torch.Generator) -> Tensor:
    if augment.max_long_side_px == 0:
        return image
    long_side = random_integer(augment.min_long_side_px, augment.max_long_side_px, generator)
    height, width = image.shape[1:]
    scale = long_side / max(height, width)
    return resize(image, width=max(1, round(width * scale)), height=max(1, round(height * scale)))


def _random_part(image: Tensor, augment: AugmentConfig, generator: torch.Generator) -> Tensor:
    from torchvision.transforms import v2

    cut = v2.RandomResizedCrop(
        augment.crop_px, scale=(augment.min_crop_scale, 1.0), interpolation=v2.InterpolationMode.BICUBIC
    )
    with torchvision_draws_from(generator):
        return cut(image)


def _rand_augment(magnitude: int, mean: tuple[float, float, float]) -> "v2.Transform":
    """Two random changes, each applied to half of the images.

    timm's "m9", which the released code uses, means 9 of 10, not torchvision's 9 of 30. Its noise on the magnitude
    and its operations Invert and SolarizeAdd are left out.
    """
    from torchvision.transforms import v2

    fill = [round(255 * value) for value in mean]
    change = v2.RandAugment(
        num_ops=1,
        magnitude=3 * magnitude,
        num_magnitude_bins=31,
        interpolation=v2.InterpolationMode.BILINEAR,
        fill=fill,
    )
    return v2.Compose([v2.RandomApply([change], p=0.5)] * 2)


@contextmanager
def torchvision_draws_from(generator: torch.Generator) -> Iterator[None]:
    """Seed the global generator, the only one that torchvision knows, from a given one; give it back as it was."""
    seed = int(torch.randint(2**62, (), generator=generator))
    with torch.random.fork_rng(devices=[]):
        # Not torch.manual_seed: that would reseed a GPU too.
        torch.default_generator.manual_seed(seed)
        yield


def _random_crop(pixels: Tensor, side: int, generator: torch.Generator) -> Tensor:
    crop = pixels.new_zeros(len(pixels), side, side)
    height, width = pixels.shape[1:]
    target_top, top = crop_offsets(height, side, generator)
    target_left, left = crop_offsets(width, side, generator)
    part = pixels[:, top : top + side, left : left + side]
    crop[:, target_top : target_top + part.shape[1], target_left : target_left + part.shape[2]] = part
    return crop


def crop_offsets(length: int, side: int, generator: torch.Generator) -> tuple[int, int]:
    """Draw the offset in the crop and the offset in the image, along one axis; one of the two is 0."""
    if length > side:
        return 0, random_integer(0, length - side, generator)
    return random_integer(0, side - length, generator), 0


def random_integer(low: int, high: int, generator: torch.Generator) -> int:
    """Draw an integer, both ends included."""
    return int(torch.randint(low, high + 1, (), generator=generator))


def resize(image: UInt8[Tensor, "3 _ _"], *, width: int, height: int) -> UInt8[Tensor, "3 {height} {width}"]:
    """Resize with PIL's bicubic filter; sizes in pixels."""
    picture = Image.fromarray(image.permute(1, 2, 0).contiguous().numpy())
    return _to_tensor(picture.resize((width, height), Image.Resampling.BICUBIC))


def _to_tensor(picture: Image.Image) -> Tensor:
    return torch.from_numpy(np.array(picture)).permute(2, 0, 1).contiguous()  # (3, height, width)
