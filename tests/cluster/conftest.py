"""Surroundings of the tests that start Ray: quick polling, one thread, nothing outside this machine, and one Ray.

A Ray costs some twenty CPU seconds: its services, and what its first workers import. So the tests that need no Ray of
their own share one, after all others: those that look at how a run starts a Ray find none in this process.
"""

import os
from collections.abc import Iterator

import pytest

SETTINGS = {
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_TRAIN_HEALTH_CHECK_INTERVAL_S": "0.3",
    "RAY_TRAIN_WORKER_GROUP_START_TIMEOUT_S": "60",
    "RAY_DATA_DISABLE_PROGRESS_BARS": "1",
    "OMP_NUM_THREADS": "1",
    "MLFLOW_DISABLE_TELEMETRY": "true",
}
for name, value in SETTINGS.items():
    os.environ.setdefault(name, value)


@pytest.fixture(scope="session")
def shared_ray() -> Iterator[None]:
    """One Ray for all tests that ask for it; a run uses one that is there."""
    # Not at the top: jaxtyping checks what is imported after it, and conftest.py may come before.
    from qaclims_ray.cluster.session import Needs, ray_session

    with ray_session(Needs(cpus=4)):
        yield


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    items.sort(key=lambda item: "shared_ray" in getattr(item, "fixturenames", ()))
