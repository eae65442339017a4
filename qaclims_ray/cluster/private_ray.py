"""A Ray of this run alone: its start on this machine, and its end with all that it started."""

import contextlib
import functools
import logging
import math
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence

import psutil
import ray

from qaclims_ray import stop
from qaclims_ray.cluster import ray_folder
from qaclims_ray.cluster.ray_deaths import watching_services
from qaclims_ray.errors import QaclimsError, ResourceError
from qaclims_ray.training.checkpoint import SCRATCH_VARIABLE

logger = logging.getLogger(__name__)

SHARED_MEMORY = "/dev/shm"
PREEMPTION_WATCHER = "RAY_TRAIN_ENABLE_PREEMPTION_WATCHER"
"""Ray Train's own switch; workers have it too."""
LEVEL_LINE = b"Set ray log level from environment variable"
_DROP_LEVEL_LINE = f"""
import os, sys
for line in sys.stdin.buffer:
    if {LEVEL_LINE!r} not in line:
        os.write(2, line)
"""


@contextlib.contextmanager
def private_ray(*, num_cpus: int, object_store_mib: int, dashboard: bool) -> Iterator[None]:
    """Start a Ray that listens on the loopback address; end it, and what it left in the temporary directory.

    Args:
        num_cpus: logical CPUs.
        object_store_mib: object store, in MiB.
        dashboard: start the dashboard too.

    Raises:
        ResourceError: when it does not start, in one line.
    """
    require_shared_memory()
    folder = ray_folder.new_ray_folder()
    # One machine that is taken away takes its Ray along, so nobody need watch for the notice.
    with stop.undone_at_last(functools.partial(ray_folder.remove, folder)), _set(PREEMPTION_WATCHER, "0"):
        try:
            _start(folder, num_cpus, object_store_mib << 20, dashboard)
            with watching_services(folder):
                yield
        except Exception as error:
            # A user's mistake says by itself what is wrong. All other trouble needs Ray's logs.
            is_trouble = isinstance(error, ResourceError) or not isinstance(error, QaclimsError)
            if is_trouble and not stop.is_under_way():
                ray_folder.keep(folder)
                logger.warning("Ray's logs of this run are kept in %s", folder)
            raise
        finally:
            _clear(folder)
            ray_folder.remove(folder)


def _start(folder: str, num_cpus: int, object_store_bytes: int, dashboard: bool) -> None:
    """Start Ray, and once more where it fails: it waits 30 s for its own services, which a busy machine exceeds."""
    for is_last in (False, True):
        try:
            _init(folder, num_cpus, object_store_bytes, dashboard)
            return
        # Ray raises what it meets: timeouts, refused ports, full or missing folders come as a dozen types.
        except Exception as error:
            if is_last or stop.is_under_way():
                raise ResourceError(
                    f"Ray could not start on this machine: {one_line(error)}. Try the same command again when less "
                    "runs here; else see Ray's logs, and whether memory, open files (ulimit -n) and free ports suffice"
                ) from error
            logger.warning("Ray did not start and is tried once more: %s", one_line(error))
        _clear(folder)


def _init(folder: str, num_cpus: int, object_store_bytes: int, dashboard: bool) -> None:
    with stop.keeping_handlers(), without_level_line(), _keeping_scratch_in(folder):
        ray.init(
            # Without it ray.init() would join any Ray that runs on this machine.
            address="local",
            num_cpus=num_cpus,
            include_dashboard=dashboard,
            object_store_memory=object_store_bytes,
            log_to_driver=False,
            logging_level=logging.ERROR,
            # No protection by itself: Ray's control service and agents listen everywhere (docs/cluster/aws.md).
            _node_ip_address="127.0.0.1",
            _temp_dir=folder,
            _plasma_directory=_store_folder(folder, object_store_bytes),
        )


def _clear(folder: str) -> None:
    """End what there is of a Ray, by its folder."""
    started = _processes_of(folder)
    ray.shutdown()
    _end(started)


