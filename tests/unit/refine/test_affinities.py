import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from qaclims_ray.refine.affinities import attention_affinity, cosine_affinity, distribution_affinity, divergence


def drawn(seed: int, *shape: int) -> torch.Tensor:
    return torch.rand(shape, generator=torch.Generator().manual_seed(seed))


@settings(deadline=None, max_examples=30)
@given(seed=st.integers(0, 1000), cells=st.integers(1, 12), classes=st.integers(1, 6))
def test_every_row_sums_to_one_and_no_weight_is_negative(seed: int, cells: int, classes: int) -> None:
    attention = drawn(seed, cells, cells) + 1e-3
    for weights in (
        attention_affinity(attention),
        cosine_affinity(drawn(seed, cells, 3) - 0.5, temperature=0.1),
        distribution_affinity(drawn(seed, cells, classes), attention, text_temperature=0.01, temperature=0.1),
    ):
        assert weights.shape == (cells, cells) and float(weights.min()) >= 0
        torch.testing.assert_close(weights.sum(1), torch.ones(cells))


def test_cells_of_one_kind_take_of_each_other_alone() -> None:
    kinds = torch.tensor([0, 0, 1, 1, 1])
    features = torch.eye(2)[kinds]
    same = (kinds[:, None] == kinds[None, :]).float()
    expected = same / same.sum(1, keepdim=True)
    torch.testing.assert_close(cosine_affinity(features, temperature=0.02), expected)
    found = distribution_affinity(features, torch.ones(5, 5), text_temperature=0.02, temperature=0.02)
    torch.testing.assert_close(found, expected)


def test_where_all_cells_are_alike_all_count_the_same() -> None:
    even = torch.full((4, 4), 0.25)
    torch.testing.assert_close(cosine_affinity(torch.ones(4, 3), temperature=0.1), even)
    torch.testing.assert_close(attention_affinity(torch.full((4, 4), 0.1)), even)
    found = distribution_affinity(torch.full((4, 3), 0.2), torch.ones(4, 4), text_temperature=0.01, temperature=0.1)
    torch.testing.assert_close(found, even)


def test_a_cell_that_all_attend_to_loses_its_weight() -> None:
    attention = torch.full((6, 6), 0.01) + 0.1 * torch.eye(6)
    attention[:, 2] = 0.8
    plain = attention / attention.sum(1, keepdim=True)
    balanced = attention_affinity(attention)
    assert float(plain[0, 2]) > 0.8 and float(balanced[0, 2]) < 0.25
    torch.testing.assert_close(balanced, balanced.T, atol=1e-4, rtol=1e-3)


@settings(deadline=None, max_examples=30)
@given(seed=st.integers(0, 1000))
def test_divergence_is_symmetric_and_lies_between_0_and_1(seed: int) -> None:
    found = divergence((10 * drawn(seed, 6, 4)).softmax(1))
    torch.testing.assert_close(found, found.T)
    assert float(found.min()) >= 0 and float(found.max()) <= 1


@pytest.mark.parametrize("seed", [0, 1])
def test_attention_that_does_not_reach_a_cell_keeps_it_out(seed: int) -> None:
    attention = drawn(seed, 4, 4) + 0.1
    attention[0, 3] = 0
    found = distribution_affinity(drawn(seed, 4, 3), attention, text_temperature=0.1, temperature=0.1)
    assert float(found[0, 3]) == 0 and float(found[3, 0]) > 0
