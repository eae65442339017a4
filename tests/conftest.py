"""One thread per test process, and generated examples that are the same in every run.

More threads only fight over the few cores of a test machine. `QACLIMS_EXPLORE=1 make test-unit` draws new examples.
"""

import os
from pathlib import Path

import pytest
import torch
from hypothesis import settings

torch.set_num_threads(1)
settings.register_profile("same", derandomize=True)
settings.register_profile("explore", derandomize=False, print_blob=True)
settings.load_profile("explore" if os.environ.get("QACLIMS_EXPLORE") else "same")


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
