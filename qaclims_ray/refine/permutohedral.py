"""Permutohedral lattice: sums of Gaussian-weighted values over points with many features, in linear time.

Adams, Baek and Davis 2010, "Fast High-Dimensional Filtering Using the Permutohedral Lattice". Points are embedded in
the hyperplane of zero sum in dim + 1 axes, which the lattice cuts into simplices. Each point gives its value to the
dim + 1 corners of its simplex (splat), vertices mix with their neighbours along each axis (blur), and points read
their corners again (slice). The tables depend on the features alone, so one lattice serves any number of filterings;
each of its steps is a weighted sum of gathered rows.

The coordinates of a vertex all have the same remainder modulo dim + 1. Its key is that remainder and the quotients,
packed in one integer. A sort of the keys per remainder numbers the vertices and orders the splat in one.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int16, Int32, Int64
from torch import Tensor

from qaclims_ray.errors import ConfigError
from qaclims_ray.models.devices import constant, upload

# Keys are 64-bit integers, and a step on from the highest key must not overflow.
MAX_KEY = 2**62
MAX_ENTRIES = 2**31 - 1
"""Tables count in 32 bits: gathering with them is faster than with 64, and they take half the memory."""


@dataclass(frozen=True)
class WeightedRows:
    """A sparse matrix: each of its rows is a weighted sum of some rows of what it is applied to."""

    rows: Int32[Tensor, " entry"]
    """Rows to sum, sum after sum."""
    weights: Float[Tensor, " entry"]
    """Their weights."""
    starts: Int32[Tensor, " sum_end"]
    """Where each sum starts, and the number of entries at the end."""

    def __call__(self, values: Float[Tensor, "row label"]) -> Float[Tensor, "sum label"]:
        """Return the weighted sums."""
        return F.embedding_bag(
            self.rows, values, self.starts, mode="sum", per_sample_weights=self.weights, include_last_offset=True
        )


@dataclass(frozen=True)
class Lattice:
    """Tables of one set of points, or of several sets that do not see each other.

    The last vertex is a placeholder of value zero for all the neighbours that no point touches.
    """

    splat: WeightedRows
    """Vertices from points."""
    blurs: tuple[WeightedRows, ...]
    """Vertices from vertices, along each axis."""
    slice: WeightedRows
    """Points from vertices."""

    def __call__(self, values: Float[Tensor, "point label"]) -> Float[Tensor, "point label"]:
        """Splat, blur with weights 1/2, 1, 1/2 along each axis in turn, and slice.

        The sums are Gaussian-weighted up to one constant factor, which normalisation takes out.
        """
        at_vertices = self.splat(values)
        for blur in self.blurs:
            at_vertices = blur(at_vertices)
        return self.slice(at_vertices)


def build_lattice(features: Float[Tensor, "group dim point"]) -> Lattice:
    """Embed points in the lattice.

    Args:
        features: positions in units of the Gaussian's standard deviation. Points of different groups (images) do not
            see each other; the lattice numbers the points of all groups one after the other.

    Raises:
        ConfigError: the features span too many standard deviations to be counted.
    """
    groups, dim, points = features.shape
    assert groups * points * (dim + 1) <= MAX_ENTRIES, f"{groups} x {points} points are too many for one lattice"
    elevated = _elevate(features).movedim(1, 0).flatten(1)  # (corner, group * point)
    quotients, ranks, offsets = _nearest_simplex(elevated)
    strides, keys = _corner_keys(quotients, ranks, groups)
    # From here on only keys count: equal ones are one vertex, in whatever simplex they were met.
    vertices, order, starts, vertex_keys = _number_vertices(keys)
    weights = _barycentric(offsets, ranks)
    return Lattice(
        splat=WeightedRows(order.to(torch.int32).flatten(), weights.gather(1, order).flatten(), starts),
        blurs=_blurs(_find_neighbours(vertex_keys, strides)),
        slice=WeightedRows(vertices.T.flatten(), weights.T.flatten(), _equal_starts(groups * points, dim + 1, starts)),
    )


def scale_points(lattice: Lattice, factors: Float[Tensor, " point"]) -> Lattice:
    """Return the lattice that multiplies each point's value by its factor before filtering and after it."""
    num_corners = lattice.slice.rows.shape[0] // factors.shape[0]
    into = lattice.splat.weights * factors.index_select(0, lattice.splat.rows)
    out = lattice.slice.weights * factors.repeat_interleave(num_corners)
    return replace(lattice, splat=replace(lattice.splat, weights=into), slice=replace(lattice.slice, weights=out))


