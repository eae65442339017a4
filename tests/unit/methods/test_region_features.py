import pytest
import torch

from qaclims_ray.methods.region_features import RegionOptions, min_max, probabilities
from qaclims_ray.methods.regions import resize_bilinear
from tests.ritc_fakes import TinyClip, regions_of


def _inputs(dtype: torch.dtype = torch.float32):
    generator = torch.Generator().manual_seed(0)
    maps = (3 * torch.randn(2, 3, 8, 8, generator=generator)).to(dtype).requires_grad_()
    image = torch.randn(2, 3, 32, 32, generator=generator)
    return maps, image, torch.tensor([0, 1, 1]), torch.tensor([2, 0, 2])


def _features(maps, image, index, classes, clip=None, **options):
    return regions_of(clip or TinyClip(), RegionOptions(**options))(maps, image, index, classes)


def test_each_pair_gets_its_own_map_and_image() -> None:
    maps, image, index, classes = _inputs()
    clip = TinyClip()
    found = _features(maps, image, index, classes, clip)
    assert clip.num_calls == 1  # both regions of all pairs at once
    for pair in range(3):
        mask = resize_bilinear(maps[index[pair], classes[pair]].sigmoid()[None, None], 24)
        picture = resize_bilinear(image[index[pair]][None], 24)
        torch.testing.assert_close(found.foreground[pair], clip.encode_regions(picture * mask)[0])
        torch.testing.assert_close(found.background[pair], clip.encode_regions(picture * (1 - mask))[0])
        torch.testing.assert_close(found.area[pair], mask.mean())


def test_minmax_masks_span_the_range_and_ignore_what_is_negative() -> None:
    maps, image, index, classes = _inputs()
    with torch.no_grad():
        maps[0, 2] = -maps[0, 2].abs()  # responds nowhere
        maps[1, 0] = maps[1, 0].abs() + 1  # its least value is the new zero
    found = _features(maps, image, index, classes, mask="minmax", epsilon=0.1)
    assert found.area[0] == 0
    nothing = TinyClip().encode_regions(torch.zeros(1, 3, 24, 24))[0]
    torch.testing.assert_close(found.foreground[0], nothing)
    large = resize_bilinear(maps[1, :1, :, :][None], 24)
    expected = (large - large.min()) / (large.max() - large.min() + 0.1)
    torch.testing.assert_close(found.area[1], expected.mean())
    found.area.sum().backward()
    assert torch.isfinite(maps.grad).all() and maps.grad[0].abs().max() == 0


@pytest.mark.parametrize("epsilon", [0.1, 1e-4])
def test_min_max_has_gradients_through_minimum_and_maximum(epsilon) -> None:
    maps = torch.randn(3, 4, 5, dtype=torch.float64, generator=torch.Generator().manual_seed(0)).requires_grad_()
    mask = min_max(maps, epsilon=epsilon)
    assert mask.amin() == 0 and (mask.amax(dim=(1, 2)) < 1).all() and mask.amax() > 0.9
    assert torch.autograd.gradcheck(lambda values: min_max(values, epsilon=epsilon), (maps,))
    # Adding a constant changes nothing, so gradients add up to zero; with a detached range they would not.
    (gradient,) = torch.autograd.grad(mask.square().sum(), maps)
    torch.testing.assert_close(gradient.sum(dim=(1, 2)), torch.zeros(3, dtype=torch.float64), atol=1e-9, rtol=0)
    assert gradient.abs().max() > 0.01


def test_the_maximum_of_minmax_maps_is_taken_after_they_are_scaled() -> None:
    """At the resolution of the CAM too, the threshold must be one of masks, not of raw maps."""
    maps, image, index, classes = _inputs()
    raw = {"mask": "minmax", "omega": 0.5, "mode": "pixel_mask"}
    small = _features(maps * 1e-2, image, index, classes, **raw, epsilon=1e-9, max_at="cam")
    large = _features(maps * 100, image, index, classes, **raw, epsilon=1e-9, max_at="cam")
    torch.testing.assert_close(small.foreground, large.foreground)


def test_every_option_changes_the_features() -> None:
    """No option may do nothing."""
    maps, image, index, classes = _inputs()

    def features(**options) -> torch.Tensor:
        found = _features(maps, image, index, classes, **{"omega": 0.8, "mode": "pixel_mask", **options})
        return torch.cat([found.foreground, found.background])

    reference = features()
    for changes in (
        {"mask": "minmax"},
        {"omega": 0.6},
        {"mode": "none"},
        {"mode": "token_mask"},
        {"max_at": "cam"},
        {"normalisation": "clip"},
        {"antialias": True},
    ):
        assert not torch.allclose(features(**changes), reference, atol=1e-5), changes
    minmax = features(mask="minmax")
    assert not torch.allclose(features(mask="minmax", epsilon=0.5), minmax, atol=1e-5)


@pytest.mark.parametrize("mask", ["sigmoid", "minmax"])
def test_half_precision_maps_are_worked_on_in_float32(mask) -> None:
    maps, *rest = _inputs(torch.bfloat16)
    found = _features(maps, *rest, mask=mask)
    expected = _features(maps.detach().float(), *rest, mask=mask)
    assert found.foreground.dtype == found.area.dtype == torch.float32
    torch.testing.assert_close(found.area, expected.area, rtol=1e-6, atol=0)
    torch.testing.assert_close(found.foreground, expected.foreground, rtol=1e-6, atol=1e-7)
    assert probabilities(maps).dtype == torch.float32
    assert probabilities(maps.double()).dtype == torch.float64


def test_no_pair_is_zero_rows_that_depend_on_the_network_even_where_maps_overflowed() -> None:
    maps, image, *_ = _inputs()
    with torch.no_grad():
        maps[0, 0, 0, 0] = float("inf")
    clip, none = TinyClip(), torch.zeros(0, dtype=torch.int64)
    found = _features(maps, image, none, none, clip)
    assert clip.num_calls == 0
    assert found.foreground.shape == found.background.shape == (0, 6) and found.area.shape == (0,)
    loss = found.foreground.sum() + found.background.sum() + found.area.sum()
    assert loss == 0
    (gradient,) = torch.autograd.grad(loss, maps)
    assert gradient.abs().max() == 0
