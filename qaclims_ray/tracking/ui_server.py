"""MLflow's pages for the runs of a folder: one process of one worker on this machine, ended with whoever started it."""

import json
import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.parse
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from qaclims_ray.data.addresses import without_credentials
from qaclims_ray.errors import ConfigError, ResourceError
from qaclims_ray.tracking.metric_names import HEADLINES

HOST = "127.0.0.1"
"""The machine itself: MLflow asks nobody for a password."""
_FOR_TRAINING = "workflowType=machine_learning"
"""Opens the pages for trained models. MLflow opens those for language models where the address does not say."""
_COLUMNS_KEY = "qaclims"
_DIRECT = urllib.request.build_opener(urllib.request.ProxyHandler({}))
"""Asks the server itself: a proxy that the environment names knows another 127.0.0.1."""
_ASKS_EACH_S = 0.2
_PORTS_TRIED = 20
_END_WITHIN_S = 10.0


def free_port(wanted: int) -> int:
    """Return a port that nobody listens on: the wanted one, or the next.

    Raises:
        ConfigError: when none of the next twenty is free.
    """
    for port in range(wanted, min(wanted + _PORTS_TRIED, 65536)):
        with socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind((HOST, port))
            except OSError:
                continue
            return port
    raise ConfigError(f"ports {wanted} to {wanted + _PORTS_TRIED - 1} are taken on this machine; give another: --port")


@contextmanager
def ui_server(
    uri: str, experiment: str, port: int, *, timeout_s: float = 120.0
) -> Iterator[tuple[str, "subprocess.Popen[bytes]"]]:
    """Serve a store's pages; yield the address that shows its runs, and the process.

    Args:
        uri: the store.
        experiment: whose runs are shown first.
        port: a free one.
        timeout_s: give up when it does not answer within this.

    Raises:
        ResourceError: when it does not come up.
    """
    command = [sys.executable, "-m", "mlflow", "server", "--host", HOST, "--port", str(port), "--workers", "1"]
    # In the environment and not on the command line, which every user of the machine can read: it may hold a password.
    environment = os.environ | {
        "MLFLOW_BACKEND_STORE_URI": uri,
        "MLFLOW_DISABLE_TELEMETRY": "true",
        "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false",
    }
    beside = Path(uri.removeprefix("sqlite:///")).parent if uri.startswith("sqlite:///") else None
    with tempfile.TemporaryFile() as told:
        # A session of its own: Ctrl-C reaches this process alone, which ends the server and all that it started.
        process = subprocess.Popen(
            command,
            env=environment,
            cwd=beside,
            stdin=subprocess.DEVNULL,
            stdout=told,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
        try:
            address = f"http://{HOST}:{port}"
            if not _answers(f"{address}/health", process, timeout_s):
                told.seek(0)
                raise _absent(uri, process, told.read().decode(errors="replace"))
            yield address + _view(address, experiment), process
        finally:
            _end(process)


def _answers(address: str, process: "subprocess.Popen[bytes]", timeout_s: float) -> bool:
    deadline = time.monotonic() + timeout_s
    while process.poll() is None and time.monotonic() < deadline:
        try:
            with _DIRECT.open(address, timeout=2):
                return True
        except OSError:
            time.sleep(_ASKS_EACH_S)
    return False


def _absent(uri: str, process: "subprocess.Popen[bytes]", told: str) -> ResourceError:
    code = process.poll()
    ending = "do not answer" if code is None else f"ended with code {code}"
    last = next((line for line in reversed(told.splitlines()) if line.strip()), "nothing was said")
    return ResourceError(
        f"MLflow's pages of {without_credentials(uri)} {ending}: {without_credentials(last.strip())[:300]}"
    )


def _view(address: str, experiment: str) -> str:
    """Return the place of an experiment's runs among the pages; that of all experiments where it is not there."""
    api = f"{address}/api/2.0/mlflow/experiments"
    try:
        asked = f"{api}/get-by-name?{urllib.parse.urlencode({'experiment_name': experiment})}"
        with _DIRECT.open(asked, timeout=30) as answer:
            number = json.load(answer)["experiment"]["experiment_id"]
        tag = {"experiment_id": number, "key": f"mlflow.sharedViewState.{_COLUMNS_KEY}", "value": _shared_view()}
        headers = {"Content-Type": "application/json"}
        with _DIRECT.open(
            urllib.request.Request(f"{api}/set-experiment-tag", json.dumps(tag).encode(), headers), timeout=30
        ):
            pass
    except (OSError, ValueError, KeyError):
        return f"/#/experiments?{_FOR_TRAINING}"
    return f"/#/experiments/{number}/runs?{_FOR_TRAINING}&viewStateShareKey={_COLUMNS_KEY}"


def _shared_view() -> str:
    """Return columns and charts of the list of runs, as MLflow's button Share keeps them: without, it shows no figure.

    No other column: MLflow shows them before the figures, which its assistant then pushes off a screen of 1300 pixels.
    Charts stand below their groups; one is named here, and MLflow puts the others behind it.
    """
    group = next(iter(HEADLINES)).partition("/")[0]
    state = {
        "selectedColumns": [f"metrics.`{name}`" for name in HEADLINES],
        "compareRunCharts": [],
        "compareRunSections": [{"uuid": group, "name": group, "display": True, "isReordered": True}],
        "isAccordionReordered": True,
    }
    return json.dumps(state)


def _end(process: "subprocess.Popen[bytes]") -> None:
    """End the server's own process group, at first kindly."""
    for number in (signal.SIGTERM, signal.SIGKILL):
        try:
            os.killpg(process.pid, number)
        except ProcessLookupError:
            break
        try:
            process.wait(_END_WITHIN_S)
        except subprocess.TimeoutExpired:
            continue
    # Killed, it is only to be collected; a process that the disk keeps in the kernel is left to its end.
    with suppress(subprocess.TimeoutExpired):
        process.wait(_END_WITHIN_S)
