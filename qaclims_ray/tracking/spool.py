"""Calls to a tracking server that outlive the server: a journal on disk and a thread that delivers it in order.

Every call is written to the journal before it is sent, so neither a server that goes away nor a process that is killed
loses one; the journal of a dead process is taken over by the next that opens the folder. A call may be sent twice; the
receiver stores it once.
"""

import contextlib
import json
import logging
import shutil
import sqlite3
import threading
import time
import uuid
from collections.abc import Callable
from itertools import islice
from pathlib import Path

from qaclims_ray.tracking.journal import Entry, Journal, take_over

_log = logging.getLogger(__name__)
_FIRST_RETRY_S = 1.0
_LAST_RETRY_S = 30.0
_MAX_BATCH = 200


class DeliveryPostponed(Exception):
    """The server cannot be reached: keep the call and try again."""


class DeliveryRefused(Exception):
    """The server answered that it will never take this call."""


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
        self.unreadable: dict[Path, str] = {}
        """Files of the spool that are left as they are, and why."""
        self._deliver = deliver
        self._name = name
        self._own = Journal(folder / f"{time.time_ns()}-{uuid.uuid4().hex}.sqlite")
        self._journals = [self._own]
        self._changed = threading.Condition()
        self._closing = self._closed = False
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
        return sum(len(journal.calls) for journal in self._journals)

    def put(self, entry: Entry) -> None:
        """Take a call; returns at once."""
        with self._changed:
            if self._closed:  # nobody would send it
                return
            try:
                self._own.add(entry)
            except (OSError, sqlite3.Error) as error:
                # Training goes on with the calls in memory only; said once.
                if not self._journal_broken:
                    _log.warning("tracking calls cannot be kept on disk in %s (%s)", self.folder, error)
                self._journal_broken = True
            self._changed.notify_all()

    def adopt(self) -> None:
        """Take over what processes that are gone left in the folder; their calls are older and go first."""
        taken, unreadable = take_over(self.folder)
        for path in unreadable.keys() - self.unreadable.keys():
            _log.warning("%s is kept, but not sent: %s", path, unreadable[path])
        self.unreadable |= unreadable
        with self._changed:
            self._journals = [*taken, *self._journals]
            # Runs are begun first: the calls of a worker may belong to a run that only the driver's journal begins.
            for journal in self._journals if taken else ():
                journal.calls = dict(sorted(journal.calls.items(), key=lambda call: call[1]["kind"] != "create"))
            self._drop_delivered()
            self._changed.notify_all()

    def flush(self, timeout_s: float) -> int:
        """Wait until all is delivered, the server is found away, or nothing has moved for `timeout_s`.

        Returns:
            The number of calls that still wait.
        """
        with self._changed:
            attempts, left = self._attempts, self.num_waiting
            deadline = time.monotonic() + timeout_s
            self._hurry = True
            self._changed.notify_all()
            while self.num_waiting and time.monotonic() < deadline:
                self._changed.wait(0.1)
                if self.num_waiting < left:
                    left, deadline = self.num_waiting, time.monotonic() + timeout_s
                # Only an attempt that has failed since: an earlier one says nothing about the server as it is now.
                if self.is_away and self._attempts > attempts:
                    break
            return self.num_waiting

    def close(self, timeout_s: float, rescue: Callable[[dict[Path, bytes], list[Path]], bool] | None = None) -> int:
        """Try once more to deliver what waits, end the thread and keep the rest on disk.

        Args:
            timeout_s: stop waiting when nothing has moved for so long.
            rescue: takes the content of the journals and the copied files of what is left to a safer place and returns
                whether it could; they are then removed here. Called while the journals are still locked, so that
                nobody else takes them over.

        Returns:
            The number of calls that were kept.
        """
        with self._changed:
            self._closing = True
            self._changed.notify_all()
        self.flush(timeout_s)
        self._thread.join(timeout=timeout_s)
        with self._changed:
            self._closed = True
            left = [journal for journal in self._journals if journal.calls]
            num_left = self.num_waiting
            files = [self.folder / entry["file"] for j in left for entry in j.calls.values() if "file" in entry]
            rescued = bool(left and rescue and rescue({j.path: j.content() for j in left}, files))
            for journal in self._journals:
                journal.close(keep=journal in left and not rescued)
        for path in files if rescued else ():
            shutil.rmtree(path.parent, ignore_errors=True)
        for folder in (self.folder / "files", self.folder):
            with contextlib.suppress(OSError):  # not empty
                folder.rmdir()
        return num_left

    def _run(self) -> None:
        wait_s = _FIRST_RETRY_S
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self.num_waiting or self._closing)
                if not self.num_waiting:
                    return
                # The journal that begins a run goes first, then the oldest.
                waiting = [journal for journal in self._journals if journal.calls]
                journal = min(waiting, key=lambda each: next(iter(each.calls.values()))["kind"] != "create")
                batch = _first_batch(journal.calls)
                is_last_try = self._closing
            try:
                self._send(list(batch.values()))
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
            self._note_delivered(journal, batch)

    def _send(self, batch: list[Entry]) -> None:
        try:
            self._deliver(batch)
        except DeliveryRefused as error:
            # One refused call must not take the others with it, so each is sent by itself.
            if len(batch) > 1:
                for entry in batch:
                    self._send([entry])
                return
            self._set_aside(batch[0], error)

    def _set_aside(self, entry: Entry, error: DeliveryRefused) -> None:
        path = self.folder / "refused-calls.log"
        entry["refused"] = str(error)
        _log.warning("the tracking server refused a call (%s): %s. It is kept in %s", entry["kind"], error, path)
        with contextlib.suppress(OSError), path.open("a", encoding="utf-8") as handle:
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

    def _note_delivered(self, journal: Journal, batch: dict[int, Entry]) -> None:
        with self._changed:
            if self._away_since is not None:
                _log.warning(
                    "the tracking server %s is back after %.0f s", self._name, time.monotonic() - self._away_since
                )
                self._away_since = None
            journal.remove(batch)
            self._drop_delivered()
            self._changed.notify_all()
        for entry in batch.values():
            if "file" in entry and "refused" not in entry:
                shutil.rmtree((self.folder / entry["file"]).parent, ignore_errors=True)

    def _drop_delivered(self) -> None:
        for journal in [each for each in self._journals if each is not self._own and not each.calls]:
            self._journals.remove(journal)
            journal.close(keep=False)


def _first_batch(calls: dict[int, Entry]) -> dict[int, Entry]:
    """Return the first call, with the metrics of the same run that follow it when it is one of metrics."""
    batch: dict[int, Entry] = {}
    for number, entry in islice(calls.items(), _MAX_BATCH):
        first = next(iter(batch.values()), entry)
        if batch and (first["kind"], entry["kind"], entry["run"]) != ("metrics", "metrics", first["run"]):
            break
        batch[number] = entry
    return batch
