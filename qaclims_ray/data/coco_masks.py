"""Label maps from COCO's regions: objects from polygons or run lengths, crowds left out of the score.

Where objects overlap, the smaller one lies on top. Crowds are `IGNORE_VALUE`, below all objects. pycocotools turns
outlines into pixels, so that they are the ones COCO itself means.
"""

from collections.abc import Sequence
from types import ModuleType

import numpy as np
import torch
from jaxtyping import UInt8
from torch import Tensor

from qaclims_ray.data.classes import BACKGROUND_VALUE, IGNORE_VALUE, label_value
from qaclims_ray.data.coco_annotations import Region
from qaclims_ray.errors import ConfigError


def region_decoder() -> ModuleType:
    """Return pycocotools' mask module.

    Raises:
        ConfigError: when it is not installed.
    """
    try:
        from pycocotools import mask
    except ImportError as error:
        raise ConfigError(f"COCO's masks need pycocotools ({error}): pip install 'qaclims-ray[coco]'") from None
    return mask


def draw_label_map(
    regions: Sequence[Region], *, width: int, height: int, nothing: int = BACKGROUND_VALUE
) -> UInt8[Tensor, "{height} {width}"]:
    """Draw an image's regions.

    Args:
        regions: checked by `read_annotations`.
        width: of the image in pixels.
        height: of the image in pixels.
        nothing: label value of pixels in no region.
    """
    decoder = region_decoder()
    labels = np.full((height, width), nothing, np.uint8)
    encoded = [(region, _encoded(decoder, region, width, height)) for region in regions]
    # Sorting is stable: of two objects of one size the later one lies on top.
    encoded.sort(key=lambda pair: (not pair[0].is_crowd, -int(decoder.area(pair[1]))))
    for region, code in encoded:
        labels[decoder.decode(code) > 0] = IGNORE_VALUE if region.is_crowd else label_value(region.class_id)
    return torch.from_numpy(labels)


def _encoded(decoder: ModuleType, region: Region, width: int, height: int) -> dict:
    if region.polygons:
        return decoder.merge(decoder.frPyObjects([part.tolist() for part in region.polygons], height, width))
    return decoder.frPyObjects({"size": [height, width], "counts": list(region.run_lengths)}, height, width)
