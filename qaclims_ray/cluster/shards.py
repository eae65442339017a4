"""The shape that every Ray Data stage shares: shards in, one published file per shard out.

A row of the data set is one shard (a few dozen images). Decoding runs in CPU tasks. On GPUs the model is held by a pool
of actors; on CPUs by the processes of tasks, which Ray keeps for the next stage: a new actor is a new process, and
spends seconds on imports. Either publishes the shard's file and returns a small summary row. Shards are deterministic
and appear only when whole, so a killed stage repeats at most what was in flight and a row is never written twice.
"""

import logging
import pickle
import time
import uuid
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from typing import Any

import ray.data
from ray.exceptions import RayError

from qaclims_ray.errors import QaclimsError, ResourceError

logger = logging.getLogger(__name__)

ShardProgress = Callable[[int, int], None]


def run_shards(
    shards: Sequence[Any],
    *,
    finished: Collection[int] = (),
    decode: Callable[[Any], Any],
    actor: type,
    actor_kwargs: Mapping[str, Any],
    num_actors: int = 1,
    gpus_per_actor: float = 0.0,
    progress: ShardProgress | None = None,
) -> list[dict[str, Any]]:
    """Decode every unfinished shard in CPU tasks, have an actor or task work on it, and return the summaries.

    Args:
        shards: one picklable description each, of all shards.
        finished: positions of shards that are there already; they are left out.
        decode: shard description -> what the actor works on; must keep bad images as data.
        actor: class whose instances turn a decoded shard into a summary of plain JSON types.
        actor_kwargs: constructor arguments.
        num_actors: most of them at once.
        gpus_per_actor: GPUs of one actor; fractions share a GPU. With 0 it lives in the processes of tasks.
        progress: called with (shards done, the finished ones among them; shards in all).

    Returns:
        Summaries of the shards that were worked on now, in the order in which they ended. A ``remark`` in one is told.

    Raises:
        QaclimsError: the first one raised by a task or actor, as itself.
        ResourceError: when Ray fails for a reason of its own.
    """
    # Pickled, because Ray Data would make Arrow columns of objects and tensors.
    rows = [{"shard": pickle.dumps(shard)} for index, shard in enumerate(shards) if index not in finished]
    if not rows:
        return []
    # An actor without a shard would load its model for nothing.
    outcomes = _outcomes(rows, decode, actor, dict(actor_kwargs), min(num_actors, len(rows)), gpus_per_actor)
    summaries: list[dict[str, Any]] = []
    told: set[str] = set()
    try:
        for outcome in outcomes:
            if isinstance(outcome, QaclimsError):
                raise outcome
            summaries.append(outcome)
            _tell(outcome.get("remark", ""), told)
            if progress is not None:
                progress(len(shards) - len(rows) + len(summaries), len(shards))
    except RayError as error:
        raise ResourceError(
            f"the stage stopped after {len(summaries)} of {len(rows)} shards: {root_cause(error)}. "
            "What is finished is kept; run the same command again to go on"
        ) from error
    return summaries


def _tell(remark: str, told: set[str]) -> None:
    """Say what an actor remarks, once where several do."""
    if remark and remark not in told:
        told.add(remark)
        logger.warning("%s", remark)


