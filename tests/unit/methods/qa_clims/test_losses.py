import pytest
import torch
import torch.nn.functional as F

from qaclims_ray.methods.qa_clims.losses import background_contrast, foreground_contrast, total_loss

LOSSES = [
    foreground_contrast,
    lambda *args, **kwargs: background_contrast(*args, pool="mean_exp", **kwargs),
    lambda *args, **kwargs: background_contrast(*args, pool="exp_mean", **kwargs),
]


def _inputs(num_pairs: int = 3, num_answers: int = 4) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor]:
    torch.manual_seed(0)
    unit = [
        F.normalize(torch.randn(*shape, 5), dim=-1) for shape in [(num_pairs,), (num_pairs,), (num_pairs, num_answers)]
    ]
    counts = torch.tensor([num_answers, 2, 0])[:num_pairs]
    return *unit, torch.arange(num_answers) < counts[:, None]


@pytest.mark.parametrize("loss", LOSSES)
@pytest.mark.parametrize("filler", [0.0, 1e4, float("nan"), float("inf")])
def test_padding_has_no_influence(loss, filler) -> None:
    regions, foreground, background, is_background = _inputs()
    regions.requires_grad_()
    expected = loss(regions, foreground, background, is_background, temperature=0.7)
    (expected_gradient,) = torch.autograd.grad(expected.sum(), regions)
    padded = background.masked_fill(~is_background.unsqueeze(-1), filler)
    found = loss(regions, foreground, padded, is_background, temperature=0.7)
    (gradient,) = torch.autograd.grad(found.sum(), regions)
    assert torch.equal(found, expected) and torch.equal(gradient, expected_gradient)


@pytest.mark.parametrize("loss", LOSSES)
def test_a_pair_without_texts_gives_zero_and_no_gradient(loss) -> None:
    regions, foreground, background, is_background = _inputs()
    regions.requires_grad_()
    values = loss(regions, foreground, background, is_background, temperature=0.07)
    values.sum().backward()
    assert values[2] == 0 and torch.equal(regions.grad[2], torch.zeros(5))
    assert values[:2].gt(0).all() and regions.grad[:2].abs().sum(1).gt(0).all()


@pytest.mark.parametrize("loss", LOSSES)
@pytest.mark.parametrize("shape", [(0, 3), (2, 0)])
def test_no_pairs_and_no_answers(loss, shape) -> None:
    num_pairs, num_answers = shape
    regions = torch.randn(num_pairs, 5, requires_grad=True)
    none = torch.zeros(num_pairs, num_answers, dtype=torch.bool)
    values = loss(regions, torch.randn(num_pairs, 5), torch.zeros(num_pairs, num_answers, 5), none, temperature=1.0)
    values.sum().backward()
    assert torch.equal(values, torch.zeros(num_pairs)) and torch.equal(regions.grad, torch.zeros(num_pairs, 5))


@pytest.mark.parametrize("loss", LOSSES)
def test_small_temperatures_do_not_overflow(loss) -> None:
    regions, foreground, background, is_background = _inputs()
    texts = (foreground, background, is_background)
    values = [loss(region, *texts, temperature=1e-4) for region in (regions, foreground, background[:, 0])]
    # exp(1 / 1e-4) is far beyond float32.
    assert torch.cat(values).isfinite().all() and torch.cat(values).max() > 1000


@pytest.mark.parametrize("loss", LOSSES)
def test_half_precision_inputs_compute_in_float32(loss) -> None:
    regions, foreground, background, is_background = _inputs()
    halves = [x.bfloat16() for x in (regions, foreground, background)]
    values = loss(*halves, is_background, temperature=0.7)
    assert values.dtype == torch.float32
    torch.testing.assert_close(values, loss(*[x.float() for x in halves], is_background, temperature=0.7))


def test_a_region_like_its_own_text_costs_less() -> None:
    _, foreground, background, is_background = _inputs()
    texts = (foreground, background, is_background)
    assert (
        foreground_contrast(foreground, *texts, temperature=0.1)[:2]
        < foreground_contrast(background[:, 0], *texts, temperature=0.1)[:2]
    ).all()
    assert (
        background_contrast(background[:, 0], *texts, temperature=0.1)[:2]
        < background_contrast(foreground, *texts, temperature=0.1)[:2]
    ).all()


def test_pools_agree_for_one_text_and_are_ordered_for_several() -> None:
    regions, foreground, background, _ = _inputs()
    one = torch.arange(4).expand(3, 4) < 1
    every = torch.ones(3, 4, dtype=torch.bool)

    def loss(mask: torch.Tensor, pool: str) -> torch.Tensor:
        return background_contrast(regions, foreground, background, mask, temperature=0.1, pool=pool)

    torch.testing.assert_close(loss(one, "mean_exp"), loss(one, "exp_mean"))
    # Jensen: the mean of exponentials is the larger, so its loss the smaller.
    assert (loss(every, "mean_exp") < loss(every, "exp_mean")).all()


def test_terms_are_weighted_and_named() -> None:
    terms = (torch.tensor(2.0), torch.tensor(3.0), torch.tensor(0.5))
    result = total_loss(*terms, foreground_weight=10.0, background_weight=8.0, area_weight=0.2, counts={"pairs": 7})
    assert result.loss.item() == pytest.approx(44.1) and result.counts == {"pairs": 7}
    assert {name: value.item() for name, value in result.means.items()} == {
        "loss/foreground": 2.0,
        "loss/background": 3.0,
        "loss/area": 0.5,
    }
