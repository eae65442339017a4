"""How long a run waits for work on Ray that gives no sign of progress, and what it says then.

A lost machine, a dead service, a full disk are told as such, at once. This is for what says nothing: a file system or
a device that hangs, a cluster that never has room.
"""

import contextlib
from collections.abc import Iterator

from qaclims_ray.errors import ResourceError

_patience_s: float | None = None


@contextlib.contextmanager
def patient_for(minutes: float | None) -> Iterator[None]:
    """Let what this process waits for be silent for so long, for the time of the context; None is for ever."""
    global _patience_s
    before, _patience_s = _patience_s, None if minutes is None else 60 * minutes
    try:
        yield
    finally:
        _patience_s = before


def patience_s() -> float | None:
    """Return the longest silence, in seconds; None where there is no bound."""
    return _patience_s


def out_of_patience(what: str) -> ResourceError:
    """Return the error that says that the longest silence is over.

    Args:
        what: what was waited for, and how far it is.
    """
    assert _patience_s is not None
    return ResourceError(
        f"{what} has given no sign of progress for {_patience_s / 60:g} minutes (cluster.no_progress_minutes). A file "
        "system or a device may hang, or the cluster has no room: look at its free CPUs and GPUs, and at Ray's logs. "
        "What is finished is kept; run the same command again to go on"
    )
