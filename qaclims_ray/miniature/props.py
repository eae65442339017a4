"""Props: small unlabelled things that stand beside an object in a miniature picture, one function each.

Every function takes the generator and the prop's own coordinates (`across`, `down`, both (64, 64), 0 at its centre,
about 8 units to its edge) and returns its mask (64, 64) and its colours (64, 64, 3).
"""

from collections.abc import Callable

import numpy as np

from qaclims_ray.miniature.canvas import COLUMNS, ROWS, ground, shade, smooth_noise
from qaclims_ray.miniature.vocabulary import PROPS

Prop = Callable[[np.random.Generator, np.ndarray, np.ndarray], tuple[np.ndarray, np.ndarray]]

_JITTER = 0.03


def _bush(rng: np.random.Generator, across: np.ndarray, down: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    mask = (across / 7) ** 2 + ((down + 1) / 5) ** 2 < 1 + 0.15 * np.sin(np.arctan2(down, across) * 7)
    picture = ground(rng, (0.25, 0.50, 0.12), _JITTER)
    shade(picture, 0.10 * smooth_noise(rng, 30))
    return mask, picture


def _fence(rng: np.random.Generator, across: np.ndarray, down: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    rails = (np.abs(down + 2) < 1) | (np.abs(down - 2) < 1)
    posts = np.abs(across) % 4.5 < 1.3
    mask = (np.abs(across) < 9) & (np.abs(down) < 5) & (rails | posts)
    return mask, ground(rng, (0.66, 0.50, 0.33), _JITTER)


def _lamp(rng: np.random.Generator, across: np.ndarray, down: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    pole = (np.abs(across) < 1.1) & (down > -7) & (down < 8)
    bulb = across**2 + (down + 7) ** 2 < 11
    picture = ground(rng, (0.20, 0.22, 0.25), _JITTER)
    picture[bulb] = (1.0, 0.95, 0.60)
    return pole | bulb, picture


def _barrel(rng: np.random.Generator, across: np.ndarray, down: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    mask = (np.abs(across) < 4.2) & (np.abs(down) < 6)
    picture = ground(rng, (0.48, 0.30, 0.15), _JITTER)
    picture[np.abs(down) % 4 < 1.2] = (0.20, 0.20, 0.20)
    return mask, picture


def _sign(rng: np.random.Generator, across: np.ndarray, down: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    board = (np.abs(across) < 5) & (down > -7) & (down < 0)
    pole = (np.abs(across) < 0.9) & (down >= 0) & (down < 8)
    picture = ground(rng, (0.10, 0.45, 0.30), _JITTER)
    picture[(np.abs(down + 3.5) < 1) & (np.abs(across) < 3.5)] = (0.95, 0.95, 0.95)
    return board | pole, picture


def _cone(rng: np.random.Generator, across: np.ndarray, down: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    mask = (down < 6) & (down > -7) & (np.abs(across) < (down + 8) * 0.38)
    picture = ground(rng, (0.95, 0.42, 0.10), _JITTER)
    picture[np.abs(down) % 5 < 1.6] = (0.95, 0.93, 0.90)
    return mask, picture


def _bench(rng: np.random.Generator, across: np.ndarray, down: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    seat = (np.abs(down + 1) < 1.5) & (np.abs(across) < 8)
    back = (np.abs(down + 4.5) < 1.2) & (np.abs(across) < 8)
    legs = (np.abs(np.abs(across) - 6) < 1.1) & (down > -5) & (down < 6)
    return seat | back | legs, ground(rng, (0.42, 0.28, 0.40), _JITTER)


def _flag(rng: np.random.Generator, across: np.ndarray, down: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    pole = (np.abs(across + 5) < 0.9) & (down > -8) & (down < 8)
    cloth = (across > -5) & (across < 6) & (down > -8) & (down < -1)
    picture = ground(rng, (0.30, 0.75, 0.80), _JITTER)
    picture[np.abs(down + 4.5) < 1.3] = (0.95, 0.30, 0.45)
    return pole | cloth, picture


_DRAWERS: dict[str, Prop] = {
    "bush": _bush,
    "fence": _fence,
    "lamp": _lamp,
    "barrel": _barrel,
    "sign": _sign,
    "cone": _cone,
    "bench": _bench,
    "flag": _flag,
}


def draw_prop(
    rng: np.random.Generator, prop_id: int, *, center: tuple[float, float], scale: float
) -> tuple[np.ndarray, np.ndarray]:
    """Draw one prop (index into `PROPS`).

    Args:
        rng: source of the colours.
        prop_id: which prop.
        center: column and row of its centre, in pixels.
        scale: size, 1 for about 16 pixels of height.

    Returns:
        Its mask (64, 64) and its colours (64, 64, 3), RGB in about 0..1.
    """
    across = (COLUMNS - center[0]) / scale
    down = (ROWS - center[1]) / scale
    return _DRAWERS[PROPS[prop_id]](rng, across, down)
