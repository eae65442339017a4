"""DDP training on Ray Train. The loop itself is plain torch in ``training/``; ``methods.py`` says what is trained.

Several trainings may share the workers of one Ray run. Its name holds their fingerprints, so submitting again after a
crash goes on from the latest checkpoint, and never from one made with other settings.
"""

import contextlib
import dataclasses
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import ray
import ray.train
import torch
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

from qaclims_ray.cluster.config import ClusterConfig
from qaclims_ray.cluster.rescue import rescue
from qaclims_ray.cluster.session import on_this_node
from qaclims_ray.data import artifacts, storage
from qaclims_ray.data.artifacts import ArtifactMeta
from qaclims_ray.data.manifest import Manifest
from qaclims_ray.errors import QaclimsError, ResourceError
from qaclims_ray.stages.data import training_manifest
from qaclims_ray.stages.stage import Stage
from qaclims_ray.stages.training_job import TrainingJob
from qaclims_ray.training.context import LocalContext
from qaclims_ray.training.group import Training, train_group


class RayContext:
    """A Ray Train worker as `training.context.WorkerContext`."""

    def __init__(self, on_report: Callable[[dict[str, float]], Any] | None = None) -> None:
        context = ray.train.get_context()
        self._on_report = on_report
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
        if checkpoint is not None:
            with checkpoint.as_directory() as folder:
                yield folder
        else:
            yield None

    def must_save(self) -> bool:
        """See `WorkerContext.must_save`; true once for every notice that a node will be taken away."""
        info = ray.train.get_preemption_info()
        is_new = info is not None and info != self._noticed
        self._noticed = info
        return is_new


def run_training(
    stage: Stage,
    job: TrainingJob,
    uri: str,
    settings: dict[str, Any],
    inputs: dict[str, str],
    manifest: Manifest,
    *,
    label: str,
) -> ArtifactMeta:
    """Run one training, unless its artefact is there and matches; see `plan_training` and `run_trainings`."""
    return run_trainings(stage, [plan_training(stage, job, uri, settings, inputs, label=label)], manifest)[0]


def plan_training(
    stage: Stage, job: TrainingJob, uri: str, settings: dict[str, Any], inputs: dict[str, str], *, label: str
) -> Training:
    """Return a training whose figures go to a stage's tracker.

    Args:
        stage: surroundings.
        job: what to train.
        uri: where the artefact goes.
        settings: of its fingerprint.
        inputs: of its fingerprint.
        label: name on the console.
    """
    job = dataclasses.replace(job, tracker=stage.tracker.handle())
    return Training(job=job, uri=uri, settings=settings, inputs=inputs, label=label)


def run_trainings(stage: Stage, trainings: Sequence[Training], manifest: Manifest) -> list[ArtifactMeta]:
    """Run trainings one after the other on the same workers, but for those whose artefact is there and matches.

    Args:
        stage: surroundings.
        trainings: what to train, in order; none may start from another.
        manifest: the whole manifest.

    Raises:
        QaclimsError: for the first that fails; those before it are complete.
    """
    for training in trainings:
        if meta := training.finished():
            job = training.job
            if stage.on_epoch is not None:
                stage.on_epoch({**meta.summary, "epoch": float(job.optim.epochs)})
            amount = f"{job.total_steps(0)} steps" if job.counts_steps else f"{job.optim.epochs} epochs"
            stage.progress.start(f"train {training.label}")
            stage.progress.finish(f"{amount} (there already)", is_new=False)
        else:
            storage.remove_tree(training.uri)
    todo = [training for training in trainings if training.finished() is None]
    if todo:
        lines = _Lines(stage, todo, len(training_manifest(manifest, stage.config).records))
        if stage.config.cluster.num_workers == 0:
            _fit_here(todo, stage, lines)
        else:
            _fit_on_ray(todo, _run_name(trainings), stage, lines)
        lines.close()
    return [artifacts.require(one.uri, one.job.kind, verb="train", fingerprint=one.fingerprint) for one in trainings]


class _Lines:
    """Tells the console which of several trainings is at work, and what those before it did."""

    def __init__(self, stage: Stage, trainings: Sequence[Training], num_images: int) -> None:
        self._progress, self._trainings, self._num_images = stage.progress, trainings, num_images
        self._index = 0
        self._progress.start(f"train {trainings[0].label}")

    def advance(self, index: int, steps: int) -> None:
        """So many steps of this training are done, and all before it."""
        while self._index < index:
            self._finish()
            self._index += 1
            self._progress.start(f"train {self._trainings[self._index].label}")
        self._progress.advance(steps, self._trainings[index].job.total_steps(self._num_images))

    def close(self) -> None:
        """All are done."""
        self.advance(len(self._trainings) - 1, 0)
        self._finish()

    def _finish(self) -> None:
        training = self._trainings[self._index]
        meta = training.finished()
        assert meta is not None, "a training completes its artefact before the next begins"
        self._progress.finish(_describe(training, self._num_images, meta.summary))


def _describe(training: Training, num_images: int, metrics: Mapping[str, float]) -> str:
    job, steps = training.job, training.job.total_steps(num_images)
    if not steps:
        return f"random, not learned -> {training.uri}"
    amount = f"{steps} steps" if job.counts_steps else f"{job.optim.epochs} epochs of {num_images} images"
    learning = f"{amount}, learning rate {job.optim.lr:g}"
    return f"{learning}, loss {metrics['loss']:.4f} -> {training.uri}"


