"""Every equation of the text-contrast training against a slow restatement, number by number, in float64."""

import math

import pytest
import torch
import torch.nn.functional as F

from qaclims_ray.methods.area import activated_area
from qaclims_ray.methods.qa_clims.losses import background_contrast, foreground_contrast
from qaclims_ray.methods.regions import (
    cam_maximum,
    compose_regions,
    foreground_mask,
    renormalise,
    resize_bilinear,
)


def _dot(left: torch.Tensor, right: torch.Tensor) -> torch.Tensor:
    total = left.new_zeros(())
    for index in range(len(left)):
        total = total + left[index] * right[index]
    return total


def slow_foreground_contrast(region, foreground, texts, temperature) -> torch.Tensor:
    """Eq. 6 for one pair, as printed; `texts` holds only real ones."""
    if not texts:
        return (region * 0).sum()
    own = torch.exp(_dot(region, foreground) / temperature)
    others = [torch.exp(_dot(region, text) / temperature) for text in texts]
    return -torch.log(own / (own + sum(others)))


def slow_background_contrast(region, foreground, texts, temperature, pool) -> torch.Tensor:
    """Eq. 8 for one pair: exp of the mean as printed, mean of exp as released."""
    if not texts:
        return (region * 0).sum()
    to_class = torch.exp(_dot(region, foreground) / temperature)
    if pool == "exp_mean":
        pooled = torch.exp(sum(_dot(region, text) for text in texts) / len(texts) / temperature)
    else:
        pooled = sum(torch.exp(_dot(region, text) / temperature) for text in texts) / len(texts)
    return -torch.log(pooled / (to_class + pooled))


def _texts(num_pairs: int = 5, num_answers: int = 4, dim: int = 6) -> tuple[torch.Tensor, ...]:
    generator = torch.Generator().manual_seed(3)

    def unit(*shape: int) -> torch.Tensor:
        return F.normalize(torch.randn(*shape, dtype=torch.float64, generator=generator), dim=-1)

    counts = torch.tensor([4, 1, 0, 2, 3])
    is_background = torch.arange(num_answers) < counts[:, None]
    return unit(num_pairs, dim), 0.8 * unit(num_pairs, dim), unit(num_pairs, num_answers, dim), is_background


@pytest.mark.parametrize("temperature", [0.7, 0.07])
@pytest.mark.parametrize("pool", ["foreground", "mean_exp", "exp_mean"])
def test_contrast_equals_the_printed_formula(pool, temperature) -> None:
    regions, foreground, background, is_background = _texts()
    regions.requires_grad_()
    if pool == "foreground":
        fast = foreground_contrast(regions, foreground, background, is_background, temperature=temperature)
    else:
        fast = background_contrast(regions, foreground, background, is_background, temperature=temperature, pool=pool)
    slow = []
    for pair in range(len(regions)):
        texts = [background[pair, answer] for answer in range(4) if is_background[pair, answer]]
        if pool == "foreground":
            slow.append(slow_foreground_contrast(regions[pair], foreground[pair], texts, temperature))
        else:
            slow.append(slow_background_contrast(regions[pair], foreground[pair], texts, temperature, pool))
    expected = torch.stack(slow)
    torch.testing.assert_close(fast, expected, rtol=1e-12, atol=1e-12)
    weights = torch.arange(1.0, 6.0, dtype=torch.float64)
    (found_gradient,) = torch.autograd.grad((fast * weights).sum(), regions)
    (gradient,) = torch.autograd.grad((expected * weights).sum(), regions)
    torch.testing.assert_close(found_gradient, gradient, rtol=1e-11, atol=1e-12)


def test_gradcheck_of_the_contrasts() -> None:
    regions, foreground, background, is_background = _texts()
    for tensor in (regions, foreground, background):
        tensor.requires_grad_()

    def both(regions, foreground, background) -> torch.Tensor:
        texts = (foreground, background, is_background)
        return torch.cat(
            [
                foreground_contrast(regions, *texts, temperature=0.7),
                background_contrast(regions, *texts, temperature=0.7, pool="mean_exp"),
                background_contrast(regions, *texts, temperature=0.7, pool="exp_mean"),
            ]
        )

    assert torch.autograd.gradcheck(both, (regions, foreground, background))


