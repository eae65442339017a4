"""Surroundings of the tests that start Ray: quick polling, one thread, nothing outside this machine, and one Ray.

A Ray costs some twenty CPU seconds: its services, and what its first workers import. So the tests that need no Ray of
their own share one, after all others: those that look at how a run starts a Ray find none in this process.
"""

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.s3_server import s3_server

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
def outside(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A folder of modules from outside the package: the path of this process and of Ray's workers leads there."""
    folder = tmp_path_factory.mktemp("outside")
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(folder))
        patch.setenv("PYTHONPATH", str(folder), prepend=os.pathsep)
        yield folder


@pytest.fixture(scope="session")
def bucket() -> Iterator[str]:
    """An empty bucket of an S3 server, which this process and Ray's workers find by their environment."""
    with s3_server() as uri:
        yield uri


@pytest.fixture(scope="session")
def shared_ray(outside: Path, bucket: str) -> Iterator[None]:
    """One Ray for all tests that ask for it; a run uses one that is there.

    Its workers keep the environment in which it starts, so what some tests need in theirs is there before.
    """
    # Not at the top: jaxtyping checks what is imported after it, and conftest.py may come before.
    from qaclims_ray.cluster.session import Needs, ray_session

    with ray_session(Needs(cpus=4)):
        yield


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    items.sort(key=lambda item: "shared_ray" in getattr(item, "fixturenames", ()))