def _outcomes(
    rows: list[dict[str, bytes]],
    decode: Callable[[Any], Any],
    actor: type,
    actor_kwargs: dict[str, Any],
    num_actors: int,
    gpus_per_actor: float,
) -> Iterator[Any]:
    """Yield the summary or the mistake of every shard, in the order in which they end."""
    context = ray.data.DataContext.get_current()
    context.enable_progress_bars = False
    # Waiting for the slow ones would hold back what is done.
    context.execution_options.preserve_order = False
    # One block per shard, or Ray Data would put several into one task and repeat all of them after a kill.
    dataset = ray.data.from_items(rows, override_num_blocks=len(rows))
    if gpus_per_actor:
        dataset = dataset.map(_ShardDecoder(decode)).map_batches(
            _ShardActor,
            fn_constructor_kwargs={"actor": actor, "actor_kwargs": actor_kwargs},
            # By default an actor would get a whole block at a time; with GPUs Ray Data insists on a number.
            batch_size=1,
            compute=ray.data.ActorPoolStrategy(size=num_actors),
            num_cpus=0.5,
            num_gpus=gpus_per_actor,
        )
    else:
        task = _ShardTask(decode, actor, actor_kwargs)
        dataset = dataset.map(task, compute=ray.data.TaskPoolStrategy(size=num_actors), num_cpus=1)
    for row in dataset.iter_rows():
        yield pickle.loads(row["outcome"])


def as_it_is(shard: Any) -> Any:
    """Decode nothing: for stages whose actor reads what it needs."""
    return shard


class _ShardDecoder:
    """Run a decoding function on a pickled shard; a user's mistake travels on as a value."""

    def __init__(self, decode: Callable[[Any], Any]) -> None:
        self.decode = decode

    def __call__(self, row: dict[str, Any]) -> dict[str, Any]:
        return {"decoded": pickle.dumps(_decoded(self.decode, row["shard"]))}


class _ShardActor:
    """Hold one model; turn a decoded shard into its summary."""

    def __init__(self, actor: type, actor_kwargs: dict[str, Any]) -> None:
        try:
            self.work: Any = actor(**actor_kwargs)
        except QaclimsError as error:
            # An exception in a constructor ends the actor, and the driver sees an error of Ray's about that. As a value
            # it reaches the user.
            self.work = error

    def __call__(self, batch: dict[str, Any]) -> dict[str, Any]:
        return {"outcome": [pickle.dumps(self.outcome(pickle.loads(batch["decoded"][0])))]}

    def outcome(self, decoded: Any) -> Any:
        """Return a shard's summary, or the mistake that prevents it."""
        started = time.perf_counter()
        failure = next((x for x in (self.work, decoded) if isinstance(x, QaclimsError)), None)
        try:
            return failure or {**self.work(decoded), "seconds": time.perf_counter() - started}
        except QaclimsError as error:
            return error


class _ShardTask:
    """Decode a shard and turn it into its summary in one task; a process makes its model at the first one."""

    def __init__(self, decode: Callable[[Any], Any], actor: type, actor_kwargs: dict[str, Any]) -> None:
        self.decode, self.actor, self.actor_kwargs = decode, actor, actor_kwargs
        # Another for every stage: what lies behind the arguments, such as a network's file, may have changed since.
        self.key = uuid.uuid4().hex

    def __call__(self, row: dict[str, Any]) -> dict[str, Any]:
        if self.key not in _HELD:
            _HELD.clear()
            _HELD[self.key] = _ShardActor(self.actor, self.actor_kwargs)
        return {"outcome": pickle.dumps(_HELD[self.key].outcome(_decoded(self.decode, row["shard"])))}


_HELD: dict[str, _ShardActor] = {}
"""What this process holds for the tasks of one stage: the stage's key -> its model."""


def _decoded(decode: Callable[[Any], Any], shard: bytes) -> Any:
    try:
        return decode(pickle.loads(shard))
    except QaclimsError as error:
        return error


def root_cause(error: BaseException) -> str:
    """Return the first cause of an error of Ray as one line: its type and the last line of its text."""
    # Ray Data wraps what user code raised; the original is only in the text, before this sentence of Python's.
    first, _, wrapper = str(error).partition("The above exception was the direct cause")
    if wrapper and first.strip():
        return first.strip().splitlines()[-1]
    cause: BaseException = error
    while cause.__cause__ is not None:
        cause = cause.__cause__
    text = str(getattr(cause, "cause", None) or cause).strip().splitlines()
    return f"{type(cause).__name__}: {text[-1] if text else ''}"
