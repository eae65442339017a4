"""Pairs of classes that tags hardly tell apart, because one is seldom there without the other."""

import itertools
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass

NEARLY_ALWAYS = 0.9
"""From this share of its images on, a class is nearly always with another."""
_FEWEST = 3
"""Of fewer images of a class it says nothing."""


@dataclass(frozen=True)
class TagPair:
    """A class and another that is nearly always with it."""

    name: str
    """The class."""
    companion: str
    """The other."""
    together: int
    """Images with both."""
    images: int
    """Images of the class."""


def inseparable_pairs(labels: Iterable[Iterable[str]]) -> list[TagPair]:
    """Return the pairs, those of most images first.

    Args:
        labels: names of each image's classes.
    """
    shown = [sorted(set(names)) for names in labels]
    counts = Counter(name for names in shown for name in names)
    both = Counter(pair for names in shown for pair in itertools.permutations(names, 2))
    found = [
        TagPair(name, companion, together, counts[name])
        for (name, companion), together in both.items()
        if counts[name] >= _FEWEST and together >= NEARLY_ALWAYS * counts[name]
    ]
    return sorted(found, key=lambda pair: (-pair.together, pair.name, pair.companion))
