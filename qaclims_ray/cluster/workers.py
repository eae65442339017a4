"""Trainings on Ray Train: a group of workers, checkpoints that survive them, and news for the driver.

What is trained is a `training.group.Training`: a value whose `work` runs on every worker. The run's name holds the
trainings' fingerprints, so submitting again after a crash goes on from the latest checkpoint, and never from one made
with other settings.
"""

import contextlib
import errno
import os
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import ray
import ray.train
import torch
from ray import cloudpickle
from ray.exceptions import RayError
from ray.train import (
    Checkpoint,
    CheckpointConfig,
    CheckpointUploadMode,
    FailureConfig,
    PreemptionInfo,
    ScalingConfig,
    TrainingFailedError,
)
from ray.train.torch import TorchConfig, TorchTrainer, get_device
from ray.util.queue import Queue

from qaclims_ray.cluster.config import ClusterConfig
from qaclims_ray.cluster.news import Introduction, NewsReader, OnEpoch, OnPosition
from qaclims_ray.cluster.patience import out_of_patience
from qaclims_ray.cluster.private_ray import PREEMPTION_WATCHER
from qaclims_ray.cluster.rescue import rescue
from qaclims_ray.cluster.session import on_this_node
from qaclims_ray.data import storage
from qaclims_ray.errors import QaclimsError, ResourceError
from qaclims_ray.training.checkpoint import is_sound
from qaclims_ray.training.group import Training, train_group

_FULL = (errno.ENOSPC, errno.EDQUOT)


class _Trainer(TorchTrainer):  # pyrefly: ignore[invalid-inheritance]
    """Ray's trainer, which leaves Ctrl-C to the command.

    Its own handler makes an interruption look like an ordinary end, and stays behind after the training, where it
    swallows every further one.
    """

    def _register_sigint_handler(self, controller: Any) -> None:
        """Register none."""


class RayContext:
    """A Ray Train worker as `training.context.WorkerContext`."""

    def __init__(self, on_report: OnEpoch | None = None, loader_workers: int = 0) -> None:
        context = ray.train.get_context()
        self._on_report, self.loader_workers = on_report, loader_workers
        self.rank: int = context.get_world_rank()
        self.world_size: int = context.get_world_size()
        self.device: torch.device = get_device()  # type: ignore[assignment]
        self._noticed: PreemptionInfo | None = None

    def report(self, metrics: Mapping[str, float], checkpoint_dir: str | None) -> None:
        """Report to Ray Train; the upload runs beside the next epoch and removes the local folder."""
        checkpoint = Checkpoint.from_directory(checkpoint_dir) if checkpoint_dir is not None else None
        ray.train.report(dict(metrics), checkpoint=checkpoint, checkpoint_upload_mode=CheckpointUploadMode.ASYNC)
        if self._on_report is not None and self.rank == 0:
            self._on_report(dict(metrics))

    @contextlib.contextmanager
    def latest_checkpoint(self) -> Iterator[str | None]:
        """Yield a local folder with the latest checkpoint of this run."""
        checkpoint = ray.train.get_checkpoint()
        if checkpoint is None:
            yield None
            return
        with contextlib.ExitStack() as stack:
            latest = stack.enter_context(checkpoint.as_directory())
            if is_sound(latest):
                yield latest
                return
            # Where none is whole, restoring the latest says what is wrong with it.
            others = [reported.checkpoint for reported in ray.train.get_all_reported_checkpoints()]
            folders = (stack.enter_context(other.as_directory()) for other in reversed(others) if other != checkpoint)
            yield next((folder for folder in folders if is_sound(folder)), latest)

    def must_save(self) -> bool:
        """See `WorkerContext.must_save`; true once for every notice that a node will be taken away."""
        if os.environ.get(PREEMPTION_WATCHER) == "0":  # nobody watches, and asking is a barrier
            return False
        info = ray.train.get_preemption_info()
        is_new = info is not None and info != self._noticed
        self._noticed = info
        return is_new


