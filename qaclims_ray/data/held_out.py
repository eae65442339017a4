"""Which images of a data set without splits are kept from training, so that a classifier can be judged on them."""

import hashlib
import math
from collections import Counter
from collections.abc import Mapping, Sequence

MOST_HELD_OUT = 500
"""So many images judge a classifier well enough; all others may be learned from."""
IN_BOTH = 5
"""A class with so many images has some of them held out, and others trained on."""
_KEPT = IN_BOTH - 1
"""So many images of a class stay for training."""
_NO_CLASS = ("",)


def held_out_images(labels: Mapping[str, Sequence[str]], share: float) -> frozenset[str]:
    """Choose the images that are held out.

    The choice depends on names and labels alone: the same images in every run, in whatever order they are listed.

    Args:
        labels: image id -> names of its classes; none counts as a class of its own.
        share: of the images, from 0 (none) to less than 1.
    """
    shown = {image: tuple(names) or _NO_CLASS for image, names in labels.items()}
    order = sorted(shown, key=lambda image: hashlib.sha256(image.encode()).digest())
    wanted = min(round(share * len(order)), MOST_HELD_OUT)
    if wanted == 0:
        return frozenset()
    counts = Counter(name for names in shown.values() for name in names)
    held: Counter[str] = Counter()
    chosen: set[str] = set()

    def leaves(image: str, kept: int) -> bool:
        return all(counts[name] - held[name] > kept for name in shown[image])

    def take(image: str) -> None:
        chosen.add(image)
        held.update(shown[image])

    for name in sorted(counts, key=lambda one: (counts[one], one)):  # the rarest first: its images are the fewest
        if name and counts[name] >= IN_BOTH and not held[name]:
            own = [image for image in order if name in shown[image] and image not in chosen]
            if free := next((image for kept in (_KEPT, 1) for image in own if leaves(image, kept)), None):
                take(free)
    for image in order:
        if len(chosen) >= wanted:
            break
        in_measure = all(held[name] < math.ceil(share * counts[name]) for name in shown[image])
        if image not in chosen and in_measure and leaves(image, _KEPT):
            take(image)
    return frozenset(chosen)


def held_out_note(held: int, images: int, split: str) -> str:
    """Return the line that says what was held out.

    Args:
        held: how many images were.
        images: how many there are.
        split: to which they belong.
    """
    if held:
        return (
            f"no split is named: {held} of {images} images, chosen by name and class, are held out as {split} and not "
            f"trained on (data.held_out_share; 0 trains on all)"
        )
    return (
        f"no split is named, and no image is held out as {split}: that takes some {IN_BOTH} images of a class "
        "(data.held_out_share)"
    )
