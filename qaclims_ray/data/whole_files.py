"""The files of a finished artefact: the list of their sizes and SHA-256 hashes, and reading that holds them to it.

Parts of an artefact in the making have a note beside them that holds their hash, so that a call which goes on with
them knows a part that was damaged in between; the list takes the notes' place.

``files.json`` lies beside ``meta.json``. Sizes are looked at whenever an artefact is, hashes when a file is read. A
file that is not the one that was written raises `DamagedError` and leaves a mark, by which the next run makes the
artefact again.
"""

import contextlib
import hashlib
import json
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from qaclims_ray.data import storage, trees, written_files
from qaclims_ray.data.slices import each_in_threads, in_threads
from qaclims_ray.errors import ArtifactError, DamagedError, DataError, ResourceError

LIST_NAME = "files.json"
"""The list of an artefact's files."""
MARK_NAME = "damaged.txt"
"""Names a file that was found to be another than was written."""
CURVES_NAME = "curves.json"
"""Training curves beside a network: listed, but no reason to train it again."""
_UNLISTED = (LIST_NAME, MARK_NAME, trees.LAST_NAME)
_PARTIAL = ".partial-"
_NOTE = ".sha256"
"""Behind the name of a part: the note of its hash."""


@dataclass(frozen=True, slots=True)
class FileMark:
    """What a file is known by."""

    num_bytes: int
    """Its size."""
    sha256: str
    """Its hash, in hex digits."""


_MOST_KEPT_BYTES = 1 << 24
"""Of a list that is kept after it was read: some hundred thousand files, which are parts; read whole, others are not
asked for again."""
_latest: tuple[bytes, Mapping[str, FileMark]] = (b"", {})
"""Hash and content of the list that was asked for last."""


def write_list(folder: str) -> str:
    """List all files below a folder, and remove the notes of parts and what a killed writer left half written.

    Args:
        folder: the finished artefact, without ``meta.json``.

    Returns:
        Hash of the list, and so of all that the artefact holds.

    Raises:
        ResourceError: when the place cannot be written.
    """
    sizes = trees.sizes_below(folder)
    names = sorted(name for name in sizes if not _is_passing(name) and name.rsplit("/", 1)[-1] not in _UNLISTED)
    with each_in_threads(lambda name: _hash_of(storage.join(folder, name)), names) as hashes:
        marks = (_marked(name, sizes[name], found) for name, found in zip(names, hashes, strict=True) if found)
        # What `json.dumps` with an indent of 0 writes, without a dictionary for each of a million files.
        content = ("{\n" + ",\n".join(marks) + "\n}" if names else "{}").encode()
    storage.write_bytes(storage.join(folder, LIST_NAME), content)
    # After the list is there: a part is never without a hash.
    passing = [storage.join(folder, name) for name in sizes if _is_passing(name)]
    in_threads(storage.remove_tree, passing)
    return hashlib.sha256(content).hexdigest()


def _hash_of(uri: str) -> str:
    """Return the hash of a file; empty where a bucket's listing of some seconds ago names one that is gone."""
    try:
        return storage.sha256(uri)
    except DataError:
        if not storage.is_remote(uri) or storage.exists(uri):
            raise
        return ""


def _marked(name: str, num_bytes: int, sha256: str) -> str:
    return f'{json.dumps(name)}: {{\n"bytes": {num_bytes},\n"sha256": "{sha256}"\n}}'


def _is_passing(name: str) -> bool:
    """Whether a file is of an artefact in the making alone."""
    return _PARTIAL in name or name.endswith(_NOTE)


@contextlib.contextmanager
def publishing_part(uri: str) -> Iterator[str]:
    """Yield a local path to write, as `storage.publishing` does, for a part that a stopped call will be asked for.

    Raises:
        ResourceError: when the place cannot be written or is full.
    """
    with storage.publishing(uri) as path:
        yield path
        # Before the part: one that is there has its note.
        storage.write_bytes(uri + _NOTE, storage.sha256(path).encode())


