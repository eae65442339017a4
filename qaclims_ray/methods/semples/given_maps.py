"""Whole images with CAMs made elsewhere: a fixed mask generator for prompt learning that is no network (row S22)."""

from collections.abc import Callable
from typing import TypedDict

import torch
from jaxtyping import Float
from torch import Tensor
from torch.utils.data import Dataset

from qaclims_ray.cams.inference import ImageCam
from qaclims_ray.cams.store import read_cam_shard
from qaclims_ray.data import storage
from qaclims_ray.data.datasets import label_matrix
from qaclims_ray.data.images import load_image
from qaclims_ray.data.manifest import Manifest
from qaclims_ray.data.shards import places_in_shards, shard_name
from qaclims_ray.methods.regions import resize_bilinear
from qaclims_ray.models.generators.config import CamNetConfig

MapsOf = Callable[[int], Float[Tensor, "class height width"]]
"""From an image's position in the manifest to the maps of its labels in [0, 1], at any resolution."""
MAX_VIEWS = 2
"""An image and its mirror image: maps of a whole image have no random crops."""


class GivenItem(TypedDict):
    """One image at CLIP's input size."""

    image: Float[Tensor, "3 height width"]
    """Normalised pixels of the whole image; the aspect is not kept."""
    labels: Float[Tensor, " class"]
    """1 for the classes that it shows."""
    index: int
    """Position in the manifest."""
    maps: Float[Tensor, "class height width"]
    """Given maps; 0 for absent classes."""


class WholeImages(Dataset[GivenItem]):
    """A manifest's images with their given maps; epoch 0 is the images, epoch 1 their mirror images."""

    def __init__(self, manifest: Manifest, maps_of: MapsOf, cam_net: CamNetConfig, *, size: int, antialias: bool):
        """Choose what is read.

        Args:
            manifest: the images.
            maps_of: their maps.
            cam_net: normalisation of the pixels.
            size: side of CLIP's input in pixels.
            antialias: smooth when shrinking.
        """
        self._records, self._labels, self._maps_of = manifest.records, label_matrix(manifest), maps_of
        self._mean, self._std = (torch.tensor(v).view(3, 1, 1) for v in (cam_net.image_mean, cam_net.image_std))
        self._size, self._antialias = size, antialias
        self.set_epoch(0)

    def set_epoch(self, epoch: int) -> None:
        """Choose the view; call it before loading processes start.

        Args:
            epoch: below `MAX_VIEWS`.
        """
        self._is_mirrored = epoch == 1

    def __len__(self) -> int:
        return len(self._records)

    def __getitem__(self, index: int) -> GivenItem:
        """Return one item.

        Raises:
            DataError: when the image cannot be read.
            ArtifactError: when its maps cannot be read.
        """
        image = (load_image(self._records[index].image_uri).float() / 255 - self._mean) / self._std
        maps = torch.zeros(self._labels.shape[1], self._size, self._size)
        if labels := self._records[index].labels:
            maps[list(labels)] = self._resized(self._maps_of(index))
        image = self._resized(image)
        if self._is_mirrored:
            image, maps = image.flip(2), maps.flip(2)
        return {"image": image, "labels": self._labels[index], "index": index, "maps": maps}

    def _resized(self, channels: Tensor) -> Tensor:
        return resize_bilinear(channels[None], self._size, antialias=self._antialias)[0]


class StoredMaps:
    """The maps of single images out of a local artefact of CAMs; keeps the shard last read."""

    def __init__(self, folder: str, manifest: Manifest) -> None:
        """Take the folder, and the images of which it holds CAMs."""
        self._folder, self._places = folder, places_in_shards(manifest)
        self._shard, self._cams = -1, list[ImageCam]()

    def __call__(self, position: int) -> Float[Tensor, "class height width"]:
        """Return the maps of an image's labels, by the image's position in the manifest.

        Raises:
            ArtifactError: when the shard cannot be read.
        """
        shard, row = self._places[position]
        if shard != self._shard:
            self._shard, self._cams = shard, read_cam_shard(storage.join(self._folder, shard_name(shard)))
        cam = self._cams[row]
        maps = cam.full if cam.full is not None else cam.grid
        assert maps is not None
        return maps
