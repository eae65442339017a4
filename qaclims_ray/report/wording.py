"""How pages, tables and the console write numbers."""

import math
from collections.abc import Sequence
from typing import Any

PIXEL_LABELS = "chosen with pixel labels"
"""Stands beside every figure whose threshold was chosen with the masks."""


def percent(value: float | None) -> str:
    """Return a fraction in percent with one digit, "n/a" where there is none."""
    return "n/a" if value is None or math.isnan(value) else f"{100 * value:.1f}"


def gain(value: float) -> str:
    """Return a difference of fractions in points, with its sign."""
    return f"{100 * value:+.1f}"


def duration(seconds: float) -> str:
    """Return a time in the two units that a reader wants."""
    if seconds < 60:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes:02d} min" if hours else f"{minutes} min {rest:02d} s"


def file_size(num_bytes: int) -> str:
    """Return a number of bytes in the unit that a reader wants, as disks and downloads are counted."""
    for unit, size in (("GB", 1_000_000_000), ("MB", 1_000_000), ("kB", 1_000)):
        if num_bytes >= size:
            return f"{num_bytes / size:.1f} {unit}"
    return f"{num_bytes} bytes"


def listed(value: Any) -> str:
    """Return a value of settings or surroundings in one line."""
    if isinstance(value, Sequence) and not isinstance(value, str):
        return ", ".join(str(item) for item in value) or "none"
    return str(value)
