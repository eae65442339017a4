"""Who has no token cannot use the Ray of a run: some of its ports listen everywhere, and none of them answers."""

import http.client
import json
import os
import subprocess
import sys
import urllib.error
import urllib.request

import psutil
import pytest
import ray

pytestmark = [pytest.mark.ray, pytest.mark.timeout(600)]
_CALL = """
import sys
from ray._raylet import GcsClient
from ray.exceptions import AuthenticationError
try:
    GcsClient(address=sys.argv[1]).internal_kv_keys(b"", None)
except AuthenticationError as error:
    print("refused")
else:
    print("answered")
"""
_PATHS = {
    "RuntimeEnvAgent": "/get_or_create_runtime_env",
    "DashboardAgent": "/api/job_agent/jobs/",
}
"""Process of Ray -> what of it would run code for whoever asks."""


def _call(address: str, **environment: str) -> str:
    kept = {name: value for name, value in os.environ.items() if not name.startswith("RAY_AUTH")}
    ended = subprocess.run(
        [sys.executable, "-c", _CALL, address],
        env={**kept, **environment},
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert ended.returncode == 0, ended.stderr[-2000:]
    return ended.stdout.split()[-1]


def _listening() -> list[tuple[str, str]]:
    """Return address and command of what Ray has started and listens."""
    found = []
    for process in psutil.Process().children(recursive=True):
        for connection in process.net_connections(kind="inet"):
            if connection.status == psutil.CONN_LISTEN:
                host = "127.0.0.1" if connection.laddr.ip in ("0.0.0.0", "::") else connection.laddr.ip
                found.append((f"{host}:{connection.laddr.port}", " ".join(process.cmdline())))
    return found


def test_the_control_service_answers_with_the_token_alone(shared_ray) -> None:
    address = ray.get_runtime_context().gcs_address
    assert _call(address, RAY_AUTH_MODE="disabled") == "refused"
    assert _call(address, RAY_AUTH_MODE="token", RAY_AUTH_TOKEN="0" * 64) == "refused"
    assert _call(address, RAY_AUTH_MODE="token") == "answered", "that of this user, in ~/.ray"


@pytest.mark.parametrize("agent", _PATHS)
def test_agents_refuse_whoever_has_no_token(shared_ray, agent) -> None:
    refused = 0
    for address, command in _listening():
        if agent not in command:
            continue
        request = urllib.request.Request(f"http://{address}{_PATHS[agent]}", json.dumps({}).encode())
        try:
            with urllib.request.urlopen(request, timeout=60) as answer:
                raise AssertionError(f"{command} answered {answer.status}")
        except urllib.error.HTTPError as error:
            if error.code == 405:  # the port of metrics, which only hands out numbers
                assert b"HTTP 405" in error.read(), command
                continue
            assert error.code in (401, 403), (command, error.code)
            refused += 1
        except (OSError, http.client.HTTPException):  # a port of gRPC, as the control service's
            continue
    assert refused
