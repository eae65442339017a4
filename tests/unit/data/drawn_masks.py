"""Label maps with all that makes drawing them hard: holes, islands, several parts, specks, ignored pixels."""

from pathlib import Path

import numpy as np
import torch
from scipy.ndimage import gaussian_filter

from qaclims_ray.data import storage
from qaclims_ray.data.classes import Classes
from qaclims_ray.data.images import save_label_map
from qaclims_ray.data.mask_export import MaskToExport
from tests.unit.data.tiny_data_sets import image_bytes

CLASSES = Classes(("cat", "dining table", "Löwe"))
SIZE = (60, 40)
"""Width and height."""
NAMES = ("birds/1.jpg", "birds/ä b.jpg", "2.jpg", "empty.jpg", "many.jpg")


def label_maps() -> dict[str, torch.Tensor]:
    """Label maps by the images' names."""
    holes, void, parts = (np.zeros(SIZE[::-1], np.uint8) for _ in range(3))
    holes[5:35, 5:50] = 1
    holes[10:20, 10:20], holes[12:15, 12:15], holes[25:30, 30:45] = 0, 3, 2
    void[0:10, 0:60], void[10:20, 20:40], void[15, 30] = 255, 2, 0
    parts[0:8, 0:8], parts[20:30, 50:60], parts[39, 59], parts[20, 20] = 3, 3, 3, 1
    fields = np.stack([gaussian_filter(np.random.default_rng(k).normal(size=SIZE[::-1]), 5) for k in range(3)])
    many = fields.argmax(0).astype(np.uint8)
    maps = (holes, void, parts, np.zeros(SIZE[::-1], np.uint8), many)
    return {name: torch.from_numpy(one) for name, one in zip(NAMES, maps, strict=True)}


def places(folder: Path) -> dict[str, str]:
    """Image id -> where it lies."""
    return {Path(name).stem: f"{folder}/photos/{name}" for name in NAMES}


def written(folder: Path) -> list[MaskToExport]:
    """Write images and label maps; return what is to be exported."""
    masks = []
    for number, (name, labels) in enumerate(label_maps().items()):
        image, mask = f"{folder}/photos/{name}", f"{folder}/masks/{Path(name).stem}.png"
        storage.write_bytes(image, image_bytes(number, SIZE))
        save_label_map(labels, mask)
        masks.append(MaskToExport(name, image, mask, ("train",) if number else ("val", "train")))
    return masks
