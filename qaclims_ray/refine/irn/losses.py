"""Inter-pixel relations: what a boundary map and a displacement field say about pairs (Ahn et al. 2019).

A pair is two cells of the stride-4 grid less than `radius` apart. Its affinity is 1 minus the highest boundary
probability on the way from one to the other: two cells belong together if no boundary lies between them. The random
walk of `refine/irn/random_walk.py` takes the same pairs and the same ways.
"""

import functools
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Bool, Float, Int32, Int64, UInt8
from torch import Tensor

from qaclims_ray.data.classes import BACKGROUND_VALUE, IGNORE_VALUE

Offset = tuple[int, int]
"""Rows and columns from one cell to another."""
EPSILON = 1e-5
"""Added to a probability before its logarithm, as in the released code."""
_ENTRIES_ON_CPU, _ENTRIES_ON_GPU = 2**19, 2**28
"""Cells on ways of a batch that are looked at together; four bytes each, and a few times that beside them."""


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


@dataclass(frozen=True)
class GridPairs:
    """All pairs of a grid: for each of some offsets, one per cell, at which the pair starts."""

    near: tuple[Offset, ...]
    """Rows and columns from a pair's first cell to its second."""
    offsets: Int64[Tensor, "offset 2"]
    """The same on the device."""
    ends: Int64[Tensor, "offset cell"]
    """The second cell, by its number; the first itself where there is no such pair."""
    is_pair: Bool[Tensor, "offset cell"]
    """Whether both cells lie in the grid."""
    shape: tuple[int, int]
    """Rows and columns of the grid."""

    @functools.cached_property
    def ways(self) -> Int32[Tensor, "offset step cell"]:
        """The cells on the way, the first one again behind the last; the first itself where there is no such pair.

        Made where it is used: for a grid of 128 x 128 cells and a radius of 10 it takes 270 MB.
        """
        cells = [path_cells(offset) for offset in self.near]
        steps = max(len(way) for way in cells)
        filled = torch.tensor([[*way, *[(0, 0)] * (steps - len(way))] for way in cells], device=self.ends.device)
        shifts = filled[..., 0] * self.shape[1] + filled[..., 1]  # (offset, step)
        cell = torch.arange(self.ends.shape[1], device=self.ends.device)
        return torch.where(self.is_pair.unsqueeze(1), shifts.unsqueeze(2) + cell, cell).to(torch.int32)


@functools.lru_cache(maxsize=8)
def grid_pairs(radius: int, height: int, width: int, device: torch.device, most_entries: int) -> tuple[GridPairs, ...]:
    """Return the pairs of a grid, in parts of so many entries of `GridPairs.ways` at most.

    Every pair with both ends in the grid takes part; the released code leaves out those that start less than `radius`
    from the edge, which would be most of a small grid. Tables are kept for the grids met last.

    Args:
        radius: distance in cells below which two cells are a pair.
        height: rows of cells.
        width: columns of cells.
        device: where the tables go.
        most_entries: what a part may hold; it has one offset at least.
    """
    offsets = [offset for offset in pair_offsets(radius) if offset[0] < height and abs(offset[1]) < width]
    if not offsets:
        return ()
    steps = max(len(path_cells(offset)) for offset in offsets)
    found = torch.tensor(offsets, device=device)
    cell = torch.arange(height * width, device=device)
    row, column = cell // width + found[:, :1], cell % width + found[:, 1:]  # of the second cells: (offset, cell)
    is_pair = (row < height) & (column >= 0) & (column < width)  # offsets never lead up
    ends = torch.where(is_pair, row * width + column, cell)
    at_once = max(1, most_entries // (steps * height * width))
    parts = [slice(start, start + at_once) for start in range(0, len(offsets), at_once)]
    return tuple(
        GridPairs(tuple(offsets[part]), found[part], ends[part], is_pair[part], (height, width)) for part in parts
    )


def most_entries(device: torch.device, batch: int) -> int:
    """Return how many cells on ways are looked at together: what fits a CPU's cache, or fills a GPU for little memory.

    Args:
        device: where.
        batch: images.
    """
    return max(1, (_ENTRIES_ON_CPU if device.type == "cpu" else _ENTRIES_ON_GPU) // max(batch, 1))


def path_maximum(grid: Float[Tensor, "batch cell"], pairs: GridPairs) -> Float[Tensor, "batch offset cell"]:
    """Return the highest value on the way of every pair; the gradient goes to the first cell that holds it.

    Args:
        grid: a value for every cell.
        pairs: the pairs; where there is none the value is the cell's own.
    """
    function = _PathMaximumByViews if grid.device.type == "cpu" else _PathMaximumByTable
    return function.apply(grid, pairs)  # type: ignore[return-value]


class _PathMaximumByTable(torch.autograd.Function):
    """Gathers all ways at once: a few launches for a GPU.

    It keeps which step of a way holds the maximum, one byte a pair: gradients of all steps would be many times that.
    """

    @staticmethod
    def forward(ctx: Any, grid: Tensor, pairs: GridPairs) -> Tensor:
        highest, step = grid[:, pairs.ways.long()].max(dim=2)
        ctx.save_for_backward(step.to(torch.uint8))
        ctx.pairs = pairs
        return highest

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None]:
        (step,) = ctx.saved_tensors
        gradient, ways = gradients[0], ctx.pairs.ways.long()
        holder = ways.expand(len(gradient), -1, -1, -1).gather(2, step.long().unsqueeze(2)).squeeze(2)
        found = gradient.new_zeros(len(gradient), ways.shape[2])
        return found.scatter_add_(1, holder.flatten(1), gradient.flatten(1)), None


class _PathMaximumByViews(torch.autograd.Function):
    """Looks at one step of one offset's ways at a time: thousands of calls, but a CPU gathers three times slower.

    It keeps the maxima alone: backward finds again which cell held each.
    """

    @staticmethod
    def forward(ctx: Any, grid: Tensor, pairs: GridPairs) -> Tensor:
        cells = grid.unflatten(1, pairs.shape)
        highest = cells.unsqueeze(1).repeat(1, len(pairs.near), 1, 1)
        for index, offset in enumerate(pairs.near):
            own, *others = _views(cells, highest[:, index], offset)
            for view in others:
                torch.maximum(own, view, out=own)
        ctx.save_for_backward(cells, highest)
        ctx.offsets = pairs.near
        return highest.flatten(2)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None]:
        cells, highest = ctx.saved_tensors
        left = gradients[0].reshape(highest.shape).clone()
        found = torch.zeros_like(cells)
        for index, offset in enumerate(ctx.offsets):
            unclaimed, *targets = _views(found, left[:, index], offset)
            maximum, *views = _views(cells, highest[:, index], offset)
            for view, target in zip(views, targets, strict=True):
                is_holder = view == maximum
                target.add_(unclaimed * is_holder)
                unclaimed.masked_fill_(is_holder, 0)
        # What is left over is that of cells where no pair starts: their own values.
        return (found + left.sum(dim=1)).flatten(1), None


