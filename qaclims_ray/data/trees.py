"""Whole folders by path or URI: how large their files are, and how one takes the place of another.

On a local or network disk a folder takes another's place by being renamed; a store that knows no folders gets its
``meta.json`` last, so that nothing counts as complete on the way.
"""

import contextlib
import os
import uuid
from collections.abc import Collection, Iterator
from pathlib import Path
from typing import Any

from qaclims_ray.data import storage, written_files
from qaclims_ray.errors import DataError, ResourceError

LAST_NAME = "meta.json"
"""File that declares a folder complete: the first to go and the last to come."""
_OLD = ".old-"
"""Between a folder's name and some digits, while another takes its place."""
_MOST_SYNCED = 256
"""So many files are synced one by one; for more one call for the whole disk is quicker."""


def sizes_below(uri: str) -> dict[str, int]:
    """Return the bytes of every file below a folder, by its path in it; an absent folder holds none.

    Raises:
        ResourceError: when the store refuses or does not answer.
    """
    filesystem, path = storage.resolve(uri)
    if not storage.is_remote(uri):
        return dict(_sizes_in(path, ""))
    filesystem.invalidate_cache()
    entries: Any = {}
    with storage.reaching(uri):
        if filesystem.exists(path):
            entries = filesystem.find(path, detail=True)
    root = path.rstrip("/") + "/"
    sizes = {name.removeprefix(root): int(entry["size"]) for name, entry in entries.items() if name.startswith(root)}
    return sizes | _sizes_of_new(uri, sizes)


def _sizes_of_new(uri: str, listed: Collection[str]) -> dict[str, int]:
    """Return the bytes of files in a bucket that were written just now, where an old listing lacks them."""
    found = {}
    for name in written_files.new_below(uri):
        if name not in listed:
            with contextlib.suppress(DataError):  # another process has removed it
                found[name] = storage.size(storage.join(uri, name))
    return found


def _sizes_in(folder: str, prefix: str) -> Iterator[tuple[str, int]]:
    try:
        folders, entries = [], os.scandir(folder)
    except OSError:  # absent, or not to be read: it holds nothing
        return
    with entries:
        for entry in entries:
            if entry.is_dir():
                folders.append(entry.name)
                continue
            try:
                yield prefix + entry.name, entry.stat().st_size
            except OSError:  # a link that leads nowhere has no size, and is as good as a file that is not there
                yield prefix + entry.name, -1
    for name in folders:
        yield from _sizes_in(os.path.join(folder, name), f"{prefix}{name}/")


def put_in_place(source: str, target: str) -> None:
    """Let a complete folder take the place of another; what was there stays whole until then and is removed after.

    A call that is cut off leaves `source` whole, and the same call goes on.

    Args:
        source: the complete folder, beside `target`.
        target: where it belongs.

    Raises:
        ResourceError: when the place cannot be written.
    """
    filesystem, path = storage.resolve(target)
    _, source_path = storage.resolve(source)
    try:
        if storage.is_remote(target):
            with storage.reaching(target):
                storage.remove_tree(storage.join(target, LAST_NAME))
                storage.remove_tree(target)
                _copy(source, target)
                storage.remove_tree(source)
            filesystem.invalidate_cache()
            return
        _sync(Path(source_path))
        old = f"{path}{_OLD}{uuid.uuid4().hex[:8]}"
        if os.path.lexists(path):
            if not os.path.isdir(path):
                raise NotADirectoryError(f"a file lies there, and a folder is to take its place: {path}")
            os.rename(path, old)
        os.rename(source_path, path)
        _sync_folder(Path(path).parent)
        remove_replaced(target)
    except OSError as error:
        raise ResourceError(f"{target} cannot be written: {error}. Check the permissions and the free space") from error


def _copy(source: str, target: str) -> None:
    filesystem, path = storage.resolve(target)
    for name in sorted(sizes_below(source), key=lambda name: name == LAST_NAME):
        one = storage.join(source, name)
        try:
            filesystem.cp_file(storage.resolve(one)[1], f"{path}/{name}")
        except FileNotFoundError:
            # A listing of some seconds ago names what has been removed since.
            if storage.exists(one):
                raise


def move_tree(source: str, target: str) -> None:
    """Rename a folder to one that is not there.

    Raises:
        ResourceError: when the place cannot be written.
    """
    _, path = storage.resolve(source)
    try:
        with storage.reaching(source):
            if storage.is_remote(source):
                _copy(source, target)
                storage.remove_tree(source)
            else:
                os.rename(path, storage.resolve(target)[1])
    except OSError as error:
        raise ResourceError(f"{target} cannot be written: {error}. Check the permissions and the free space") from error


def beside(uri: str, mark: str) -> list[str]:
    """Return the folders beside another whose names are its own with a mark and more behind it."""
    parent, name = uri.rstrip("/").rsplit("/", 1)
    return [found for found in storage.list_folders(parent) if found.rsplit("/", 1)[-1].startswith(f"{name}{mark}")]


def remove_replaced(uri: str) -> None:
    """Remove what lay in a folder's place before it."""
    for old in beside(uri, _OLD):
        path = storage.resolve(old)[1]
        if not storage.is_remote(old) and os.path.islink(path):
            os.unlink(path)
        else:
            storage.remove_tree(old)


def _sync(folder: Path) -> None:
    """Bring all files of a folder to the disk, so that no rename outlives its content in a power cut."""
    files = [path for path in folder.rglob("*") if path.is_file()]
    if len(files) > _MOST_SYNCED:
        os.sync()
        return
    for path in files:
        with path.open("rb") as file:
            os.fsync(file.fileno())
    _sync_folder(folder)


def _sync_folder(folder: Path) -> None:
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