def _blurs(neighbours: Int32[Tensor, "corner vertex 3"]) -> tuple[WeightedRows, ...]:
    """Return the sums of each vertex and its two neighbours; all axes share weights and starts."""
    num_vertices = neighbours.shape[1]
    weights = constant((1.0, 0.5, 0.5), neighbours.device).repeat(num_vertices)
    starts = _equal_starts(num_vertices, 3, neighbours)
    return tuple(WeightedRows(rows.flatten(), weights, starts) for rows in neighbours)


def _equal_starts(num_sums: int, length: int, like: Tensor) -> Int32[Tensor, " sum_end"]:
    """Return the starts of sums of equal length."""
    return torch.arange(0, num_sums * length + 1, length, dtype=torch.int32, device=like.device)


def _elevate(features: Float[Tensor, "group dim point"]) -> Float[Tensor, "group corner point"]:
    """Map features to the hyperplane, so that splat, blur and slice have unit variance (Adams et al. 2010, 3.1)."""
    dim = features.shape[1]
    index = torch.arange(1, dim + 1, device=features.device, dtype=features.dtype)
    scale = (dim + 1) * (2 / 3) ** 0.5 / (index * (index + 1)).sqrt()
    scaled = features * scale[:, None]
    this_and_later = scaled.flip(1).cumsum(1).flip(1)
    return F.pad(this_and_later, (0, 0, 0, 1)) - F.pad(scaled * index[:, None], (0, 0, 1, 0))


def _nearest_simplex(
    elevated: Float[Tensor, "corner point"],
) -> tuple[Int64[Tensor, "corner point"], Int64[Tensor, "corner point"], Float[Tensor, "corner point"]]:
    """Return the nearest vertex of remainder 0, the ranks of the axes and the point's offset, both in falling order.

    Vertex and offset are in units of dim + 1 coordinates (Adams et al. 2010, 3.1).
    """
    num_corners = elevated.shape[0]
    scaled = elevated / num_corners
    nearest = scaled.round()
    offsets = scaled - nearest
    # The sum says by how many steps the rounded point misses the hyperplane; all ranks are shifted by it.
    ranks = nearest.sum(0).to(torch.int16).repeat(num_corners, 1)
    for first in range(num_corners):
        for second in range(first + 1, num_corners):
            # Of equal offsets the lower axis comes first, so that ranks are a permutation in any case.
            is_less = offsets[first] < offsets[second]
            ranks[first] += is_less
            ranks[second] += ~is_less
    # Ranks outside belong to the axes that were rounded the most; these go one step back.
    step: Int16[Tensor, "corner point"] = (ranks < 0).to(torch.int16) - (ranks >= num_corners).to(torch.int16)
    return nearest.to(torch.int64) + step, (ranks + step * num_corners).to(torch.int64), offsets - step


def _barycentric(
    offsets: Float[Tensor, "corner point"], ranks: Int64[Tensor, "corner point"]
) -> Float[Tensor, "corner point"]:
    """Return the share of each corner, by remainder: the steps between the offsets in rising order."""
    rising = torch.empty_like(offsets).scatter_(0, ranks, offsets).flip(0)
    weights = rising - rising.roll(1, 0)
    # roll has put the highest offset before the lowest; there it lies one whole step further down.
    weights[0] += 1
    return weights


