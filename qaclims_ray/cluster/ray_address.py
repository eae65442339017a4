"""Whether a Ray answers at RAY_ADDRESS: asked for seconds, because joining one that is gone takes many minutes."""

import os
import socket
import threading
import time

from qaclims_ray.errors import ResourceError

VARIABLE = "RAY_ADDRESS"
CONNECT_S = 4.0
"""Seconds in which the port has to open; tried again while it is refused, as a head that starts just now refuses it."""
ANSWER_S = 8.0
"""Seconds in which the control service has to answer on it."""


def address_to_join() -> str:
    """Return where this process is told to find a Ray; empty where it starts one of its own."""
    address = os.environ.get(VARIABLE, "")
    return "" if address == "local" else address


def cannot_join(address: str, reason: str) -> ResourceError:
    """Return the error that says so."""
    return ResourceError(
        f"cannot join the Ray cluster at {VARIABLE}={address}: {reason}. Start it, or unset {VARIABLE} to run on this "
        "machine alone"
    )


def require_answer(address: str) -> None:
    """Make sure that a Ray answers.

    Args:
        address: HOST:PORT of its control service, ray://HOST:PORT of its client server, or auto.

    Raises:
        ResourceError: when none does.
    """
    from ray._private import services  # here, since most runs are told of no address

    is_client = "://" in address
    try:
        found = address.partition("://")[2] if is_client else services.canonicalize_bootstrap_address(address)
    except (ConnectionError, OSError, ValueError) as error:
        raise cannot_join(address, str(error)) from None
    if not found:
        raise cannot_join(address, "no Ray runs on this machine")
    host, _, port = found.partition("/")[0].rpartition(":")
    if not host or not port.isdigit():
        raise cannot_join(address, "expected HOST:PORT, ray://HOST:PORT or auto")
    _require_port(address, host.strip("[]"), int(port))
    if not is_client:
        _require_control_service(address, found)


def _require_port(address: str, host: str, port: int) -> None:
    deadline = time.monotonic() + CONNECT_S
    while True:
        try:
            socket.create_connection((host, port), timeout=CONNECT_S).close()
            return
        except OSError as error:
            if time.monotonic() + 1 > deadline or isinstance(error, socket.gaierror):
                raise cannot_join(address, f"nothing answers there ({error})") from None
            time.sleep(1)


def _require_control_service(address: str, found: str) -> None:
    """Ask in a thread, because Ray's own client may go on trying for as long as it is left alone."""
    from ray._raylet import GcsClient  # type: ignore[attr-defined]
    from ray.exceptions import AuthenticationError, RayError

    answered, reasons = threading.Event(), ["no answer"]
    deadline = time.monotonic() + ANSWER_S

    def ask() -> None:
        while time.monotonic() < deadline:
            try:
                GcsClient(address=found)
            except AuthenticationError:
                pass  # an answer: joining sends the token, or says which is missing
            except RayError as error:
                reasons[:] = [str(error)]
                time.sleep(3)  # Ray's core writes a line of its own for every try
                continue
            answered.set()
            return

    threading.Thread(target=ask, daemon=True).start()
    if not answered.wait(ANSWER_S):
        raise cannot_join(address, f"what listens there does not answer as a Ray ({reasons[0]})")
