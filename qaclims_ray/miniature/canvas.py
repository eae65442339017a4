"""The drawing board of the miniature world: picture size, pixel coordinates, smooth noise, coloured grounds."""

from collections.abc import Sequence
from functools import cache

import numpy as np

IMAGE_SIZE = 64
"""Height and width of every picture, in pixels."""

ROWS, COLUMNS = np.mgrid[0:IMAGE_SIZE, 0:IMAGE_SIZE].astype(float)
"""Pixel coordinates, (height, width) each."""


@cache
def _interpolation(num_out: int, num_in: int) -> np.ndarray:
    """Linear interpolation of `num_in` grid values to `num_out` pixels, as a (num_out, num_in) matrix."""
    matrix = np.zeros((num_out, num_in))
    position = np.linspace(0, num_in - 1.0001, num_out)
    cell = position.astype(int)
    fraction = position - cell
    matrix[np.arange(num_out), cell] = 1 - fraction
    matrix[np.arange(num_out), cell + 1] += fraction
    return matrix


def smooth_noise(rng: np.random.Generator, num_rows: int, num_columns: int | None = None) -> np.ndarray:
    """Interpolate a (num_rows, num_columns) grid of standard normals to the (64, 64) picture."""
    num_columns = num_columns or num_rows
    grid = rng.standard_normal((num_rows, num_columns))
    return _interpolation(IMAGE_SIZE, num_rows) @ grid @ _interpolation(IMAGE_SIZE, num_columns).T


def pixel_noise(rng: np.random.Generator) -> np.ndarray:
    """Independent standard normals, one a pixel, (64, 64)."""
    return rng.standard_normal((IMAGE_SIZE, IMAGE_SIZE))


def ground(rng: np.random.Generator, color: Sequence[float], jitter: float) -> np.ndarray:
    """Fill a (64, 64, 3) picture with a colour (RGB 0..1) moved by normal noise of standard deviation `jitter`."""
    return np.ones((IMAGE_SIZE, IMAGE_SIZE, 3)) * (np.array(color) + rng.normal(0, jitter, 3))


def shade(picture: np.ndarray, amount: np.ndarray, weights: Sequence[float] = (1.0, 1.0, 1.0)) -> None:
    """Add a (64, 64) brightness map to a picture in place, weighted per colour channel."""
    picture += amount[..., None] * np.array(weights)
