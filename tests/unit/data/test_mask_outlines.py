"""Outlines of label maps, and label maps of outlines."""

import numpy as np
import pytest
from scipy.ndimage import gaussian_filter

from qaclims_ray.data.mask_outlines import filled, outlines


def test_an_island_in_a_hole_comes_back_as_it_was() -> None:
    labels = np.zeros((30, 30), dtype=np.uint8)
    labels[2:28, 2:28], labels[8:22, 8:22], labels[12:18, 12:18] = 1, 0, 2
    found = outlines(labels, 0)
    assert [value for value, _ in found] == [1, 0, 2], "what lies within comes later"
    assert found[0][1] == [(2, 2), (28, 2), (28, 28), (2, 28)]
    assert (filled(found, 30, 30, 0) == labels).all()


def test_pixels_that_touch_at_a_corner_are_polygons_of_their_own() -> None:
    labels = np.eye(4, dtype=np.uint8)
    assert len(outlines(labels, 0)) == 4 and (filled(outlines(labels, 0), 4, 4, 0) == labels).all()


@pytest.mark.parametrize("nothing", [0, 255])
def test_smooth_maps_come_back_nearly_as_they_were(nothing: int) -> None:
    generator = np.random.default_rng(0)
    fields = np.stack([gaussian_filter(generator.normal(size=(80, 120)), 9) for _ in range(3)])
    labels = (fields.argmax(0) + (nothing == 255)).astype(np.uint8)
    found = outlines(labels, nothing)
    assert (filled(found, 80, 120, nothing) == labels).mean() > 0.98
    corners = sum(len(points) for _, points in found)
    assert corners < 0.7 * sum((labels[:, 1:] != labels[:, :-1]).sum() for _ in range(2)), "fewer than pixel edges"


def test_specks_are_left_out_and_a_map_of_nothing_has_no_polygon() -> None:
    labels = np.zeros((100, 100), dtype=np.uint8)
    labels[50, 50] = 1
    assert outlines(labels, 0) == []
    labels[10:40, 10:40] = 2
    assert [value for value, _ in outlines(labels, 0)] == [2]
