"""Files that are being written: how they are named, and which of them nobody will finish.

A process that is killed leaves what it was writing beside the place where it would have gone. The name says whose it
is, so that a later run removes it, and never the file of a process that lives.
"""

import hashlib
import os
import re
import socket
import time
import uuid
from pathlib import Path

import psutil

_OWNED = re.compile(r"\.partial-(?P<host>[0-9a-f]{8})-(?P<pid>[0-9]+)-[0-9a-f]{8}$")
_EARLIER = re.compile(r"\.partial-[0-9a-f]{8}$")
"""Files of earlier versions, which name no owner."""
_LONGEST = 200
"""Bytes of a file's name that are kept in the name of its unfinished form; disks take 255 in all."""
_UNTOUCHED_S = 24 * 3600.0
"""Seconds without a change after which a file of another machine, or of an earlier version, counts as left behind."""


def partial_path(path: str) -> str:
    """Return where a process writes a file before it gets its name: another one for each writer and each time."""
    folder, name = os.path.split(path)
    # A name may be as long as a disk takes, and this one is longer.
    short = name.encode()[:_LONGEST].decode(errors="ignore")
    return os.path.join(folder, f"{short}.partial-{_this_host()}-{os.getpid()}-{uuid.uuid4().hex[:8]}")


def remove_abandoned(folder: str) -> list[str]:
    """Remove files below a local folder that were being written by a process of this machine which is gone.

    What other machines, or earlier versions, were writing is removed where it has not changed for a day.

    Args:
        folder: local path; it need not exist. Links are not followed.

    Returns:
        Paths of the removed files.
    """
    removed = []
    for place, _, names in os.walk(folder):
        for name in names:
            if ".partial-" in name and _is_abandoned(Path(place, name)):
                Path(place, name).unlink(missing_ok=True)
                removed.append(os.path.join(place, name))
    return removed


def _is_abandoned(path: Path) -> bool:
    owned = _OWNED.search(path.name)
    if owned is not None and owned["host"] == _this_host():
        return not psutil.pid_exists(int(owned["pid"]))
    if owned is None and _EARLIER.search(path.name) is None:
        return False
    try:
        return time.time() - path.stat().st_mtime > _UNTOUCHED_S
    except FileNotFoundError:  # its writer has just finished it
        return False


def _this_host() -> str:
    # A name of any length would make the file's name too long.
    return hashlib.sha256(socket.gethostname().encode()).hexdigest()[:8]
