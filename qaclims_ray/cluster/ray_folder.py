"""The temporary folder of a private Ray: short enough for its sockets, and removed even after a run that was killed."""

import contextlib
import dataclasses
import json
import os
import shutil
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

from qaclims_ray.data.process_identity import ProcessIdentity, this_process
from qaclims_ray.errors import ResourceError

PREFIX = "qaclims-ray-"
OWNER_NAME = "owner.json"
"""Says whose folder it is. One without it is kept: its logs were promised to a user."""
_SOCKET_BYTES = 103 if sys.platform == "darwin" else 107
"""What the path of a socket may have."""
_BELOW = len("/qaclims-ray-12345678/session_2026-01-01_00-00-00_000000_4194304/sockets/dash_UsageStatsHead")
"""What this package and Ray put after the temporary directory at most."""


def new_ray_folder() -> str:
    """Make the folder of a private Ray of this process, and remove those that killed processes left.

    Raises:
        ResourceError: when no temporary directory is short enough and can be written.
    """
    parents = _short_enough(_candidates())
    for parent in parents:
        remove_left(parent)
    faults = []
    for parent in parents:
        try:
            folder = tempfile.mkdtemp(prefix=PREFIX, dir=parent)
            Path(folder, OWNER_NAME).write_text(json.dumps(dataclasses.asdict(this_process())))
            return folder
        except OSError as error:
            faults.append(str(error))
    raise ResourceError(
        f"Ray needs a temporary directory that can be written and whose path has at most {_SOCKET_BYTES - _BELOW} "
        f"bytes, because its sockets lie below it; found {'; '.join(faults) or ', '.join(_candidates())}. "
        "Set TMPDIR to one"
    )


def remove_left(parent: str) -> None:
    """Remove the folders of processes of this machine that are dead."""
    for folder in Path(parent).glob(f"{PREFIX}*"):
        with contextlib.suppress(OSError, ValueError, TypeError):  # another user's, or not written to its end
            owner = ProcessIdentity(**json.loads((folder / OWNER_NAME).read_text()))
            if owner.is_near() and not owner.is_alive():
                shutil.rmtree(folder, ignore_errors=True)


def keep(folder: str) -> None:
    """Keep a folder for the user when its process has ended."""
    with contextlib.suppress(FileNotFoundError):
        os.remove(os.path.join(folder, OWNER_NAME))


def remove(folder: str) -> None:
    """Remove a folder that is not kept."""
    if os.path.exists(os.path.join(folder, OWNER_NAME)):
        shutil.rmtree(folder, ignore_errors=True)


def _candidates() -> Sequence[str]:
    """Return temporary directories in the order of preference."""
    others = ("/tmp", "/var/tmp", os.environ.get("XDG_RUNTIME_DIR", ""))
    return tuple(dict.fromkeys([tempfile.gettempdir(), *[place for place in others if os.path.isdir(place)]]))


def _short_enough(places: Sequence[str]) -> list[str]:
    def length(place: str) -> int:
        return max(len(os.fsencode(path)) for path in (place, os.path.realpath(place)))

    return [place for place in places if length(place) + _BELOW <= _SOCKET_BYTES]