@contextlib.contextmanager
def _keeping_scratch_in(folder: str) -> Iterator[None]:
    """Let processes that start in the context, and theirs, write checkpoints into a Ray's folder: it ends with the Ray.

    Not where that folder lies outside the temporary directory, which the user may have chosen for its size.
    """
    is_default = os.path.dirname(folder) == tempfile.gettempdir()
    with _set(SCRATCH_VARIABLE, folder) if is_default else contextlib.nullcontext():
        yield


@contextlib.contextmanager
def _set(variable: str, value: str) -> Iterator[None]:
    """Set an environment variable for the time of the context, unless the user has."""
    if variable in os.environ:
        yield
        return
    os.environ[variable] = value
    try:
        yield
    finally:
        del os.environ[variable]


def require_shared_memory() -> None:
    """Make sure that processes on this machine can share memory: torch's loaders and the object store do.

    Raises:
        ResourceError: on a Linux without /dev/shm, in one line.
    """
    if sys.platform == "linux" and not (os.path.isdir(SHARED_MEMORY) and os.access(SHARED_MEMORY, os.W_OK)):
        raise ResourceError(
            f"there is no {SHARED_MEMORY} that may be written to, through which Ray and PyTorch share memory between "
            f"processes; mount one: docker run --shm-size=1g, or mount -t tmpfs tmpfs {SHARED_MEMORY}"
        )


def _store_folder(folder: str, needed: int) -> str | None:
    """Return where the object store goes, None for Ray's own choice; say so where it is not in shared memory."""
    if sys.platform != "linux":
        return None
    free = int(shared_memory_mib() * 2**20)
    if free >= needed:
        return None
    logger.warning(
        "%s has %d MiB for Ray's object store of %d, so it lies in %s, which is slower; in Docker give --shm-size=1g",
        *(SHARED_MEMORY, free >> 20, needed >> 20, folder),
    )
    return folder


def shared_memory_mib() -> float:
    """Return the free MiB of shared memory; no end of it where the object store does not lie there."""
    if not os.path.isdir(SHARED_MEMORY):
        return math.inf
    found = os.statvfs(SHARED_MEMORY)
    return found.f_bavail * found.f_frsize / 2**20


def one_line(error: BaseException) -> str:
    """Return an error of Ray, whose texts have several lines, as the beginning of one."""
    text = " ".join(str(error).split()).rstrip(".")
    return f"{type(error).__name__}: {text[:300]}" if text else type(error).__name__


def _processes_of(folder: str) -> list[psutil.Process]:
    """Return the processes of a Ray, by its folder in their command lines, and what they have started."""
    found = []
    for child in psutil.Process().children():
        with contextlib.suppress(psutil.Error):
            if any(folder in argument for argument in child.cmdline()):
                found += [child, *child.children(recursive=True)]
    return found


def _end(processes: Sequence[psutil.Process]) -> None:
    """End what `ray.shutdown` leaves: of a start that was broken off, and of a Ray that lost one of its services."""
    for process in processes:
        with contextlib.suppress(psutil.Error):
            process.kill()
    psutil.wait_procs(processes, timeout=5)


@contextlib.contextmanager
def without_level_line() -> Iterator[None]:
    """Keep one line of Ray's core off the console: the log level that was set, written before the level takes effect.

    The core writes to the process's own stderr, below Python's. A process beside this one passes on everything else at
    once, also the last words of a core that aborts.
    """
    sys.stderr.flush()
    stderr = os.dup(2)
    passing = subprocess.Popen(
        [sys.executable, "-S", "-E", "-c", _DROP_LEVEL_LINE],
        stdin=subprocess.PIPE,
        stderr=stderr,
        start_new_session=True,
    )
    assert passing.stdin is not None
    try:
        os.dup2(passing.stdin.fileno(), 2)
        yield
    finally:
        sys.stderr.flush()
        os.dup2(stderr, 2)
        os.close(stderr)
        passing.stdin.close()
        # A process of Ray's that has inherited the pipe keeps it open; it ends with that.
        with contextlib.suppress(subprocess.TimeoutExpired):
            passing.wait(1)
