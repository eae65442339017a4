"""Calls to a tracking server that outlive the server: an ordered journal on disk and a thread that delivers it.

Every call is written to the journal before it is sent, so neither a server that goes away nor a process that is killed
loses one. A journal belongs to one process, which holds a lock on it; the journal of a dead process is taken over by
the next that opens the folder. Delivery is at least once and in order; the receiver makes it once.
"""

import contextlib
import fcntl
import json
import logging
import shutil
import threading
import time
import uuid
from collections import deque
from collections.abc import Callable
from pathlib import Path
from typing import IO, Any

Entry = dict[str, Any]
"""One call: ``kind``, ``run``, ``time`` (milliseconds), and what the kind needs; ``file`` names a kept copy."""

_log = logging.getLogger(__name__)
_FIRST_RETRY_S = 1.0
_LAST_RETRY_S = 30.0
_MAX_BATCH = 200


class DeliveryPostponed(Exception):
    """The server cannot be reached: keep the call and try again."""


class DeliveryRefused(Exception):
    """The server answered that it will never take this call."""


class Journal:
    """The file of one process: JSON lines, locked while the process lives."""

    def __init__(self, folder: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.path = folder / f"{uuid.uuid4().hex}.jsonl"
        # Locked under another name first: nobody can take it for the journal of a dead process in between.
        unborn = self.path.with_suffix(".new")
        self._file: IO[str] = unborn.open("a", encoding="utf-8")
        fcntl.flock(self._file, fcntl.LOCK_EX)
        unborn.rename(self.path)
        self._num_calls = 0

    def append(self, entry: Entry) -> None:
        """Write one call, and number it."""
        self._num_calls += 1
        entry["number"] = self._num_calls
        self._write(entry)

    def note_delivered(self, entries: list[Entry]) -> None:
        """Write down that calls need not be sent again."""
        self._write({"delivered": [entry.get("number") for entry in entries]})

    def _write(self, line: dict[str, Any]) -> None:
        # Closed: the process stopped waiting for a call that was still under way.
        if not self._file.closed:
            self._file.write(json.dumps(line) + "\n")
            self._file.flush()

    def clear(self) -> None:
        """Forget all calls: they are delivered."""
        if not self._file.closed:
            self._file.truncate(0)

    def close(self, *, keep: bool) -> None:
        """Release the file; remove it unless it holds calls to keep."""
        if not keep:
            self.path.unlink(missing_ok=True)
        self._file.close()


def take_over(folder: Path) -> list[tuple[Path, IO[str], list[Entry]]]:
    """Return the journals in a folder whose processes are gone, oldest first, each locked by its open file."""
    taken = []
    for path in folder.glob("*.jsonl"):
        with contextlib.ExitStack() as stack:
            # Another process may take the same journal over, and remove it, at any moment.
            stack.enter_context(contextlib.suppress(FileNotFoundError, BlockingIOError))
            handle = stack.enter_context(path.open("r+", encoding="utf-8"))
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
            modified = path.stat().st_mtime
            taken.append((modified, path, handle, _read_entries(handle, path)))
            stack.pop_all()
    return [(path, handle, entries) for _, path, handle, entries in sorted(taken, key=lambda item: item[0])]


def _read_entries(handle: IO[str], path: Path) -> list[Entry]:
    lines = []
    for text in handle:
        try:
            lines.append(json.loads(text))
        except ValueError:
            # A process killed while it wrote leaves half a line, at the end.
            _log.warning("%s ends in an incomplete call, which is left out", path)
    delivered = {number for line in lines for number in line.get("delivered", ())}
    return [line for line in lines if "delivered" not in line and line.get("number") not in delivered]


def keep_copy(folder: Path, local_path: str) -> str:
    """Copy a file or folder into the spool and return its path there.

    Raises:
        OSError: when it cannot be read, or the disk is full.
    """
    source = Path(local_path)
    target = folder / "files" / uuid.uuid4().hex / source.name
    target.parent.mkdir(parents=True)
    if source.is_dir():
        shutil.copytree(source, target)
    else:
        shutil.copyfile(source, target)
    return str(target.relative_to(folder))


class Outbox:
    """Calls on their way: `put` returns at once, a thread delivers them in order and keeps trying.

    Args:
        folder: local folder of the journal and of the copies of files.
        deliver: sends a list of calls of one run; raises `DeliveryPostponed` or `DeliveryRefused`.
        name: the server as messages name it.
    """

    def __init__(self, folder: Path, deliver: Callable[[list[Entry]], None], name: str) -> None:
        self.folder = folder
        self._deliver = deliver
        self._name = name
        self._journal = Journal(folder)
        self._entries: deque[Entry] = deque()
        self._changed = threading.Condition()
        self._closing = False
        self._hurry = False
        self._away_since: float | None = None
        self._attempts = 0
        self._journal_broken = False
        self.adopt()
        self._thread = threading.Thread(target=self._run, name="tracking-outbox", daemon=True)
        self._thread.start()

    @property
    def is_away(self) -> bool:
        """Whether the last attempt found no server."""
        return self._away_since is not None

    @property
    def num_waiting(self) -> int:
        """Calls that are not delivered yet."""
        return len(self._entries)

    def put(self, entry: Entry) -> None:
        """Take a call; returns at once."""
        with self._changed:
            self._store(entry)
            self._entries.append(entry)
            self._changed.notify_all()

    def adopt(self) -> None:
        """Take over what processes that are gone left in the folder; their calls are older and go first."""
        for path, handle, entries in take_over(self.folder):
            with self._changed:
                for entry in entries:
                    entry["adopted"] = True
                    self._store(entry)
                waiting = [*entries, *self._entries]
                # Runs are begun first: the calls of a worker may belong to a run that only the driver's journal begins.
                self._entries = deque(sorted(waiting, key=lambda entry: entry["kind"] != "create"))
                self._changed.notify_all()
            path.unlink(missing_ok=True)
            handle.close()

    def flush(self, timeout_s: float) -> int:
        """Wait until all is delivered, the server is found away, or nothing has moved for `timeout_s`.

        Returns:
            The number of calls that still wait.
        """
        with self._changed:
            attempts, left = self._attempts, len(self._entries)
            deadline = time.monotonic() + timeout_s
            self._hurry = True
            self._changed.notify_all()
            while self._entries and time.monotonic() < deadline:
                self._changed.wait(0.1)
                if len(self._entries) < left:
                    left, deadline = len(self._entries), time.monotonic() + timeout_s
                if self.is_away and self._attempts > attempts:
                    break
            return len(self._entries)

    def close(self, timeout_s: float, rescue: Callable[[list[Path]], bool] | None = None) -> int:
        """Try once more to deliver what waits, end the thread and keep the rest on disk.

        Args:
            timeout_s: stop waiting when nothing has moved for so long.
            rescue: takes the journal and the files of what is left to a safer place and returns whether it could; they
                are then removed here. Called while the journal is still locked, so that nobody else takes it over.

        Returns:
            The number of calls that were kept.
        """
        with self._changed:
            self._closing = True
            self._changed.notify_all()
        self.flush(timeout_s)
        self._thread.join(timeout=timeout_s)
        left = len(self._entries)
        copies = [self.folder / entry["file"] for entry in self._entries if "file" in entry]
        rescued = left > 0 and rescue is not None and rescue([self._journal.path, *copies])
        self._journal.close(keep=left > 0 and not rescued)
        if left == 0 or rescued:
            for copy in copies:
                shutil.rmtree(copy.parent, ignore_errors=True)
            _remove_if_empty(self.folder / "files")
            _remove_if_empty(self.folder)
        return left

    def _store(self, entry: Entry) -> None:
        try:
            self._journal.append(entry)
        except OSError as error:
            # Training goes on with the calls in memory only; said once.
            if not self._journal_broken:
                _log.warning("tracking calls cannot be kept on disk in %s (%s)", self.folder, error)
            self._journal_broken = True

    def _store_delivered(self, batch: list[Entry]) -> None:
        if not self._entries:
            self._journal.clear()
            return
        # On a full disk the note is missing, and the calls are sent again after a crash: the receiver stores them once.
        with contextlib.suppress(OSError):
            self._journal.note_delivered(batch)

    def _run(self) -> None:
        wait_s = _FIRST_RETRY_S
        while True:
            with self._changed:
                while not self._entries and not self._closing:
                    self._changed.wait()
                if not self._entries:
                    return
                batch = _next_batch(self._entries)
                is_last_try = self._closing
            try:
                self._send(batch)
            except DeliveryPostponed as error:
                self._note_away(error)
                with self._changed:
                    # An attempt that was under way when closing began is not the last one that was promised.
                    if is_last_try:
                        return
                    self._changed.wait_for(lambda: self._closing or self._hurry, timeout=wait_s)
                    self._hurry = False
                wait_s = min(2 * wait_s, _LAST_RETRY_S)
                continue
            wait_s = _FIRST_RETRY_S
            self._note_delivered(batch)

    def _send(self, batch: list[Entry]) -> None:
        try:
            self._deliver(batch)
        except DeliveryRefused as error:
            if len(batch) > 1:
                for entry in batch:
                    self._send([entry])
                return
            self._set_aside(batch[0], error)

    def _set_aside(self, entry: Entry, error: DeliveryRefused) -> None:
        path = self.folder / "refused-calls.log"
        entry["refused"] = str(error)
        _log.warning("the tracking server refused a call (%s): %s. It is kept in %s", entry["kind"], error, path)
        with path.open("a", encoding="utf-8") as handle:
            handle.write(json.dumps(entry) + "\n")

    def _note_away(self, error: DeliveryPostponed) -> None:
        with self._changed:
            self._attempts += 1
            if self._away_since is None:
                self._away_since = time.monotonic()
                _log.warning(
                    "the tracking server %s does not answer (%s). The run goes on; its metrics are kept in %s and sent "
                    "when the server is back",
                    self._name, error, self.folder,
                )  # fmt: skip
            self._changed.notify_all()

    def _note_delivered(self, batch: list[Entry]) -> None:
        with self._changed:
            if self._away_since is not None:
                _log.warning(
                    "the tracking server %s is back after %.0f s", self._name, time.monotonic() - self._away_since
                )
                self._away_since = None
            for entry in batch:
                # By identity and from the left: adopted calls may have been put before this batch meanwhile.
                index = next(i for i, waiting in enumerate(self._entries) if waiting is entry)
                del self._entries[index]
            self._store_delivered(batch)
            self._changed.notify_all()
        for entry in batch:
            if "file" in entry and "refused" not in entry:
                shutil.rmtree((self.folder / entry["file"]).parent, ignore_errors=True)


def _next_batch(entries: deque[Entry]) -> list[Entry]:
    """Return the first call, with the metrics of the same run that follow it when it is one of metrics."""
    first = entries[0]
    if first["kind"] != "metrics":
        return [first]
    batch = []
    for entry in entries:
        if entry["kind"] != "metrics" or entry["run"] != first["run"] or len(batch) == _MAX_BATCH:
            break
        batch.append(entry)
    return batch


def _remove_if_empty(folder: Path) -> None:
    if folder.is_dir() and not any(folder.iterdir()):
        folder.rmdir()
