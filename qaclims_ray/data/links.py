"""Symbolic links count as what they point to, as DVC, git-annex and ``ln -s`` leave them.

One that leads nowhere counts as a file, so that opening it says what is the matter; it is never left out silently.
"""

import errno
import os
import posixpath
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import fsspec
from fsspec.implementations.local import LocalFileSystem

from qaclims_ray.errors import DataError

_MAX_HOPS = 40
"""Links that are followed one after the other, as Linux does."""


def kind_of(filesystem: fsspec.AbstractFileSystem, entry: Mapping[str, Any]) -> str:
    """Return what an entry of a listing is, of a link what it points to.

    Args:
        filesystem: of the listing.
        entry: as fsspec gives it.

    Returns:
        "file", "directory", or "other" for pipes and sockets, which would never end when they are read.
    """
    if entry["type"] in ("file", "directory"):
        return entry["type"]
    name = entry["name"]
    if isinstance(filesystem, LocalFileSystem):
        if os.path.isdir(name):
            return "directory"
        return "file" if os.path.isfile(name) or not os.path.exists(name) else "other"
    for _ in range(_MAX_HOPS):
        if not (target := entry.get("destination")):
            break
        target = target.decode() if isinstance(target, bytes) else str(target)
        name = posixpath.normpath(posixpath.join(posixpath.dirname(name), target))
        try:
            entry = filesystem.info(name)
        except FileNotFoundError:
            return "file"
        if entry["type"] in ("file", "directory"):
            return entry["type"]
    return "directory" if filesystem.isdir(name) else "file"


def refuse_lost_link(path: str) -> None:
    """Raise where a local path, or a folder above it, is a link that leads nowhere; else do nothing.

    Raises:
        DataError: names the link and where it points.
    """
    for place in (Path(path), *Path(path).parents):
        if os.path.islink(place) and not os.path.exists(place):
            subject = path if str(place) == path else f"{path} cannot be reached: {place}"
            raise DataError(f"{subject} is a symbolic link to {os.readlink(place)}, {_remedy(place)}")


def _remedy(link: Path) -> str:
    try:
        link.stat()
    except OSError as error:
        if error.errno == errno.ELOOP:
            return "which leads back to itself; make it point to the data"
    return "where nothing is; fetch what it points to (dvc pull, git annex get, mount the disk) or mend the link"


def local_marks(path: str) -> dict[str, str]:
    """Return the path of each file below a local folder, and a text that changes when the file does.

    Links are followed. A folder that is met again, such as one that holds a link to itself, is not entered again.
    """
    marks: dict[str, str] = {path: _mark(path)} if os.path.isfile(path) else {}
    seen: set[tuple[int, int]] = set()
    waiting = [path] if os.path.isdir(path) else []
    while waiting:
        folder = waiting.pop()
        try:
            status, entries = os.stat(folder), sorted(os.listdir(folder), reverse=True)
        except OSError:  # one without permission, such as lost+found
            continue
        if (status.st_dev, status.st_ino) in seen:
            marks[folder] = f"-> {os.path.realpath(folder)}"
            continue
        seen.add((status.st_dev, status.st_ino))
        for below in (os.path.join(folder, name) for name in entries):
            if os.path.isdir(below):
                waiting.append(below)
            else:
                marks[below] = _mark(below)
    return marks


def _mark(path: str) -> str:
    try:
        status = os.stat(path)
        mark = f"{status.st_size} {status.st_mtime or None}"
    except OSError:
        mark = "lost"
    return f"{mark} -> {os.path.realpath(path)}" if os.path.islink(path) else mark
