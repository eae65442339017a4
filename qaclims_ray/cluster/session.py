"""Reaching Ray: joining the cluster a job runs on, or starting a private one on this machine."""

import contextlib
import logging
import math
import os
import shutil
import sys
import tempfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import ray
import yaml
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from qaclims_ray.errors import QaclimsError, ResourceError

logger = logging.getLogger(__name__)

DEFAULTS = {
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_TRAIN_ENABLE_PRINT_PATCH": "0",
    # Reported checkpoints count only once the controller has polled them: poll faster than every 2 s.
    "RAY_TRAIN_HEALTH_CHECK_INTERVAL_S": "0.5",
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",
    # Our own lines say what happens; Ray's full logs stay in its session folder.
    "RAY_BACKEND_LOG_LEVEL": "fatal",
}


LEVEL_LINE = b"Set ray log level from environment variable"


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


def joins_ray() -> bool:
    """Whether `ray_session` uses a Ray that is there, and so starts none of its own."""
    return ray.is_initialized() or bool(os.environ.get("RAY_ADDRESS"))


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
    if ray.is_initialized():
        check_resources(needs)
        yield
        return
    if os.environ.get("RAY_ADDRESS"):
        with _joined():
            check_resources(needs)
            yield
        return
    temp_dir = tempfile.mkdtemp(prefix="qaclims-ray-")
    keeps_logs = False
    try:
        with _without_level_line():
            ray.init(
                # Without it ray.init() would join any Ray that runs on this machine.
                address="local",
                num_cpus=needs.num_cpus or math.ceil(needs.cpus),
                include_dashboard=dashboard,
                object_store_memory=needs.object_store_mib << 20,
                log_to_driver=False,
                logging_level=logging.ERROR,
                # No protection by itself: Ray's control service and agents listen on all interfaces (docs/cluster.md).
                _node_ip_address="127.0.0.1",
                _temp_dir=temp_dir,
            )
        check_resources(needs)
        yield
    except Exception as error:
        # A user's mistake says by itself what is wrong. All other trouble needs Ray's logs.
        keeps_logs = isinstance(error, ResourceError) or not isinstance(error, QaclimsError)
        raise
    finally:
        ray.shutdown()
        if keeps_logs:
            logger.warning("Ray's logs of this run are kept in %s", temp_dir)
        else:
            shutil.rmtree(temp_dir, ignore_errors=True)


@contextlib.contextmanager
def _joined() -> Iterator[None]:
    try:
        with _without_level_line():
            ray.init(log_to_driver=False, logging_level=logging.ERROR)
    except (ConnectionError, RuntimeError, ValueError) as error:
        raise ResourceError(
            f"cannot join the Ray cluster at {os.environ['RAY_ADDRESS']}: {error}. "
            "Unset RAY_ADDRESS to run on this machine alone"
        ) from None
    try:
        yield
    finally:
        ray.shutdown()


@contextlib.contextmanager
def _without_level_line() -> Iterator[None]:
    """Keep one line of Ray's core off the console: the log level that was set, written before the level takes effect.

    The core writes to the process's own stderr, below Python's. What else comes out in the meantime follows at the end.
    """
    sys.stderr.flush()
    stderr = os.dup(2)
    with tempfile.TemporaryFile() as held:
        os.dup2(held.fileno(), 2)
        try:
            yield
        finally:
            sys.stderr.flush()
            os.dup2(stderr, 2)
            os.close(stderr)
            held.seek(0)
            os.write(2, b"".join(line for line in held if LEVEL_LINE not in line))


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


def resources_there() -> Mapping[str, float]:
    """Return what the connected Ray has, by the names it gives resources."""
    return ray.cluster_resources()
