"""Resizing as products with matrices, for graphs that leave PyTorch.

PyTorch's antialiased and factor-driven bicubic filters have no equal in ONNX, whose own differ in kernel and at the
border. Written as matrices they are the same numbers anywhere, for sizes that are known only when the graph runs.
"""

import math
from typing import TypeAlias

import torch
from jaxtyping import Float
from torch import Tensor

SideLength: TypeAlias = int | torch.SymInt
"""A number of pixels or cells, which a graph on its way to ONNX knows only when it runs."""

_SMOOTH = -0.5
"""Keys's parameter of PyTorch's and PIL's antialiased bicubic filter."""
_SHARP = -0.75
"""That of PyTorch's plain one."""


def antialiased_weights(before: SideLength, after: SideLength, like: Tensor) -> Float[Tensor, "after before"]:
    """Return the matrix that resizes an axis as `interpolate(mode="bicubic", antialias=True)` does.

    Args:
        before: number of samples there are.
        after: number wanted.
        like: gives the device.
    """
    scale = _number(before, like) / _number(after, like)
    centres = (_numbers(after, like) + 0.5) * scale
    distances = (_numbers(before, like) + 0.5)[None] - centres[:, None]
    weights = _cubic(distances / scale.clamp_min(1.0), _SMOOTH)
    return weights / weights.sum(1, keepdim=True)


def resized_antialiased(
    pixels: Float[Tensor, "batch channel height width"], size: tuple[int, int]
) -> Float[Tensor, "batch channel new_height new_width"]:
    """Resize pixels as PIL does: width, then height, each rounded to 8 bits (`cams.inference.resize_like_pil`)."""
    across = antialiased_weights(pixels.shape[3], size[1], pixels)
    pixels = (pixels @ across.T).round().clamp(0, 255)
    down = antialiased_weights(pixels.shape[2], size[0], pixels)
    return (down @ pixels).round().clamp(0, 255)


def smooth_positions(
    positions: Float[Tensor, "patch dim"], grid: tuple[SideLength, SideLength]
) -> Float[Tensor, "cell dim"]:
    """Resize position embeddings of a square grid as timm does (`resample_abs_pos_embed`): antialiased bicubic."""
    side = math.isqrt(len(positions))
    weights = [antialiased_weights(side, cells, positions) for cells in grid]
    return _on_grid(positions, weights)


def stretched_positions(
    positions: Float[Tensor, "patch dim"], grid: tuple[SideLength, SideLength]
) -> Float[Tensor, "cell dim"]:
    """Resize position embeddings of a square grid by the factor (cells + 0.1) / side (`interpolate_positions`)."""
    return _interpolated(positions, grid, more_cells=0.1)


def bicubic_positions(
    positions: Float[Tensor, "patch dim"], grid: tuple[SideLength, SideLength]
) -> Float[Tensor, "cell dim"]:
    """Resize position embeddings of a square grid as `interpolate(size=grid, mode="bicubic")` does."""
    return _interpolated(positions, grid, more_cells=0.0)


def _interpolated(positions: Tensor, grid: tuple[SideLength, SideLength], *, more_cells: float) -> Tensor:
    side = math.isqrt(len(positions))
    height, width = (_number(cells, positions) for cells in grid)
    is_other = 1 - (height == side).float() * (width == side).float()  # 0: as they are, where nothing is resized
    weights = []
    for cells in grid:
        scale = side / (_number(cells, positions) + more_cells * is_other)
        sources = (_numbers(cells, positions) + 0.5) * scale - 0.5
        # Two samples beyond either end: what lies there counts as the last one.
        taps = torch.arange(-2, side + 2, device=positions.device)
        own = _cubic(taps.float()[None] - sources[:, None], _SHARP)  # (cell, tap)
        onto = torch.nn.functional.one_hot(taps.clamp(0, side - 1), side).float()  # (tap, side)
        weights.append(own @ onto)
    return _on_grid(positions, weights)


def _on_grid(positions: Tensor, weights: list[Tensor]) -> Tensor:
    side = weights[0].shape[1]
    square = positions.float().unflatten(0, (side, side))
    resized = torch.einsum("ia,abd,jb->ijd", weights[0], square, weights[1])
    return resized.flatten(0, 1).to(positions.dtype)


def _number(count: SideLength, like: Tensor) -> Tensor:
    """Return a size as a tensor: inside a graph it is no number of Python's."""
    return torch.scalar_tensor(count, dtype=torch.float32, device=like.device)


def _numbers(count: SideLength, like: Tensor) -> Tensor:
    return torch.arange(count, device=like.device).float()


def _cubic(distance: Tensor, a: float) -> Tensor:
    """Keys's cubic convolution kernel."""
    x = distance.abs()
    near = ((a + 2) * x - (a + 3)) * x * x + 1
    far = ((a * x - 5 * a) * x + 8 * a) * x - 4 * a
    return torch.where(x <= 1, near, torch.where(x < 2, far, torch.zeros_like(x)))
