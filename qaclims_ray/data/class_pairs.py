"""Classes that cannot be told apart by image labels, because they stand on the same images.

From labels of images alone nothing says which of two classes that always come together is which: a network may paint
one where the other is. The only cure is images that show one without the other.
"""

import itertools
from collections import Counter
from dataclasses import dataclass

from qaclims_ray.data.manifest import Manifest

ALMOST = 0.95
"""Share of a class's images from which another counts as always with it."""


@dataclass(frozen=True)
class ClassPair:
    """A class that is nearly always seen with another."""

    first: str
    """The class that has nearly no image without the other."""
    other: str
    """The other one."""
    together: int
    """Images that show both."""
    first_alone: int
    """Images that show the first without the other."""
    other_alone: int
    """Images that show the other without the first."""

    @property
    def is_mutual(self) -> bool:
        """Whether neither is seen without the other."""
        return self.first_alone == self.other_alone == 0


def inseparable(manifest: Manifest, split: str) -> list[ClassPair]:
    """Return the pairs of classes of which one is nearly never seen without the other, the worst first.

    Args:
        manifest: the images.
        split: those that are learned from.
    """
    images = [record.labels for record in manifest.records if split in record.splits]
    single = Counter(label for labels in images for label in labels)
    joint = Counter(pair for labels in images for pair in itertools.combinations(labels, 2))
    names, found = manifest.class_names, []
    for (one, two), together in joint.items():
        # The one with fewer images alone first: it is the one that may be mistaken.
        first, other = (one, two) if single[one] <= single[two] else (two, one)
        if together >= ALMOST * single[first] and together > 1:
            alone = single[first] - together, single[other] - together
            found.append(ClassPair(names[first], names[other], together, *alone))
    return sorted(found, key=lambda pair: (pair.first_alone + pair.other_alone, -pair.together, pair.first, pair.other))
