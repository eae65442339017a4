"""Inter-pixel relations: what a boundary map and a displacement field say about pairs (Ahn et al. 2019).

A pair is two cells of the stride-4 grid less than `radius` apart. Its affinity is 1 minus the highest boundary
probability on the way from one to the other: two cells belong together if no boundary lies between them. The random
walk of `refine/irn/random_walk.py` takes the same pairs and the same ways.
"""

import functools
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float, Int64, Shaped, UInt8
from torch import Tensor

from qaclims_ray.data.classes import BACKGROUND_VALUE, IGNORE_VALUE

Offset = tuple[int, int]
"""Rows and columns from one cell to another."""
EPSILON = 1e-5
"""Added to a probability before its logarithm, as in the released code."""


@dataclass(frozen=True)
class AffinityTerms:
    """The five terms of IRN's loss: one worker's sums over pairs, or these divided by numbers of pairs."""

    background: Float[Tensor, ""]
    """-log(affinity) of pairs within the background."""
    foreground: Float[Tensor, ""]
    """-log(affinity) of pairs within one class."""
    negative: Float[Tensor, ""]
    """-log(1 - affinity) of pairs of different labels."""
    background_displacement: Float[Tensor, ""]
    """Difference of the displacements of pairs within the background, mean over rows and columns."""
    foreground_displacement: Float[Tensor, ""]
    """Distance of that difference from the pair's offset, of pairs within one class."""

    def divided(self, num_pairs: Int64[Tensor, " 3"]) -> "AffinityTerms":
        """Divide each term by its number of pairs (background, foreground, negative); of no pairs, by 1."""
        background, foreground, negative = num_pairs.clamp(min=1).unbind()
        return AffinityTerms(
            background=self.background / background,
            foreground=self.foreground / foreground,
            negative=self.negative / negative,
            background_displacement=self.background_displacement / background,
            foreground_displacement=self.foreground_displacement / foreground,
        )


WEIGHTS = {
    "background": 0.25,
    "foreground": 0.25,
    "negative": 0.5,
    "foreground_displacement": 0.5,
    "background_displacement": 0.5,
}
"""Weight of each of `AffinityTerms` in the loss: the paper's sum of all terms, times one half.

The background and the foreground each are half of the positive affinities. The factor of one half is the released
code's; the learning rates of row E8 belong to it. Powers of two, so weighting rounds nothing.
"""


@functools.cache
def pair_offsets(radius: int) -> tuple[Offset, ...]:
    """Return the offsets shorter than `radius`, one of each two opposite ones: down, or straight to the right."""
    reach = range(-radius + 1, radius)
    near = [(row, column) for row in reach for column in reach if row**2 + column**2 < radius**2]
    return tuple(offset for offset in near if offset > (0, 0))


@functools.cache
def path_cells(offset: Offset) -> tuple[Offset, ...]:
    """Return the cells between a pair, both ends included, as offsets from the first.

    They are the cells of the pair's bounding box that are less than 1 from the straight line.
    """
    rows, columns = offset
    box = [
        (row, column)
        for row in range(min(rows, 0), max(rows, 0) + 1)
        for column in range(min(columns, 0), max(columns, 0) + 1)
    ]
    length_squared = rows**2 + columns**2
    return tuple(cell for cell in box if (rows * cell[1] - columns * cell[0]) ** 2 < length_squared)


def pair_view(
    grid: Shaped[Tensor, "*batch height width"], offset: Offset, cell: Offset
) -> Shaped[Tensor, "*batch pair_height pair_width"]:
    """Return the values at one cell of the way of every pair with an offset: (0, 0) at its start, `offset` at its end.

    A view, in the order of the pairs' upper left corners. Every pair with both ends in the grid takes part; the
    released code leaves out those that start less than `radius` from the edge, which would be most of a small grid.

    Args:
        grid: a value for every cell.
        offset: of the pairs.
        cell: of `path_cells(offset)`.
    """
    rows, columns = offset
    top, left = cell[0] - min(rows, 0), cell[1] - min(columns, 0)
    height, width = grid.shape[-2] - abs(rows), grid.shape[-1] - abs(columns)
    return grid[..., top : top + max(height, 0), left : left + max(width, 0)]


def path_maximum(
    grid: Float[Tensor, "batch height width"], offset: Offset
) -> Float[Tensor, "batch pair_height pair_width"]:
    """Return the highest value on the way of every pair with an offset; the gradient goes to the cell that holds it.

    Args:
        grid: a value for every cell.
        offset: of the pairs.
    """
    return _PathMaximum.apply(grid, offset)  # type: ignore[return-value]


