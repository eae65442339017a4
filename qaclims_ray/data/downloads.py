"""Bringing files from the web: from several mirrors, going on where a connection broke, whole under its name or not.

What is there so far lies beside the place as ``NAME.unfinished``, and stays when a download fails: the next one goes on
with it. A file gets its name once its size and, where one is known, its checksum are right.
"""

import contextlib
import errno
import fcntl
import hashlib
import json
import os
import re
import shutil
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from io import FileIO
from pathlib import Path
from typing import TYPE_CHECKING

from qaclims_ray.errors import ResourceError

if TYPE_CHECKING:
    from requests import Response

UNFINISHED = ".unfinished"
"""Ending of a file that is being brought."""
_CHUNK_BYTES = 1 << 20
_TIMEOUT_S = 30.0
"""Seconds without an answer, or without a byte, after which a mirror counts as dead."""
_TRIES = 4
"""Connections to one mirror that brought something and broke, before the next one is asked."""
_DISK_ERRORS = (errno.ENOSPC, errno.EDQUOT)
_SHA256 = re.compile(r"[0-9a-f]{64}")
_NO_SPACE = "the disk is full"

Told = Callable[[int, int], None]
"""Called with the bytes that are there and those of the whole file, 0 where that is not known."""


class _MirrorError(Exception):
    """Why a mirror did not bring the file."""


@dataclass(frozen=True)
class Checksum:
    """What a file is held to."""

    kind: str
    """sha256 or md5."""
    digits: str
    """Hex digits, of sha256 also the first of them alone."""


@dataclass(frozen=True)
class Wanted:
    """A file to bring."""

    path: Path
    """Where it shall lie."""
    urls: tuple[str, ...]
    """Where it can be had, the best first."""
    checksum: Checksum | None = None
    """What it must hash to; None takes what the server says, where it says something."""
    by_hand: str = ""
    """Where a person can take it."""


@dataclass
class _Unfinished:
    """What is there so far, and which server's file it is the start of."""

    path: Path
    handle: FileIO
    size: int = 0
    total: int = 0
    tag: str = ""
    """The server's name for this version of the file."""
    sha256: str = ""
    """The server's own word for the hash."""

    @property
    def note(self) -> Path:
        return self.path.with_name(f"{self.path.name}.json")

    def start_anew(self) -> None:
        if self.size:
            self.handle.truncate(0)
        self.size, self.total, self.tag, self.sha256 = 0, 0, "", ""


def bring_file(wanted: Wanted, told: Told = lambda done, total: None) -> bool:
    """Bring a file, unless it is there; return whether it was brought.

    Raises:
        ResourceError: when no mirror brings it, naming what each answered and where to put the file by hand; when the
            disk is full; when another process is bringing it, or what lies there is another file.
    """
    if wanted.path.exists():
        _check_present(wanted)
        return False
    wanted.path.parent.mkdir(parents=True, exist_ok=True)
    failures: list[str] = []
    with _part_of(wanted.path) as part:
        for url in wanted.urls:
            try:
                _bring(url, part, wanted, told)
            except _MirrorError as error:
                failures.append(f"{url}: {error}")
                continue
            os.fsync(part.handle.fileno())
            os.replace(part.path, wanted.path)
            part.note.unlink(missing_ok=True)
            return True
        if part.size == 0:
            part.path.unlink(missing_ok=True)
            part.note.unlink(missing_ok=True)
    raise ResourceError(_nothing_brought(wanted, failures))


def _check_present(wanted: Wanted) -> None:
    if wanted.checksum is not None and not _fits(wanted.path, wanted.checksum):
        raise ResourceError(
            f"{wanted.path} lies there already, but its {wanted.checksum.kind} is not {wanted.checksum.digits}: it is "
            "damaged, or another file. Move it away and fetch again"
        )


@contextlib.contextmanager
def _part_of(path: Path) -> Iterator[_Unfinished]:
    """Open what is there of a file, for this process alone."""
    unfinished = path.with_name(path.name + UNFINISHED)
    # Without a buffer: closing would try again to write what a full disk refused.
    with open(unfinished, "a+b", buffering=0) as handle:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            raise ResourceError(f"another process is bringing {path}; wait for it, or end it first") from None
        part = _Unfinished(unfinished, handle, size=os.fstat(handle.fileno()).st_size)
        with contextlib.suppress(OSError, ValueError, TypeError, KeyError, AttributeError):
            known = json.loads(part.note.read_text())
            part.total, part.tag, part.sha256 = int(known["total"]), str(known["tag"]), str(known["sha256"])
        yield part


def _bring(url: str, part: _Unfinished, wanted: Wanted, told: Told) -> None:
    """Bring the rest of a file from one mirror."""
    for attempt in range(_TRIES):
        before = part.size
        try:
            _receive(url, part, wanted, told)
        except _MirrorError:
            # A connection that brought something is tried again, one that brings nothing is not.
            if part.size <= before or attempt == _TRIES - 1:
                raise
            continue
        checksum = wanted.checksum or (Checksum("sha256", part.sha256) if part.sha256 else None)
        if checksum is None or _fits(part.path, checksum):
            return
        part.start_anew()
        if before == 0 or attempt == _TRIES - 1:
            raise _MirrorError(f"what it sent has another {checksum.kind} than {checksum.digits}")
        # It may be the start, which lay there already, that was wrong.


