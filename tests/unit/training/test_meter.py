import itertools

import pytest
import torch

from qaclims_ray.training.meter import weighted


def _shares(*names: str, seed: int) -> tuple[dict[str, torch.Tensor], dict[str, float]]:
    generator = torch.Generator().manual_seed(seed)
    values = 10 * torch.rand(2, len(names), generator=generator)
    return dict(zip(names, values[0], strict=True)), dict(zip(names, values[1].tolist(), strict=True))


def test_the_loss_is_weighted_and_its_terms_are_logged_as_they_are() -> None:
    terms = {"near": torch.tensor(2.0, requires_grad=True), "far": torch.tensor(3.0, requires_grad=True)}
    result = weighted(terms, {"near": 10.0, "far": 0.5}, {"pairs": 4})
    assert result.loss == 21.5 and result.counts == {"pairs": 4}
    assert list(result.means.items()) == [("loss/near", 2.0), ("loss/far", 3.0)]
    assert not any(value.requires_grad for value in result.means.values())
    result.loss.backward()
    assert terms["near"].grad == 10 and terms["far"].grad == 0.5


def test_a_term_without_weight_is_a_mistake_and_a_weight_without_term_is_passed_over() -> None:
    with pytest.raises(AssertionError, match="far"):
        weighted({"near": torch.ones(()), "far": torch.ones(())}, {"near": 1.0})
    result = weighted({"near": torch.ones(())}, {"far": 5.0, "near": 2.0})
    assert result.loss == 2 and list(result.means) == ["loss/near"]


def test_terms_are_added_in_the_order_of_the_weights() -> None:
    """Floating point sums depend on it: without an order, figures would change with that of a dictionary."""
    terms, ones = {"huge": torch.tensor(1e8), "one": torch.tensor(1.0), "minus": torch.tensor(-1e8)}, {}
    for order in itertools.permutations(terms):
        ones[order] = float(weighted(terms, dict.fromkeys(order, 1.0)).loss)
    assert ones["huge", "minus", "one"] == 1.0 and ones["huge", "one", "minus"] == 0.0
    assert ones == {order: float(weighted(terms, dict.fromkeys(order, 1.0)).loss) for order in ones}


@pytest.mark.parametrize("seed", range(100))
def test_sums_are_those_that_recorded_figures_were_made_with(seed) -> None:
    """To the last bit: written out, stacked, and the published one half of IRN's."""
    terms, weights = _shares("a", "b", "c", seed=seed)
    written = weights["a"] * terms["a"] + weights["b"] * terms["b"] + weights["c"] * terms["c"]
    assert torch.equal(weighted(terms, weights).loss, written)
    terms, weights = _shares("a", "b", "c", "d", seed=seed)
    assert torch.equal(weighted(terms, weights).loss, torch.stack([weights[n] * terms[n] for n in terms]).sum())
    terms, weights = _shares("foreground", "background", "area", "prompts", "image", "text", seed=seed)
    stacked = torch.stack([weights[n] * terms[n] for n in terms]).sum()
    order = ("foreground", "image", "text", "background", "area", "prompts")
    assert torch.equal(weighted(terms, {name: weights[name] for name in order}).loss, stacked)
    terms, _ = _shares("b", "f", "n", "fd", "bd", seed=seed)
    halves = ((terms["b"] + terms["f"]) / 2 + terms["n"] + terms["fd"] + terms["bd"]) / 2
    assert torch.equal(weighted(terms, {"b": 0.25, "f": 0.25, "n": 0.5, "fd": 0.5, "bd": 0.5}).loss, halves)
