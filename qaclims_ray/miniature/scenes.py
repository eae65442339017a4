"""Scenes of the miniature world: a picture with its exact label map, stuff map and list of objects.

A scene has an upper and a lower zone behind a wavy horizon and, where it shows two classes, a left and a right half.
A class sits in its own zone, which usually holds its primary stuff; the other zone usually holds one of its
secondary stuffs. Props stand beside the objects and are background. How often is what `SceneSettings` says: the
weakly labelled set has strong co-occurrence, the sets that the tiny CLIP and VQA learn from have a weak one.
"""

from dataclasses import dataclass

import numpy as np

from qaclims_ray.miniature.canvas import COLUMNS, IMAGE_SIZE, ROWS, smooth_noise
from qaclims_ray.miniature.objects import draw_object
from qaclims_ray.miniature.props import draw_prop
from qaclims_ray.miniature.textures import draw_stuff
from qaclims_ray.miniature.vocabulary import (
    COLORS,
    NUM_CLASSES,
    NUM_ZONE_STUFF,
    PATTERNS,
    PROP_OFFSETS,
    PROPS,
    SECONDARY_OFFSETS,
    UPPER_ZONE_CLASSES,
)

_MIN_PROP_PX = 12
_COLOR_NAMES = tuple(COLORS)


@dataclass(frozen=True, kw_only=True)
class SceneSettings:
    """How often things appear together; all are probabilities."""

    primary_rate: float = 0.9
    """A class's own zone holds its primary stuff (otherwise any zone stuff)."""
    secondary_rate: float = 0.75
    """The other zone holds one of the class's secondary stuffs (otherwise any zone stuff)."""
    pair_rate: float = 0.35
    """A picture shows two classes."""
    part_rate: float = 0.85
    """An object's saturated part is painted."""
    prop_rate: float = 0.7
    """A prop is put at each of the places beside an object (two for one object, one each for two)."""
    own_prop_rate: float = 0.6
    """That prop is one of the class's two frequent kinds (otherwise any)."""


WEAK_SET = SceneSettings()
"""The weakly labelled set: strong co-occurrence, which makes a plain CAM fire on track for train."""

CLIP_SET = SceneSettings(primary_rate=0.4, secondary_rate=0.3)
"""What the tiny CLIP learns from."""

VQA_SET = SceneSettings(primary_rate=0.3, secondary_rate=0.3)
"""What the tiny VQA learns from."""


@dataclass(frozen=True, kw_only=True)
class SceneObject:
    """One object of a scene."""

    class_id: int
    color: int
    """Index into the names of `COLORS`."""
    pattern: int
    """Index into `PATTERNS`."""


@dataclass(frozen=True, kw_only=True)
class Scene:
    """A picture and all that is true of it."""

    image: np.ndarray
    """uint8 (64, 64, 3)."""
    label_map: np.ndarray
    """uint8 (64, 64): 0 background, class_id + 1 elsewhere."""
    stuff_map: np.ndarray
    """uint8 (64, 64): stuff identifier everywhere, under objects too."""
    objects: tuple[SceneObject, ...]

    @property
    def class_ids(self) -> tuple[int, ...]:
        """Classes with at least one visible pixel, ascending: the image-level labels."""
        return tuple(int(value) - 1 for value in np.unique(self.label_map) if value)


@dataclass(frozen=True, kw_only=True)
class _Placement:
    class_id: int
    column: float
    row: float
    scale: float
    left: float
    right: float


def scene_generator(stream: int, seed: int, index: int) -> np.random.Generator:
    """Generator of picture `index` of a set: pictures of different streams, seeds or indices are independent."""
    return np.random.default_rng((stream, seed, index))


def _pick_primary(rng: np.random.Generator, class_id: int, settings: SceneSettings) -> int:
    return class_id if rng.random() < settings.primary_rate else int(rng.integers(NUM_ZONE_STUFF))


def _pick_secondary(rng: np.random.Generator, class_id: int, settings: SceneSettings) -> int:
    if rng.random() < settings.secondary_rate:
        return NUM_CLASSES + (class_id + int(rng.choice(SECONDARY_OFFSETS))) % NUM_CLASSES
    return int(rng.integers(NUM_ZONE_STUFF))


def _shared_zone(class_ids: list[int], upper: np.ndarray) -> np.ndarray | None:
    """The zone that no class owns, if there is one."""
    present = set(class_ids)
    if not present & UPPER_ZONE_CLASSES:
        return upper
    return ~upper if present <= UPPER_ZONE_CLASSES else None


def _lay_zones(
    rng: np.random.Generator, settings: SceneSettings, class_ids: list[int]
) -> tuple[np.ndarray, list[int], float, float]:
    """Choose stuffs; return the stuff map, the classes from left to right, the horizon row and the split column."""
    horizon = IMAGE_SIZE * rng.uniform(0.36, 0.58)
    upper = ROWS < (horizon + IMAGE_SIZE * 0.03 * smooth_noise(rng, 6)[0])[None, :]
    split = IMAGE_SIZE * rng.uniform(0.42, 0.58)
    left = COLUMNS < split + IMAGE_SIZE * 0.03 * smooth_noise(rng, 6)[:, 0][:, None]
    is_pair = len(class_ids) == 2
    sides = [left, ~left] if is_pair else [np.ones_like(left)]
    if is_pair and rng.random() < 0.5:
        class_ids = class_ids[::-1]
    stuff_map = np.zeros((IMAGE_SIZE, IMAGE_SIZE), int)
    for side, class_id in zip(sides, class_ids, strict=True):
        own = upper if class_id in UPPER_ZONE_CLASSES else ~upper
        stuff_map[side & own] = _pick_primary(rng, class_id, settings)
        stuff_map[side & ~own] = _pick_secondary(rng, class_id, settings)
    if is_pair and rng.random() < 0.5:
        zone = _shared_zone(class_ids, upper)
        if zone is not None:
            stuff_map[zone] = _pick_secondary(rng, class_ids[0], settings)
    return stuff_map, class_ids, horizon, split


