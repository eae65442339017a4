"""Reaching Ray: joining the cluster a job runs on, or starting a private one on this machine."""

import contextlib
import logging
import math
import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import ray
import yaml
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from qaclims_ray import stop
from qaclims_ray.cluster.patience import patient_for
from qaclims_ray.cluster.private_ray import one_line, private_ray, require_shared_memory, without_level_line
from qaclims_ray.cluster.ray_address import address_to_join, cannot_join, require_answer
from qaclims_ray.cluster.ray_deaths import watching_cluster
from qaclims_ray.errors import ResourceError

logger = logging.getLogger(__name__)

DEFAULTS = {
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_TRAIN_ENABLE_PRINT_PATCH": "0",
    # Reported checkpoints count only once the controller has polled them: poll faster than every 2 s.
    "RAY_TRAIN_HEALTH_CHECK_INTERVAL_S": "0.5",
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",
    # Our own lines say what happens; Ray's full logs stay in its session folder.
    "RAY_BACKEND_LOG_LEVEL": "fatal",
    # Its handler makes Ctrl-C an ordinary end of the search.
    "TUNE_DISABLE_SIGINT_HANDLER": "1",
}


@dataclass(frozen=True, kw_only=True)
class Needs:
    """What a run asks of Ray."""

    cpus: float
    """Logical CPUs that it needs at once."""
    gpus: float = 0.0
    """GPUs that it needs at once."""
    num_cpus: int | None = None
    """Logical CPUs of a private Ray; None takes what is needed."""
    object_store_mib: int = 200
    """Object store of a private Ray."""
    no_progress_minutes: float | None = None
    """Longest silence of what is waited for; None waits for ever."""


def joins_ray() -> bool:
    """Whether `ray_session` uses a Ray that is there, and so starts none of its own."""
    return ray.is_initialized() or bool(address_to_join())


def shares_ray() -> bool:
    """Whether this process is connected to a Ray already: a trial of a search, or a program that runs many things."""
    return ray.is_initialized()


def require_reachable() -> None:
    """Make sure that the Ray to join answers, where this process is told to join one, or else that one can start here.

    Raises:
        ResourceError: when it does not.
    """
    if ray.is_initialized():
        return
    if address := address_to_join():
        require_answer(address)
    else:
        require_shared_memory()


@contextlib.contextmanager
def ray_session(needs: Needs, *, dashboard: bool = False) -> Iterator[None]:
    """Connect to Ray for the time of the context.

    A running connection is used as it is; inside a submitted job, or with RAY_ADDRESS set, the cluster is joined;
    otherwise a private Ray starts on this machine, bound to the loopback address, in its own temporary folder.

    Args:
        needs: what the stages ask for.
        dashboard: start the dashboard of a private Ray, on the loopback address; Ray frees what a training that was
            stopped from outside had reserved only where there is one.

    Raises:
        ResourceError: when Ray cannot be reached, or the cluster can never hold what the stages ask for.
    """
    for name, value in DEFAULTS.items():
        os.environ.setdefault(name, value)
    for name in ("ray.data", "ray.train", "ray.tune"):
        logging.getLogger(name).setLevel(logging.ERROR)
    with patient_for(needs.no_progress_minutes), _connected(needs, dashboard):
        check_resources(needs)
        yield


def _connected(needs: Needs, dashboard: bool) -> contextlib.AbstractContextManager[None]:
    if ray.is_initialized():
        return contextlib.nullcontext()
    if address := address_to_join():
        return _joined(address)
    # Where there are GPUs their number, and so that of actors and readers, is known only once Ray is there.
    num_cpus = needs.num_cpus or max(math.ceil(needs.cpus), (os.cpu_count() or 1) if needs.gpus else 1)
    return private_ray(num_cpus=num_cpus, object_store_mib=needs.object_store_mib, dashboard=dashboard)


@contextlib.contextmanager
def _joined(address: str) -> Iterator[None]:
    require_answer(address)
    try:
        with stop.keeping_handlers(), without_level_line():
            ray.init(log_to_driver=False, logging_level=logging.ERROR)
    # Ray raises what it meets: other versions, wrong tokens, lost connections come as a dozen types.
    except Exception as error:
        raise cannot_join(address, one_line(error)) from error
    try:
        with watching_cluster() if "://" not in address else contextlib.nullcontext():
            yield
    finally:
        ray.shutdown()


def on_this_node() -> NodeAffinitySchedulingStrategy:
    """Return where an actor goes that must live as long as the process that starts it, whatever nodes are lost."""
    return NodeAffinitySchedulingStrategy(ray.get_runtime_context().get_node_id(), soft=False)


def check_resources(needs: Needs) -> None:
    """Refuse a run that would wait for ever on resources this Ray can never have.

    An autoscaling cluster adds nodes on demand, so only a Ray without one is held to what it has now.

    Raises:
        ResourceError: saying what is there, what is needed and which settings ask for it.
    """
    if _autoscales():
        return
    there = ray.cluster_resources()
    for name, needed, settings in (
        ("CPU", needs.cpus, "cluster.num_workers, cluster.cpus_per_worker, *.num_actors"),
        ("GPU", needs.gpus, "cluster.use_gpu, *.gpus_per_actor"),
    ):
        if needed > there.get(name, 0.0):
            raise ResourceError(
                f"this Ray has {there.get(name, 0.0):g} {name}, the run needs {needed:g}; lower {settings}, "
                "or run on a larger cluster"
            )


def runs_at_once(needs: Needs, asked: int | None = None) -> int:
    """Return how many runs like this one may be at work together without waiting for one another's CPUs and GPUs.

    Args:
        needs: what one of them needs; `check_resources` has found that one fits.
        asked: so many and no other number.

    Raises:
        ResourceError: when more are asked for than this Ray can ever hold.
    """
    there, of_one = ray.cluster_resources(), {"CPU": needs.cpus, "GPU": needs.gpus}
    fitting = min(int(there.get(name, 0.0) // needed) for name, needed in of_one.items() if needed)
    if asked is None:
        # On an autoscaling cluster the nodes that one fits on may not be there yet.
        return max(fitting, 1)
    if asked > fitting and not _autoscales():
        raise ResourceError(
            f"{asked} runs at once need {asked * needs.cpus:g} CPU and {asked * needs.gpus:g} GPU; this Ray has "
            f"{there.get('CPU', 0.0):g} and {there.get('GPU', 0.0):g}, enough for {fitting}"
        )
    return asked


def _autoscales() -> bool:
    # `ray up` leaves this file on the head node. Machines that are named by address are all there can be.
    path = os.path.expanduser("~/ray_bootstrap_config.yaml")
    if not os.path.exists(path):
        return False
    with open(path) as file:
        return yaml.safe_load(file)["provider"]["type"] != "local"


CPUS_PER_GPU = "CPUs for each GPU"
"""Of the node that has the fewest, among what `resources_there` returns where there is a GPU."""


def resources_there() -> Mapping[str, float]:
    """Return what the connected Ray has, by the names it gives resources, and `CPUS_PER_GPU`."""
    nodes = [node["Resources"] for node in ray.nodes() if node["Alive"]]
    shares = [node.get("CPU", 0.0) / node["GPU"] for node in nodes if node.get("GPU")]
    return {**ray.cluster_resources(), **({CPUS_PER_GPU: min(shares)} if shares else {})}
