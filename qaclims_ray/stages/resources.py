"""What a run asks of Ray."""

import math
import os

from qaclims_ray.cluster.session import Needs
from qaclims_ray.run_config import RunConfig


def needs_of(config: RunConfig) -> Needs:
    """Return what a run needs at once: its training workers, or its actors and a reader beside them."""
    cluster = config.cluster
    workers = cluster.num_workers if cluster.min_workers is None else cluster.min_workers
    actors = max(config.corpus.num_actors, config.cams.num_actors, config.masks.num_actors)
    return Needs(
        cpus=max(max(workers, 1) * cluster.cpus_per_worker, actors + 2) + 1,
        gpus=max(
            workers if cluster.use_gpu else 0,
            config.corpus.num_actors * config.corpus.gpus_per_actor,
            config.cams.num_actors * config.cams.gpus_per_actor,
            config.masks.num_actors * config.masks.gpus_per_actor if config.goal != "seed" else 0,
        ),
        num_cpus=cluster.num_cpus,
        object_store_mib=cluster.object_store_mib,
    )


def needs_of_many(config: RunConfig, at_once: int | None, *, beside: int = 0) -> Needs:
    """Return what runs beside each other need of a Ray that the command starts itself.

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
