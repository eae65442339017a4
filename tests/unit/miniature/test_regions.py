import torch

from qaclims_ray.miniature.regions import (
    RegionSettings,
    dilate,
    random_regions,
    random_token_mask,
    visible_area,
)
from qaclims_ray.miniature.vocabulary import NUM_CLASSES, NUM_STUFF


def _things(num_regions: int) -> torch.Tensor:
    things = torch.zeros(num_regions, 32, 32, dtype=torch.long)
    things[:, 16:] = 3
    things[:, 8:20, 8:20] = NUM_STUFF + 2
    return things


def test_masks_are_soft_and_repeatable() -> None:
    masks = [random_regions(_things(64), RegionSettings(), torch.Generator().manual_seed(seed)) for seed in (1, 1, 2)]
    assert masks[0].shape == (64, 1, 32, 32)
    assert masks[0].min() >= 0 and masks[0].max() <= 1
    assert torch.equal(masks[0], masks[1])
    assert not torch.equal(masks[0], masks[2])


def test_a_share_is_shown_whole() -> None:
    masks = random_regions(_things(400), RegionSettings(whole_share=0.5), torch.Generator().manual_seed(0))
    flat = masks.flatten(1)
    is_whole = (flat.amax(1) == flat.amin(1)).float().mean()
    assert 0.4 < is_whole < 0.65


def test_pictures_without_objects_are_no_problem() -> None:
    things = torch.zeros(8, 16, 16, dtype=torch.long)
    assert random_regions(things, RegionSettings(), torch.Generator().manual_seed(0)).isfinite().all()


def test_token_masks_are_binary_and_keep_the_maximum() -> None:
    generator = torch.Generator().manual_seed(3)
    masks = random_regions(_things(40), RegionSettings(), generator)
    tokens = random_token_mask(masks, RegionSettings(token_share=1.0), generator)
    assert set(tokens.unique().tolist()) <= {0.0, 1.0}
    peak = masks.flatten(1).argmax(1)
    assert (tokens.flatten(1).gather(1, peak[:, None]) == 1).all()
    assert (random_token_mask(masks, RegionSettings(token_share=0.0), generator) == 1).all()


def test_visible_area_is_a_mask_weighted_share() -> None:
    things = _things(1)
    mask = torch.zeros(1, 1, 32, 32)
    mask[..., :16, :] = 0.5
    area = visible_area(things, mask, NUM_STUFF + NUM_CLASSES)
    torch.testing.assert_close(area.sum().item(), 1.0, atol=1e-5, rtol=0)
    object_px = 8 * 12
    torch.testing.assert_close(area[0, NUM_STUFF + 2].item(), object_px / (16 * 32), atol=1e-5, rtol=0)
    assert area[0, 3] == 0


def test_dilation_grows_by_the_radius() -> None:
    mask = torch.zeros(1, 9, 9)
    mask[0, 4, 4] = 1
    assert dilate(mask, 2).sum() == 25
