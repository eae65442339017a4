"""Files of tiny data sets: images, masks, annotations."""

import io
from collections.abc import Sequence

import numpy as np
from PIL import Image

from qaclims_ray.data.classes import label_value, voc_palette
from qaclims_ray.data.config import DataConfig

SIZE = (24, 16)  # width, height


def image_bytes(seed: int = 0, size: tuple[int, int] = SIZE, suffix: str = ".jpg") -> bytes:
    pixels = np.random.default_rng(seed).integers(0, 256, (size[1], size[0], 3), dtype=np.uint8)
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, {".jpg": "JPEG", ".png": "PNG"}[suffix])
    return buffer.getvalue()


def mask_bytes(class_ids: Sequence[int], size: tuple[int, int] = SIZE) -> bytes:
    mask = np.zeros((size[1], size[0]), np.uint8)
    mask[0] = 255
    for row, class_id in enumerate(class_ids, start=1):
        mask[row] = label_value(class_id)
    picture = Image.fromarray(mask, "P")
    picture.putpalette(voc_palette())
    buffer = io.BytesIO()
    picture.save(buffer, "PNG")
    return buffer.getvalue()


def annotation(names: Sequence[str]) -> str:
    objects = "".join(f"<object><name>{n}</name><part><name>head</name></part></object>" for n in names)
    return f"<annotation><folder>VOC2012</folder>{objects}</annotation>"


IMAGES: dict[str, tuple[int, ...]] = {"2007_01": (0,), "2007_02": (10, 14), "2007_03": (14,), "2007_04": ()}
"""Image id -> class ids of the tiny VOC folder."""


def voc_config(root: object, **changes: object) -> DataConfig:
    return DataConfig(dataset="voc12", root=str(root), **changes)


def folder_config(root: object, **changes: object) -> DataConfig:
    return DataConfig(dataset="folder", root=str(root), **changes)
