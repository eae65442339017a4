"""What presets are made of: bases, options on top of them, and names for published combinations."""

import inspect
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Literal

from qaclims_ray.run_config import RunConfig

Axis = Literal["method", "CLIP", "profile", "final network", "weights"]
AXES: tuple[Axis, ...] = ("method", "CLIP", "profile", "final network", "weights")
"""In the order in which options are applied, whatever the order in which they are named."""


@dataclass(frozen=True)
class Option:
    """One choice on one axis; a run takes at most one of each axis."""

    name: str
    """Its word on the command line."""
    axis: Axis
    """What it chooses."""
    apply: Callable[[RunConfig], RunConfig]
    """Makes the choice; the first line of its docstring is what the help says."""
    excludes: Mapping[str, str] = field(default_factory=dict)
    """Options of other axes that contradict it, and why."""

    @property
    def about(self) -> str:
        """What it does, in one line."""
        return summary_line(inspect.getdoc(self.apply) or "")


@dataclass(frozen=True)
class Preset:
    """A published combination under a name of its own."""

    name: str
    """Its name; the run's `name` too."""
    words: tuple[str, ...]
    """The base and the options, in the order of `AXES`."""
    about: str
    """Command, what it needs, hardware, expected time, published figure; the first line is what the help says."""


@dataclass(frozen=True)
class Base:
    """A complete run on a data set, the options it takes, and its published combinations."""

    build: Callable[[], RunConfig]
    """Returns the run; the function's name is the base's."""
    options: tuple[Option, ...] = ()
    """All that are offered."""
    published: tuple[Preset, ...] = ()
    """Combinations with a name."""

    @property
    def name(self) -> str:
        """Its word on the command line."""
        return self.build.__name__

    def presets(self) -> tuple[Preset, ...]:
        """Return the base itself and its published combinations."""
        return (Preset(self.name, (self.name,), inspect.getdoc(self.build) or ""), *self.published)


def published(name: str, words: str, about: str) -> Preset:
    """Return a published combination, its words in one string and its text as written in a docstring."""
    return Preset(name, tuple(words.split()), inspect.cleandoc(about))


def summary_line(text: str) -> str:
    """Return the first line of a text."""
    return text.strip().partition("\n")[0]
