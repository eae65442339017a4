"""What a run asks of Ray, and what its workers and actors share out where their number is left open."""

import math
import os
from dataclasses import dataclass, replace

import psutil

from qaclims_ray.cluster.config import ClusterConfig
from qaclims_ray.cluster.session import Needs, joins_ray
from qaclims_ray.run_config import RunConfig

_GIB_PER_ACTOR = 2.0
"""Memory that an actor with a network, a shard of images and a CRF may come to, in GiB."""
_BESIDE_ACTORS = 3
"""Logical CPUs of a private Ray that readers take beside the actors."""


@dataclass(frozen=True)
class Room:
    """Cores that a run may take; on a Ray that it shares with others that is one for each worker and actor."""

    cores: int = 1
    """Cores that workers, or actors, may take together."""
    memory_gib: float = _GIB_PER_ACTOR
    """Free memory."""

    def actors(self, asked: int | None, gpus_per_actor: float = 0.0) -> int:
        """Return the size of a pool of actors.

        Args:
            asked: as the setting says; None takes one for every core, as far as memory goes.
            gpus_per_actor: where it is not 0, the open number is one.
        """
        if asked is not None:
            return asked
        return 1 if gpus_per_actor else max(1, min(self.cores, int(self.memory_gib // _GIB_PER_ACTOR)))

    def shared_among_workers(self, cluster: ClusterConfig) -> ClusterConfig:
        """Return the settings with the CPUs of a training worker filled in where they are open."""
        if cluster.cpus_per_worker is not None:
            return cluster
        return replace(cluster, cpus_per_worker=float(max(1, self.cores // max(cluster.num_workers, 1))))


JOINED = Room()
"""On a Ray that others may use too."""


def room_here(config: RunConfig) -> Room:
    """Return what a run may share out: this machine where it starts a Ray of its own; ask before it is started."""
    if joins_ray():
        return JOINED
    # Only the cores this process may use: a container, or a batch system, may have set it a limit.
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    if config.cluster.num_cpus is not None:
        cores = max(1, min(cores, config.cluster.num_cpus - _BESIDE_ACTORS))
    return Room(cores, psutil.virtual_memory().available / 2**30)


def needs_of(config: RunConfig, room: Room = JOINED) -> Needs:
    """Return what a run needs at once: its training workers, or its actors and readers beside them.

    Args:
        config: the run.
        room: what it shares out where numbers are open.
    """
    cluster = room.shared_among_workers(config.cluster)
    assert cluster.cpus_per_worker is not None
    workers = cluster.num_workers if cluster.min_workers is None else cluster.min_workers
    cams = room.actors(config.cams.num_actors, config.cams.gpus_per_actor)
    masks = room.actors(config.masks.num_actors, config.masks.gpus_per_actor)
    actors = max(config.corpus.num_actors, cams, masks)
    return Needs(
        cpus=max(max(workers, 1) * cluster.cpus_per_worker + 1, actors + _BESIDE_ACTORS),
        gpus=max(
            workers if cluster.use_gpu else 0,
            config.corpus.num_actors * config.corpus.gpus_per_actor,
            cams * config.cams.gpus_per_actor,
            masks * config.masks.gpus_per_actor if config.goal != "seed" else 0,
        ),
        num_cpus=cluster.num_cpus,
        object_store_mib=cluster.object_store_mib,
    )


def needs_of_many(config: RunConfig, at_once: int | None, *, beside: int = 0) -> Needs:
    """Return what runs beside each other need of a Ray that the command starts itself.

    They join it, so that what is left open counts as one: many runs fill the cores, and not one.

    Args:
        config: one of the runs.
        at_once: how many; None takes as many as this machine's CPUs hold.
        beside: logical CPUs for what is none of the runs.
    """
    one = needs_of(config)
    if one.num_cpus is not None:
        return one
    cpus = max(math.ceil(one.cpus * (at_once or 1)), os.cpu_count() or 1)
    fitting = at_once or max(int(cpus // one.cpus), 1)
    return Needs(cpus=one.cpus, gpus=one.gpus, num_cpus=cpus + beside, object_store_mib=one.object_store_mib * fitting)