class _PathMaximum(torch.autograd.Function):
    """Keeps the maxima alone: backward finds again which cell held each, the first of several equal ones."""

    @staticmethod
    def forward(ctx: Any, grid: Tensor, offset: Offset) -> Tensor:
        first, *others = _path_views(grid, offset)
        highest = first.clone()
        for view in others:
            torch.maximum(highest, view, out=highest)
        ctx.save_for_backward(grid, highest)
        ctx.offset = offset
        return highest

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None]:
        grid, highest = ctx.saved_tensors
        found, left = torch.zeros_like(grid), gradients[0].clone()
        for view, target in zip(_path_views(grid, ctx.offset), _path_views(found, ctx.offset), strict=True):
            is_holder = view == highest
            target.add_(left * is_holder)
            left.masked_fill_(is_holder, 0)
        return found, None


def _path_views(grid: Tensor, offset: Offset) -> list[Tensor]:
    rows, columns = offset
    height, width = grid.shape[-2] - abs(rows), grid.shape[-1] - abs(columns)
    corners = [(row - min(rows, 0), column - min(columns, 0)) for row, column in path_cells(offset)]
    return [grid[..., top : top + max(height, 0), left : left + max(width, 0)] for top, left in corners]


def affinity_sums(
    boundary: Float[Tensor, "batch 1 height width"],
    displacement: Float[Tensor, "batch 2 height width"],
    labels: UInt8[Tensor, "batch height width"],
    *,
    radius: int,
) -> tuple[AffinityTerms, Int64[Tensor, " 3"]]:
    """Sum IRN's loss over all pairs of cells less than `radius` apart (Ahn et al. 2019).

    Summed, not averaged: the training step divides by the pairs of all workers. Computed in at least float32.

    Args:
        boundary: logits of the boundary map.
        displacement: rows and columns from every cell to its object's centre.
        labels: label values of the cells; pairs with an ignored cell (255) are left out.
        radius: distance in cells below which two cells are a pair.

    Returns:
        The sums, and the numbers of pairs: background, foreground, negative.
    """
    dtype = torch.promote_types(boundary.dtype, torch.float32)
    logits, field = boundary[:, 0].to(dtype), displacement.to(dtype)
    # Every term starts on the network's path, so that a batch without any pair still has a gradient (of zero).
    nothing = logits.sum() * 0 + field.sum() * 0
    sums = [nothing] * 5
    counts = torch.zeros(3, dtype=torch.int64, device=labels.device)
    for offset in pair_offsets(radius):
        if offset[0] < labels.shape[1] and abs(offset[1]) < labels.shape[2]:
            found, pairs = _offset_sums(logits, field, labels, offset)
            sums = [total + value for total, value in zip(sums, found, strict=True)]
            counts = counts + pairs
    return AffinityTerms(*sums), counts


def _offset_sums(
    logits: Float[Tensor, "batch height width"],
    field: Float[Tensor, "batch 2 height width"],
    labels: UInt8[Tensor, "batch height width"],
    offset: Offset,
) -> tuple[list[Tensor], Int64[Tensor, " 3"]]:
    """Return the five sums over the pairs of one offset, and the numbers of pairs."""
    start, end = pair_view(labels, offset, (0, 0)), pair_view(labels, offset, offset)
    is_labelled = (start != IGNORE_VALUE) & (end != IGNORE_VALUE)
    is_same = (start == end) & is_labelled
    kinds = torch.stack([is_same & (start == BACKGROUND_VALUE), is_same & (start != BACKGROUND_VALUE)])
    kinds = torch.cat([kinds, (is_labelled & ~is_same)[None]])  # (3, batch, pair_height, pair_width)
    counts, kinds = kinds.sum(dim=(1, 2, 3)), kinds.to(logits.dtype)
    highest = path_maximum(logits, offset)
    # 1 - sigmoid(x) = sigmoid(-x): of each pair only the probability of its own label is needed.
    right = torch.sigmoid(torch.where(is_same, -highest, highest))
    affinity = -((right + EPSILON).log() * kinds).sum(dim=(1, 2, 3))
    difference = pair_view(field, offset, (0, 0)) - pair_view(field, offset, offset)
    target = torch.tensor(offset, dtype=field.dtype, device=field.device).view(1, 2, 1, 1)
    # Two cells of an object point to one centre, so their displacements differ by the pair's offset. The background has
    # no centre: there they should not differ, and the target is 0.
    distances = (difference - target * kinds[1].unsqueeze(1)).abs().mean(dim=1)  # (batch, height, width)
    displacement = (distances * kinds[:2]).sum(dim=(1, 2, 3))
    return [*affinity, *displacement], counts
