"""Captions that the tiny CLIP learns from, and how well each of them matches a masked picture.

One step of pretraining draws about 75 captions over the whole world and scores every one against every masked
picture from what is still visible of it. The score carries the world's co-occurrence bias: a class name also matches
the class's own stuff and prop a little, as it does in a CLIP trained on photographs. That bias is what the papers
set out to cure.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from enum import IntEnum

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from qaclims_ray.miniature.vocabulary import (
    ALIASES,
    CAPTION_PLACES,
    CLASSES,
    COLORS,
    NUM_CLASSES,
    NUM_STUFF,
    NUM_ZONE_STUFF,
    PATTERNS,
    SCENES,
    STUFF,
    STUFF_SYNONYMS,
)

TEMPLATES: tuple[str, ...] = ("a photo of {}", "a photo of {}", "a photo of the {}", "a photo of {}.", "{}")
_COLOR_NAMES = tuple(COLORS)
_ANY = -1


class CaptionKind(IntEnum):
    """What a caption speaks of."""

    OBJECT = 0
    """A class, perhaps with a colour or a pattern."""
    OBJECT_WITH_STUFF = 1
    """A class and a stuff."""
    ABSENCE = 2
    """No object of a class."""
    STUFF = 3
    """A stuff or prop alone."""
    SCENE = 4
    """The name of a place."""


@dataclass(frozen=True, kw_only=True)
class Caption:
    """One caption and what it claims."""

    text: str
    kind: CaptionKind
    subject: int
    """Class, stuff or scene identifier, by kind."""
    stuff: int = _ANY
    color: int = _ANY
    pattern: int = _ANY


@dataclass(frozen=True, kw_only=True)
class MatchSettings:
    """How well a caption matches what is visible; areas are fractions of the visible area.

    The defaults are variant D of the measured recipe; `CONTEXT_BIASED` is variant C.
    """

    object_gain: float = 6.0
    """A class name matches `object_gain` times the visible area of its objects, as a share of `object_saturation`."""
    object_saturation: float = 1.0
    """Visible area of an object from which on it matches fully; 1 never saturates."""
    stuff_bias: float = 0.5
    """A class name also matches this times the visible area of the class's own primary stuff."""
    prop_bias: float = 0.15
    """A class name also matches this times the (weighted) visible area of the class's own prop."""
    prop_weight: float = 4.0
    """Props are small: their area counts this many times."""


CONTEXT_BIASED = MatchSettings(object_gain=3.0, object_saturation=0.2, stuff_bias=1.0, prop_bias=0.3)
"""Variant C: an object counts fully from a fifth of the area on, and its own stuff as much as a third of it."""


def draw_captions(rng: np.random.Generator) -> list[Caption]:
    """Draw one step's captions: every class, stuff, prop and scene, about 75 in all."""
    captions = [caption for class_id in range(NUM_CLASSES) for caption in _class_captions(rng, class_id)]
    for stuff_id, name in enumerate(STUFF):
        synonyms = STUFF_SYNONYMS.get(name, ())
        word = str(rng.choice(synonyms)) if synonyms and rng.random() < 0.35 else name
        captions.append(_caption(rng, word, CaptionKind.STUFF, stuff_id))
    captions += [_caption(rng, name, CaptionKind.SCENE, scene_id) for scene_id, name in enumerate(SCENES)]
    return captions


