import math

import pytest
import torch

from qaclims_ray.refine.irn.losses import (
    WEIGHTS,
    AffinityTerms,
    affinity_sums,
    pair_offsets,
    pair_view,
    path_cells,
    path_maximum,
)
from qaclims_ray.training.meter import weighted


@pytest.mark.parametrize(("radius", "expected"), [(1, 0), (2, 4), (5, 34), (10, 152)])
def test_offsets_are_half_a_disc(radius, expected) -> None:
    offsets = pair_offsets(radius)
    assert len(offsets) == len(set(offsets)) == expected
    assert not {(-row, -column) for row, column in offsets} & set(offsets)
    assert all(0 < math.hypot(*offset) < radius for offset in offsets)
    both = len(offsets) * 2 + 1
    assert both == sum(math.hypot(r, c) < radius for r in range(-10, 11) for c in range(-10, 11))


def test_the_way_runs_from_one_end_to_the_other() -> None:
    assert path_cells((0, 3)) == ((0, 0), (0, 1), (0, 2), (0, 3))
    assert path_cells((2, 2)) == ((0, 0), (0, 1), (1, 0), (1, 1), (1, 2), (2, 1), (2, 2))
    # The corners of the box are nearer than 1 to so flat a line, not to a diagonal.
    assert set(path_cells((1, -2))) == {(0, 0), (0, -1), (0, -2), (1, 0), (1, -1), (1, -2)}
    assert not {(0, -2), (2, 0)} & set(path_cells((2, -2)))
    for offset in pair_offsets(6):
        cells = path_cells(offset)
        assert {(0, 0), offset} <= set(cells)
        # Without gaps: every cell but the first touches another one.
        assert all(any(0 < max(abs(r - a), abs(c - b)) <= 1 for a, b in cells) for r, c in cells)


def test_views_are_starts_and_ends_of_the_same_pairs() -> None:
    grid = torch.arange(20.0).view(4, 5)
    starts, ends = pair_view(grid, (1, -2), (0, 0)), pair_view(grid, (1, -2), (1, -2))
    assert starts.shape == (3, 3) and torch.equal(ends - starts, torch.full((3, 3), 5.0 - 2.0))
    assert starts[0, 0] == 2
    assert pair_view(grid, (4, 0), (0, 0)).numel() == 0 and pair_view(grid, (6, -9), (0, 0)).numel() == 0


def test_a_boundary_separates_and_the_gradient_goes_to_it() -> None:
    grid = torch.zeros(1, 5, 5, requires_grad=True)
    with torch.no_grad():
        grid[0, :, 2] = torch.arange(1.0, 6.0)
    highest = path_maximum(grid, (0, 4))
    assert torch.equal(highest[0, :, 0], torch.arange(1.0, 6.0))
    highest.sum().backward()
    assert torch.equal(grid.grad[0, :, 2], torch.ones(5)) and grid.grad.sum() == 5


def test_the_losses_know_their_cases() -> None:
    labels = torch.tensor([[[0, 0, 3, 3, 255, 3]]], dtype=torch.uint8)
    boundary = torch.full((1, 1, 1, 6), -30.0)
    field = torch.zeros(1, 2, 1, 6)
    terms, num_pairs = affinity_sums(boundary, field, labels, radius=2)
    # Neighbours: 00, 03, 33; those with 255 do not count.
    assert num_pairs.tolist() == [1, 1, 1]
    assert terms.background.abs() < 1e-4 and terms.foreground.abs() < 1e-4
    assert terms.negative == pytest.approx(-math.log(1e-5), rel=1e-3)
    assert terms.background_displacement == 0
    assert terms.foreground_displacement == 0.5  # (0, 1), mean over rows and columns
    boundary[..., 1] = 30.0
    terms, _ = affinity_sums(boundary, field, labels, radius=2)
    assert terms.negative.abs() < 1e-4 and terms.foreground.abs() < 1e-4
    assert terms.background == pytest.approx(-math.log(1e-5), rel=1e-3)


def test_a_field_that_points_to_the_centre_costs_nothing() -> None:
    labels = torch.full((1, 5, 5), 7, dtype=torch.uint8)
    rows, columns = torch.meshgrid(torch.arange(5.0), torch.arange(5.0), indexing="ij")
    field = torch.stack([2 - rows, 2 - columns])[None]
    terms, num_pairs = affinity_sums(torch.zeros(1, 1, 5, 5), field, labels, radius=4)
    assert num_pairs[1] > 50 and terms.foreground_displacement == 0
    wrong, _ = affinity_sums(torch.zeros(1, 1, 5, 5), -field, labels, radius=4)
    assert wrong.foreground_displacement > 50


def test_without_pairs_the_loss_is_zero_with_a_gradient() -> None:
    boundary = torch.randn(1, 1, 4, 4, requires_grad=True)
    field = torch.randn(1, 2, 4, 4, requires_grad=True)
    terms, num_pairs = affinity_sums(boundary, field, torch.full((1, 4, 4), 255, dtype=torch.uint8), radius=3)
    total = weighted(vars(terms.divided(num_pairs)), WEIGHTS).loss
    total.backward()
    assert total == 0 and num_pairs.sum() == 0
    assert torch.equal(boundary.grad, torch.zeros_like(boundary)) and torch.equal(field.grad, torch.zeros_like(field))


def test_low_precision_is_computed_in_float32() -> None:
    torch.manual_seed(0)
    boundary, field = torch.randn(1, 1, 12, 12).bfloat16(), torch.randn(1, 2, 12, 12).bfloat16()
    labels = torch.randint(0, 2, (1, 12, 12), dtype=torch.uint8)
    terms, _ = affinity_sums(boundary, field, labels, radius=5)
    expected, _ = affinity_sums(boundary.float(), field.float(), labels, radius=5)
    assert vars(terms) == vars(expected) and terms.background.dtype == torch.float32


def test_terms_are_weighted_as_published() -> None:
    terms = AffinityTerms(*(torch.tensor(value) for value in (2.0, 4.0, 8.0, 16.0, 32.0)))
    assert weighted(vars(terms), WEIGHTS).loss == ((2 + 4) / 2 + 8 + 16 + 32) / 2
    divided = terms.divided(torch.tensor([2, 4, 0]))
    assert [float(value) for value in vars(divided).values()] == [1, 1, 8, 8, 8]
    assert list(weighted(vars(divided), WEIGHTS).means) == [
        "loss/background",
        "loss/foreground",
        "loss/negative",
        "loss/background_displacement",
        "loss/foreground_displacement",
    ]
