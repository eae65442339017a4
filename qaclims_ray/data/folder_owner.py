"""One owner per output folder: a mark that says which process writes there, so that a second one stops before work.

The mark is the file `.owner-N.json`. It is made where nobody else can have made it (an exclusive creation, on a disk as
in an object store); whoever finds a dead owner's makes the one with the next number, so of several that find it at once
one alone succeeds. The highest number owns the folder.
"""

import contextlib
import dataclasses
import json
import logging
import os
import re
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from botocore.exceptions import BotoCoreError

from qaclims_ray import stop
from qaclims_ray.data import storage
from qaclims_ray.data.process_identity import ProcessIdentity, this_process
from qaclims_ray.errors import DataError, QaclimsError, ResourceError

logger = logging.getLogger(__name__)

RENEW_S = 30.0
"""Seconds between two signs of life in the mark."""
STALE_S = 300.0
"""Seconds without one after which an owner on another machine counts as dead; more than clocks differ by."""
_NAME = re.compile(r"/\.owner-(\d+)\.json$")
_EXCLUSIVE = ("s3", "s3a", "gs", "gcs", "memory")
"""Stores whose clients can make an object on condition that there is none."""
_READ_BACK_S = 2.0
"""Seconds after which, of two that wrote at once, the one whose mark stays can be read."""
_UNWRITTEN_S = 2.0
"""Seconds that a mark may be there without its content."""
_PATIENCE_S = 2.0
"""Seconds that the end of a run waits for a sign of life that is being given."""
_LOOK_S = 1.0
"""Seconds between two looks for a sign of life."""
_TRIES = 8
"""Times that a folder is tried for that others take and leave."""
_LOST = 2
"""Exit code of a run whose folder was taken over."""


@dataclass(frozen=True, kw_only=True)
class FolderOwner:
    """Who writes in a folder."""

    process: ProcessIdentity
    """The process."""
    since: str
    """When it took the folder, UTC."""
    command: str
    """What it was called as."""
    token: str
    """Tells this ownership from every other."""
    renewed: float
    """Its last sign of life, in seconds since 1970."""

    def refusal(self, uri: str) -> ResourceError:
        """Return what a second one is told."""
        process = self.process
        told = (
            f"{uri} is in use by another run: `{self.command}` on {process.host}, process {process.pid}, since "
            f"{self.since}. Wait until it ends, stop it there (kill {process.pid}), or give another --out"
        )
        if not process.is_near():
            told += (
                f". It lives: it gave a sign at {_utc(self.renewed)}; {STALE_S / 60:.0f} minutes without one, and the "
                "folder is free"
            )
        return ResourceError(told)


def is_owner_mark(uri: str) -> bool:
    """Whether a file says who owns the folder that it lies in."""
    return _NAME.search(uri) is not None


@contextlib.contextmanager
def owning(uri: str, command: str, *, clock: Callable[[], float] = time.time) -> Iterator[None]:
    """Own a folder for the time of the context.

    Args:
        uri: folder, a path or URI; made if it is not there.
        command: what this process was called as, for a second one's message.
        clock: seconds since 1970.

    Raises:
        ResourceError: when a living process owns it, or it cannot be written.
    """
    was_there = storage.is_remote(uri) or os.path.isdir(uri)
    mark = _take(uri, command, clock)
    is_over = threading.Event()
    threading.Thread(target=mark.keep_alive, args=(is_over, clock), daemon=True).start()

    def release() -> None:
        is_over.set()
        mark.release()
        if not was_there:
            with contextlib.suppress(OSError):  # what is not empty stays
                os.rmdir(uri)

    with stop.undone_at_last(release):
        try:
            yield
        finally:
            release()


@dataclass(frozen=True)
class _Mark:
    folder: str
    number: int
    owner: FolderOwner
    lock: threading.Lock = dataclasses.field(default_factory=threading.Lock)

    @property
    def uri(self) -> str:
        return _mark_uri(self.folder, self.number)

    def keep_alive(self, is_over: threading.Event, clock: Callable[[], float]) -> None:
        """Renew the mark until it is over; a folder that another one has taken ends the run."""
        while not is_over.wait(RENEW_S):
            try:
                with self.lock:
                    if is_over.is_set():
                        return
                    is_ours = self.renew(clock())
            except (OSError, QaclimsError, BotoCoreError):
                continue  # a store that is away for a while; an owner is given up after many signs only
            if not is_ours:
                told = f"ResourceError: {self.folder} was taken over by another run while this one gave no sign"
                stop.end(f"{told}; {stop.KEPT} when that has ended", _LOST)
                return

    def renew(self, now: float) -> bool:
        """Give a sign of life; return False where the folder has another owner by now."""
        if max(_numbers(self.folder), default=0) != self.number or not self._is_ours():
            return False
        storage.write_bytes(self.uri, _content(dataclasses.replace(self.owner, renewed=now)))
        return True

    def release(self) -> None:
        """Remove the mark, where it is still this one's."""
        # A sign of life that is under way may wait for a store, and this may be the last thing that a process does.
        is_free = self.lock.acquire(timeout=_PATIENCE_S)
        try:
            with contextlib.suppress(OSError, QaclimsError, BotoCoreError):
                if self._is_ours():
                    storage.remove_tree(self.uri)
        finally:
            if is_free:
                self.lock.release()

    def _is_ours(self) -> bool:
        found = _read(self.uri)
        return found is not None and found.token == self.owner.token


