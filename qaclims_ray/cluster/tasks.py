"""One function in one Ray task, where the GPUs are."""

from collections.abc import Callable
from typing import Any, TypeVar

from qaclims_ray.cluster.patience import out_of_patience, patience_s
from qaclims_ray.errors import QaclimsError

_Result = TypeVar("_Result")


def run_task(function: Callable[..., _Result], *arguments: Any, num_gpus: float = 0) -> _Result:
    """Run a function on a node that has a CPU, and the GPUs, to spare; return its result.

    Args:
        function: picklable.
        arguments: its arguments, picklable.
        num_gpus: that it needs.

    Raises:
        QaclimsError: as the function raised it.
        ResourceError: when it is not done within `patience.patience_s`.
    """
    # Not at the top: a stage that is there already needs no Ray.
    import ray
    import ray.exceptions

    # A process that lived on would keep gigabytes of the GPU. Ray takes this number from the decorator alone; 0 has no
    # limit.
    call = ray.remote(max_retries=1, max_calls=1 if num_gpus else 0)(_outcome)
    # A task that a trial of a search starts would go into the trial's placement group, which holds next to no CPU
    # (search.py). DEFAULT takes it out of there, to wherever the cluster has room.
    task = call.options(num_cpus=1, num_gpus=num_gpus, scheduling_strategy="DEFAULT")
    reference = task.remote(function, arguments)
    try:
        outcome: Any = ray.get(reference, timeout=patience_s())
    except ray.exceptions.GetTimeoutError:
        ray.cancel(reference, force=True)
        raise out_of_patience(
            f"{getattr(function, '__name__', 'work').strip('_')}, which is one task of Ray,"
        ) from None
    if isinstance(outcome, QaclimsError):
        raise outcome
    return outcome


def _outcome(function: Callable[..., Any], arguments: tuple[Any, ...]) -> Any:
    try:
        return function(*arguments)
    except QaclimsError as error:
        # As a value: what a task raises comes out wrapped in an error of Ray's, the worker's traceback in its text.
        return error
