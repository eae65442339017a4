"""A probe of the tiny CLIP: how does the tower see the right object, a part of it, the ring around it, its stuff?

The pictures are like those of the weakly labelled set but drawn for this purpose only. What one wants to read: the
object alone is recognised; a picture with the stuff around the object does not match the class much better, and the
class's stuff alone matches a little (the co-occurrence bias that the papers cure).
"""

from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from qaclims_ray.miniature.clip_pretraining import normalise, scene_tensors
from qaclims_ray.miniature.regions import RING_PX, dilate
from qaclims_ray.miniature.scenes import WEAK_SET, scenes
from qaclims_ray.miniature.vocabulary import CLASSES, NUM_CLASSES, NUM_STUFF, STUFF
from qaclims_ray.models.clip.frozen import FrozenClip

PROBE_STREAM = 3
"""Stream of scenes that only the probe sees."""


@dataclass(frozen=True, kw_only=True)
class ProbeRow:
    """What the tower makes of one sort of region; all but the first are mean cosines."""

    accuracy: float
    """Share of regions whose nearest class name is the right one."""
    own_class: float
    other_class: float
    """Nearest of the wrong class names."""
    no_class: float
    """The text "no {class}" of the right class."""
    primary_stuff: float
    secondary_stuff: float


def _regions(
    target: Float[Tensor, "region height width"], stuff: Float[Tensor, "region height width"]
) -> dict[str, tuple[Tensor, Tensor | None]]:
    """Pixel mask and token mask of every sort of region, (region, height, width) each."""
    ring = dilate(target, RING_PX)
    half_area = target.sum((1, 2), keepdim=True) / 2
    upper_half = target * (target.sum(2).cumsum(1)[..., None] < half_area)

    def with_tokens(mask: Tensor) -> tuple[Tensor, Tensor]:
        return 0.5 + 0.4 * mask, mask

    return {
        "whole picture": (torch.ones_like(target), None),
        "object": (target, None),
        "object, 0.2 of the rest": (0.2 + 0.8 * target, None),
        "object and ring": (ring, None),
        "object and own stuff": (((target + stuff) > 0).float(), None),
        "upper half of the object": (upper_half, None),
        "own stuff": (stuff, None),
        "all but the object": (1 - target, None),
        "token mask: object": with_tokens(target),
        "token mask: object and ring": with_tokens(ring),
        "token mask: all but the object": with_tokens(1 - target),
    }


@torch.no_grad()
def probe(clip: FrozenClip, *, num_images: int = 400, seed: int = 77) -> dict[str, ProbeRow]:
    """Measure what the tower makes of eleven sorts of regions.

    Args:
        clip: a tiny CLIP; token masks are tried if it is mask-adapted.
        num_images: pictures drawn.
        seed: of the pictures.

    Returns:
        One row a sort of region.
    """
    drawn = scenes(num_images, stream=PROBE_STREAM, seed=seed, settings=WEAK_SET)
    data = scene_tensors(drawn)
    things = data.things.long()
    thing = torch.tensor([NUM_STUFF + item.class_ids[-1] for item in drawn])
    class_id = thing - NUM_STUFF
    target = (things == thing[:, None, None]).float()
    stuff = (things == class_id[:, None, None]).float()
    names = [*CLASSES, *(f"no {name}" for name in CLASSES), *STUFF]
    texts = clip.encode_texts([f"a photo of {name}" for name in names])
    device = texts.device
    pixels = normalise(data.images)
    rows = {}
    for name, (mask, token_mask) in _regions(target, stuff).items():
        if token_mask is not None and not clip.is_mask_adapted:
            continue
        tokens = None if token_mask is None else token_mask[:, None].to(device)
        features = clip.encode_regions((pixels * mask[:, None]).to(device), tokens)
        rows[name] = _row((features @ texts.T).cpu(), class_id)
    return rows


def _row(similarity: Float[Tensor, "region text"], class_id: Int[Tensor, " region"]) -> ProbeRow:
    index = torch.arange(len(similarity))
    classes = similarity[:, :NUM_CLASSES]
    others = classes.clone()
    # Below any cosine.
    others[index, class_id] = -2.0
    stuff = 2 * NUM_CLASSES
    values = {
        "accuracy": (classes.argmax(1) == class_id).float(),
        "own_class": classes[index, class_id],
        "other_class": others.amax(1),
        "no_class": similarity[index, NUM_CLASSES + class_id],
        "primary_stuff": similarity[index, stuff + class_id],
        "secondary_stuff": similarity[index, stuff + NUM_CLASSES + class_id],
    }
    return ProbeRow(**{name: round(float(np.mean(value.numpy())), 3) for name, value in values.items()})
