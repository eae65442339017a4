"""CLIMS' losses against a slow restatement, number by number, in float64."""

import math

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from qaclims_ray.methods.clims.losses import background_suppression, background_text_matching, object_text_matching

PAIRS, ANSWERS, DIM = 6, 4, 5


def slow_cosine(left: list[float], right: list[float]) -> tuple[float, list[float]]:
    """Dot product and its gradient with respect to the left vector."""
    return sum(a * b for a, b in zip(left, right, strict=True)), list(right)


def slow_matching(
    region: list[float], text: list[float], *, attract: bool, clamp: bool = True
) -> tuple[float, list[float]]:
    """-log s or -log(1 - s), with s clamped (C5) or as it is (camera-ready), and the gradient by hand."""
    s, slope = slow_cosine(region, text)
    inside = 1e-4 < s < 0.9999 or not clamp
    s = min(max(s, 1e-4), 0.9999) if clamp else s
    value, factor = (-math.log(s), -1 / s) if attract else (-math.log(1 - s), 1 / (1 - s))
    return value, [factor * x if inside else 0.0 for x in slope]


def slow_suppression(
    region: list[float], texts: list[list[float]], threshold: float | None, *, clamp: bool = True, mean: bool = False
):
    total, count, gradient = 0.0, 0, [0.0] * len(region)
    for text in texts:
        s, slope = slow_cosine(region, text)
        if threshold is None:
            value, own = slow_matching(region, text, attract=False, clamp=clamp)
        elif s > threshold:
            value, own = -math.log(1 - s), [x / (1 - s) for x in slope]
        else:
            continue
        total, count = total + value, count + 1
        gradient = [a + b for a, b in zip(gradient, own, strict=True)]
    parts = max(count, 1) if mean else 1
    return total / parts, [slope / parts for slope in gradient]


def inputs() -> tuple[Tensor, Tensor, Tensor]:
    generator = torch.Generator().manual_seed(4)
    regions = F.normalize(torch.randn(PAIRS, DIM, dtype=torch.float64, generator=generator), dim=-1)
    texts = F.normalize(torch.randn(PAIRS, ANSWERS, DIM, dtype=torch.float64, generator=generator), dim=-1)
    texts[0, 0] = regions[0]  # a cosine above the upper bound
    texts[1, 0] = F.normalize(regions[1] + 0.3 * texts[1, 1], dim=0)  # between threshold and bound
    is_background = torch.arange(ANSWERS) < torch.tensor([4, 3, 0, 1, 2, 4])[:, None]
    return regions, texts, is_background


@pytest.mark.parametrize("attract", [True, False])
def test_matching_equals_the_loop(attract) -> None:
    regions, texts, _ = inputs()
    regions.requires_grad_()
    found = (object_text_matching if attract else background_text_matching)(regions, texts[:, 0])
    weights = torch.arange(1.0, PAIRS + 1, dtype=torch.float64)
    (gradient,) = torch.autograd.grad((found * weights).sum(), regions)
    slow = [slow_matching(r, t, attract=attract) for r, t in zip(regions.tolist(), texts[:, 0].tolist(), strict=True)]
    torch.testing.assert_close(found, torch.tensor([v for v, _ in slow], dtype=torch.float64), rtol=1e-12, atol=1e-12)
    expected = torch.tensor([g for _, g in slow], dtype=torch.float64) * weights[:, None]
    torch.testing.assert_close(gradient, expected, rtol=1e-11, atol=1e-12)
    flat = gradient.eq(0).all(dim=1)
    assert flat[0] and not flat.all()


@pytest.mark.parametrize("attract", [True, False])
def test_unclamped_matching_equals_the_loop(attract) -> None:
    """The camera-ready code: cosines far from the bounds and beyond them alike go into the logarithm as they are."""
    s = torch.tensor([3e-5, 1e-4, 0.5, 0.9999, 0.99999, *([] if attract else [-0.7, 0.0])], dtype=torch.float64)
    regions = torch.stack([s, (1 - s * s).sqrt()], dim=1).requires_grad_()
    texts = torch.tensor([1.0, 0.0], dtype=torch.float64).expand(len(s), 2)
    found = (object_text_matching if attract else background_text_matching)(regions, texts, clamp=False)
    (gradient,) = torch.autograd.grad(found.sum(), regions)
    pairs = zip(regions.tolist(), texts.tolist(), strict=True)
    slow = [slow_matching(region, text, attract=attract, clamp=False) for region, text in pairs]
    torch.testing.assert_close(found, torch.tensor([v for v, _ in slow], dtype=torch.float64), rtol=1e-10, atol=1e-14)
    torch.testing.assert_close(gradient, torch.tensor([g for _, g in slow], dtype=torch.float64), rtol=1e-8, atol=0)
    assert gradient[:, 0].ne(0).all(), "a gradient everywhere, as no clamp stands in its way"


@pytest.mark.parametrize(("clamp", "mean"), [(True, False), (False, False), (True, True), (False, True)])
@pytest.mark.parametrize("threshold", [None, 0.26, -1.0])
def test_suppression_equals_the_loop(threshold, clamp, mean) -> None:
    regions, texts, is_background = inputs()
    if threshold is not None or not clamp:
        texts[0, 0] = F.normalize(texts[0, 0] + 0.01 * texts[0, 1], dim=0)  # 1 - s must have a logarithm
    regions.requires_grad_()
    found = background_suppression(
        regions, texts, is_background, threshold=threshold, clamp=clamp, over_texts="mean" if mean else "sum"
    )
    weights = torch.arange(1.0, PAIRS + 1, dtype=torch.float64)
    (gradient,) = torch.autograd.grad((found * weights).sum(), regions)
    values, gradients = [], []
    for pair, region in enumerate(regions.tolist()):
        own = [texts[pair, answer].tolist() for answer in range(ANSWERS) if is_background[pair, answer]]
        value, slope = slow_suppression(region, own, threshold, clamp=clamp, mean=mean)
        values.append(value)
        gradients.append([weights[pair].item() * x for x in slope])
    torch.testing.assert_close(found, torch.tensor(values, dtype=torch.float64), rtol=1e-10, atol=1e-12)
    torch.testing.assert_close(gradient, torch.tensor(gradients, dtype=torch.float64), rtol=1e-8, atol=1e-12)
    assert found[0] > (1 if mean else 4) and found[2] == 0


def test_gradcheck_away_from_the_bounds() -> None:
    generator = torch.Generator().manual_seed(0)
    regions = F.normalize(torch.rand(3, 4, dtype=torch.float64, generator=generator) + 0.1, dim=-1)
    texts = F.normalize(torch.rand(3, 2, 4, dtype=torch.float64, generator=generator) + 0.1, dim=-1)
    every = torch.ones(3, 2, dtype=torch.bool)
    cosines = torch.einsum("pd,pad->pa", regions, texts)
    assert 0.01 < cosines.min() and cosines.max() < 0.99 and (cosines - 0.26).abs().min() > 0.01

    def losses(regions: Tensor, texts: Tensor) -> Tensor:
        return torch.cat(
            [
                object_text_matching(regions, texts[:, 0]),
                background_text_matching(regions, texts[:, 1]),
                background_suppression(regions, texts, every, threshold=None),
                background_suppression(regions, texts, every, threshold=0.26),
            ]
        )

    assert torch.autograd.gradcheck(losses, (regions.requires_grad_(), texts.requires_grad_()))