def test_area_equals_the_mean_of_pixels() -> None:
    maps = torch.rand(2, 3, 4, 5, dtype=torch.float64, requires_grad=True)
    found = activated_area(maps)
    for image in range(2):
        for class_id in range(3):
            total = sum(maps[image, class_id, y, x].item() for y in range(4) for x in range(5))
            assert found[image, class_id].item() == pytest.approx(total / 20, rel=1e-13)
    assert torch.autograd.gradcheck(activated_area, (maps,))


def slow_resize(maps: torch.Tensor, size: int) -> torch.Tensor:
    """Bilinear with aligned corners, pixel by pixel."""
    height, width = maps.shape[-2:]
    rows = []
    for y in range(size):
        columns = []
        for x in range(size):
            row, column = y * (height - 1) / (size - 1), x * (width - 1) / (size - 1)
            top, left = min(math.floor(row), height - 2), min(math.floor(column), width - 2)
            down, right = row - top, column - left
            columns.append(
                (1 - down) * (1 - right) * maps[..., top, left]
                + (1 - down) * right * maps[..., top, left + 1]
                + down * (1 - right) * maps[..., top + 1, left]
                + down * right * maps[..., top + 1, left + 1]
            )
        rows.append(torch.stack(columns, dim=-1))
    return torch.stack(rows, dim=-2)


@pytest.mark.parametrize("mode", ["token_mask", "pixel_mask", "both", "none"])
@pytest.mark.parametrize("max_at", ["clip", "cam"])
def test_thresholding_and_composition_equal_loops(mode, max_at) -> None:
    torch.manual_seed(0)
    logits = torch.randn(3, 4, 5, dtype=torch.float64, requires_grad=True)
    image = torch.randn(3, 3, 9, 8, dtype=torch.float64)
    omega, size = 0.6, 7
    cam = logits.sigmoid()
    large = resize_bilinear(cam.unsqueeze(1), size).squeeze(1)
    mask = foreground_mask(large, cam_maximum(large if max_at == "clip" else cam), omega=omega)
    picture = renormalise(
        resize_bilinear(image, size), from_mean=(0.4,) * 3, from_std=(0.2,) * 3, to_mean=(0.5,) * 3, to_std=(0.3,) * 3
    )
    found = compose_regions(picture, large, mask, mode=mode)

    pixels, token_mask = [], []
    for is_background in (False, True):
        for pair in range(3):
            slow_cam = slow_resize(1 / (1 + torch.exp(-logits[pair])), size)
            slow_picture = ((slow_resize(image[pair], size) * 0.2 + 0.4) - 0.5) / 0.3
            peak = max((slow_cam if max_at == "clip" else cam[pair]).flatten().tolist())
            rows = torch.zeros(size, size, dtype=torch.float64)
            weights = torch.zeros(size, size, dtype=torch.float64)
            for y in range(size):
                for x in range(size):
                    value, b = slow_cam[y, x], float(slow_cam[y, x] >= omega * peak)
                    r = (1 - value) if is_background else value
                    b = (1 - b) if is_background else b
                    weights[y, x] = r * (b if mode in ("pixel_mask", "both") else 1.0)
                    rows[y, x] = b
            pixels.append(slow_picture * weights)
            token_mask.append(rows)
    torch.testing.assert_close(found.pixels, torch.stack(pixels), rtol=1e-11, atol=1e-12)
    upstream = torch.randn_like(found.pixels)
    (gradient,) = torch.autograd.grad((found.pixels * upstream).sum(), logits, retain_graph=True)
    (expected,) = torch.autograd.grad((torch.stack(pixels) * upstream).sum(), logits)
    torch.testing.assert_close(gradient, expected, rtol=1e-10, atol=1e-12)
    if mode in ("token_mask", "both"):
        assert torch.equal(found.token_mask[:, 0], torch.stack(token_mask))
        assert 0 < found.token_mask.mean() < 1
    else:
        assert found.token_mask is None
