"""Which process something belongs to, and whether it still lives: also where process ids are used again."""

import os
import socket
from dataclasses import dataclass

import psutil

_SAME_START_S = 2.0
"""Two readings of one process's start differ by less."""
_PID_SPACE = "/proc/self/ns/pid"


@dataclass(frozen=True)
class ProcessIdentity:
    """A process, told from all others of all machines."""

    host: str
    """Name of its machine."""
    pid_space: str
    """What its process ids count in; containers of one host name may have different ones. Empty where unknown."""
    pid: int
    """Process id."""
    started: float
    """Seconds from the machine's start to its own, which no setting of the clock changes."""

    def is_near(self) -> bool:
        """Whether this process can see it: same machine, same process ids."""
        here = this_process()
        return (self.host, self.pid_space) == (here.host, here.pid_space)

    def is_alive(self) -> bool:
        """Whether it still runs; only for one that is near."""
        started = _started(self.pid)
        return started is not None and abs(started - self.started) < _SAME_START_S


def this_process() -> ProcessIdentity:
    """Return the process that asks."""
    pid_space = os.readlink(_PID_SPACE) if os.path.islink(_PID_SPACE) else ""
    started = _started(os.getpid())
    assert started is not None
    return ProcessIdentity(socket.gethostname(), pid_space, os.getpid(), started)


def _started(pid: int) -> float | None:
    """Return when a process started, None where there is none or only what its parent has not yet taken note of."""
    try:
        process = psutil.Process(pid)
        if process.status() == psutil.STATUS_ZOMBIE:
            return None
        return process.create_time() - psutil.boot_time()
    except psutil.NoSuchProcess:
        return None