def _views(grid: Tensor, of_pairs: Tensor, offset: Offset) -> list[Tensor]:
    """Return the part of `of_pairs` where pairs of an offset start, and of the grid each step of their ways."""
    rows, columns = grid.shape[1] - offset[0], grid.shape[2] - abs(offset[1])
    left = max(-offset[1], 0)
    corners = [(0, left), *((row, left + column) for row, column in path_cells(offset))]
    views = [of_pairs, *[grid] * (len(corners) - 1)]
    return [
        view[:, top : top + rows, first : first + columns] for view, (top, first) in zip(views, corners, strict=True)
    ]


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
    batch, height, width = labels.shape
    logits, field, cells = boundary.flatten(1).to(dtype), displacement.flatten(2).to(dtype), labels.flatten(1)
    # Every term starts on the network's path, so that a batch without any pair still has a gradient (of zero).
    sums = (logits.sum() * 0 + field.sum() * 0).expand(5)
    counts = torch.zeros(3, dtype=torch.int64, device=labels.device)
    for pairs in grid_pairs(radius, height, width, labels.device, most_entries(labels.device, batch)):
        found, numbers = _sums_of(logits, field, cells, pairs)
        sums, counts = sums + found, counts + numbers
    return AffinityTerms(*sums.unbind()), counts


def _sums_of(
    logits: Float[Tensor, "batch cell"],
    field: Float[Tensor, "batch 2 cell"],
    labels: UInt8[Tensor, "batch cell"],
    pairs: GridPairs,
) -> tuple[Float[Tensor, " term=5"], Int64[Tensor, " kind=3"]]:
    """Return the five sums over some pairs, and their numbers by kind."""
    start, end = labels.unsqueeze(1), labels[:, pairs.ends]  # (batch, 1, cell), (batch, offset, cell)
    is_labelled = (start != IGNORE_VALUE) & (end != IGNORE_VALUE) & pairs.is_pair
    is_same = (start == end) & is_labelled
    kinds = torch.stack(
        [is_same & (start == BACKGROUND_VALUE), is_same & (start != BACKGROUND_VALUE), is_labelled & ~is_same]
    )  # (3, batch, offset, cell)
    counts, kinds = kinds.sum(dim=(1, 2, 3)), kinds.to(logits.dtype)
    highest = path_maximum(logits, pairs)
    # 1 - sigmoid(x) = sigmoid(-x): of each pair only the probability of its own label is needed.
    right = torch.sigmoid(torch.where(is_same, -highest, highest))
    affinity = -((right + EPSILON).log() * kinds).sum(dim=(1, 2, 3))
    difference = field.unsqueeze(2) - field[:, :, pairs.ends]  # (batch, 2, offset, cell)
    target = pairs.offsets.T[None, :, :, None] * kinds[1].unsqueeze(1)
    # Two cells of an object point to one centre, so their displacements differ by the pair's offset. The background has
    # no centre: there they should not differ, and the target is 0.
    distances = (difference - target).abs().mean(dim=1)  # (batch, offset, cell)
    displacement = (distances * kinds[:2]).sum(dim=(1, 2, 3))
    return torch.cat([affinity, displacement]), counts
