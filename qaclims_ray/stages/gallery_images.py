"""The pictures of a gallery, read image by image out of what the stages of a run wrote."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from qaclims_ray.cams.label_map import label_map
from qaclims_ray.cams.store import read_cam_shard
from qaclims_ray.data import storage, whole_files
from qaclims_ray.data.classes import IGNORE_VALUE, Classes
from qaclims_ray.data.images import load_image
from qaclims_ray.data.manifest import ImageRecord
from qaclims_ray.data.mask_files import load_mask
from qaclims_ray.errors import DataError
from qaclims_ray.evaluation.agreement import MapStage
from qaclims_ray.report.gallery import Pictures, cam_key, map_key
from qaclims_ray.report.gallery_tiles import cam_tile, labels_tile, photo_tile


@dataclass(frozen=True)
class PictureSource:
    """Where the pictures of one system of one run lie."""

    cams: str
    """Folder of its CAMs; empty without any."""
    border: float
    """Background score at which its seeds are cut."""
    folders: Mapping[MapStage, str]
    """Later stage -> folder of its label maps."""


@dataclass(frozen=True)
class PictureShard:
    """Images that are read together."""

    index: int
    """Which one."""
    records: tuple[ImageRecord, ...]
    """The images."""
    cam_files: tuple[tuple[str, ...], ...]
    """Of each source: files of CAMs, below its folder, that hold these images."""


def lines_name(index: int) -> str:
    """Return the file of a shard's pictures, below the gallery's folder, while the gallery is made."""
    return f"shards/shard-{index:05d}.jsonl"


class PicturesActor:
    """Write the pictures of a shard of images, a line of JSON for each."""

    def __init__(self, sources: Sequence[PictureSource], classes: Classes, uri: str) -> None:
        torch.set_num_threads(1)
        self.sources, self.classes, self.uri = sources, classes, uri

    def __call__(self, shard: PictureShard) -> dict[str, Any]:
        """Return how many images there are."""
        lines = [found.line() for found in shard_pictures(shard, self.sources, self.classes)]
        with whole_files.publishing_part(storage.join(self.uri, lines_name(shard.index))) as path:
            Path(path).write_bytes("\n".join(lines).encode())
        return {"images": len(lines)}


def shard_pictures(shard: PictureShard, sources: Sequence[PictureSource], classes: Classes) -> Iterator[Pictures]:
    """Yield the pictures of a shard's images.

    Args:
        shard: the images.
        sources: where their pictures lie.
        classes: those of the data set.

    Raises:
        DamagedError: when a file is not the one that was written.
    """
    tiles: dict[str, dict[str, str]] = {record.image_id: {} for record in shard.records}
    truths = {
        record.image_id: truth
        for record in shard.records
        if record.mask_uri and (truth := _or_none(load_mask, record.mask_uri)) is not None
    }
    confused: dict[str, dict[str, list[tuple[int, int, int]]]] = {name: {} for name in tiles}

    def add(image_id: str, key: str, labels: Tensor) -> None:
        tiles[image_id][key] = labels_tile(labels)
        truth = truths.get(image_id)
        if truth is not None and truth.shape == labels.shape:
            confused[image_id][key] = confused_pixels(truth, labels, classes)

    for position, source in enumerate(sources):
        for file in shard.cam_files[position]:
            for cam in read_cam_shard(storage.join(source.cams, file)):
                if cam.image_id not in tiles or cam.full is None:
                    continue
                for class_id, heat in zip(cam.class_ids, cam.full, strict=True):
                    tiles[cam.image_id][cam_key(position, class_id)] = cam_tile(heat)
                add(cam.image_id, map_key(position, "seed"), label_map(cam, source.border))
        for stage, folder in source.folders.items():
            for image_id in tiles:
                uri = storage.join(folder, f"{image_id}.png")
                if storage.exists(uri):
                    add(image_id, map_key(position, stage), load_mask(uri))
    for record in shard.records:
        own = tiles[record.image_id]
        if (photo := _or_none(load_image, record.image_uri)) is not None:
            own["photo"] = photo_tile(photo)
        if record.image_id in truths:
            own["truth"] = labels_tile(truths[record.image_id])
        yield Pictures(record.image_id, own, confused[record.image_id])


def _or_none(load: Callable[[str], Tensor], uri: str) -> Tensor | None:
    """Return a picture of the data set, None where it is gone or broken: the maps are there to be seen all the same."""
    try:
        return load(uri)
    except DataError:
        return None


def confused_pixels(truth: Tensor, labels: Tensor, classes: Classes) -> list[tuple[int, int, int]]:
    """Return (true value, value of the map, pixels); pixels without truth count nowhere, those left out as background.

    Args:
        truth: true label values, (height, width).
        labels: those of the map.
        classes: those of the data set.
    """
    scored = truth != IGNORE_VALUE
    num = len(classes) + 1
    one, two = truth[scored].long(), labels[scored].long()
    two = torch.where(two == IGNORE_VALUE, 0, two)
    joint = torch.bincount(one * num + two, minlength=num * num)
    return [(at // num, at % num, int(joint[at])) for at in joint.nonzero().flatten().tolist()]