def _receive(url: str, part: _Unfinished, wanted: Wanted, told: Told) -> None:
    import requests

    # With a checksum the start of the file may be another mirror's: in the end it fits or it does not.
    if part.size and wanted.checksum is None and not part.tag:
        part.start_anew()
    # A compressed answer could not be gone on with.
    headers = {"Accept-Encoding": "identity"}
    if part.size:
        headers["Range"] = f"bytes={part.size}-"
        if wanted.checksum is None:
            headers["If-Range"] = part.tag
    try:
        with requests.get(url, headers=headers, stream=True, timeout=_TIMEOUT_S) as answer:
            if _has_rest(answer, part, wanted):
                _write(answer, part, told)
    except requests.RequestException as error:
        raise _MirrorError(_cause(error)) from None
    if part.total and part.size != part.total:
        raise _MirrorError(f"it sent {part.size} of {part.total} bytes")


def _has_rest(answer: "Response", part: _Unfinished, wanted: Wanted) -> bool:
    """Read an answer's head; return whether bytes follow that belong to the part."""
    if answer.status_code == 416 and part.size:  # nothing lies behind what is there
        total = answer.headers.get("Content-Range", "").rpartition("/")[2]
        if total == str(part.size):
            part.total = part.size
            return False
        part.start_anew()
        raise _MirrorError("its file is shorter than what is there so far")
    if not answer.ok:
        raise _MirrorError(f"it answered {answer.status_code} {answer.reason}")
    is_page = answer.headers.get("Content-Type", "").startswith("text/html")
    if is_page and not wanted.path.name.endswith((".html", ".htm")):
        raise _MirrorError("it answered with a web page in place of the file")
    start, total = 0, int(answer.headers.get("Content-Length") or 0)
    if answer.status_code == 206:
        found = re.fullmatch(r"bytes (\d+)-\d+/(\d+|\*)", answer.headers.get("Content-Range", ""))
        start = int(found[1]) if found else -1
        total = int(found[2]) if found and found[2] != "*" else 0
        if start != part.size:
            part.start_anew()
            raise _MirrorError("it sent another part of the file than was asked for")
    else:
        part.start_anew()
    part.total, part.tag = total, answer.headers.get("ETag", "")
    if part.tag.startswith("W/"):  # says that files are alike, not that their bytes are
        part.tag = ""
    # The Hugging Face hub says the hash of a large file where it sends one on to its store.
    said = [each.headers.get("X-Linked-Etag", "").strip('"') for each in (*answer.history, answer)]
    part.sha256 = next((digits for digits in said if _SHA256.fullmatch(digits)), "")
    part.note.write_text(json.dumps({"total": part.total, "tag": part.tag, "sha256": part.sha256}))
    require_space(part.path.parent, part.total - part.size)
    return True


def _write(answer: "Response", part: _Unfinished, told: Told) -> None:
    try:
        for chunk in answer.iter_content(_CHUNK_BYTES):
            rest = memoryview(chunk)
            while rest:
                rest = rest[part.handle.write(rest) :]
            part.size += len(chunk)
            told(part.size, part.total)
    except OSError as error:
        if error.errno not in _DISK_ERRORS:
            raise
        raise ResourceError(
            f"{_NO_SPACE}: {part.path.parent} has no room for the rest of {part.path.name.removesuffix(UNFINISHED)}. "
            "Make room, or give another folder; the same command goes on with what is there"
        ) from None
    finally:
        part.size = os.fstat(part.handle.fileno()).st_size


def require_space(folder: Path, num_bytes: int) -> None:
    """Refuse to begin what the disk has no room for.

    Raises:
        ResourceError: says how much is needed and how much is free.
    """
    free = shutil.disk_usage(folder).free
    if num_bytes > free:
        raise ResourceError(
            f"{_NO_SPACE}: {folder} has {free / 1e9:.1f} GB free, {num_bytes / 1e9:.1f} GB are needed. Make room, or "
            "give another folder"
        )


def _fits(path: Path, checksum: Checksum) -> bool:
    with open(path, "rb") as handle:
        return hashlib.file_digest(handle, checksum.kind).hexdigest().startswith(checksum.digits)


def _cause(error: Exception) -> str:
    """Say in a few words what a library says in many."""
    text = str(error)
    for sign, words in (
        ("Name or service not known", "its name is not known here (no internet?)"),
        ("Temporary failure in name resolution", "its name is not known here (no internet?)"),
        ("Failed to resolve", "its name is not known here (no internet?)"),
        ("Connection refused", "it refuses connections"),
        ("timed out", "it does not answer"),
        ("CERTIFICATE_VERIFY_FAILED", "its certificate is not trusted here"),
        ("IncompleteRead", "the connection broke"),
        ("Connection broken", "the connection broke"),
        ("Connection aborted", "the connection broke"),
    ):
        if sign in text:
            return words
    return f"{type(error).__name__}: {text[:200]}"


def _nothing_brought(wanted: Wanted, failures: Sequence[str]) -> str:
    tried = "".join(f"\n  {failure}" for failure in failures)
    digits = wanted.checksum.digits if wanted.checksum else ""
    kind = "sha256 begins with" if wanted.checksum and not _is_whole(wanted.checksum) else "hash"
    check = f" ({kind} {digits})" if digits else ""
    if not failures:
        page = f" from {wanted.by_hand}" if wanted.by_hand else ""
        return (
            f"{wanted.path.name} cannot be brought from here: take it by hand{page}, and put it at {wanted.path}{check}"
        )
    page = f" (or see {wanted.by_hand})" if wanted.by_hand else ""
    return (
        f"{wanted.path.name} could not be brought:{tried}\nOn a machine with internet take it from one of these{page}, "
        f"and put it at {wanted.path}{check}"
    )


def _is_whole(checksum: Checksum) -> bool:
    return len(checksum.digits) == hashlib.new(checksum.kind).digest_size * 2
