"""Shares of the foreground: their label map is the argmax, whatever rounding does."""

import pytest
import torch

from qaclims_ray.cams.inference import ImageCam
from qaclims_ray.cams.label_map import label_map
from qaclims_ray.data.classes import label_value
from qaclims_ray.refine.shares import HALF, foreground_shares


@pytest.mark.parametrize("scale", [1.0, 1e-3, 1e-9, 1e-20])
def test_the_label_map_at_one_half_is_the_argmax(scale):
    probabilities = torch.rand((4, 16, 16), generator=torch.Generator().manual_seed(0))
    probabilities[0] *= scale
    cam = ImageCam("a", (0, 1, 2), foreground_shares(probabilities), None, 16, 16)
    assert torch.equal(label_map(cam, HALF).long(), probabilities.argmax(0))


def test_two_classes_that_both_round_to_one_keep_their_order():
    shares = foreground_shares(torch.tensor([1e-9, 0.4, 0.6])[:, None, None])
    assert shares[1] > shares[0] > 0.99
    assert label_value(int(shares.argmax())) == 2


def test_a_pixel_without_any_probability_is_background():
    assert foreground_shares(torch.zeros((3, 1, 1))).max() <= HALF