def _class_captions(rng: np.random.Generator, class_id: int) -> list[Caption]:
    name, alias = CLASSES[class_id], ALIASES[class_id]
    synonym = (alias, f"{alias} {name}", alias)[rng.integers(3)]
    color, pattern = int(rng.integers(len(COLORS))), int(rng.integers(len(PATTERNS)))
    spoken = alias if rng.random() < 0.2 else name
    stuff_id = int(rng.integers(NUM_STUFF))
    joined = f"{name} {rng.choice(CAPTION_PLACES)} {STUFF[stuff_id]}"
    own = f"{name} on {STUFF[class_id]}"
    captions = [
        _caption(rng, name, CaptionKind.OBJECT, class_id),
        _caption(rng, synonym, CaptionKind.OBJECT, class_id),
        _caption(rng, f"{_COLOR_NAMES[color]} {spoken}", CaptionKind.OBJECT, class_id, color=color),
        _caption(rng, joined, CaptionKind.OBJECT_WITH_STUFF, class_id, stuff=stuff_id),
        _caption(rng, own, CaptionKind.OBJECT_WITH_STUFF, class_id, stuff=class_id),
    ]
    if rng.random() < 0.5:
        captions.append(_caption(rng, f"{PATTERNS[pattern]} {spoken}", CaptionKind.OBJECT, class_id, pattern=pattern))
    if rng.random() < 0.5:
        captions.append(_caption(rng, f"no {name}", CaptionKind.ABSENCE, class_id))
    return captions


def _caption(
    rng: np.random.Generator,
    phrase: str,
    kind: CaptionKind,
    subject: int,
    *,
    stuff: int = _ANY,
    color: int = _ANY,
    pattern: int = _ANY,
) -> Caption:
    text = TEMPLATES[rng.integers(len(TEMPLATES))].format(phrase)
    return Caption(text=text, kind=kind, subject=subject, stuff=stuff, color=color, pattern=pattern)


def match_degrees(
    visible: Float[Tensor, "region thing"],
    colors: Int[Tensor, "region class"],
    patterns: Int[Tensor, "region class"],
    captions: Sequence[Caption],
    settings: MatchSettings,
) -> Float[Tensor, "region caption"]:
    """Score every caption against every masked picture, 0 for no match.

    Args:
        visible: fraction of the visible area that each thing takes; stuffs, props, then classes.
        colors: colour of the picture's object of each class, -1 where it has none.
        patterns: its pattern, -1 where it has none.
        captions: what is said.
        settings: weights of object, stuff and prop.
    """
    stuff = visible[:, :NUM_STUFF].clone()
    stuff[:, NUM_ZONE_STUFF:] *= settings.prop_weight
    objects = settings.object_gain * (visible[:, NUM_STUFF:] / settings.object_saturation).clamp(max=1)
    named = (
        objects
        + settings.stuff_bias * stuff[:, :NUM_CLASSES]
        + settings.prop_bias * stuff[:, NUM_ZONE_STUFF : NUM_ZONE_STUFF + NUM_CLASSES]
    )
    places = 0.6 * (stuff[:, :NUM_CLASSES] + stuff[:, NUM_CLASSES : 2 * NUM_CLASSES])
    columns = []
    for caption in captions:
        match caption.kind:
            case CaptionKind.OBJECT:
                degree = named[:, caption.subject] * _attribute_factor(colors, patterns, caption)
            case CaptionKind.OBJECT_WITH_STUFF:
                degree = 1.5 * torch.minimum(objects[:, caption.subject], stuff[:, caption.stuff])
            case CaptionKind.ABSENCE:
                degree = 0.05 + 0.12 * named[:, caption.subject]
            case CaptionKind.STUFF:
                degree = stuff[:, caption.subject]
            case CaptionKind.SCENE:
                degree = places[:, caption.subject]
        columns.append(degree)
    return torch.stack(columns, dim=1)


def _attribute_factor(
    colors: Int[Tensor, "region class"], patterns: Int[Tensor, "region class"], caption: Caption
) -> Float[Tensor, " region"]:
    """Reward the right colour or pattern, punish the wrong one; colour weighs more."""
    factor = torch.ones(len(colors), device=colors.device)
    if caption.color != _ANY:
        factor = torch.where(colors[:, caption.subject] == caption.color, 1.3, 0.15)
    if caption.pattern != _ANY:
        factor = factor * torch.where(patterns[:, caption.subject] == caption.pattern, 1.1, 0.6)
    return factor