def _run_name(trainings: Sequence[Training]) -> str:
    """Name the run by all its trainings, finished or not, so that it is found again after a stop."""
    names = [one.fingerprint for one in trainings]
    return f"{trainings[0].job.kind}-{names[0] if len(names) == 1 else artifacts.fingerprint_of(names)}"


def _fit_here(todo: Sequence[Training], stage: Stage, lines: _Lines) -> None:
    device = "cuda" if stage.config.cluster.use_gpu else "cpu"
    for index, training in enumerate(todo):
        checkpoints = storage.join(stage.layout.training_runs, _run_name([training]))
        train_group(
            [training],
            _TellingContext(checkpoints, device, stage.on_epoch),
            lambda _, steps, index=index: lines.advance(index, steps),
        )
        storage.remove_tree(checkpoints)


class _TellingContext(LocalContext):
    """A single worker in this process that tells the stage of every epoch."""

    def __init__(self, checkpoints: str, device: str, on_epoch: Callable[[Mapping[str, float]], None] | None) -> None:
        super().__init__(checkpoints, device)
        self._on_epoch = on_epoch

    def report(self, metrics: Mapping[str, float], checkpoint_dir: str | None) -> None:
        """See `WorkerContext.report`."""
        super().report(metrics, checkpoint_dir)
        if self._on_epoch is not None:
            self._on_epoch(metrics)


def _fit_on_ray(todo: Sequence[Training], run_name: str, stage: Stage, lines: _Lines) -> None:
    cluster, first = stage.config.cluster, todo[0]
    filesystem, path = storage.arrow_filesystem(stage.layout.training_runs)
    rescued = rescue(stage.layout.training_runs, run_name, {one.fingerprint: one.job.optim.epochs for one in todo})
    board: Any = _Board.options(scheduling_strategy=on_this_node()).remote()
    trainer = TorchTrainer(
        _worker,
        train_loop_config={"trainings": todo, "board": board, "rescued": rescued},
        torch_config=TorchConfig(timeout_s=600),
        scaling_config=_scaling(cluster),
        run_config=ray.train.RunConfig(
            name=run_name,
            storage_path=path,
            storage_filesystem=filesystem,
            failure_config=FailureConfig(max_failures=cluster.max_failures * len(todo)),
            checkpoint_config=CheckpointConfig(num_to_keep=2),
        ),
    )
    try:
        with _watching(board, lines, stage.on_epoch):
            result = trainer.fit()
    except (TrainingFailedError, RayError) as error:
        raise _as_user_error(error, first.job.kind) from error
    finally:
        ray.kill(board)
    if isinstance(result.return_value, QaclimsError):
        raise result.return_value
    if unfinished := [one.label for one in todo if one.finished() is None]:
        raise ResourceError(f"the training of {unfinished[0]} ended without a network; run the same command again")
    for done in {run_name, *(uri.split("/")[-2] for uri in rescued.values())}:
        storage.remove_tree(storage.join(stage.layout.training_runs, done))


def _scaling(cluster: ClusterConfig) -> ScalingConfig:
    resources = {"CPU": cluster.cpus_per_worker, **({"GPU": 1} if cluster.use_gpu else {})}
    num_workers = (cluster.min_workers, cluster.num_workers) if cluster.min_workers else cluster.num_workers
    return ScalingConfig(num_workers=num_workers, use_gpu=cluster.use_gpu, resources_per_worker=resources)


def _worker(loop_config: dict[str, Any]) -> Any:
    board = loop_config["board"]
    try:
        train_group(
            loop_config["trainings"],
            RayContext(lambda metrics: ray.get(board.add.remote(metrics))),
            lambda index, steps: board.note.remote(index, steps),
            rescued=loop_config["rescued"],
        )
    except ResourceError:
        # The trouble of one machine, such as a full disk: the other ranks wait for this one until Ray ends them.
        raise
    except QaclimsError as error:
        # A user's mistake is the same on every rank and would only be retried: hand it to the driver.
        return error


@ray.remote(num_cpus=0)
class _Board:
    """How far rank 0 says it is, for the driver to read."""

    def __init__(self) -> None:
        self._position = (0, 0)
        self._epochs: list[dict[str, float]] = []

    def note(self, index: int, steps: int) -> None:
        self._position = (index, steps)

    def position(self) -> tuple[int, int]:
        return self._position

    def add(self, metrics: dict[str, float]) -> None:
        self._epochs.append(metrics)

    def epochs(self, start: int) -> list[dict[str, float]]:
        return self._epochs[start:]


@contextlib.contextmanager
def _watching(board: Any, lines: _Lines, on_epoch: Callable[[Mapping[str, float]], None] | None) -> Iterator[None]:
    stop, num_told = threading.Event(), 0

    def tell() -> None:
        nonlocal num_told
        if on_epoch is not None:
            for metrics in ray.get(board.epochs.remote(num_told)):
                num_told += 1
                on_epoch(metrics)

    def watch() -> None:
        while not stop.wait(1.0):
            lines.advance(*ray.get(board.position.remote()))
            tell()

    thread = threading.Thread(target=watch, daemon=True)
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join()
    tell()


def _as_user_error(error: BaseException, kind: str) -> QaclimsError:
    lines = [line for line in str(error).strip().splitlines() if line.strip()]
    return ResourceError(
        f"the {kind} training failed: {lines[-1] if lines else type(error).__name__}. Checkpoints are kept; "
        "run the same command again to go on from the last one"
    )
