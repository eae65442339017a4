"""How cores and memory of this machine are shared out where settings leave it open."""

import dataclasses
import os

import psutil
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from qaclims_ray.cluster.config import ClusterConfig
from qaclims_ray.cluster.session import CPUS_PER_GPU
from qaclims_ray.errors import ConfigError
from qaclims_ray.presets.miniature import miniature
from qaclims_ray.presets.table import preset
from qaclims_ray.run_config import RunConfig, with_overrides
from qaclims_ray.stages import resources
from qaclims_ray.stages.resources import (
    SHARED,
    Room,
    needs_of,
    needs_of_many,
    object_store_mib,
    room_here,
    shared_out,
)

BIG = Room(cores=16, actor_cores=16, memory_gib=1_000.0)


def open_run(**overrides) -> RunConfig:
    """Return a run without a GPU that leaves its resources open."""
    return with_overrides(preset("voc12_mobilenet"), {name.replace("__", "."): v for name, v in overrides.items()})


@pytest.fixture
def alone(monkeypatch) -> None:
    monkeypatch.setattr(resources, "shares_ray", lambda: False)
    monkeypatch.setattr(resources, "joins_ray", lambda: False)


@settings(deadline=None)
@given(workers=st.integers(0, 64), cores=st.integers(1, 64))
def test_training_workers_share_the_cores_and_each_has_one_at_least(workers: int, cores: int) -> None:
    cluster = Room(cores).shared_among_workers(ClusterConfig(num_workers=workers))
    share = cluster.cpus_per_worker
    assert share is not None and share >= 1 and share == int(share)
    assert workers * share <= max(cores, workers)
    assert max(workers, 1) * (share + 1) > cores, "no core stays idle that every worker could have"


@settings(deadline=None)
@given(cores=st.integers(1, 64), memory=st.floats(0, 200))
def test_actors_take_the_cores_as_far_as_memory_goes(cores: int, memory: float) -> None:
    room = Room(cores, cores, memory)
    actors = room.actors(None)
    assert 1 <= actors <= cores and (actors == 1 or actors * 2 <= memory)
    assert room.actors(None, gpus_per_actor=1.0) == 1
    assert room.actors(7, gpus_per_actor=0.5) == 7


def test_what_a_setting_says_is_not_changed() -> None:
    cluster = open_run(cluster__cpus_per_worker=0.5).cluster
    assert BIG.shared_among_workers(cluster).cpus_per_worker == 0.5
    given = ClusterConfig(num_workers=3, cpus_per_worker=2.0, loader_workers=5, use_gpu=True)
    assert dataclasses.replace(BIG, gpus=8.0).shared_among_workers(given) == given
    assert (
        needs_of(
            open_run(cams__num_actors=3, masks__num_actors=2, corpus__num_actors=1, cluster__cpus_per_worker=1.0), BIG
        ).cpus
        == 4
    )


def test_a_run_of_its_own_takes_this_machine(alone) -> None:
    room = room_here(open_run())
    assert room.cores == len(os.sched_getaffinity(0))
    assert 0 < room.memory_gib < psutil.virtual_memory().total / 2**30
    assert needs_of(open_run(), BIG).cpus == 17, "16 actors and what reads for them"
    assert needs_of(open_run(cams__num_actors=1, masks__num_actors=1, corpus__num_actors=1), BIG).cpus == 17, (
        "one worker of 16 threads"
    )


@pytest.mark.parametrize(("num_cpus", "cores"), [(1, 1), (2, 1), (4, 3), (1_000, 16)])
def test_a_private_ray_that_is_limited_holds_what_is_shared_out(alone, monkeypatch, num_cpus, cores) -> None:
    monkeypatch.setattr(resources.os, "sched_getaffinity", lambda _: range(16))
    monkeypatch.setattr(resources.psutil, "virtual_memory", lambda: type("Memory", (), {"available": 2**40}))
    config = open_run(cluster__num_cpus=num_cpus)
    room = room_here(config)
    assert room.cores == cores
    assert needs_of(config, room).cpus <= max(num_cpus, needs_of(config).cpus)


def test_beside_other_runs_on_one_ray_everything_open_counts_as_one(monkeypatch) -> None:
    monkeypatch.setattr(resources, "shares_ray", lambda: True)
    assert room_here(open_run()) == SHARED
    assert SHARED.on({"CPU": 64.0, "GPU": 8.0, "memory": 2.0**40}) == SHARED
    assert needs_of(open_run(cluster__num_workers=2), SHARED).cpus == 3
    assert needs_of_many(open_run(), 2).cpus == 2, "runs beside each other join the Ray of their command"


def test_a_run_alone_takes_all_that_the_ray_it_joins_has(monkeypatch) -> None:
    monkeypatch.setattr(resources, "shares_ray", lambda: False)
    monkeypatch.setattr(resources, "joins_ray", lambda: True)
    room = room_here(open_run())
    assert needs_of(open_run(cluster__num_workers=2), room).cpus == 3, "a small one will do"
    assert room.actors(None) == room.actors(None, 1.0) == 1
    there = room.on({"CPU": 64.0, "GPU": 8.0, "memory": 2.0**36})
    assert there.actors(None) == 32, "2 GiB each"
    assert there.actors(None, 1.0) == 8 and there.actors(None, 0.1) == 80 and there.actors(None, 3.0) == 2
    assert there.actors(3, 1.0) == 3, "a number that is given wins"
    assert there.shared_among_workers(ClusterConfig(num_workers=2)).cpus_per_worker == 1