def _place(
    rng: np.random.Generator, class_id: int, span: tuple[float, float], horizon: float, is_pair: bool
) -> _Placement:
    left, right = span
    scale = rng.uniform(1.2, 1.65) * (0.74 if is_pair else 1)
    column = (left + right) / 2 + (right - left) * rng.uniform(-0.16, 0.16)
    if class_id in UPPER_ZONE_CLASSES:
        row = horizon * rng.uniform(0.40, 0.75)
    else:
        row = horizon + (IMAGE_SIZE - horizon) * rng.uniform(0.12, 0.5)
    return _Placement(class_id=class_id, column=column, row=row, scale=scale, left=left, right=right)


def _add_objects(
    rng: np.random.Generator,
    settings: SceneSettings,
    placements_of: list[tuple[int, tuple[float, float]]],
    horizon: float,
    image: np.ndarray,
    label_map: np.ndarray,
) -> tuple[list[SceneObject], list[_Placement]]:
    """Paste the objects, left to right, in place."""
    objects, placements = [], []
    for class_id, span in placements_of:
        placement = _place(rng, class_id, span, horizon, len(placements_of) == 2)
        color, pattern = int(rng.integers(len(COLORS))), int(rng.integers(len(PATTERNS)))
        drawn = draw_object(
            rng,
            class_id,
            center=(placement.column, placement.row),
            scale=placement.scale,
            color=_COLOR_NAMES[color],
            pattern=PATTERNS[pattern],
        )
        image[drawn.mask] = drawn.colors[drawn.mask]
        label_map[drawn.mask] = class_id + 1
        if rng.random() < settings.part_rate:
            image[drawn.part] = np.array(drawn.part_color) + rng.normal(0, 0.04, 3)
        objects.append(SceneObject(class_id=class_id, color=color, pattern=pattern))
        placements.append(placement)
    return objects, placements


def _add_props(
    rng: np.random.Generator,
    settings: SceneSettings,
    placements: list[_Placement],
    image: np.ndarray,
    label_map: np.ndarray,
    stuff_map: np.ndarray,
) -> None:
    """Put props beside the objects, never over one, in place."""
    is_pair = len(placements) == 2
    for placement in placements:
        for _ in range(1 if is_pair else 2):
            if rng.random() >= settings.prop_rate:
                continue
            if rng.random() < settings.own_prop_rate:
                prop_id = (placement.class_id + int(rng.choice(PROP_OFFSETS))) % len(PROPS)
            else:
                prop_id = int(rng.integers(len(PROPS)))
            side = 1 if rng.random() < 0.5 else -1
            column = placement.column + side * rng.uniform(11, 17) * placement.scale
            column = float(np.clip(column, placement.left + 4, placement.right - 4))
            row = float(np.clip(placement.row + rng.uniform(-7, 7), 8, IMAGE_SIZE - 8))
            scale = rng.uniform(0.9, 1.3) * (0.8 if is_pair else 1)
            mask, colors = draw_prop(rng, prop_id, center=(column, row), scale=scale)
            mask &= label_map == 0
            if mask.sum() > _MIN_PROP_PX:
                image[mask] = colors[mask]
                stuff_map[mask] = NUM_ZONE_STUFF + prop_id


def scene(rng: np.random.Generator, settings: SceneSettings = WEAK_SET) -> Scene:
    """Draw one scene (about 2 ms); the generator's state fixes every pixel."""
    is_pair = rng.random() < settings.pair_rate
    drawn_ids = [int(value) for value in rng.choice(NUM_CLASSES, 2 if is_pair else 1, replace=False)]
    stuff_map, class_ids, horizon, split = _lay_zones(rng, settings, drawn_ids)
    image = np.zeros((IMAGE_SIZE, IMAGE_SIZE, 3))
    for stuff_id in np.unique(stuff_map):
        zone = stuff_map == stuff_id
        image[zone] = draw_stuff(rng, int(stuff_id))[zone]
    label_map = np.zeros((IMAGE_SIZE, IMAGE_SIZE), np.uint8)
    spans = [(0.0, split), (split, float(IMAGE_SIZE))] if is_pair else [(0.0, float(IMAGE_SIZE))]
    placements_of = list(zip(class_ids, spans, strict=True))
    objects, placements = _add_objects(rng, settings, placements_of, horizon, image, label_map)
    _add_props(rng, settings, placements, image, label_map, stuff_map)
    brightness = rng.uniform(0.85, 1.12)
    image = np.clip(image * brightness + 0.025 * rng.standard_normal(image.shape), 0, 1)
    return Scene(
        image=(image * 255).astype(np.uint8),
        label_map=label_map,
        stuff_map=stuff_map.astype(np.uint8),
        objects=tuple(objects),
    )


def scenes(
    num_images: int, *, stream: int, seed: int, settings: SceneSettings = WEAK_SET, first_index: int = 0
) -> list[Scene]:
    """Draw a set of scenes; picture `i` depends on the stream, the seed and `i` only, not on how many are drawn."""
    indices = range(first_index, first_index + num_images)
    return [scene(scene_generator(stream, seed, index), settings) for index in indices]