def _take(folder: str, command: str, clock: Callable[[], float]) -> _Mark:
    for _ in range(_TRIES):
        numbers, now = _numbers(folder), clock()
        owners = {number: _read(_mark_uri(folder, number)) for number in numbers}
        for number, owner in owners.items():
            if owner is not None and (living := _as_alive(_mark_uri(folder, number), owner, clock)) is not None:
                raise living.refusal(folder)
        owner = FolderOwner(
            process=this_process(), since=_utc(now), command=command, token=uuid.uuid4().hex, renewed=now
        )
        mark = _Mark(folder, max(numbers, default=0) + 1, owner)
        if not _create(mark.uri, _content(owner)):
            continue  # another was faster: look at it
        # What was listed may be old by now: then the folder has a mark with a higher number.
        if not mark.renew(clock()):
            mark.release()
            continue
        for number, dead in owners.items():
            storage.remove_tree(_mark_uri(folder, number))
            if dead is not None and not dead.process.is_near():
                logger.warning(
                    "%s is taken over from %s, silent since %s", folder, dead.process.host, _utc(dead.renewed)
                )
        return mark
    raise ResourceError(f"several runs are taking {folder} at once; start one alone")


def _as_alive(uri: str, owner: FolderOwner, clock: Callable[[], float]) -> FolderOwner | None:
    """Return the owner where it may still write: by its process where that can be seen, else by its signs of life.

    An owner elsewhere is waited for, because the run of a lost machine is started again within minutes.
    """
    if owner.process.is_near():
        return owner if owner.process.is_alive() else None
    if (now := clock()) - owner.renewed < STALE_S:
        until = min(owner.renewed, now) + STALE_S
        logger.warning(
            "%s belongs to process %d on %s; waiting for a sign that it lives, until %s at most",
            *(uri.rpartition("/")[0], owner.process.pid, owner.process.host, _utc(until)),
        )
    # By a clock that only counts too: one of the two machines' may have been set back by hours since the last sign.
    silent_at = time.monotonic() + STALE_S
    while clock() - owner.renewed < STALE_S and time.monotonic() < silent_at:
        found = _read(uri)
        if found is None or found.token != owner.token:
            return None
        if found.renewed != owner.renewed:
            return found
        time.sleep(_LOOK_S)
    return None


def _numbers(folder: str) -> list[int]:
    return [int(found[1]) for uri in storage.list_files(folder, ".json") if (found := _NAME.search(uri))]


def _mark_uri(folder: str, number: int) -> str:
    return storage.join(folder, f".owner-{number}.json")


def _content(owner: FolderOwner) -> bytes:
    return json.dumps(dataclasses.asdict(owner), indent=2).encode()


def _read(uri: str) -> FolderOwner | None:
    """Return who a mark names; None where it is gone, or was left before it was written."""
    deadline = time.monotonic() + _UNWRITTEN_S
    while True:
        try:
            found: dict[str, Any] = json.loads(storage.read_bytes(uri))
            found["process"] = ProcessIdentity(**found["process"])
            return FolderOwner(**found)
        except DataError:
            return None
        except (ValueError, TypeError, KeyError):
            if time.monotonic() > deadline:
                return None
            time.sleep(0.1)


def _create(uri: str, content: bytes) -> bool:
    """Write a file that is not there; return False where it is.

    Raises:
        ResourceError: when the place cannot be written.
    """
    try:
        return _create_object(uri, content) if storage.is_remote(uri) else _create_file(Path(uri), content)
    except (OSError, BotoCoreError) as error:
        raise ResourceError(f"{uri} cannot be written: {error}. Check the permissions and the free space") from error


def _create_file(path: Path, content: bytes) -> bool:
    path.parent.mkdir(parents=True, exist_ok=True)
    try:
        file = path.open("xb", buffering=0)
    except FileExistsError:
        return False
    try:
        with file:
            file.write(content)
    except OSError:  # a full disk
        path.unlink()
        raise
    return True


def _create_object(uri: str, content: bytes) -> bool:
    filesystem, path = storage.resolve(uri)
    try:
        filesystem.pipe_file(path, content, mode="create")
    except OSError:
        # Stores, and versions of their clients, say in different ways that the condition does not hold.
        if storage.exists(uri):
            return False
        raise
    if uri.partition("://")[0] in _EXCLUSIVE and _keeps_condition(filesystem, path, content):
        return True
    logger.warning("%s does not promise that one of two runs that start together is refused; start one at a time", uri)
    time.sleep(_READ_BACK_S)  # the last of two writers stays, and only then finds itself there
    return True


def _keeps_condition(filesystem: Any, path: str, content: bytes) -> bool:
    """Whether a store refuses to make an object that is there; one that does not writes it once more, the same."""
    try:
        filesystem.pipe_file(path, content, mode="create")
    except OSError:
        return True
    return False


def _utc(seconds: float) -> str:
    return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%d %H:%M:%S UTC")
