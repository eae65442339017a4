"""Which images are worth a mask made by hand: those that systems and stages disagree on most, spread over the classes.

Disagreement finds mistakes: where maps differ at most one is right. Such images are harder than the others, so scores
on them are lower than on all; a random sample is what an unbiased score needs.
"""

from collections.abc import Sequence

import numpy as np

from qaclims_ray.evaluation.trust import ImageTrust


def by_disagreement(images: Sequence[ImageTrust], number: int) -> list[str]:
    """Return so many images; the classes take turns, the one with the least agreement first.

    Each class in its turn takes the image of it with the least agreement that is not chosen yet, of those with the most
    maps. When the images with a class are used up, those without any follow. Equal images go by their ids, so the
    choice is always the same.

    Args:
        images: candidates; those whose agreement is not known come last.
        number: how many.
    """
    # An image with maps of more stages says more, and agreement over other stages does not compare.
    ranked = sorted(images, key=lambda image: (-len(image.shares), _agreement(image), image.image_id))
    queues = {name: [i for i in ranked if name in i.tagged] for name in sorted({t for i in ranked for t in i.tagged})}
    turns = sorted(queues, key=lambda name: (float(np.mean([_agreement(image) for image in queues[name]])), name))
    chosen: dict[str, None] = {}
    while len(chosen) < number and any(queues.values()):
        for name in turns:
            queues[name] = [image for image in queues[name] if image.image_id not in chosen]
            if queues[name] and len(chosen) < number:
                chosen[queues[name].pop(0).image_id] = None
    for image in ranked:
        if len(chosen) < number:
            chosen[image.image_id] = None
    return list(chosen)


def at_random(images: Sequence[ImageTrust], number: int, *, seed: int) -> list[str]:
    """Return so many images drawn without replacement, every image as probable as any other.

    Args:
        images: candidates.
        number: how many.
        seed: of the draw.
    """
    ids = sorted(image.image_id for image in images)
    drawn = np.random.default_rng(seed).permutation(len(ids))[:number]
    return [ids[position] for position in sorted(drawn.tolist())]


def _agreement(image: ImageTrust) -> float:
    return 1.0 if image.agreement is None else image.agreement