def fit_on_workers(
    trainings: Sequence[Training],
    *,
    name: str,
    runs_uri: str,
    cluster: ClusterConfig,
    on_position: OnPosition,
    on_epoch: OnEpoch,
) -> None:
    """Train one after the other on one group of Ray Train's workers; what is finished before a failure stays.

    Args:
        trainings: what is not finished, in order; what one starts from comes before it.
        name: of the Ray run, the same for the same trainings.
        runs_uri: folder of all Ray runs, where checkpoints go.
        cluster: workers and what each is given.
        on_position: told where the first worker is.
        on_epoch: told of every epoch.

    Raises:
        QaclimsError: as a worker raised it.
        ResourceError: when workers failed more often than `max_failures` allows, or were silent for too long.
    """
    rescued = rescue(runs_uri, name, {one.artifact.fingerprint: one.epochs for one in trainings})
    # On the driver's node, because with any other node news would be lost that the driver has not read yet.
    news = Queue(actor_options={"num_cpus": 0, "scheduling_strategy": on_this_node()})
    trainer = _Trainer(
        _work,
        train_loop_config={
            "trainings": _packed(trainings),
            "news": news,
            "rescued": rescued,
            "loader_workers": cluster.loader_workers or 0,
        },
        # With Ray's default a rank would wait half an hour for one that has gone silent.
        torch_config=TorchConfig(timeout_s=600),
        scaling_config=_scaling(cluster),
        # Failures are counted over the whole group, so every training brings its own allowance.
        run_config=_kept_at(runs_uri, name, cluster.max_failures * len(trainings), Introduction(news)),
    )
    reader = NewsReader(news, on_position, on_epoch)
    try:
        with reader.reading():
            result = trainer.fit()
    # Train's controller is an actor: where it dies, fit() raises a RayError and no TrainingFailedError.
    except (TrainingFailedError, RayError) as error:
        if reader.is_late:
            raise out_of_patience(f"the training of {_at_work(trainings)}") from error
        raise _as_user_error(error, trainings[0].artifact.kind, runs_uri) from error
    finally:
        news.shutdown(force=True)
    # Not from Result.metrics: these come only from reports with a checkpoint that the controller took note of.
    if isinstance(result.return_value, QaclimsError):
        raise result.return_value
    if unfinished := [one.label for one in trainings if one.artifact.current() is None]:
        raise ResourceError(f"the training of {unfinished[0]} ended without a network; run the same command again")
    # The networks are artefacts now, and the checkpoints are not needed any more. A rescued one lies in its run's
    # folder.
    for done in {name, *(uri.split("/")[-2] for uri in rescued.values())}:
        storage.remove_tree(storage.join(runs_uri, done))


def _kept_at(runs_uri: str, name: str, max_failures: int, introduction: Introduction) -> ray.train.RunConfig:
    filesystem, path = storage.arrow_filesystem(runs_uri)
    return ray.train.RunConfig(
        name=name,
        storage_path=path,
        storage_filesystem=filesystem,
        failure_config=FailureConfig(max_failures=max_failures),  # pyrefly: ignore[bad-argument-type]
        # The newest may be half written when a machine dies; the one before it is whole.
        checkpoint_config=CheckpointConfig(num_to_keep=2),  # pyrefly: ignore[bad-argument-type]
        callbacks=[introduction],  # type: ignore[list-item]
    )


def _at_work(trainings: Sequence[Training]) -> str:
    """Return the name of the training that a group had come to."""
    return next((one.label for one in trainings if one.artifact.in_place() is None), trainings[-1].label)


def _scaling(cluster: ClusterConfig) -> ScalingConfig:
    assert cluster.num_workers is not None, "what is left open is filled in before"
    resources = {"CPU": cluster.cpus_per_worker, **({"GPU": 1} if cluster.use_gpu else {})}
    num_workers = (cluster.min_workers, cluster.num_workers) if cluster.min_workers else cluster.num_workers
    scaling: dict[str, Any] = {
        "num_workers": num_workers,
        "use_gpu": cluster.use_gpu,
        "resources_per_worker": resources,
    }
    return ScalingConfig(**scaling)


def _packed(trainings: Sequence[Training]) -> bytes:
    """Return trainings as bytes: the controller unpacks them too, and would import torch and methods for nothing."""
    return cloudpickle.dumps(list(trainings))


def _work(loop_config: dict[str, Any]) -> Any:
    news: Queue = loop_config["news"]
    notes: Any = news.actor
    try:
        train_group(
            cloudpickle.loads(loop_config["trainings"]),
            # This waits until the epoch has arrived, so that none is lost when the worker is killed right after it.
            RayContext(news.put, loop_config["loader_workers"]),
            # This does not wait: a position that gets lost is made good by the next one.
            lambda index, steps: notes.put_nowait.remote((index, steps)),
            rescued=loop_config["rescued"],
        )
    except ResourceError:
        # This is the trouble of one machine, such as a full disk. The worker has to fail: the other ranks wait for it
        # in a collective until Ray ends the group.
        raise
    except QaclimsError as error:
        # A user's mistake is the same on every rank and would only be retried: hand it to the driver.
        return error


def _as_user_error(error: BaseException, kind: str, runs_uri: str) -> QaclimsError:
    lines = [line for line in str(error).strip().splitlines() if line.strip()]
    what = lines[-1] if lines else type(error).__name__
    if any(os.strerror(code) in what for code in _FULL) and runs_uri not in what:
        # Ray Train's upload of a checkpoint does not say where to.
        what = f"{runs_uri} is full, make room there ({what})"
    return ResourceError(
        f"the {kind} training failed: {what}. Checkpoints are kept; run the same command again to go on from the last "
        "one"
    )