def test_a_run_of_its_own_learns_of_its_gpus_from_ray(alone) -> None:
    room = room_here(open_run())
    assert room.on({"CPU": 999.0, "GPU": 4.0, "memory": 1.0}) == dataclasses.replace(room, gpus=4.0)


def test_what_is_shared_out_is_told_in_a_line() -> None:
    told = shared_out(open_run(cams__num_actors=3, cluster__num_workers=2), BIG)
    assert told == (
        "processes for images: corpus 16 on CPUs, cams 3 on CPUs, masks 16 on CPUs; "
        "trainings: 2 workers, each of 8 CPUs; object store: 200 MiB"
    )
    on_gpus = shared_out(
        with_overrides(preset("voc12"), {"cluster.num_workers": 1}), dataclasses.replace(BIG, gpus=8.0)
    )
    assert "cams 8 of 1 GPU" in on_gpus and "1 workers, each of a GPU and 16 CPUs and 8 processes that load" in on_gpus
    assert on_gpus.endswith("; not in fp32: corpus bf16, trainings bf16, cams fp16, masks fp16, segmentation.test fp16")


ON_GPUS = ClusterConfig(use_gpu=True)


def test_a_training_takes_the_gpus_that_are_there_as_far_as_its_batch_and_the_cores_go() -> None:
    def workers(cluster: ClusterConfig, gpus: float, at_most: int | None = None, **room) -> int | None:
        return dataclasses.replace(BIG, gpus=gpus, **room).shared_among_workers(cluster, at_most).num_workers

    assert [workers(ON_GPUS, gpus) for gpus in (0.0, 1.0, 8.0, 64.0)] == [1, 1, 8, 16]
    assert workers(ON_GPUS, 8.0, 4) == 4, "a batch of four images has none for a fifth"
    assert workers(ClusterConfig(), 8.0) == 1, "on CPUs threads share the cores"
    assert workers(ClusterConfig(use_gpu=True, min_workers=3), 1.0) == 3, "it was asked for"
    assert workers(ClusterConfig(num_workers=2, use_gpu=True), 8.0) == 2
    assert workers(ON_GPUS, 0.0, ray="shared") == 1
    assert needs_of(with_overrides(preset("voc12"), {}), BIG).gpus == 1, "one GPU is enough"


def test_loaders_take_the_cores_beside_a_gpu() -> None:
    def loaders(room: Room, cluster: ClusterConfig = ON_GPUS) -> tuple[float | None, int | None]:
        shared = room.shared_among_workers(cluster)
        return shared.cpus_per_worker, shared.loader_workers

    assert loaders(dataclasses.replace(BIG, gpus=4.0)) == (4.0, 3)
    assert loaders(dataclasses.replace(BIG, gpus=1.0)) == (16.0, 8)
    assert loaders(SHARED) == (4.0, 3), "as many runs at once have it"
    assert loaders(Room(ray="joined")) == (1.0, 0), "not known yet"
    joined = Room(ray="joined").on({"CPU": 40.0, "GPU": 2.0, "memory": 2.0**36, CPUS_PER_GPU: 8.0})
    assert loaders(joined) == (7.0, 6), "a node of 8 CPUs keeps one for what reads and writes"
    assert loaders(Room(ray="joined").on({"CPU": 1.0})) == (4.0, 3), "its GPUs come when they are asked for"
    assert loaders(BIG, ClusterConfig(num_workers=2)) == (8.0, 0)


def test_the_object_store_is_as_large_as_rays_own_where_pixels_travel(monkeypatch) -> None:
    monkeypatch.setattr(resources, "shared_memory_mib", lambda: 1e9)
    assert object_store_mib(open_run(), BIG) == 200
    assert object_store_mib(preset("voc12"), BIG) == 307_200
    assert object_store_mib(with_overrides(preset("voc12"), {"cluster.object_store_mib": 99}), BIG) == 99
    monkeypatch.setattr(resources, "shared_memory_mib", lambda: 1000.0)
    assert object_store_mib(preset("voc12"), BIG) == 900, "outside of shared memory it would be slow"
    monkeypatch.setattr(resources, "shared_memory_mib", lambda: 64.0)
    assert object_store_mib(preset("voc12"), BIG) == 200


def test_the_miniature_keeps_to_one_thread_whatever_the_machine() -> None:
    assert BIG.shared_among_workers(miniature().cluster).cpus_per_worker == 1


@pytest.mark.parametrize(
    "name", ["corpus.num_actors", "cams.num_actors", "masks.num_actors", "cluster.cpus_per_worker"]
)
def test_none_and_positive_numbers_alone_are_taken(name) -> None:
    assert with_overrides(open_run(), {name: None}) == open_run()
    with pytest.raises(ConfigError, match=f"{name} is 0(.0)?, expected .*, or None"):
        with_overrides(open_run(), {name: 0})
