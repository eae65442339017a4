"""Textures of the sixteen stuffs that fill the zones of a miniature picture, one function each.

Every function takes the generator and a random phase in [0, 6.28) and returns a (64, 64, 3) float picture, RGB in
about 0..1. The generator is always read in the same order, so a seed fixes the picture.
"""

from collections.abc import Callable

import numpy as np

from qaclims_ray.miniature.canvas import COLUMNS, IMAGE_SIZE, ROWS, ground, pixel_noise, shade, smooth_noise
from qaclims_ray.miniature.vocabulary import ZONE_STUFF

Texture = Callable[[np.random.Generator, float], np.ndarray]

_JITTER = 0.04


def _sky(rng: np.random.Generator, phase: float) -> np.ndarray:
    picture = ground(rng, (0.50, 0.70, 0.92), _JITTER)
    shade(picture, 0.12 * np.clip(smooth_noise(rng, 5, 4), 0, 2), (1.0, 0.8, 0.4))
    shade(picture, (ROWS / IMAGE_SIZE - 0.3) * 0.15)
    return picture


def _tree(rng: np.random.Generator, phase: float) -> np.ndarray:
    picture = ground(rng, (0.13, 0.36, 0.16), _JITTER)
    shade(picture, 0.10 * smooth_noise(rng, 14), (0.7, 1.0, 0.6))
    shade(picture, 0.06 * smooth_noise(rng, 32))
    return picture


def _water(rng: np.random.Generator, phase: float) -> np.ndarray:
    picture = ground(rng, (0.12, 0.34, 0.60), _JITTER)
    shade(picture, 0.09 * np.sin(ROWS * 1.3 + 1.5 * smooth_noise(rng, 4) + phase))
    return picture


def _road(rng: np.random.Generator, phase: float) -> np.ndarray:
    picture = ground(rng, (0.36, 0.36, 0.38), _JITTER)
    shade(picture, 0.05 * pixel_noise(rng))
    dashes = (np.abs((ROWS + phase * 3) % 14 - 5) < 1) & ((COLUMNS + phase * 5) % 12 < 7)
    picture[dashes] = (0.85, 0.85, 0.80)
    return picture


def _carpet(rng: np.random.Generator, phase: float) -> np.ndarray:
    picture = ground(rng, (0.58, 0.22, 0.30), _JITTER)
    checks = np.sign(np.sin(COLUMNS * 0.8 + phase) * np.sin(ROWS * 0.8 + phase))
    shade(picture, 0.10 * checks, (1.0, 0.6, 0.6))
    return picture


def _sand(rng: np.random.Generator, phase: float) -> np.ndarray:
    picture = ground(rng, (0.86, 0.76, 0.52), _JITTER)
    shade(picture, 0.05 * np.sin((ROWS + COLUMNS * 0.5) * 0.7 + smooth_noise(rng, 5) * 2))
    shade(picture, 0.03 * pixel_noise(rng))
    return picture


def _grass(rng: np.random.Generator, phase: float) -> np.ndarray:
    picture = ground(rng, (0.38, 0.66, 0.24), _JITTER)
    shade(picture, 0.10 * smooth_noise(rng, 20, 64), (0.8, 1.0, 0.5))
    return picture


def _track(rng: np.random.Generator, phase: float) -> np.ndarray:
    picture = ground(rng, (0.44, 0.38, 0.32), _JITTER)
    shade(picture, 0.06 * pixel_noise(rng))
    picture[(COLUMNS + phase * 4) % 7 < 2.2] = (0.30, 0.20, 0.12)
    picture[np.abs((ROWS + phase * 2) % 11 - 4) < 1] = (0.72, 0.72, 0.76)
    return picture


def _concrete(rng: np.random.Generator, phase: float) -> np.ndarray:
    picture = ground(rng, (0.68, 0.67, 0.63), _JITTER)
    joints = ((COLUMNS + phase * 5) % 16 < 1) | ((ROWS + phase * 3) % 16 < 1)
    picture[joints] -= 0.18
    return picture


def _field(rng: np.random.Generator, phase: float) -> np.ndarray:
    picture = ground(rng, (0.74, 0.66, 0.20), _JITTER)
    shade(picture, 0.09 * np.sin(COLUMNS + ROWS + phase), (1.0, 1.0, 0.3))
    return picture


def _hill(rng: np.random.Generator, phase: float) -> np.ndarray:
    picture = ground(rng, (0.36, 0.44, 0.36), _JITTER)
    shade(picture, 0.09 * smooth_noise(rng, 7), (1.0, 0.8, 0.6))
    shade(picture, 0.04 * np.sin((COLUMNS - ROWS) * 0.5 + 3 * smooth_noise(rng, 4)))
    return picture


def _brick(rng: np.random.Generator, phase: float) -> np.ndarray:
    picture = ground(rng, (0.60, 0.36, 0.28), _JITTER)
    course = (ROWS + phase) // 5
    joints = ((ROWS + phase) % 5 < 1) | ((COLUMNS + phase * 3 + course * 4) % 9 < 1)
    picture[joints] = (0.80, 0.76, 0.70)
    return picture


def _wall(rng: np.random.Generator, phase: float) -> np.ndarray:
    picture = ground(rng, (0.80, 0.74, 0.62), _JITTER)
    shade(picture, 0.06 * np.sign(np.sin(COLUMNS * 0.55 + phase)), (0.6, 0.8, 1.0))
    return picture


def _rock(rng: np.random.Generator, phase: float) -> np.ndarray:
    picture = ground(rng, (0.47, 0.42, 0.44), _JITTER)
    shade(picture, 0.12 * np.abs(smooth_noise(rng, 9)) - 0.06)
    shade(picture, 0.05 * smooth_noise(rng, 24))
    return picture


def _fog(rng: np.random.Generator, phase: float) -> np.ndarray:
    picture = ground(rng, (0.80, 0.82, 0.85), _JITTER)
    shade(picture, 0.05 * smooth_noise(rng, 4))
    return picture


def _platform(rng: np.random.Generator, phase: float) -> np.ndarray:
    picture = ground(rng, (0.52, 0.52, 0.44), _JITTER)
    picture[(ROWS + phase * 3) % 13 < 2] = (0.86, 0.74, 0.20)
    shade(picture, 0.05 * np.sign(np.sin(COLUMNS * 1.1 + phase)))
    return picture


_TEXTURES: dict[str, Texture] = {
    "sky": _sky,
    "tree": _tree,
    "water": _water,
    "road": _road,
    "carpet": _carpet,
    "sand": _sand,
    "grass": _grass,
    "track": _track,
    "concrete": _concrete,
    "field": _field,
    "hill": _hill,
    "brick": _brick,
    "wall": _wall,
    "rock": _rock,
    "fog": _fog,
    "platform": _platform,
}


def draw_stuff(rng: np.random.Generator, stuff_id: int) -> np.ndarray:
    """Draw a whole (64, 64, 3) picture of one zone stuff (index into `ZONE_STUFF`), RGB in about 0..1."""
    phase = rng.uniform(0, 6.28)
    return _TEXTURES[ZONE_STUFF[stuff_id]](rng, phase)
