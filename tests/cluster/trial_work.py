"""What trials of tests do. Their processes import this module, and would import all that a test file needs."""

import os
import time
from pathlib import Path

from qaclims_ray.errors import DataError


def note(folder: str, name: str, seconds: float = 0.0) -> str:
    """Leave a file with the times at which the work started and ended."""
    started = time.time()
    time.sleep(seconds)
    Path(folder, name).write_text(f"{started} {time.time()}")
    return name


def meet(folder: str, name: str, partner: str) -> str:
    """Work until the partner works too: both must be at work at once, however slowly workers start."""
    started = time.time()
    Path(folder, f"{name}.at-work").touch()
    while not Path(folder, f"{partner}.at-work").exists():
        assert time.time() < started + 120, f"{name} waited two minutes for {partner}"
        time.sleep(0.05)
    Path(folder, name).write_text(f"{started} {time.time()}")
    return name


def refuse(message: str) -> None:
    raise DataError(message)


def break_off() -> None:
    raise KeyError("a mistake of ours")


def die() -> None:
    os._exit(1)
