import pytest
import torch

from qaclims_ray.methods.area import activated_area
from qaclims_ray.methods.regions import (
    RegionPictures,
    cam_maximum,
    compose_regions,
    crop_regions,
    foreground_mask,
    renormalise,
    resize_bilinear,
)


def test_threshold_is_a_share_of_each_map_and_includes_equality() -> None:
    cam = torch.tensor([[[1.0, 0.5, 0.49]], [[0.1, 0.05, 0.2]]])
    mask = foreground_mask(cam, cam_maximum(cam), omega=0.5)
    assert mask.tolist() == [[[True, True, False]], [[True, False, True]]]


@pytest.mark.parametrize("value", [0.0, -1.0, -0.001])
@pytest.mark.parametrize("omega", [0.0, 0.1, 1.0])
def test_a_map_that_responds_nowhere_has_no_foreground(value, omega) -> None:
    cam = torch.full((1, 2, 2), value)
    assert not foreground_mask(cam, cam_maximum(cam), omega=omega).any()


def test_omega_zero_keeps_everything_and_one_the_peak() -> None:
    cam = torch.rand(2, 5, 5) + 0.01
    assert foreground_mask(cam, cam_maximum(cam), omega=0.0).all()
    assert foreground_mask(cam, cam_maximum(cam), omega=1.0).sum() == 2


def test_maximum_may_come_from_another_resolution() -> None:
    cam = torch.full((1, 2, 2), 0.4)
    assert not foreground_mask(cam, torch.tensor([0.9]), omega=0.5).any()


def test_the_mask_carries_no_gradient() -> None:
    cam = torch.rand(1, 3, 3, requires_grad=True)
    maximum = cam_maximum(cam)
    assert not maximum.requires_grad and not foreground_mask(cam, maximum, omega=0.5).requires_grad


@pytest.mark.parametrize(
    ("mode", "foreground", "background", "has_mask"),
    [
        ("token_mask", [0.8, 0.1], [0.2, 0.9], True),
        ("pixel_mask", [0.8, 0.0], [0.0, 0.9], False),
        ("both", [0.8, 0.0], [0.0, 0.9], True),
        ("none", [0.8, 0.1], [0.2, 0.9], False),
    ],
)
def test_modes(mode, foreground, background, has_mask) -> None:
    image = torch.full((1, 3, 1, 2), 2.0)
    cam, mask = torch.tensor([[[0.8, 0.1]]]), torch.tensor([[[True, False]]])
    regions = compose_regions(image, cam, mask, mode=mode)
    torch.testing.assert_close(regions.pixels[0, 0, 0], 2 * torch.tensor(foreground))
    torch.testing.assert_close(regions.pixels[1, 2, 0], 2 * torch.tensor(background))
    assert (regions.token_mask is not None) == has_mask
    if has_mask:
        assert regions.token_mask[:, 0, 0].tolist() == [[1.0, 0.0], [0.0, 1.0]]


def test_regions_of_all_pairs_come_first() -> None:
    image = torch.arange(1.0, 3.0)[:, None, None, None].expand(2, 3, 2, 2)
    regions = compose_regions(image, torch.ones(2, 2, 2), torch.ones(2, 2, 2, dtype=torch.bool), mode="none")
    assert regions.pixels[:, 0, 0, 0].tolist() == [1.0, 2.0, 0.0, 0.0]


def test_renormalise_equals_normalising_the_pixels_directly() -> None:
    pixels = torch.rand(2, 3, 4, 4)
    old_mean, old_std, new_mean, new_std = (0.4, 0.5, 0.6), (0.2, 0.3, 0.4), (0.48, 0.46, 0.41), (0.27, 0.26, 0.28)

    def normalised(mean: tuple[float, ...], std: tuple[float, ...]) -> torch.Tensor:
        return (pixels - torch.tensor(mean)[:, None, None]) / torch.tensor(std)[:, None, None]

    found = renormalise(
        normalised(old_mean, old_std), from_mean=old_mean, from_std=old_std, to_mean=new_mean, to_std=new_std
    )
    torch.testing.assert_close(found, normalised(new_mean, new_std))


def test_resize_aligns_corners_and_antialias_smooths() -> None:
    image = torch.zeros(1, 1, 9, 9)
    image[..., 0, 0], image[..., 8, 8], image[..., 1, 1] = 1.0, 2.0, 8.0
    plain = resize_bilinear(image, 3)
    assert plain[0, 0, 0, 0] == 1.0 and plain[0, 0, 2, 2] == 2.0 and plain.sum() == 3.0
    assert resize_bilinear(image, 3, antialias=True)[0, 0, 0, 0] != 1.0


def test_area_is_the_mean_over_pixels_in_float32() -> None:
    maps = torch.tensor([[[[0.0, 1.0]], [[0.5, 0.5]]]], dtype=torch.bfloat16)
    assert torch.equal(activated_area(maps), torch.tensor([[0.5, 0.5]]))


def _coordinates(size: int) -> torch.Tensor:
    """A picture whose channels are column, row and one."""
    rows, columns = torch.meshgrid(torch.arange(size), torch.arange(size), indexing="ij")
    return torch.stack([columns, rows, torch.ones_like(rows)]).float()


def test_a_crop_shows_the_bounding_box_alone_and_enlarged() -> None:
    picture = _coordinates(8)[None].requires_grad_()
    mask = torch.zeros(1, 8, 8, dtype=torch.bool)
    mask[0, 2, 4:8] = True
    mask[0, 5, 5] = True  # box: columns 4-7, rows 2-5
    cropped = crop_regions(RegionPictures(picture, mask[:, None].float()), mask)
    # Eight samples over four columns (rows): pixel centres move by half a pixel, borders stay inside the box's cells.
    inner = torch.arange(1, 7) / 2 - 0.25
    torch.testing.assert_close(cropped.pixels[0, 0, 3, 1:7], 4 + inner)
    torch.testing.assert_close(cropped.pixels[0, 1, 1:7, 3], 2 + inner)
    assert cropped.token_mask is not None
    assert set(cropped.token_mask.unique().tolist()) == {0.0, 1.0}
    cropped.pixels[0, 2].sum().backward()
    assert picture.grad is not None
    assert picture.grad[0, 2, 3:5, 5:7].abs().sum() > 0
    assert picture.grad[0, 2, :, :3].abs().sum() == 0
    assert picture.grad[0, 2, 7].abs().sum() == 0


def test_a_region_that_fills_the_picture_or_is_empty_stays_as_it_is() -> None:
    pictures = torch.randn(2, 3, 6, 6, generator=torch.Generator().manual_seed(0))
    masks = torch.stack([torch.ones(6, 6, dtype=torch.bool), torch.zeros(6, 6, dtype=torch.bool)])
    cropped = crop_regions(RegionPictures(pictures, None), masks)
    torch.testing.assert_close(cropped.pixels, pictures)
    assert cropped.token_mask is None
