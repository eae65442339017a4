"""The eight kinds of objects of the miniature world, one function each.

An object has a class-specific shape, a subtle class-specific body texture, a body colour shared by all classes, a
plain or striped pattern, and one small saturated part: the discriminative part that a plain CAM falls for.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from qaclims_ray.miniature.canvas import COLUMNS, IMAGE_SIZE, ROWS
from qaclims_ray.miniature.vocabulary import CLASSES, COLORS, PATTERNS


@dataclass(frozen=True, kw_only=True)
class Frame:
    """Coordinates of an object, all (64, 64): x forward and y down, 0 at its centre and 1 at its edge."""

    x: np.ndarray
    y: np.ndarray
    x_px: np.ndarray
    """The same in pixels, for textures of a fixed fineness."""
    y_px: np.ndarray

    def ellipse(self, x: float, y: float, radius_x: float, radius_y: float) -> np.ndarray:
        """Inside of an ellipse around (x, y)."""
        return ((self.x - x) / radius_x) ** 2 + ((self.y - y) / radius_y) ** 2 < 1

    def box(self, left: float, right: float, top: float, bottom: float) -> np.ndarray:
        """Inside of an upright box, edges included."""
        return (self.x >= left) & (self.x <= right) & (self.y >= top) & (self.y <= bottom)

    def rows(self, top: float, bottom: float) -> np.ndarray:
        """Rows strictly between two heights."""
        return (self.y > top) & (self.y < bottom)


@dataclass(frozen=True, kw_only=True)
class Shape:
    """What one object looks like before it is coloured, maps of (64, 64)."""

    body: np.ndarray
    part: np.ndarray
    """The saturated part."""
    part_color: tuple[float, float, float]
    texture: np.ndarray
    """Brightness added to the body colour."""
    dark: np.ndarray | None = None
    """Wheels and the like."""


@dataclass(frozen=True, kw_only=True)
class DrawnObject:
    """One object ready to be pasted."""

    mask: np.ndarray
    colors: np.ndarray
    """(64, 64, 3), RGB in about 0..1."""
    part: np.ndarray
    part_color: tuple[float, float, float]


def _aeroplane(f: Frame) -> Shape:
    near_wing = f.rows(0.1, 1.0) & (np.abs(f.x - 0.15 + 0.5 * f.y) < 0.22)
    far_wing = f.rows(-0.7, 0.1) & (np.abs(f.x - 0.2 - 0.35 * f.y) < 0.15)
    tail = f.rows(-1.0, 0.05) & (np.abs(f.x + 0.82 - 0.12 * f.y) < 0.17)
    rivets = (f.x_px % 4 < 1.3) & (f.y_px % 4 < 1.3)
    body = f.ellipse(0.0, 0.1, 1.0, 0.34) | near_wing | far_wing | tail
    return Shape(body=body, part=tail, part_color=(0.05, 0.85, 0.85), texture=0.13 * rivets)


def _bird(f: Frame) -> Shape:
    tail = (f.x < -0.4) & (f.x > -1.1) & (np.abs(f.y - 0.1 + 0.3 * f.x) < 0.22)
    beak = (f.x > 0.68) & (f.x < 1.12) & (np.abs(f.y + 0.42) < 0.30 - 0.25 * (f.x - 0.68))
    body = f.ellipse(-0.1, 0.15, 0.75, 0.62) | f.ellipse(0.55, -0.45, 0.34, 0.38) | tail | beak
    feathers = 0.14 * np.sin((np.abs(f.y_px) + f.x_px) * 1.7)
    return Shape(body=body, part=beak, part_color=(1.0, 0.50, 0.05), texture=feathers)


def _boat(f: Frame) -> Shape:
    hull = f.rows(0.2, 0.95) & (np.abs(f.x) < 1.05 - 0.45 * (f.y - 0.2) / 0.75)
    sail = (f.y <= 0.2) & (f.y > -0.9) & (f.x < 0.1) & (f.x > 0.1 - 0.75 * (f.y + 0.9) / 1.1)
    pennant = f.box(0.1, 0.55, -1.05, -0.68)
    body = hull | sail | f.box(0.1, 0.2, -0.95, 0.3) | f.box(0.25, 0.7, -0.1, 0.2) | pennant
    planks = 0.11 * np.sign(np.sin(f.y_px * 2.1))
    return Shape(body=body, part=pennant, part_color=(1.0, 0.05, 0.55), texture=planks)


def _bus(f: Frame) -> Shape:
    wheels = f.ellipse(-0.55, 0.75, 0.22, 0.28) | f.ellipse(0.55, 0.75, 0.22, 0.28)
    windows = f.box(-0.9, 0.9, -0.6, -0.12) & (f.x_px % 5 > 1.4)
    panels = 0.12 * np.sign(np.sin(f.x_px * 1.25))
    panels[windows] = -0.35
    front = f.box(0.55, 1.0, -0.05, 0.42)
    body = f.box(-1.0, 1.0, -0.9, 0.72) | wheels
    return Shape(body=body, part=front, part_color=(1.0, 0.62, 0.0), texture=panels, dark=wheels)


def _legs(f: Frame, spans: tuple[tuple[float, float], ...], top: float) -> np.ndarray:
    return np.logical_or.reduce([f.box(left, right, top, 1.0) for left, right in spans])


def _dog(f: Frame) -> Shape:
    legs = _legs(f, ((-0.6, -0.4), (-0.25, -0.08), (0.2, 0.36), (0.45, 0.6)), 0.2)
    tail = (f.x < -0.6) & (f.x > -1.05) & (np.abs(f.y + 0.1 - 0.6 * (f.x + 0.6)) < 0.14)
    muzzle = f.ellipse(0.84, -0.36, 0.2, 0.24)
    body = f.ellipse(-0.05, 0.0, 0.72, 0.45) | f.ellipse(0.68, -0.42, 0.32, 0.36) | legs | tail | muzzle
    spots = -0.22 * (np.sin(f.x_px * 0.95) * np.sin(f.y_px * 0.95 + 1) > 0.35)
    return Shape(body=body, part=muzzle, part_color=(0.45, 1.0, 0.1), texture=spots)


def _horse(f: Frame) -> Shape:
    legs = _legs(f, ((-0.7, -0.54), (-0.38, -0.24), (0.22, 0.36), (0.46, 0.6)), 0.1)
    neck = f.rows(-0.85, 0.1) & (np.abs(f.x - 0.55 - 0.25 * (-f.y)) < 0.2)
    tail = (f.x < -0.7) & (f.x > -1) & (np.abs(f.y - 0.2) < 0.4) & (np.abs(f.x + 0.85) < 0.1)
    mane = f.rows(-1.0, -0.1) & (np.abs(f.x - 0.40 - 0.25 * (-f.y)) < 0.12)
    body = f.ellipse(-0.1, 0.0, 0.72, 0.36) | legs | neck | f.ellipse(0.88, -0.78, 0.26, 0.2) | tail | mane
    coat = 0.15 * np.sin(f.x_px * 0.45 + f.y_px * 0.25)
    return Shape(body=body, part=mane, part_color=(0.95, 0.95, 0.1), texture=coat)


def _sheep(f: Frame) -> Shape:
    curls = 1 + 0.12 * np.sin(np.arctan2(f.y, f.x) * 9)
    fleece = (f.x + 0.08) ** 2 / 0.78**2 + (f.y + 0.05) ** 2 / 0.62**2 < curls
    legs = _legs(f, ((-0.5, -0.34), (-0.2, -0.05), (0.15, 0.3), (0.4, 0.55)), 0.3)
    face = f.ellipse(0.80, -0.2, 0.24, 0.32)
    wool = 0.13 * np.sin(f.x_px * 1.5 + 2 * np.sin(f.y_px * 1.2)) * np.sin(f.y_px * 1.5)
    return Shape(body=fleece | legs | face, part=face, part_color=(0.35, 0.02, 0.95), texture=wool)


def _train(f: Frame) -> Shape:
    bogies = f.box(-0.85, -0.6, 0.6, 1.0) | f.box(-0.1, 0.15, 0.6, 1.0) | f.box(0.5, 0.75, 0.6, 1.0)
    body = f.box(-1.0, 0.92, -0.85, 0.75) | bogies
    dark = f.box(-1.0, 1.0, 0.75, 1.0) & body
    windows = f.box(-0.92, 0.7, -0.55, -0.05) & (f.x_px % 5 > 1.4)
    front = f.box(0.76, 1.0, -0.6, 0.5)
    sides = 0.12 * np.sign(np.sin(f.y_px * 1.6))
    sides[windows] = -0.35
    return Shape(body=body | front, part=front, part_color=(0.0, 0.95, 0.35), texture=sides, dark=dark)


_KINDS: dict[str, tuple[float, float, Callable[[Frame], Shape]]] = {
    "aeroplane": (15.0, 10.0, _aeroplane),
    "bird": (11.0, 9.0, _bird),
    "boat": (12.0, 12.0, _boat),
    "bus": (13.0, 9.5, _bus),
    "dog": (12.0, 10.0, _dog),
    "horse": (13.0, 12.0, _horse),
    "sheep": (12.0, 10.0, _sheep),
    "train": (16.0, 8.0, _train),
}
"""Half width and half height in pixels at scale 1, and the shape."""


def draw_object(
    rng: np.random.Generator,
    class_id: int,
    *,
    center: tuple[float, float],
    scale: float,
    color: str,
    pattern: str,
) -> DrawnObject:
    """Draw one object.

    Args:
        rng: source of proportions (up to 20 %), tilt (up to 0.1 rad), facing and colour jitter.
        class_id: which kind.
        center: column and row of its centre, in pixels.
        scale: size; 1 gives about 24 by 20 pixels.
        color: a key of `COLORS`.
        pattern: one of `PATTERNS`.
    """
    half_width, half_height, shape_of = _KINDS[CLASSES[class_id]]
    half_width = half_width * scale * rng.uniform(0.85, 1.2)
    half_height = half_height * scale * rng.uniform(0.85, 1.2)
    tilt = rng.uniform(-0.10, 0.10)
    facing = 1.0 if rng.random() < 0.5 else -1.0
    right, down = COLUMNS - center[0], ROWS - center[1]
    x = facing * (np.cos(tilt) * right + np.sin(tilt) * down) / half_width
    y = (-np.sin(tilt) * right + np.cos(tilt) * down) / half_height
    frame = Frame(x=x, y=y, x_px=x * half_width, y_px=y * half_height)
    body_color = np.ones((IMAGE_SIZE, IMAGE_SIZE, 3)) * np.array(COLORS[color]) + rng.normal(0, 0.03, 3)
    shape = shape_of(frame)
    colors = body_color + shape.texture[..., None]
    if pattern == PATTERNS[1]:
        colors += (0.12 * np.sign(np.sin((frame.x_px + frame.y_px) * 0.55)))[..., None]
    if shape.dark is not None:
        colors[shape.dark] = 0.12
    return DrawnObject(mask=shape.body, colors=colors, part=shape.part & shape.body, part_color=shape.part_color)
