"""Where a GPU's stage computes and where it writes, on a Ray that only believes in its GPU."""

import functools
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import ray

from qaclims_ray.cluster.shards import run_shards
from qaclims_ray.data import storage
from qaclims_ray.errors import DataError, ResourceError

pytestmark = [pytest.mark.ray, pytest.mark.timeout(300)]


class Model:
    """Says which process computed."""

    def __call__(self, decoded: int) -> dict[str, Any]:
        if decoded == 13:
            raise DataError("13 cannot be computed")
        return {"value": decoded, "maps": np.full(1000, decoded), "computed_by": os.getpid()}


def publish(made: dict[str, Any], folder: str) -> dict[str, Any]:
    """Write a file, and say which process did."""
    storage.write_bytes(storage.join(folder, f"{made['value']}.bin"), made["maps"].tobytes())
    return {"value": made["value"], "computed_by": made["computed_by"], "written_by": os.getpid()}


@pytest.fixture(scope="module", autouse=True)
def pretended_gpu() -> Iterator[None]:
    # No more CPUs than a run asks for: half of one for the actor, and one beside it.
    ray.init(
        address="local", num_cpus=2, num_gpus=1, include_dashboard=False, log_to_driver=False,
        object_store_memory=200 << 20, _node_ip_address="127.0.0.1",
    )  # fmt: skip
    yield
    ray.shutdown()


def run(shards: range, folder: Path) -> list[dict[str, Any]]:
    write = functools.partial(publish, folder=str(folder))
    return run_shards(shards, decode=int, actor=Model, actor_kwargs={}, write=write, gpus_per_actor=1.0)


def test_the_process_with_the_gpu_computes_and_others_write(tmp_path) -> None:
    summaries = run(range(6), tmp_path)
    assert sorted(summary["value"] for summary in summaries) == list(range(6))
    assert len({summary["computed_by"] for summary in summaries}) == 1
    assert {one["computed_by"] for one in summaries}.isdisjoint(one["written_by"] for one in summaries)
    assert np.fromfile(tmp_path / "5.bin", dtype=int).tolist() == [5] * 1000
    assert sorted(path.name for path in tmp_path.iterdir()) == [f"{value}.bin" for value in range(6)]


def test_mistakes_of_actors_and_of_writers_arrive_as_they_are(tmp_path) -> None:
    with pytest.raises(DataError, match="13 cannot be computed"):
        run(range(13, 14), tmp_path)
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(ResourceError, match=r"file/0\.bin cannot be written"):
        run(range(1), tmp_path / "file")
