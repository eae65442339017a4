"""The legend below a picture."""

import numpy as np
import pytest

from qaclims_ray.data.classes import voc_palette
from qaclims_ray.report.legend import with_legend

NAMES = ("cat", "a class with a name that is much longer than the picture is wide", "dog")


def picture(width: int) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, size=(40, width, 3), dtype=np.uint8)


def test_the_picture_stays_and_each_class_has_its_colour_below() -> None:
    own = picture(400)
    drawn = with_legend(own, {0: 0.3, 2: 0.001}, NAMES)
    assert drawn.shape[1] == 400 and (drawn[:40] == own).all()
    colours = {tuple(colour) for colour in drawn[40:].reshape(-1, 3).tolist()}
    palette = [tuple(voc_palette()[3 * value : 3 * value + 3]) for value in range(4)]
    assert palette[1] in colours and palette[3] in colours and palette[2] not in colours


@pytest.mark.parametrize("width", [20, 200])
def test_a_long_name_is_cut_and_narrow_pictures_get_a_margin(width: int) -> None:
    one, two = (with_legend(picture(width), areas, NAMES) for areas in ({0: 0.5}, {0: 0.5, 1: 0.2, 2: 0.1}))
    assert one.shape[1] == two.shape[1] >= 180 and two.shape[0] > one.shape[0], "more lines for more classes"
    assert (two[:40, :width] == picture(width)).all()
    assert (two[:, -4:] == 255).all() or width == 200


def test_a_picture_without_a_class_says_so() -> None:
    drawn = with_legend(picture(200), {}, NAMES)
    below = drawn[40:]
    assert below.min() < 200 and below.std(axis=2).max() < 20, "grey words, no colour"
