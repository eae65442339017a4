"""Watching that Ray lives: its death ends the run within seconds and in one line, where Ray itself waits a minute."""

import contextlib
import logging
import os
import selectors
import socket
import threading
import time
from collections.abc import Callable, Iterator, Sequence

import psutil
import ray
import ray._private.worker

from qaclims_ray import stop
from qaclims_ray.cluster import ray_folder
from qaclims_ray.cluster.last_words import last_words

logger = logging.getLogger(__name__)

CONTROL, NODE = "control service", "node service"
SERVICES = {"gcs_server": CONTROL, "raylet": NODE}
"""Processes without which a Ray is none: name -> what it is."""
AGENTS = {
    "dashboard agent": ("ray::DashboardAgent", "dashboard/agent.py"),
    "agent for environments": ("ray::RuntimeEnvAgent", "runtime_env/agent/main.py"),
}
"""Processes that the node service starts and does not outlive: what it is -> its title, and its command before that."""
RAY_LOST = 2
"""Exit code, that of other trouble with machines."""
CLOSING_S = 12.0
"""Seconds to close: ray.shutdown alone waits seven for a control service that is gone."""
EVERY_S = 0.5
JOINED_EVERY_S = 5.0
JOINED_LOST_S = 50.0
"""A control service may be started again elsewhere, for which Ray gives it 60 s before it aborts its clients."""


@contextlib.contextmanager
def watching_services(folder: str) -> Iterator[None]:
    """End the run, for the time of the context, when a service of the Ray that this process started has ended.

    Args:
        folder: of that Ray; kept when it dies, for its logs.
    """
    services = _services()
    # What Ray publishes then is the end of the node service's log, some ninety lines.
    ray._private.worker.print_to_stdstream = _drop  # type: ignore[assignment]

    def look() -> str:
        for service, what in services.items():
            if not _runs(service):
                ray_folder.keep(folder)
                return f"Ray's {what} (process {service.pid}) has ended; its logs are in {folder}"
        return ""

    def end(found: str) -> None:
        """Let everything close, or nothing: a core whose node service is gone ends its process at the next call to it.

        It does so with code 1 and without a word.
        """
        take_back()
        node = next((service for service, what in services.items() if what == NODE), None)
        if CONTROL in found and (node is None or _runs(node)):
            stop.end(_told(found), RAY_LOST, grace_s=CLOSING_S)
        else:
            stop.end_at_once(_told(found), RAY_LOST)

    pids = [service.pid for service in services]
    lost = f"one of Ray's services has ended, and took this process along; its logs are in {folder}"
    with last_words(stop.as_line(_told(lost)), pids) as take_back, _watching(look, end, EVERY_S, pids):
        try:
            yield
        except Exception:  # it may be the first to tell of a death
            if found := look():
                end(found)
            raise


def _services() -> dict[psutil.Process, str]:
    """Return the processes without which the Ray that this process started ends, and what each is."""
    services = {}
    for child in psutil.Process().children():
        with contextlib.suppress(psutil.Error):  # it has ended in the meantime, as helpers of a start do
            if (what := SERVICES.get(child.name())) is not None:
                services[child] = what
            if what == NODE:
                services |= _agents(child)
    return services


def _agents(node: psutil.Process) -> dict[psutil.Process, str]:
    found = {}
    for child in node.children():
        with contextlib.suppress(psutil.Error):
            line = " ".join(child.cmdline())
            what = next((what for what, marks in AGENTS.items() if any(mark in line for mark in marks)), None)
            if what is not None:
                found[child] = what
    return found


@contextlib.contextmanager
def watching_cluster() -> Iterator[None]:
    """End the run, for the time of the context, when the control service of the joined Ray stays silent."""
    address = ray.get_runtime_context().gcs_address
    host, _, port = address.rpartition(":")
    # The end of a lost node's log, as above: here the run goes on.
    ray._private.worker.print_to_stdstream = _drop  # type: ignore[assignment]
    heard, is_silent = time.monotonic(), False

    def look() -> str:
        nonlocal heard, is_silent
        try:
            socket.create_connection((host.strip("[]"), int(port)), timeout=5).close()
            heard, is_silent = time.monotonic(), False
        except OSError as error:
            if time.monotonic() - heard > JOINED_LOST_S:
                return f"the Ray cluster at {address} has not answered for {JOINED_LOST_S:.0f} s ({error})"
            if not is_silent:
                logger.warning(
                    "the Ray cluster at %s does not answer (%s); it may come back within %.0f s, then the run ends",
                    *(address, error, JOINED_LOST_S),
                )
                is_silent = True
        return ""

    def end(found: str) -> None:
        stop.end(_told(found), RAY_LOST, grace_s=CLOSING_S)

    with _watching(look, end, JOINED_EVERY_S):
        yield


def _told(found: str) -> str:
    return f"ResourceError: {found}; {stop.KEPT}"


@contextlib.contextmanager
def _watching(
    look: Callable[[], str], end: Callable[[str], object], every_s: float, pids: Sequence[int] = ()
) -> Iterator[None]:
    """Call `look` again and again in a thread of its own, and when a process ends; `end` is given what it says."""
    is_over = threading.Event()

    def watch() -> None:
        with _ends(pids) as ended:
            while not is_over.is_set():
                if ended is None:
                    is_over.wait(every_s)
                else:
                    ended.select(every_s)
                if not is_over.is_set() and (found := look()):
                    end(found)
                    return

    thread = threading.Thread(target=watch, daemon=True)
    thread.start()
    try:
        yield
    finally:
        is_over.set()


@contextlib.contextmanager
def _ends(pids: Sequence[int]) -> Iterator[selectors.BaseSelector | None]:
    """Yield what waits for the end of a process, None where there is none, or the system cannot tell."""
    if not pids or not hasattr(os, "pidfd_open"):
        yield None
        return
    with contextlib.ExitStack() as stack:
        ended = stack.enter_context(selectors.DefaultSelector())
        for pid in pids:
            try:
                descriptor = os.pidfd_open(pid)
            except ProcessLookupError:  # gone already, which a look says
                continue
            except OSError:  # an old kernel, or a sandbox
                yield None
                return
            stack.callback(os.close, descriptor)
            ended.register(descriptor, selectors.EVENT_READ)
        yield ended


def _runs(process: psutil.Process) -> bool:
    try:
        return process.is_running() and process.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def _drop(data: object, ignore_prefix: bool = False) -> None:
    """Stand in for Ray's printing of its services' logs, which stay in its folder."""
