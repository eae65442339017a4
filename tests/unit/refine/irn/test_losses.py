import math

import pytest
import torch

from qaclims_ray.refine.irn import losses
from qaclims_ray.refine.irn.losses import (
    WEIGHTS,
    AffinityTerms,
    _PathMaximumByTable,
    _PathMaximumByViews,
    affinity_sums,
    grid_pairs,
    pair_offsets,
    path_cells,
)
from qaclims_ray.training.meter import weighted

CPU = torch.device("cpu")


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


def test_every_pair_of_cells_of_a_grid_stands_once() -> None:
    height, width, radius = 4, 5, 3
    found = []
    for pairs in grid_pairs(radius, height, width, CPU, most_entries=1):
        assert len(pairs.offsets) == 1, "parts of one offset at least"
        for index, (rows, columns) in enumerate(pairs.offsets.tolist()):
            starts = pairs.is_pair[index].nonzero()[:, 0]
            found += zip(starts.tolist(), pairs.ends[index, starts].tolist(), strict=True)
            assert torch.equal(pairs.ends[index, starts] - starts, torch.full_like(starts, rows * width + columns))
            assert torch.equal(pairs.ends[index][~pairs.is_pair[index]], (~pairs.is_pair[index]).nonzero()[:, 0])
    cells = [(row, column) for row in range(height) for column in range(width)]
    expected = [(i, j) for i in range(20) for j in range(i + 1, 20) if math.dist(cells[i], cells[j]) < radius]
    assert sorted(found) == expected
    assert grid_pairs(radius, 1, 1, CPU, 100) == () and grid_pairs(1, 5, 5, CPU, 100) == ()


@pytest.mark.parametrize("function", [_PathMaximumByTable, _PathMaximumByViews])
def test_a_boundary_separates_and_the_gradient_goes_to_it(function) -> None:
    grid = torch.zeros(1, 5, 5, requires_grad=True)
    with torch.no_grad():
        grid[0, :, 2] = torch.arange(1.0, 6.0)
    (pairs,) = grid_pairs(5, 5, 5, CPU, 10**9)
    across = pairs.offsets.tolist().index([0, 4])
    highest = function.apply(grid.flatten(1), pairs)[0, across].view(5, 5)
    assert torch.equal(highest[:, 0], torch.arange(1.0, 6.0))
    highest[:, 0].sum().backward()
    assert torch.equal(grid.grad[0, :, 2], torch.ones(5)) and grid.grad.sum() == 5


@pytest.mark.parametrize(("height", "width", "radius"), [(6, 7, 4), (3, 9, 6), (1, 5, 3)])
def test_both_ways_to_the_maximum_agree_with_their_gradients(height, width, radius) -> None:
    generator = torch.Generator().manual_seed(0)
    values = torch.randint(0, 5, (2, height * width), generator=generator).double()  # equal ones among them
    for pairs in grid_pairs(radius, height, width, CPU, most_entries=500):
        found = []
        for function in (_PathMaximumByTable, _PathMaximumByViews):
            grid = values.clone().requires_grad_()
            highest = function.apply(grid, pairs)
            highest.mul(torch.arange(highest.numel()).view_as(highest)).sum().backward()
            found.append((highest.detach(), grid.grad))
        assert torch.equal(found[0][0], found[1][0]) and torch.equal(found[0][1], found[1][1])


@pytest.mark.parametrize("entries", [1, 700, 10**9])
def test_parts_change_nothing(entries, monkeypatch) -> None:
    torch.manual_seed(0)
    labels = torch.randint(0, 3, (2, 9, 9), dtype=torch.uint8)
    boundary, field = torch.randn(2, 1, 9, 9), torch.randn(2, 2, 9, 9)
    expected, counted = affinity_sums(boundary, field, labels, radius=4)
    monkeypatch.setattr(losses, "_ENTRIES_ON_CPU", entries)
    terms, num_pairs = affinity_sums(boundary, field, labels, radius=4)
    assert torch.equal(num_pairs, counted)
    torch.testing.assert_close(list(vars(terms).values()), list(vars(expected).values()))


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
