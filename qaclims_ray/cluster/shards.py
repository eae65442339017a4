"""The shape that every Ray Data stage shares: shards in, one published file per shard out.

A row of the data set is one shard (a few dozen images). On GPUs CPU tasks decode shards ahead, actors that hold the
model compute, and CPU tasks write behind them, so that no GPU waits for a codec or a disk; Ray Data bounds what lies
between them. On CPUs one task does all three, with a model that its process keeps, and Ray keeps the process for the
next stage: a new actor is a new process, and spends seconds on imports. The last step publishes the shard's file and
returns a small summary row. Shards are deterministic and appear only when whole, so a killed stage repeats at most what
was in flight and a row is never written twice.
"""

import contextlib
import io
import logging
import pickle
import uuid
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from typing import Any

from qaclims_ray.cluster.patience import out_of_patience, patience_s
from qaclims_ray.data import written_files
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
    write: Callable[[Any], dict[str, Any]] | None = None,
    num_actors: int = 1,
    gpus_per_actor: float = 0.0,
    progress: ShardProgress | None = None,
) -> list[dict[str, Any]]:
    """Decode every unfinished shard, have an actor or task work on it, write what it made, and return the summaries.

    Args:
        shards: one picklable description each, of all shards.
        finished: positions of shards that are there already; they are left out.
        decode: shard description -> what the actor works on; must keep bad images as data.
        actor: class whose instances turn a decoded shard into what is written, or into a summary.
        actor_kwargs: constructor arguments.
        write: publishes what an actor made and returns the summary; picklable, needs no model. None where actors do.
        num_actors: most of them at once.
        gpus_per_actor: GPUs of one actor; fractions share a GPU. With 0 it lives in the processes of tasks.
        progress: called with (shards done, the finished ones among them; shards in all).

    Returns:
        Summaries, plain JSON types, of the shards that were worked on now, in the order in which they ended. A
        ``remark`` in one is told.

    Raises:
        QaclimsError: the first one raised by a task or actor, as itself.
        ResourceError: when Ray fails for a reason of its own, or no shard ends for longer than `patience.patience_s`.
    """
    # Pickled, because Ray Data would make Arrow columns of objects and tensors.
    rows = [{"shard": pickle.dumps(shard)} for index, shard in enumerate(shards) if index not in finished]
    if not rows:
        return []
    # An actor without a shard would load its model for nothing.
    outcomes = _outcomes(rows, decode, actor, dict(actor_kwargs), write, min(num_actors, len(rows)), gpus_per_actor)
    summaries: list[dict[str, Any]] = []
    told: set[str] = set()
    with stage_errors(lambda: f"{len(summaries)} of {len(rows)} shards"):
        for outcome in outcomes:
            if isinstance(outcome, QaclimsError):
                raise outcome
            summaries.append(outcome)
            _tell(outcome.get("remark", ""), told)
            if progress is not None:
                progress(len(shards) - len(rows) + len(summaries), len(shards))
    return summaries


@contextlib.contextmanager
def stage_errors(done: Callable[[], str]) -> Iterator[None]:
    """Raise what Ray meets in the context as one sentence.

    Args:
        done: says how far the stage is, e.g. 3 of 4 shards.

    Raises:
        ResourceError: when Ray fails for a reason of its own, or Ray Data finds nothing moving for too long.
    """
    # Not at the top: a stage that is there already needs no Ray.
    from ray.data.exceptions import ExecutionTimeoutError
    from ray.exceptions import RayError

    try:
        yield
    except RayError as error:
        raise ResourceError(
            f"the stage stopped after {done()}: {root_cause(error)}. "
            "What is finished is kept; run the same command again to go on"
        ) from error
    except ExecutionTimeoutError as error:
        raise out_of_patience(f"the stage, with {done()} done,") from error


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
    write: Callable[[Any], dict[str, Any]] | None,
    num_actors: int,
    gpus_per_actor: float,
) -> Iterator[Any]:
    """Yield the summary or the mistake of every shard, in the order in which they end."""
    import ray.data

    # Its first import sets the level of its own log.
    logging.getLogger("ray.data").setLevel(logging.ERROR)
    context = ray.data.DataContext.get_current()
    context.enable_progress_bars = False
    # Waiting for the slow ones would hold back what is done.
    context.execution_options.preserve_order = False
    # Ray Data's own bound is half an hour; -1 is none.
    context.execution_no_progress_timeout_s = patience_s() or -1
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
        if write is not None:
            dataset = dataset.map(_ShardWriter(write), num_cpus=0.5)
    else:
        task = _ShardTask(decode, actor, actor_kwargs, write)
        dataset = dataset.map(task, compute=ray.data.TaskPoolStrategy(size=num_actors), num_cpus=1)
    for row in dataset.iter_rows():
        outcome, written = pickle.loads(row["outcome"])
        written_files.remember(written)
        yield outcome


