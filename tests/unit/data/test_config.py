"""What the settings of images say of themselves."""

import dataclasses

from qaclims_ray.data.config import AugmentConfig


def test_light_augmentation_has_the_crops_alone() -> None:
    cut = AugmentConfig(crop_px=24, min_long_side_px=32, max_long_side_px=48)
    heavy = dataclasses.replace(cut, rand_augment_magnitude=9, erasing_probability=0.25)
    assert heavy.light() == cut and cut.light() == cut
