"""Label maps, refinement and final networks where every pixel belongs to a class."""

import dataclasses

import pytest
import torch

from qaclims_ray.cams.inference import ImageCam
from qaclims_ray.cams.label_map import label_map
from qaclims_ray.data.classes import NO_BACKGROUND, Classes
from qaclims_ray.refine.config import MaskConfig
from qaclims_ray.refine.crf_config import CrfConfig, deeplab_crf
from qaclims_ray.refine.refinement import Refiners, pseudo_mask, refine_cams, without_uncertain
from qaclims_ray.segmentation.inference import as_class_maps, crf_probabilities

NAMES = ("a", "b", "c", "d")
TISSUES, OBJECTS = Classes(NAMES, has_background=False), Classes(NAMES)


def cam_of(full: torch.Tensor, class_ids: tuple[int, ...]) -> ImageCam:
    return ImageCam("a", class_ids, full, None, int(full.shape[1]), int(full.shape[2]))


def halves(side: int = 12) -> tuple[torch.Tensor, torch.Tensor]:
    """A picture of two colours, and scores of two classes whose border lies two columns too far right, all low."""
    image = torch.full((3, side, side), 40, dtype=torch.uint8)
    image[:, :, side // 2 :] = 160
    left = torch.full((side, side), 0.001)
    left[:, : side // 2 + 2] = 0.02
    return image, torch.stack([left, 0.021 - left])


def test_every_pixel_takes_its_foremost_class_however_low_and_none_where_none_is_present() -> None:
    full = torch.tensor([[[0.0, 0.3, 0.1]], [[0.0, 0.2, 0.4]]])
    assert label_map(cam_of(full, (1, 3)), NO_BACKGROUND).tolist() == [[2, 2, 4]]
    assert label_map(cam_of(full, (1, 3)), 0.15).tolist() == [[0, 2, 4]]
    nothing = cam_of(torch.zeros(0, 1, 3), ())
    assert label_map(nothing, NO_BACKGROUND).tolist() == [[255] * 3] and label_map(nothing, 0.5).tolist() == [[0] * 3]


@pytest.mark.parametrize("steps", [(), ("crf",), ("pamr",), ("pamr", "crf")])
def test_the_background_score_stays_out_of_every_step(steps) -> None:
    config = MaskConfig(steps=steps, seed_threshold=0.3)
    image, full = halves()
    maps = refine_cams([image], [cam_of(full, (0, 2))], config, Refiners(), TISSUES)
    assert maps.border == NO_BACKGROUND
    refined = maps.cams[0]
    assert set(label_map(refined, NO_BACKGROUND).unique().tolist()) == {1, 3}
    # With a background at 0.3 nothing of such low scores would be left.
    maps = refine_cams([image], [cam_of(full, (0, 2))], config, Refiners(), OBJECTS)
    assert label_map(maps.cams[0], maps.border).unique().tolist() == [0]


@pytest.mark.parametrize("unary", ["label", "softmax"])
def test_the_crf_moves_the_border_to_the_edge_of_the_colours(unary) -> None:
    image, full = halves()
    config = MaskConfig(steps=("crf",), crf=CrfConfig(unary=unary))
    refined = refine_cams([image], [cam_of(full, (0, 2))], config, Refiners(), TISSUES).cams[0]
    expected = torch.tensor([1] * 6 + [3] * 6, dtype=torch.uint8).expand(12, 12)
    assert torch.equal(label_map(refined, NO_BACKGROUND), expected)
    assert refined.full is not None
    torch.testing.assert_close(refined.full.sum(0), torch.ones(12, 12))


def test_a_crf_over_scores_that_are_all_zero_is_finite() -> None:
    image, full = halves()
    config = MaskConfig(steps=("crf",), crf=CrfConfig(unary="softmax"))
    refined = refine_cams([image], [cam_of(full * 0, (0, 2))], config, Refiners(), TISSUES).cams[0]
    assert refined.full is not None and bool(refined.full.isfinite().all())


def test_white_pixels_show_no_class() -> None:
    image = torch.zeros(3, 1, 3, dtype=torch.uint8)
    image[:, 0, 1], image[:, 0, 2] = 201, torch.tensor([255, 255, 0], dtype=torch.uint8)  # the last: grey 226
    config = MaskConfig(steps=(), white_above=200)
    cam = cam_of(torch.tensor([[[0.9, 0.8, 0.7]]]), (1,))
    refined = refine_cams([image], [cam], config, Refiners(), TISSUES).cams[0]
    assert pseudo_mask(refined, NO_BACKGROUND, None).tolist() == [[2, 255, 255]]
    assert pseudo_mask(refined, 0.15, None).tolist() == [[2, 0, 0]]
    keeps = dataclasses.replace(config, white_above=226)
    assert pseudo_mask(refine_cams([image], [cam], keeps, Refiners(), OBJECTS).cams[0], 0.15, None).tolist() == [
        [2, 2, 2]
    ]
    empty = cam_of(torch.zeros(0, 1, 3), ())
    assert refine_cams([image], [empty], config, Refiners(), OBJECTS).cams[0] is empty


def test_uncertain_pixels_are_left_out_and_are_no_first_class_when_scored() -> None:
    cam = cam_of(torch.tensor([[[0.9, 0.4]], [[0.2, 0.5]]]), (0, 1))
    assert pseudo_mask(cam, NO_BACKGROUND, (0.0, 0.6)).tolist() == [[1, 255]]
    assert label_map(without_uncertain(cam, (0.0, 0.6)), NO_BACKGROUND).tolist() == [[1, 255]]


def test_outputs_of_a_network_without_background_are_the_classes() -> None:
    probabilities = torch.tensor([0.2, 0.5, 0.3])[:, None, None].expand(3, 2, 2)
    maps = as_class_maps("a", probabilities, NO_BACKGROUND)
    assert maps.class_ids == (0, 1, 2) and label_map(maps, NO_BACKGROUND).unique().tolist() == [2]
    with_background = as_class_maps("a", probabilities)
    assert with_background.class_ids == (0, 1) and label_map(with_background, 0.5).unique().tolist() == [1]


def test_a_first_class_that_cannot_win_stays_out_of_the_crf() -> None:
    image = torch.zeros(3, 2, 2, dtype=torch.uint8)
    probabilities = torch.tensor([0.01, 0.59, 0.4])[:, None, None].expand(3, 2, 2)
    (found,) = crf_probabilities(image[None], probabilities[None], deeplab_crf(), NO_BACKGROUND)
    assert float(found[0].max()) == 0.0 and float(found[1].min()) > 0
    assert float(crf_probabilities(image[None], probabilities[None], deeplab_crf())[0, 0].min()) > 0