def _corner_keys(
    quotients: Int64[Tensor, "corner point"], ranks: Int64[Tensor, "corner point"], groups: int
) -> tuple[list[int], Int64[Tensor, "corner point"]]:
    """Return the stride of each axis (and of the remainder, last) in a key, and the key of each corner by remainder."""
    num_corners = quotients.shape[0]
    lows, highs = torch.stack([quotients.amin(1), quotients.amax(1)]).tolist()
    strides = [1]
    for low, high in zip(lows[:-1], highs[:-1], strict=True):
        strides.append(strides[-1] * (high - low + 4))  # corners reach one down, neighbours one more either way
    group_stride = strides.pop()
    strides += [0, group_stride * groups]  # the last coordinate follows from the others
    if strides[-1] * num_corners > MAX_KEY:
        raise ConfigError(
            f"the lattice of a CRF kernel would span {[high - low for low, high in zip(lows, highs, strict=True)]} "
            f"cells, expected a range that fits 62 bits: raise the kernel's standard deviations (sxy, srgb)"
        )
    keys = torch.empty_like(ranks)
    group = torch.arange(groups, device=ranks.device).repeat_interleave(ranks.shape[1] // groups)
    keys[0] = group * group_stride
    for quotient, low, stride in zip(quotients[:-1], lows, strides, strict=False):
        keys[0] += (quotient - (low - 2)) * stride
    of_axis = upload(torch.tensor(strides[:-1]), ranks.device)
    by_rank = torch.empty_like(ranks).scatter_(0, ranks, of_axis[:, None].expand_as(ranks))
    for corner in range(1, num_corners):
        # The corner of the next remainder lies one lower on the axis of the next highest rank.
        torch.sub(keys[corner - 1], by_rank[num_corners - corner] - strides[-1], out=keys[corner])
    return strides, keys


def _number_vertices(
    keys: Int64[Tensor, "corner point"],
) -> tuple[
    Int32[Tensor, "corner point"], Int64[Tensor, "corner point"], Int32[Tensor, " sum_end"], Int64[Tensor, " vertex"]
]:
    """Number the different keys in rising order.

    Returns:
        The number of each key; the points ordered by it; where each number's points start in that order, flattened
        (with the placeholder, which has none); and the different keys.
    """
    # Keys of different remainders differ, and short sorts are faster than one.
    ordered, order = keys.sort(dim=1, stable=True)
    is_first = F.pad(ordered[:, 1:] != ordered[:, :-1], (1, 0), value=True)
    running = is_first.flatten().cumsum(0, dtype=torch.int32).view_as(keys) - 1
    numbers = torch.empty_like(running).scatter_(1, order, running)
    first = is_first.flatten().nonzero()[:, 0]
    with_placeholder = F.pad(first.to(torch.int32), (0, 2), value=keys.numel())
    return numbers, order, with_placeholder, ordered.flatten().index_select(0, first)


def _find_neighbours(vertex_keys: Int64[Tensor, " key"], strides: Sequence[int]) -> Int32[Tensor, "corner vertex 3"]:
    """Return each vertex and its neighbours: one remainder on, one quotient down on the axis; and the reverse."""
    *axis_strides, plane = strides
    num_keys, num_axes = vertex_keys.shape[0], len(axis_strides)
    # After the last remainder comes the first, with all quotients one up.
    is_last = vertex_keys >= (num_axes - 1) * plane
    onward = vertex_keys + torch.where(is_last, sum(axis_strides) - (num_axes - 1) * plane, plane)
    table = vertex_keys.new_full((num_axes, 3, num_keys + 1), num_keys, dtype=torch.int32)
    own = torch.arange(num_keys, dtype=torch.int32, device=vertex_keys.device)
    table[:, 0, :-1] = own
    for neighbours, stride in zip(table, axis_strides, strict=True):
        wanted = onward - stride
        at = torch.searchsorted(vertex_keys, wanted).clamp_(max=num_keys - 1)
        at = torch.where(vertex_keys.index_select(0, at) == wanted, at, num_keys)
        neighbours[1, :-1] = at
        neighbours[2].scatter_(0, at, own)
    table[:, 2, -1] = num_keys  # absent neighbours wrote there
    return table.movedim(1, 2)
