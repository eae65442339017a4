"""IRN's losses and random walk against slow restatements, pair by pair, in float64."""

import math

import pytest
import torch

from qaclims_ray.refine.irn.losses import WEIGHTS, affinity_sums, grid_pairs, path_maximum
from qaclims_ray.refine.irn.random_walk import random_walk
from qaclims_ray.training.meter import weighted


def _on_the_way(start: tuple[int, int], end: tuple[int, int]) -> list[tuple[int, int]]:
    """Return the cells in the box of two cells whose distance from the line through them is below 1."""
    (top, left), (bottom, right) = start, end
    length = math.hypot(bottom - top, right - left)
    cells = []
    for row in range(min(top, bottom), max(top, bottom) + 1):
        for column in range(min(left, right), max(left, right) + 1):
            cross = (bottom - top) * (column - left) - (right - left) * (row - top)
            if abs(cross) / length < 1 - 1e-12:
                cells.append((row, column))
    return cells


def _pairs(height: int, width: int, radius: int):
    cells = [(row, column) for row in range(height) for column in range(width)]
    for index, start in enumerate(cells):
        for end in cells[index + 1 :]:
            if math.dist(start, end) < radius:
                yield start, end


@pytest.mark.parametrize(("height", "width", "radius"), [(6, 7, 4), (5, 3, 10), (1, 6, 3)])
def test_sums_equal_those_of_a_loop_over_pairs(height, width, radius) -> None:
    generator = torch.Generator().manual_seed(height)
    boundary = torch.randn(2, 1, height, width, dtype=torch.float64, generator=generator)
    field = torch.randn(2, 2, height, width, dtype=torch.float64, generator=generator)
    labels = torch.tensor([0, 1, 2, 255])[torch.randint(4, (2, height, width), generator=generator)].to(torch.uint8)
    sums, counts = [0.0] * 5, [0, 0, 0]
    for image in range(2):
        probability = boundary[image, 0].sigmoid()
        for start, end in _pairs(height, width, radius):
            first, second = int(labels[image][start]), int(labels[image][end])
            if 255 in (first, second):
                continue
            affinity = 1 - max(float(probability[cell]) for cell in _on_the_way(start, end))
            kind = 2 if first != second else int(first != 0)
            counts[kind] += 1
            sums[kind] -= math.log((1 - affinity if kind == 2 else affinity) + 1e-5)
            if kind < 2:
                for axis in range(2):
                    difference = float(field[image, axis][start] - field[image, axis][end])
                    target = (end[axis] - start[axis]) if kind == 1 else 0
                    sums[3 + kind] += abs(difference - target) / 2
    terms, num_pairs = affinity_sums(boundary, field, labels, radius=radius)
    assert num_pairs.tolist() == counts and min(counts) > 0
    torch.testing.assert_close(
        torch.stack(list(vars(terms).values())), torch.tensor(sums, dtype=torch.float64), rtol=1e-10, atol=1e-10
    )


def test_gradients_are_right() -> None:
    torch.manual_seed(0)
    labels = torch.tensor([0, 1, 255])[torch.randint(3, (1, 5, 5))].to(torch.uint8)
    boundary = torch.randn(1, 1, 5, 5, dtype=torch.float64, requires_grad=True)
    field = torch.randn(1, 2, 5, 5, dtype=torch.float64, requires_grad=True)

    def loss(boundary: torch.Tensor, field: torch.Tensor) -> torch.Tensor:
        terms, num_pairs = affinity_sums(boundary, field, labels, radius=4)
        return weighted(vars(terms.divided(num_pairs)), WEIGHTS).loss

    assert torch.autograd.gradcheck(loss, (boundary, field))
    (pairs,) = grid_pairs(4, 5, 5, boundary.device, most_entries=10**6)
    assert torch.autograd.gradcheck(lambda grid: path_maximum(grid.flatten(1), pairs), boundary)


def _dense(boundary: torch.Tensor, radius: int, beta: float) -> torch.Tensor:
    """Return the transition matrix, each of whose columns adds up to 1."""
    height, width = boundary.shape
    affinity = torch.eye(height * width, dtype=boundary.dtype)
    for start, end in _pairs(height, width, radius):
        value = (1 - max(boundary[cell] for cell in _on_the_way(start, end))) ** beta
        first, second = start[0] * width + start[1], end[0] * width + end[1]
        affinity[first, second] = affinity[second, first] = value
    return affinity / affinity.sum(dim=0, keepdim=True)


@pytest.mark.parametrize(
    ("height", "width", "radius", "beta", "log2_steps"),
    [
        (9, 11, 5, 10.0, 8),
        (9, 11, 5, 10.0, 0),
        (6, 6, 3, 8.0, 4),
        (3, 8, 5, 2.5, 6),
        (1, 7, 4, 1.0, 3),
        (4, 4, 1, 2.0, 3),
    ],
)
def test_the_walk_equals_the_dense_power(height, width, radius, beta, log2_steps) -> None:
    generator = torch.Generator().manual_seed(width)
    boundary = torch.rand(height, width, dtype=torch.float64, generator=generator) ** 3
    maps = torch.rand(3, height, width, dtype=torch.float64, generator=generator)
    matrix = _dense(boundary, radius, beta)
    for _ in range(log2_steps):
        matrix = matrix @ matrix
    expected = ((maps * (1 - boundary)).flatten(1) @ matrix).view_as(maps)
    (found,) = random_walk(maps[None], boundary[None], radius=radius, beta=beta, log2_steps=log2_steps)
    torch.testing.assert_close(found, expected, rtol=1e-11, atol=1e-14)