def is_whole_part(uri: str) -> bool:
    """Whether a part is there and holds what `publishing_part` wrote; one without a note is taken as it is.

    One in a bucket is not read: the store holds it to a checksum of its own.
    """
    try:
        if not storage.exists(uri):
            return False
        if storage.is_remote(uri):
            written_files.remember([uri])
            return True
        if not storage.exists(uri + _NOTE):  # of an earlier version
            return True
        return storage.read_bytes(uri + _NOTE).decode(errors="replace") == storage.sha256(uri)
    except DataError:
        return False


def take_on(folder: str) -> None:
    """Make a folder whose files are listed one in the making again: what is not as listed goes, and the list itself.

    For what is whole in a damaged artefact, and for a workshop whose files were listed when its call was cut off. One
    without a list stays as it is; where the list is broken, nothing is known of any file, and all goes.

    Raises:
        ResourceError: when the place cannot be written.
    """
    path = storage.join(folder, LIST_NAME)
    if not storage.exists(path):
        return
    try:
        listed = _parsed(storage.read_bytes(path), path)
    except (DataError, ArtifactError):
        storage.remove_tree(folder)
        return
    places = [storage.join(folder, name) for name in listed]
    are_whole = in_threads(lambda pair: _is_file_of(*pair), zip(places, listed.values(), strict=True))
    for place, is_whole in zip(places, are_whole, strict=True):
        if not is_whole:
            storage.remove_tree(place)
    for name in (trees.LAST_NAME, MARK_NAME, LIST_NAME):
        storage.remove_tree(storage.join(folder, name))


def is_as_listed(uri: str) -> bool:
    """Whether a file is there and is what its artefact lists, if it lists it; leaves no mark where it is not."""
    found = _listed(uri)
    return storage.exists(uri) if found is None else storage.exists(uri) and _is_file_of(uri, found[2])


def _is_file_of(path: str, mark: FileMark) -> bool:
    try:
        return storage.sha256(path) == mark.sha256
    except DataError:
        return False


def faults_of(folder: str, content: str) -> dict[str, str]:
    """Say what is not whole in a finished artefact, by sizes and marks alone.

    Args:
        folder: the artefact.
        content: what `write_list` returned.

    Returns:
        Name of a file -> what is wrong with it; empty where all are there.
    """
    path = storage.join(folder, LIST_NAME)
    if not storage.exists(path):
        return {LIST_NAME: "is missing"}
    try:
        listing = storage.read_bytes(path)
        if hashlib.sha256(listing).hexdigest() != content:
            return {LIST_NAME: "is not the list that was written"}
        listed = _parsed(listing, path)
        marked = storage.join(folder, MARK_NAME)
        faults = {storage.read_bytes(marked).decode(): "was changed"} if storage.exists(marked) else {}
    except (DataError, ArtifactError, UnicodeDecodeError) as error:
        return {LIST_NAME: str(error)}
    sizes = trees.sizes_below(folder)
    for name, mark in listed.items():
        if name == CURVES_NAME:
            continue
        if name not in sizes:
            # A bucket's listing may be some seconds old.
            if not (storage.is_remote(folder) and storage.exists(storage.join(folder, name))):
                faults[name] = "is missing"
        elif sizes[name] != mark.num_bytes:
            faults[name] = f"has {sizes[name]} bytes, {mark.num_bytes} were written"
    return faults


def read_whole(uri: str) -> bytes:
    """Return a file's bytes, after making sure that they are those that were written, where its artefact lists it.

    Raises:
        DataError: when it is not there or may not be read.
        DamagedError: when it was changed.
    """
    content = storage.read_bytes(uri)
    if (found := _listed(uri)) is not None:
        folder, name, mark = found
        if hashlib.sha256(content).hexdigest() != mark.sha256:
            raise _damaged(folder, name)
    return content


