"""One thread per test process, generated examples that are the same in every run, and no search for garbage in imports.

More threads only fight over the few cores of a test machine. `QACLIMS_EXPLORE=1 make test-unit` draws new examples.
"""

import gc
import os
from pathlib import Path

import pytest
import torch
from hypothesis import settings

from tests.longest import (  # noqa: F401
    pytest_addoption,
    pytest_collection_modifyitems,
    pytest_fixture_setup,
    pytest_runtest_protocol,
)

# What is imported for the tests stays, and to look through it again and again took a seventh of their collection.
gc.disable()
torch.set_num_threads(1)
settings.register_profile("same", derandomize=True)
settings.register_profile("explore", derandomize=False, print_blob=True)
settings.load_profile("explore" if os.environ.get("QACLIMS_EXPLORE") else "same")


@pytest.hookimpl(tryfirst=True)
def pytest_runtestloop() -> None:
    """Look for garbage from here on, but not in what the collection has left."""
    gc.freeze()
    gc.enable()


def pytest_unconfigure() -> None:
    """Let the end of the process find everything."""
    gc.unfreeze()


@pytest.fixture(scope="session")
def empty_store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A migrated SQLite store of MLflow without runs: making one takes seconds, copying it none."""
    # Not at the top: jaxtyping checks what is imported after it, and conftest.py comes before.
    from qaclims_ray.tracking.store import prepare_environment

    prepare_environment()
    from mlflow import MlflowClient

    path = tmp_path_factory.mktemp("store") / "mlflow.db"
    MlflowClient(f"sqlite:///{path}").search_experiments()
    return path
