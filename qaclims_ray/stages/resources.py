"""What a run asks of Ray, and what its workers and actors share out where their number is left open."""

import math
import os
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Literal

import psutil

from qaclims_ray.cluster.config import ClusterConfig
from qaclims_ray.cluster.private_ray import shared_memory_mib
from qaclims_ray.cluster.session import CPUS_PER_GPU, Needs, joins_ray, shares_ray
from qaclims_ray.run_config import RunConfig

_GIB_PER_ACTOR = 2.0
"""Memory that an actor with a network, a shard of images and a CRF may come to, in GiB."""
_BESIDE_ACTORS = 1
"""Logical CPUs beside the actors: those that read and write for GPUs."""
_CPUS_BESIDE_A_GPU = 4.0
"""CPUs of a training worker on a GPU beside other runs: it and three that load images."""
_MOST_LOADERS = 8
"""Image loading processes of a worker: an H200 asked for 2 to 5 at its fastest."""
_STORE_MIB = 200
"""Object store of a Ray on which no pixels travel, in MiB."""


@dataclass(frozen=True)
class Room:
    """What a run may take; beside other runs on one Ray that is one core for each worker, and one actor."""

    cores: int = 1
    """Cores that training workers may take together."""
    actor_cores: int = 1
    """Cores that actors may take together."""
    memory_gib: float = _GIB_PER_ACTOR
    """Free memory."""
    gpus: float = 0.0
    """GPUs that actors, or workers, may take together; not known before Ray is there."""
    cpus_per_gpu: float | None = None
    """CPUs of a joined Ray for each of its GPUs."""
    ray: Literal["own", "joined", "shared"] = "own"
    """Whose Ray it is: the run starts it, the run joins it, or other runs are at work on it too."""

    def actors(self, asked: int | None, gpus_per_actor: float = 0.0) -> int:
        """Return the size of a pool of actors.

        Args:
            asked: as the setting says; None takes all GPUs, or one for every core as far as memory goes.
            gpus_per_actor: GPUs of one of them.
        """
        if asked is not None:
            return asked
        if gpus_per_actor:
            return max(1, int(self.gpus / gpus_per_actor + 1e-6))
        return max(1, min(self.actor_cores, int(self.memory_gib // _GIB_PER_ACTOR)))

    def on(self, there: Mapping[str, float]) -> "Room":
        """Return it with what is known once Ray is there: its GPUs, and the CPUs of one that was joined.

        Args:
            there: what the whole Ray has, by Ray's names: CPU, GPU, memory (bytes).
        """
        match self.ray:
            case "shared":
                return self
            case "own":
                return replace(self, gpus=there.get("GPU", 0.0))
            case "joined":
                memory_gib = there.get("memory", 0.0) / 2**30
                return replace(
                    self,
                    gpus=there.get("GPU", 0.0),
                    actor_cores=int(there.get("CPU", 1.0)),
                    memory_gib=memory_gib,
                    # Where nodes with GPUs are yet to come nobody knows; machines with fewer are rare.
                    cpus_per_gpu=there.get(CPUS_PER_GPU, _CPUS_BESIDE_A_GPU + 1),
                )

    def shared_among_workers(self, cluster: ClusterConfig, at_most: int | None = None) -> ClusterConfig:
        """Return the settings with the training workers, their CPUs and loaders filled in where they are open.

        Args:
            cluster: the settings.
            at_most: images of the smallest batch, which all workers share.
        """
        workers = cluster.num_workers
        if workers is None:
            there = max(min(int(self.gpus), self.actor_cores), 1) if cluster.use_gpu else 1
            workers = max(min(there, at_most or there), cluster.least_workers)
        cpus = cluster.cpus_per_worker
        if cpus is None:
            cpus = self._cpus_beside_a_gpu() if cluster.use_gpu and self.ray != "own" else self.cores // max(workers, 1)
            cpus = float(max(1, cpus))
        loaders = cluster.loader_workers
        if loaders is None:
            loaders = min(_MOST_LOADERS, max(0, int(cpus) - 1)) if cluster.use_gpu else 0
        return replace(cluster, num_workers=workers, cpus_per_worker=cpus, loader_workers=loaders)

    def _cpus_beside_a_gpu(self) -> float:
        if self.ray == "shared":
            return _CPUS_BESIDE_A_GPU
        # One is left for what reads and writes for actors, and for the job's own processes.
        return 1.0 if self.cpus_per_gpu is None else int(self.cpus_per_gpu) - 1.0


SHARED = Room(ray="shared")
"""Beside other runs on one Ray."""


def room_here(config: RunConfig) -> Room:
    """Return what a run may share out: this machine where it starts a Ray of its own; ask before it is started."""
    if shares_ray():
        return SHARED
    if joins_ray():
        return Room(ray="joined")
    # Only the cores this process may use: a container, or a batch system, may have set it a limit.
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    if config.cluster.num_cpus is not None:
        cores = max(1, min(cores, config.cluster.num_cpus - _BESIDE_ACTORS))
    return Room(cores, cores, psutil.virtual_memory().available / 2**30)


def shared_out(config: RunConfig, room: Room) -> str:
    """Return in one line what stages and trainings are given, for the console."""
    cluster = room.shared_among_workers(config.cluster)
    assert cluster.cpus_per_worker is not None
    parts = [
        f"{section} {_number_of(room.actors(own.num_actors, own.gpus_per_actor), own.gpus_per_actor)}"
        for section, own in (("corpus", config.corpus), ("cams", config.cams), ("masks", config.masks))
    ]
    on = "a GPU and " if cluster.use_gpu else ""
    workers = f"{cluster.num_workers} workers, each of {on}{cluster.cpus_per_worker:g} CPUs"
    if cluster.loader_workers:
        workers += f" and {cluster.loader_workers} processes that load images"
    trained = workers if cluster.num_workers else "this process"
    store = f"; object store: {object_store_mib(config, room)} MiB" if room.ray == "own" else ""
    return f"processes for images: {', '.join(parts)}; trainings: {trained}{store}{_rounded(config)}"


def _rounded(config: RunConfig) -> str:
    """Say which stages do not compute in float32."""
    test = config.segmentation.test.arithmetic(config.cams.gpus_per_actor)
    found = {
        "corpus": config.corpus.arithmetic,
        "text": config.text.arithmetic,
        "trainings": config.cluster.arithmetic,
        "cams": config.cams.arithmetic,
        "masks": config.masks.arithmetic,
        "segmentation.test": test,
    }
    rounded = ", ".join(f"{name} {each}" for name, each in found.items() if each != "fp32")
    return f"; not in fp32: {rounded}" if rounded else ""


def object_store_mib(config: RunConfig, room: Room) -> int:
    """Return the object store of a Ray of the run's own, in MiB."""
    if config.cluster.object_store_mib is not None:
        return config.cluster.object_store_mib
    gpus = max(config.corpus.gpus_per_actor, config.cams.gpus_per_actor, config.masks.gpus_per_actor)
    # Ray Data plans with half of it, shared out among the steps of a stage, and a shard of photographs takes 40 to 110
    # MiB: with 200 MiB it let one task go on every ten seconds.
    free = min(0.3 * room.memory_gib * 2**10, 0.9 * shared_memory_mib())
    return max(_STORE_MIB, int(free)) if gpus else _STORE_MIB


def _number_of(num_actors: int, gpus_per_actor: float) -> str:
    return f"{num_actors} of {gpus_per_actor:g} GPU" if gpus_per_actor else f"{num_actors} on CPUs"


def needs_of(config: RunConfig, room: Room = SHARED) -> Needs:
    """Return what a run needs at once: its training workers, or its actors and a reader beside them.

    Args:
        config: the run.
        room: what it shares out where numbers are open.
    """
    cluster = room.shared_among_workers(config.cluster)
    assert cluster.cpus_per_worker is not None
    workers = cluster.least_workers if cluster.min_workers is None else cluster.min_workers
    cams = room.actors(config.cams.num_actors, config.cams.gpus_per_actor)
    masks = room.actors(config.masks.num_actors, config.masks.gpus_per_actor)
    corpus = room.actors(config.corpus.num_actors, config.corpus.gpus_per_actor)
    actors = max(corpus, cams, masks)
    return Needs(
        cpus=max(max(workers, 1) * cluster.cpus_per_worker + 1, actors + _BESIDE_ACTORS),
        gpus=max(
            workers if cluster.use_gpu else 0,
            corpus * config.corpus.gpus_per_actor,
            cams * config.cams.gpus_per_actor,
            masks * config.masks.gpus_per_actor if config.goal != "seed" else 0,
        ),
        num_cpus=cluster.num_cpus,
        object_store_mib=object_store_mib(config, room),
        no_progress_minutes=cluster.no_progress_minutes,
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
    return replace(one, num_cpus=cpus + beside, object_store_mib=one.object_store_mib * fitting)
