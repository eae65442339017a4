"""Small pictures of a gallery: photographs, label maps and activation maps that lie over them.

Label maps and activation maps are pictures of a few colours with a transparent ground, so a page lays them over the
photograph and takes them away again, and an image of five stages takes about ten kilobytes.
"""

import base64
import functools
import io

import matplotlib
import numpy as np
from jaxtyping import Float, UInt8
from PIL import Image
from torch import Tensor

from qaclims_ray.data.classes import BACKGROUND_VALUE, IGNORE_VALUE, voc_palette

PHOTO_SIDE_PX = 224
"""Long side of photographs and label maps; smaller ones stay as they are."""
_CAM_SIDE_PX = 96
_CAM_STEPS = 32
_PHOTO_QUALITY = 55
_LEFT_OUT = (150, 150, 150, 235)


def photo_tile(image: UInt8[Tensor, "3 height width"]) -> str:
    """Return a photograph as WebP in base64."""
    picture = Image.fromarray(image.permute(1, 2, 0).numpy())
    picture.thumbnail((PHOTO_SIDE_PX, PHOTO_SIDE_PX), reducing_gap=2)
    return _encoded(picture, "WEBP", quality=_PHOTO_QUALITY, method=2)


def labels_tile(labels: UInt8[Tensor, "height width"]) -> str:
    """Return a label map as PNG in base64: classes in VOC's colours, the background transparent, 255 grey."""
    values = np.ascontiguousarray(_nearest(labels.numpy(), PHOTO_SIDE_PX))
    shown, places = np.unique(values, return_inverse=True)
    colours = voc_palette()
    entries = list[tuple[int, ...]]()
    for value in shown.tolist():
        if value == BACKGROUND_VALUE:
            entries.append((0, 0, 0, 0))
        elif value == IGNORE_VALUE:
            entries.append(_LEFT_OUT)
        else:
            entries.append((*colours[3 * value : 3 * value + 3], 255))
    return _indexed(places.reshape(values.shape).astype(np.uint8), entries)


def cam_tile(heat: Float[Tensor, "height width"]) -> str:
    """Return an activation map in [0, 1] as PNG in base64: dark purple is 0, pale yellow is 1."""
    picture = Image.fromarray(heat.float().clamp(0, 1).numpy())
    picture.thumbnail((_CAM_SIDE_PX, _CAM_SIDE_PX), Image.Resampling.BOX, reducing_gap=None)
    steps = np.asarray(picture) * (_CAM_STEPS - 1)
    return _indexed(steps.round().astype(np.uint8), _heat_colours())


@functools.cache
def _heat_colours() -> list[tuple[int, ...]]:
    colours = matplotlib.colormaps["inferno"](np.linspace(0, 1, _CAM_STEPS)) * 255
    return [tuple(int(part) for part in one) for one in colours.round()]


def _nearest(values: UInt8[np.ndarray, "height width"], side: int) -> UInt8[np.ndarray, "_height _width"]:
    """Return a map shrunk to a long side: numbers of classes have no mean."""
    height, width = values.shape
    scale = side / max(height, width)
    if scale >= 1:
        return values
    rows, columns = (
        ((np.arange(max(1, round(length * scale))) + 0.5) * length / max(1, round(length * scale))).astype(int)
        for length in (height, width)
    )
    return values[rows][:, columns]


def _indexed(places: UInt8[np.ndarray, "height width"], entries: list[tuple[int, ...]]) -> str:
    picture = Image.fromarray(places, "L").convert("P")
    picture.putpalette([part for entry in entries for part in entry[:3]])
    bits = next(bits for bits in (1, 2, 4, 8) if len(entries) <= 2**bits)
    more = {"transparency": bytes(entry[3] for entry in entries)} if any(one[3] < 255 for one in entries) else {}
    return _encoded(picture, "PNG", bits=bits, **more)


def _encoded(picture: Image.Image, form: str, **options: object) -> str:
    buffer = io.BytesIO()
    picture.save(buffer, format=form, **options)
    return base64.b64encode(buffer.getvalue()).decode()
