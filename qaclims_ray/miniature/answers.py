"""True answers to the sixteen questions of QA-CLIMS (Table 6) about a miniature scene.

The order is the one of the templates in `corpus/questions.py`: background objects (above, under, behind, around,
next to, left, right), scene (scene, environment, place), foreground kind and type, and four about another name. The
tiny VQA is trained on these answers; the pipeline itself never sees them.
"""

import numpy as np

from qaclims_ray.miniature.scenes import Scene
from qaclims_ray.miniature.vocabulary import (
    ALIASES,
    CLASSES,
    COLORS,
    NUM_CLASSES,
    NUM_STUFF,
    NUM_ZONE_STUFF,
    PATTERNS,
    SCENES,
    STUFF,
)

NUM_ANSWERS = 16
"""Answers per (picture, class)."""

LEFT_ANSWER, RIGHT_ANSWER = 5, 6
"""Positions of the two answers that a mirrored picture exchanges."""

_MIN_PROP_PX = 14
_COLOR_NAMES = tuple(COLORS)


def _majority(values: np.ndarray, own_value: int) -> int | None:
    values = values[values != own_value]
    return int(np.bincount(values.ravel()).argmax()) if values.size else None


def _majority_prop_first(values: np.ndarray, own_value: int) -> int | None:
    """Most frequent thing; a prop that is large enough is what one names first."""
    props = values[(values >= NUM_ZONE_STUFF) & (values < NUM_STUFF)]
    if props.size > _MIN_PROP_PX:
        return int(np.bincount(props).argmax())
    return _majority(values, own_value)


def true_answers(scene: Scene, class_id: int) -> list[str]:
    """Answer the sixteen questions about one class of a scene.

    Args:
        scene: the picture; `class_id` must be visible in it.
        class_id: 0-based foreground class.

    Returns:
        Sixteen one-word answers in the order of the templates.
    """
    own_value = NUM_STUFF + class_id
    things = np.where(scene.label_map > 0, NUM_STUFF + scene.label_map.astype(int) - 1, scene.stuff_map.astype(int))
    rows, columns = np.where(scene.label_map == class_id + 1)
    top, bottom, left, right = (int(edge) for edge in (rows.min(), rows.max(), columns.min(), columns.max()))
    over = slice(max(0, top - 8), top)
    beside = slice(top, bottom + 1)
    width = slice(left, right + 1)
    ring = things[max(0, top - 6) : bottom + 7, max(0, left - 6) : right + 7]
    around = _majority(ring, own_value)
    found = [
        _majority(things[over, width], own_value),
        _majority(things[bottom + 1 : bottom + 9, width], own_value),
        _majority(things[max(0, top - 8) : (top + bottom) // 2, max(0, left - 4) : right + 5], own_value),
        around,
        _majority_prop_first(ring, own_value),
        _majority_prop_first(things[beside, max(0, left - 10) : left], own_value),
        _majority_prop_first(things[beside, right + 1 : right + 11], own_value),
    ]
    names = (*STUFF, *CLASSES)
    fallback = around if around is not None else class_id
    objects = [names[value if value is not None else fallback] for value in found]
    target = next(item for item in scene.objects if item.class_id == class_id)
    return [
        *objects,
        *[_place_name(scene, class_id, top, bottom, left, right)] * 3,
        _COLOR_NAMES[target.color],
        PATTERNS[target.pattern],
        *[ALIASES[class_id]] * 4,
    ]


def _place_name(scene: Scene, class_id: int, top: int, bottom: int, left: int, right: int) -> str:
    """Name of the place that the most frequent stuff near the object stands for."""
    near = scene.stuff_map[max(0, top - 4) : bottom + 5, max(0, left - 6) : right + 7].astype(int)
    near = near[near < NUM_ZONE_STUFF]
    stuff_id = int(np.bincount(near).argmax()) if near.size else class_id
    return SCENES[stuff_id % NUM_CLASSES]