def as_it_is(shard: Any) -> Any:
    """Decode nothing: for stages whose actor reads what it needs."""
    return shard


class _ShardDecoder:
    """Run a decoding function on a pickled shard; a user's mistake travels on as a value."""

    def __init__(self, decode: Callable[[Any], Any]) -> None:
        self.decode = decode

    def __call__(self, row: dict[str, Any]) -> dict[str, Any]:
        return {"decoded": as_bytes(_decoded(self.decode, row["shard"]))}


class _ShardActor:
    """Hold one model; turn a decoded shard into what is written, or into its summary."""

    def __init__(self, actor: type, actor_kwargs: dict[str, Any]) -> None:
        try:
            self.work: Any = actor(**actor_kwargs)
        except QaclimsError as error:
            # An exception in a constructor ends the actor, and the driver sees an error of Ray's about that. As a value
            # it reaches the user.
            self.work = error

    def __call__(self, batch: dict[str, Any]) -> dict[str, Any]:
        return {"outcome": [as_bytes((self.outcome(pickle.loads(batch["decoded"][0])), written_files.take()))]}

    def outcome(self, decoded: Any) -> Any:
        """Return what is made of a shard, or the mistake that prevents it."""
        if isinstance(self.work, QaclimsError):
            return self.work
        return _unless_mistaken(self.work, decoded)


class _ShardWriter:
    """Publish what an actor made of a shard, in a task of its own; a user's mistake travels on as a value."""

    def __init__(self, write: Callable[[Any], dict[str, Any]]) -> None:
        self.write = write

    def __call__(self, row: dict[str, Any]) -> dict[str, Any]:
        made, written = pickle.loads(row["outcome"])
        return {"outcome": pickle.dumps((_unless_mistaken(self.write, made), written + written_files.take()))}


class _ShardTask:
    """Decode a shard and turn it into its summary in one task; a process makes its model at the first one."""

    def __init__(
        self,
        decode: Callable[[Any], Any],
        actor: type,
        actor_kwargs: dict[str, Any],
        write: Callable[[Any], dict[str, Any]] | None = None,
    ) -> None:
        self.decode, self.actor, self.actor_kwargs, self.write = decode, actor, actor_kwargs, write
        # Another for every stage: what lies behind the arguments, such as a network's file, may have changed since.
        self.key = uuid.uuid4().hex

    def __call__(self, row: dict[str, Any]) -> dict[str, Any]:
        if self.key not in _HELD:
            _HELD.clear()
            _HELD[self.key] = _ShardActor(self.actor, self.actor_kwargs)
        made = _HELD[self.key].outcome(_decoded(self.decode, row["shard"]))
        outcome = made if self.write is None else _unless_mistaken(self.write, made)
        return {"outcome": pickle.dumps((outcome, written_files.take()))}


_HELD: dict[str, _ShardActor] = {}
"""What this process holds for the tasks of one stage: the stage's key -> its model."""


def _decoded(decode: Callable[[Any], Any], shard: bytes) -> Any:
    return _unless_mistaken(decode, pickle.loads(shard))


def _unless_mistaken(step: Callable[[Any], Any], value: Any) -> Any:
    """Return what a step makes of a value, or the mistake that it, or a step before it, met."""
    if isinstance(value, QaclimsError):
        return value
    try:
        return step(value)
    except QaclimsError as error:
        return error


def as_bytes(value: Any) -> bytes:
    """Return a value as bytes for `pickle.loads`; tensors on the CPU cost one copy, where pickle makes several."""
    buffer = io.BytesIO()
    _Pickler(buffer, protocol=5).dump(value)
    return buffer.getvalue()


class _Pickler(pickle.Pickler):
    def reducer_override(self, obj: Any) -> Any:
        # Here, because the driver starts before it knows whether it needs torch.
        import torch

        # numpy knows no bfloat16.
        if type(obj) is torch.Tensor and obj.device.type == "cpu" and obj.dtype != torch.bfloat16:
            return torch.from_numpy, (obj.detach().contiguous().numpy(),)
        return NotImplemented


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