@contextlib.contextmanager
def whole_copy(uri: str) -> Iterator[str]:
    """Yield a local path of a file or folder, after making sure that it holds what was written; see `read_whole`.

    A folder that is local already is not looked at: those who read its files do.
    """
    with storage.local_copy(uri) as path:
        if (found := _listed(uri)) is not None:
            folder, name, mark = found
            if storage.sha256(path) != mark.sha256:
                raise _damaged(folder, name)
        elif storage.is_remote(uri):
            for name, mark in (listed_files(uri) or {}).items():
                if name != CURVES_NAME and storage.sha256(storage.join(path, name)) != mark.sha256:
                    raise _damaged(uri, name)
        yield path


@contextlib.contextmanager
def laying_blame(uri: str) -> Iterator[None]:
    """Tell a file that a run made itself, and that cannot be read because it was changed, from one that people gave.

    For files that hold checksums of their own, such as PNGs: one that cannot be read is held to its list.

    Raises:
        DamagedError: where reading it raised a `DataError` and its artefact lists it otherwise.
    """
    try:
        yield
    except DataError:
        if storage.exists(uri):
            read_whole(uri)
        raise


def check_files(folder: str, names: Collection[str]) -> None:
    """Hold files of an artefact to its list, several at a time; for those that are read again and again afterwards.

    Raises:
        DataError: when one is not there or may not be read.
        DamagedError: when one was changed.
    """
    listed = listed_files(folder)
    if listed is None:
        return
    wanted = [name for name in names if name in listed]
    with each_in_threads(lambda name: storage.sha256(storage.join(folder, name)), wanted) as hashes:
        for name, found in zip(wanted, hashes, strict=True):
            if found != listed[name].sha256:
                raise _damaged(folder, name)


def _listed(uri: str) -> tuple[str, str, FileMark] | None:
    """Return the artefact that lists a file, its name there and its mark; None where none does."""
    folder, _, name = uri.rpartition("/")
    for _ in range(2):  # a network has folders of its own: prompts, its calibrated twin
        if not folder:
            return None
        listed = listed_files(folder)
        if listed is not None:
            return (folder, name, listed[name]) if name in listed else None
        folder, _, parent = folder.rpartition("/")
        name = f"{parent}/{name}"
    return None


def listed_files(folder: str) -> Mapping[str, FileMark] | None:
    """Return the files of a finished artefact by name; None where nothing finished lies there, or nothing is listed.

    Raises:
        ArtifactError: when the list cannot be read.
    """
    path = storage.join(folder, LIST_NAME)
    # A list without a meta is of a folder in the making, or half removed.
    if not (storage.exists(path) and storage.exists(storage.join(folder, trees.LAST_NAME))):
        return None
    return _parsed(storage.read_bytes(path), path)


def _parsed(content: bytes, path: str) -> Mapping[str, FileMark]:
    """Return what a list says; one that was asked for just now is not read again.

    Those who read an artefact of many parts ask for its list with each part.
    """
    global _latest
    key = hashlib.sha256(content).digest()
    if key == _latest[0]:
        return _latest[1]
    listed = _marks_of(content, path)
    if len(content) <= _MOST_KEPT_BYTES:
        _latest = key, listed
    return listed


def _marks_of(content: bytes, path: str) -> Mapping[str, FileMark]:
    try:
        listed = json.loads(content, object_hook=_mark_or_list)
        if not all(isinstance(mark, FileMark) for mark in listed.values()):
            raise TypeError("an entry has no size or no hash")
        return listed
    except (ValueError, TypeError, AttributeError, OverflowError, RecursionError) as error:
        raise ArtifactError(f"{path} is broken ({error})") from None


def _mark_or_list(found: dict[str, Any]) -> Any:
    """Return an entry of a list as it is kept, as soon as it is parsed; the list itself as it is."""
    num_bytes = found.get("bytes")
    if num_bytes is None or "sha256" not in found or isinstance(num_bytes, FileMark):
        return found
    return FileMark(int(num_bytes), str(found["sha256"]))


def _damaged(folder: str, name: str) -> DamagedError:
    with contextlib.suppress(ResourceError):  # a folder that may only be read is told of all the same
        storage.write_bytes(storage.join(folder, MARK_NAME), name.encode())
    return DamagedError(folder, name)
