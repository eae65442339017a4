import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from qaclims_ray.methods.clims.losses import background_suppression, background_text_matching, object_text_matching
from qaclims_ray.methods.similarity import clamped

THRESHOLDS = [None, -0.5]


def unit(*shape: int, seed: int = 0) -> Tensor:
    return F.normalize(torch.randn(*shape, generator=torch.Generator().manual_seed(seed)), dim=-1)


def at_cosine(cosines: list[float]) -> tuple[Tensor, Tensor]:
    """Pairs of vectors whose dot product is exactly the given number."""
    s = torch.tensor(cosines)
    left = torch.stack([s, torch.ones_like(s)], dim=1)
    return left.requires_grad_(), torch.tensor([1.0, 0.0]).repeat(len(cosines), 1)


def texts(num_answers: int = 4) -> tuple[Tensor, Tensor, Tensor]:
    counts = torch.tensor([num_answers, 2, 0])
    return unit(3, 5, seed=2), unit(3, num_answers, 5, seed=1), torch.arange(num_answers) < counts[:, None]


@pytest.mark.parametrize("loss", [object_text_matching, background_text_matching])
def test_the_gradient_is_zero_outside_the_clamp_and_on_it(loss) -> None:
    left, right = at_cosine([-0.5, 0.0, 1e-4, 2e-4, 0.5, 0.999, 0.9999, 1.0, 1.1])
    values = loss(left, right)
    values.sum().backward()
    assert left.grad is not None
    assert left.grad[:, 0].ne(0).tolist() == [False, False, False, True, True, True, False, False, False]
    assert values.isfinite().all() and values[0] == values[1] == values[2] and values[6] == values[7] == values[8]


def test_matching_is_small_where_it_should_be() -> None:
    left, right = at_cosine([0.2, 0.8])
    matched, unmatched = object_text_matching(left, right), background_text_matching(left, right)
    assert matched[0] > matched[1] and unmatched[0] < unmatched[1]


@pytest.mark.parametrize("threshold", THRESHOLDS)
@pytest.mark.parametrize("filler", [0.0, 1e4, float("nan"), float("inf")])
def test_padding_has_no_influence(threshold, filler) -> None:
    regions, background, is_background = texts()
    regions.requires_grad_()
    expected = background_suppression(regions, background, is_background, threshold=threshold)
    (expected_gradient,) = torch.autograd.grad(expected.sum(), regions)
    padded = background.masked_fill(~is_background.unsqueeze(-1), filler)
    found = background_suppression(regions, padded, is_background, threshold=threshold)
    (gradient,) = torch.autograd.grad(found.sum(), regions)
    assert torch.equal(found, expected) and torch.equal(gradient, expected_gradient)
    assert expected[:2].ne(0).all() and expected[2] == 0 and torch.equal(gradient[2], torch.zeros(5))


@pytest.mark.parametrize("threshold", THRESHOLDS)
@pytest.mark.parametrize("shape", [(0, 3), (2, 0)])
def test_no_pairs_and_no_texts(threshold, shape) -> None:
    regions = torch.randn(shape[0], 5, requires_grad=True)
    none = torch.zeros(*shape, dtype=torch.bool)
    values = background_suppression(regions, torch.zeros(*shape, 5), none, threshold=threshold)
    values.sum().backward()
    assert torch.equal(values, torch.zeros(shape[0])) and torch.equal(regions.grad, torch.zeros(shape[0], 5))


def test_only_texts_strictly_above_the_threshold_count_and_they_are_not_clamped() -> None:
    background = torch.eye(4).unsqueeze(0)
    regions = torch.tensor([[0.25, 0.3, 0.99999, 0.2]], requires_grad=True)
    every = torch.ones(1, 4, dtype=torch.bool)
    value = background_suppression(regions, background, every, threshold=0.25)
    value.sum().backward()
    expected = -(torch.tensor(1 - 0.3).log() + torch.tensor(1 - 0.99999).log())
    torch.testing.assert_close(value, expected.reshape(1), rtol=1e-3, atol=0)
    assert regions.grad[0].ne(0).tolist() == [False, True, True, False]


def test_all_texts_are_clamped_without_a_threshold() -> None:
    regions = torch.tensor([[-0.5, 0.3, 0.99999, 1e-4]], requires_grad=True)
    value = background_suppression(regions, torch.eye(4)[None], torch.ones(1, 4, dtype=torch.bool), threshold=None)
    value.sum().backward()
    expected = -sum(torch.tensor(1 - s).log() for s in (1e-4, 0.3, 0.9999, 1e-4))
    torch.testing.assert_close(value, expected.reshape(1), rtol=1e-3, atol=0)
    assert regions.grad[0].ne(0).tolist() == [False, True, False, False]


@pytest.mark.parametrize("threshold", THRESHOLDS)
def test_a_region_equal_to_a_text_stays_finite(threshold) -> None:
    regions = (1 + 2e-7) * torch.eye(3)
    regions.requires_grad_()
    every = torch.ones(3, 1, dtype=torch.bool)
    values = background_suppression(regions, torch.eye(3).unsqueeze(1), every, threshold=threshold)
    values.sum().backward()
    assert values.isfinite().all() and values.min() > 5 and regions.grad.isfinite().all()


def test_half_precision_computes_in_float32() -> None:
    regions, background, is_background = texts()
    halves = regions.bfloat16(), background.bfloat16()
    for threshold in THRESHOLDS:
        values = background_suppression(*halves, is_background, threshold=threshold)
        expected = background_suppression(*(x.float() for x in halves), is_background, threshold=threshold)
        assert values.dtype == torch.float32 and torch.equal(values, expected)
    matched = object_text_matching(halves[0], halves[0])
    assert matched.dtype == torch.float32 and matched.isfinite().all()


def test_clamped_changes_nothing_inside() -> None:
    inside = torch.linspace(0.001, 0.999, 9)
    assert torch.equal(clamped(inside), inside)
