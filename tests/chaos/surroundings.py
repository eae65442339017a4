"""What stands around a struck command: a small disk, a clock that can jump, a server of MLflow, a Ray of two nodes."""

import contextlib
import os
import signal
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from qaclims_ray.tracking.ui_server import free_port, ui_server
from tests.chaos.clock import JUMPS, clock_environment
from tests.chaos.nodes import ray_of_two_nodes
from tests.chaos.strikes import STRIKES, small_disk
from tests.chaos.works import Command

DISK_MIB = 160
"""The small disk that is filled: a run of this size takes some twenty, and none begins where less than 64 are free."""
FULL_DISK = "a full disk"
SERVER_ENDS = "kill -9 of MLflow's server, away until the command has ended"
SERVER_RETURNS = "kill -9 of MLflow's server, which comes back"
NODE_ENDS = "kill -9 of a node"
_FIRST_PORT = 5730
_LEFT_S = 60.0
"""Seconds within which a Ray that was joined has ended what a command had of it."""


@dataclass(frozen=True)
class Surroundings:
    """What is made for a fault before its command starts."""

    strike: Callable[[Command], object]
    """Does the harm."""
    at_first: Mapping[str, str] = field(default_factory=dict)
    """More variables of the environment of the command that is struck."""
    environment: Mapping[str, str] = field(default_factory=dict)
    """More variables of the environment of both calls."""
    settings: Mapping[str, Any] = field(default_factory=dict)
    """More settings of both calls."""
    mend: Callable[[], object] = list
    """Called once the struck command has ended: what was taken away comes back."""
    left: Callable[[], list[str]] = list
    """Says what a command left, besides processes."""
    own_files: tuple[str, ...] = ()
    """Files in which the settings above stand, so that they are others than those of an undisturbed run."""


@contextlib.contextmanager
def around(strike: str, place: Path, temporary: Path) -> Iterator[Surroundings]:
    """Make what a fault needs, and take it away.

    Args:
        strike: its name.
        place: where the command works.
        temporary: a folder with a short path beside it.
    """
    if strike == FULL_DISK:
        with small_disk(place, DISK_MIB) as is_there:
            assert is_there, "a small disk cannot be mounted here"
            yield Surroundings(STRIKES[strike], mend=lambda: (place / "fill").unlink(missing_ok=True))
    elif strike in JUMPS:
        yield Surroundings(STRIKES[strike], at_first=clock_environment(strike, temporary))
    elif strike in (SERVER_ENDS, SERVER_RETURNS):
        yield from _beside_server(strike, place)
    elif strike == NODE_ENDS:
        with ray_of_two_nodes(temporary) as (environment, ask):
            yield Surroundings(lambda command: ask("kill"), environment=environment, left=lambda: _left(ask))
    else:
        yield Surroundings(STRIKES[strike])


def _beside_server(strike: str, place: Path) -> Iterator[Surroundings]:
    place.mkdir(parents=True, exist_ok=True)
    port = free_port(_FIRST_PORT)
    with contextlib.ExitStack() as stack:

        def start() -> int:
            _, process = stack.enter_context(ui_server(f"sqlite:///{place / 'mlflow.db'}", "qaclims", port))
            return process.pid

        group = start()

        def end(command: Command) -> None:
            os.killpg(group, signal.SIGKILL)
            if strike == SERVER_RETURNS:
                start()

        yield Surroundings(
            end,
            settings={"tracking.uri": f"http://127.0.0.1:{port}"},
            mend=list if strike == SERVER_RETURNS else start,
            own_files=("config.json",),
        )


def _left(ask: Callable[[str], list[str]]) -> list[str]:
    deadline = time.monotonic() + _LEFT_S
    while (found := ask("left")) and time.monotonic() < deadline:
        time.sleep(2)
    return found
