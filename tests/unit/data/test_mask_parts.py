"""Parts of a class as polygons without holes, as pycocotools fills them."""

import numpy as np
import pytest
from jaxtyping import Bool
from pycocotools import mask as coco
from scipy.ndimage import binary_dilation, binary_erosion, gaussian_filter, label

from qaclims_ray.data.mask_outlines import filled
from qaclims_ray.data.mask_parts import mask_parts

AROUND = np.ones((3, 3), bool)


def fillings(mask: np.ndarray) -> list[Bool[np.ndarray, "height width"]]:
    """Fill the parts by pycocotools, and by our own rule."""
    parts, size = mask_parts(mask), mask.shape
    codes = coco.frPyObjects([[number for point in part for number in point] for part in parts], *size)
    return [coco.decode(coco.merge(codes)) > 0, filled([(1, part) for part in parts], *size, 0) > 0]


def test_holes_islands_and_single_pixels_come_back_exactly() -> None:
    mask = np.zeros((40, 60), bool)
    mask[5:35, 5:50] = True
    mask[10:20, 10:20], mask[12:15, 12:15], mask[22:30, 10:20], mask[8, 40] = False, True, False, False
    mask[0, 0], mask[39, 59] = True, True
    assert len(mask_parts(mask)) == 4
    for found in fillings(mask):
        assert (found == mask).all()
    assert mask_parts(np.zeros((5, 5), bool)) == []
    assert mask_parts(np.ones((3, 4), bool)) == [[(0, 0), (4, 0), (4, 3), (0, 3)]]


@pytest.mark.parametrize("seed", range(6))
def test_any_smooth_mask_comes_back_within_one_pixel(seed: int) -> None:
    field = gaussian_filter(np.random.default_rng(seed).normal(size=(80, 100)), 1.5 + seed / 3)
    mask = field > (-0.02 if seed % 2 else 0.03)
    parts = label(mask)[1]
    assert len(mask_parts(mask)) == parts, "a polygon for each part whose pixels touch along an edge"
    near = binary_dilation(mask, AROUND) & ~binary_erosion(mask, AROUND, border_value=1)
    for found in fillings(mask):
        assert not ((found != mask) & ~near).any(), (
            "wrong pixels touch the outline, and none lies at the edge of the picture"
        )
        assert (found & mask).sum() / (found | mask).sum() > 0.93


def test_a_wall_of_holes_is_no_trouble() -> None:
    mask = np.ones((121, 9), bool)
    mask[1::2, 1::2] = False
    for found in fillings(mask):
        assert (found == mask).all()
