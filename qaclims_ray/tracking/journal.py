"""The calls of one process that are not delivered yet, in an SQLite file that is locked while the process lives.

Each process has a file of its own, in SQLite's exclusive locking mode: several machines that write into one database
over NFS can break it, and a call must not wait for a lock. The operating system lifts the lock of a process that is
killed, and whoever opens the file next undoes a write that was cut short. Not in WAL mode, which needs a second file
to be whole and, where several processes look, shared memory, which NFS has not.
"""

import contextlib
import json
import sqlite3
from collections.abc import Collection
from pathlib import Path
from typing import Any

Entry = dict[str, Any]
"""One call: ``kind``, ``run``, ``time`` (milliseconds), and what the kind needs; ``file`` names a kept copy."""

_SCHEMA = "CREATE TABLE calls (number INTEGER PRIMARY KEY, entry TEXT NOT NULL);"
# Of two that try to take over the same file at once, one gets it within this; a living process never gives way.
_BUSY_TIMEOUT_S = 0.02
_JSON_LINES = "an earlier version wrote it, as JSON lines: send it with `qaclims sync` of the version that wrote it"


class Journal:
    """Calls by number, in memory and, as far as the disk takes them, in the file, which the first call makes.

    Args:
        path: the file; names sort by age.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.calls: dict[int, Entry] = {}
        self._num_added = 0
        self._db: sqlite3.Connection | None = None

    def add(self, entry: Entry) -> None:
        """Take a call, then write it down.

        Raises:
            OSError, sqlite3.Error: when it cannot be written; it is in `calls` all the same.
        """
        self._num_added += 1
        self.calls[self._num_added] = entry
        if self._db is None:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            self._db = _open(self.path, "rwc", _SCHEMA)
        self._db.execute("INSERT INTO calls VALUES (?, ?)", (self._num_added, json.dumps(entry)))

    def read(self) -> None:
        """Lock the file of a process that is gone, and read its calls.

        Raises:
            OSError, sqlite3.Error, ValueError: when the process lives, or the file is gone, damaged or no journal.
        """
        self._db = _open(self.path, "rw")
        self.path.stat()  # still there, now that it is locked
        for number, text in self._db.execute("SELECT number, entry FROM calls ORDER BY number"):
            self.calls[number] = json.loads(text) | {"adopted": True}

    def remove(self, numbers: Collection[int]) -> None:
        """Forget calls: they are delivered."""
        for number in numbers:
            del self.calls[number]
        # Where the disk refuses, they are sent again after a crash: the receiver stores them once.
        with contextlib.suppress(sqlite3.Error):
            if self._db is not None:
                self._db.executemany("DELETE FROM calls WHERE number = ?", [(number,) for number in numbers])

    def content(self) -> bytes:
        """Return the file's content. To open the file, even to read it, would lift this process's lock (POSIX)."""
        return b"" if self._db is None else self._db.serialize()

    def close(self, *, keep: bool) -> None:
        """Release the file; remove it unless it is to be kept."""
        if not keep:
            self.path.unlink(missing_ok=True)
        if self._db is not None:
            self._db.close()


def take_over(folder: Path) -> tuple[list[Journal], dict[Path, str]]:
    """Return the journals in a folder whose processes are gone, oldest first, and why other files cannot be read."""
    taken, unreadable = [], dict.fromkeys(folder.glob("*.jsonl"), _JSON_LINES)
    for path in sorted(folder.glob("*.sqlite")):
        journal = Journal(path)
        try:
            # One that is still empty is about to be locked by its process.
            if path.stat().st_size > 0:
                journal.read()
                taken.append(journal)
        except (OSError, sqlite3.Error, ValueError) as error:
            journal.close(keep=True)
            # Another process may take the same journal over, and remove it, at any moment.
            with contextlib.suppress(FileNotFoundError):
                if getattr(error, "sqlite_errorcode", None) != sqlite3.SQLITE_BUSY and path.stat().st_size > 0:
                    unreadable[path] = f"it is damaged, or no journal ({error})"
    # SQLite's own second file, of a process that was killed after it had removed the first (`Journal.close`).
    for path in folder.glob("*.sqlite-journal"):
        if not path.with_suffix(".sqlite").exists():
            path.unlink(missing_ok=True)
    return taken, unreadable


def _open(path: Path, mode: str, schema: str = "") -> sqlite3.Connection:
    uri = f"{path.absolute().as_uri()}?mode={mode}"
    db = sqlite3.connect(uri, timeout=_BUSY_TIMEOUT_S, uri=True, isolation_level=None, check_same_thread=False)
    # Not synchronous: the kernel has what a killed process wrote, and a logging call must not wait for a disk or for
    # NFS. A machine that loses its power may leave a damaged file, which is told.
    # The lock is taken before the mode is exclusive: of two that try at once, the loser then lets go of its share.
    script = f"PRAGMA synchronous = OFF; BEGIN EXCLUSIVE; PRAGMA locking_mode = EXCLUSIVE; {schema} COMMIT;"
    try:
        db.executescript(script)
    except sqlite3.Error:
        db.close()
        raise
    return db
