"""How cores and memory of this machine are shared out where settings leave it open."""

import os

import psutil
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from qaclims_ray.cluster.config import ClusterConfig
from qaclims_ray.errors import ConfigError
from qaclims_ray.presets.miniature import miniature
from qaclims_ray.presets.table import preset
from qaclims_ray.run_config import RunConfig, with_overrides
from qaclims_ray.stages import resources
from qaclims_ray.stages.resources import JOINED, Room, needs_of, needs_of_many, room_here

BIG = Room(cores=16, memory_gib=1_000.0)


def open_run(**overrides) -> RunConfig:
    """Return a run without a GPU that leaves its resources open."""
    return with_overrides(preset("voc12_mobilenet"), {name.replace("__", "."): v for name, v in overrides.items()})


@pytest.fixture
def alone(monkeypatch) -> None:
    monkeypatch.setattr(resources, "joins_ray", lambda: False)


@settings(deadline=None)
@given(workers=st.integers(0, 64), cores=st.integers(1, 64))
def test_training_workers_share_the_cores_and_each_has_one_at_least(workers: int, cores: int) -> None:
    cluster = Room(cores, 1.0).shared_among_workers(ClusterConfig(num_workers=workers))
    share = cluster.cpus_per_worker
    assert share is not None and share >= 1 and share == int(share)
    assert workers * share <= max(cores, workers)
    assert max(workers, 1) * (share + 1) > cores, "no core stays idle that every worker could have"


@settings(deadline=None)
@given(cores=st.integers(1, 64), memory=st.floats(0, 200))
def test_actors_take_the_cores_as_far_as_memory_goes(cores: int, memory: float) -> None:
    actors = Room(cores, memory).actors(None)
    assert 1 <= actors <= cores and (actors == 1 or actors * 2 <= memory)
    assert Room(cores, memory).actors(None, gpus_per_actor=1.0) == 1
    assert Room(cores, memory).actors(7, gpus_per_actor=0.5) == 7


def test_what_a_setting_says_is_not_changed() -> None:
    cluster = open_run(cluster__cpus_per_worker=0.5).cluster
    assert BIG.shared_among_workers(cluster) is cluster
    assert needs_of(open_run(cams__num_actors=3, masks__num_actors=2, cluster__cpus_per_worker=1.0), BIG).cpus == 6


def test_a_run_of_its_own_takes_this_machine(alone) -> None:
    room = room_here(open_run())
    assert room.cores == len(os.sched_getaffinity(0))
    assert 0 < room.memory_gib < psutil.virtual_memory().total / 2**30
    assert needs_of(open_run(), BIG).cpus == 19, "16 actors and what reads for them"
    assert needs_of(open_run(cams__num_actors=1, masks__num_actors=1), BIG).cpus == 17, "one worker of 16 threads"


@pytest.mark.parametrize(("num_cpus", "cores"), [(1, 1), (4, 1), (6, 3), (1_000, 16)])
def test_a_private_ray_that_is_limited_holds_what_is_shared_out(alone, monkeypatch, num_cpus, cores) -> None:
    monkeypatch.setattr(resources.os, "sched_getaffinity", lambda _: range(16))
    monkeypatch.setattr(resources.psutil, "virtual_memory", lambda: type("Memory", (), {"available": 2**40}))
    config = open_run(cluster__num_cpus=num_cpus)
    room = room_here(config)
    assert room.cores == cores
    assert needs_of(config, room).cpus <= max(num_cpus, needs_of(config).cpus)


def test_on_a_ray_that_is_there_everything_open_counts_as_one(monkeypatch) -> None:
    monkeypatch.setattr(resources, "joins_ray", lambda: True)
    assert room_here(open_run()) == JOINED
    assert needs_of(open_run(cluster__num_workers=2), JOINED).cpus == 4
    assert needs_of_many(open_run(), 2).cpus == 4, "runs beside each other join the Ray of their command"


def test_the_miniature_keeps_to_one_thread_whatever_the_machine() -> None:
    assert BIG.shared_among_workers(miniature().cluster).cpus_per_worker == 1


@pytest.mark.parametrize("name", ["cams.num_actors", "masks.num_actors", "cluster.cpus_per_worker"])
def test_none_and_positive_numbers_alone_are_taken(name) -> None:
    assert with_overrides(open_run(), {name: None}) == open_run()
    with pytest.raises(ConfigError, match=f"{name} is 0(.0)?, expected .*, or None"):
        with_overrides(open_run(), {name: 0})
