import pytest
import torch
import torch.nn.functional as F
from timm.layers.pos_embed import resample_abs_pos_embed

from qaclims_ray.cams.inference import resize_like_pil
from qaclims_ray.models.class_token_vit import interpolate_positions
from qaclims_ray.models.resampling import (
    antialiased_weights,
    resized_antialiased,
    smooth_positions,
    stretched_positions,
)


def numbers(*shape: int) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize("size", [(20, 30), (7, 5), (33, 64), (12, 9)])
def test_a_matrix_resizes_as_the_antialiased_filter(size) -> None:
    image = numbers(1, 2, 20, 30)
    expected = F.interpolate(image, size, mode="bicubic", antialias=True, align_corners=False)
    down, across = antialiased_weights(20, size[0], image), antialiased_weights(30, size[1], image)
    torch.testing.assert_close(down @ image @ across.T, expected, atol=1e-5, rtol=0)


@pytest.mark.parametrize("size", [(16, 24), (50, 41), (30, 40)])
def test_pixels_are_resized_as_pil_does(size) -> None:
    pixels = (numbers(1, 3, 30, 40) * 60 + 128).round().clamp(0, 255)
    difference = (resized_antialiased(pixels, size) - resize_like_pil(pixels, size)).abs()
    assert float(difference.max()) <= 1 and float((difference > 0).float().mean()) < 0.005


@pytest.mark.parametrize("grid", [(4, 4), (3, 7), (9, 2), (4, 5)])
def test_positions_are_those_of_the_networks(grid) -> None:
    positions = numbers(16, 6)
    expected = resample_abs_pos_embed(positions[None], list(grid), num_prefix_tokens=0)[0]
    torch.testing.assert_close(smooth_positions(positions, grid), expected, atol=1e-5, rtol=0)
    torch.testing.assert_close(
        stretched_positions(positions, grid), interpolate_positions(positions, grid), atol=1e-5, rtol=0
    )
