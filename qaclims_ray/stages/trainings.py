"""Running trainings: those whose artefact is there are left out, the others share one group of workers."""

import contextlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from qaclims_ray.cluster.config import ClusterConfig
from qaclims_ray.cluster.rescue import remove_finished
from qaclims_ray.data import artifacts, storage, whole_files
from qaclims_ray.data.artifacts import Artifact, ArtifactMeta
from qaclims_ray.models.weights import FROM_CLASSIFIER, weights_fingerprint
from qaclims_ray.stages.layout import RunLayout
from qaclims_ray.stages.stage import Stage, StageProgress
from qaclims_ray.tracking.mlflow_tracker import attach
from qaclims_ray.tracking.tracker import TrackerHandle
from qaclims_ray.training.config import OptimConfig
from qaclims_ray.training.context import LocalContext, WorkerContext
from qaclims_ray.training.group import Training, train_group
from qaclims_ray.training.meter import OnStep

Train = Callable[[WorkerContext, OnStep], dict[str, float]]
"""Trains on every worker and returns the last figures; picklable."""


@dataclass(frozen=True)
class TrackedWork:
    """A training whose figures go to MLflow, from the first worker."""

    train: Train
    """What is done."""
    handle: TrackerHandle | None
    """MLflow run to go on with; None tracks nothing."""
    prefix: str
    """In front of the figures' names."""

    def __call__(self, context: WorkerContext, on_step: OnStep) -> dict[str, float]:
        """Train on this worker."""
        if context.rank != 0 or self.handle is None:
            return self.train(context, on_step)
        with contextlib.closing(attach(self.handle, system_metrics_node="rank-0")) as tracker:

            def tell(step: int, metrics: dict[str, float]) -> None:
                tracker.log_metrics({f"{self.prefix}{name}": value for name, value in metrics.items()}, step=step)
                on_step(step, metrics)

            return self.train(context, tell)


def plan_training(
    stage: Stage,
    artifact: Artifact,
    train: Train,
    optim: OptimConfig,
    *,
    label: str,
    num_images: int,
    num_steps: int | None = None,
    phase: str = "",
) -> Training:
    """Return a training whose figures go to a stage's tracker.

    Args:
        stage: surroundings.
        artifact: what it makes.
        train: trains on every worker.
        optim: optimiser and schedule; its epochs are the training's.
        label: name on the console.
        num_images: images of an epoch.
        num_steps: optimiser steps of the whole, where an epoch is not a pass over the images.
        phase: in front of its figures in MLflow.
    """
    passes = optim.epochs * max(num_images // optim.batch_size, 1)
    return Training(
        artifact=artifact,
        label=label,
        work=TrackedWork(train, stage.tracker.handle(), f"train/{phase}/" if phase else "train/"),
        epochs=optim.epochs,
        num_steps=passes if num_steps is None else num_steps,
        length=f"{optim.epochs} epochs of {num_images} images" if num_steps is None else f"{num_steps} steps",
        lr=optim.lr,
        images_per_step=min(optim.batch_size, num_images),
    )


def run_trainings(stage: Stage, trainings: Sequence[Training]) -> list[ArtifactMeta]:
    """Run trainings one after the other on the same workers, but for those whose artefact is there and matches.

    Args:
        stage: surroundings.
        trainings: what to train, in order; what one starts from comes before it.

    Raises:
        QaclimsError: for the first that fails; those before it are complete.
    """
    todo = []
    for training in trainings:
        if meta := training.artifact.current():
            stage.progress.epoch({**meta.summary, "epoch": float(training.epochs)})
            stage.progress.start(f"train {training.label}")
            stage.progress.finish(f"{training.length} (there already)", is_new=False)
        else:
            todo.append(training)
    if todo:
        smallest = min((one.images_per_step for one in todo if one.images_per_step), default=None)
        cluster = stage.room.shared_among_workers(stage.config.cluster, smallest)
        for training in todo:
            stage.say_why(training.artifact)
            training.artifact.begin()
        lines = _Lines(stage.progress, todo)
        if cluster.num_workers == 0:
            _fit_here(todo, stage, cluster, lines)
        else:
            # Here, because workers and stages over images import this module, and none of them needs Ray Train.
            from qaclims_ray.cluster.workers import fit_on_workers

            fit_on_workers(
                todo,
                name=_run_name(trainings),
                runs_uri=stage.layout.training_runs,
                cluster=cluster,
                on_position=lines.advance,
                on_epoch=stage.progress.epoch,
            )
        lines.close()
    names = {_run_name(trainings), *(_run_name([one]) for one in trainings)}
    remove_finished(stage.layout.training_runs, names, {one.artifact.fingerprint for one in trainings})
    return [training.artifact.require() for training in trainings]


class _Lines:
    """Tells the console which of several trainings is at work, and what those before it did."""

    def __init__(self, progress: StageProgress, trainings: Sequence[Training]) -> None:
        self._progress, self._trainings = progress, trainings
        self._index = 0
        self._progress.start(f"train {trainings[0].label}")

    def advance(self, index: int, steps: int) -> None:
        """So many steps of this training are done, and all before it."""
        while self._index < index:
            self._finish()
            self._index += 1
            self._progress.start(f"train {self._trainings[self._index].label}")
        self._progress.advance(steps, self._trainings[index].num_steps)

    def close(self) -> None:
        """All are done."""
        self.advance(len(self._trainings) - 1, 0)
        self._finish()

    def _finish(self) -> None:
        training = self._trainings[self._index]
        meta = training.artifact.current()
        assert meta is not None, "a training completes its artefact before the next begins"
        self._progress.finish(f"{_learned(training, meta.summary)} -> {training.artifact.uri}")


def _learned(training: Training, metrics: Mapping[str, float]) -> str:
    if not training.num_steps:
        return "random, not learned"
    return f"{training.length}, learning rate {training.lr:g}, loss {metrics['loss']:.4f}"


def _run_name(trainings: Sequence[Training]) -> str:
    """Name the run by all its trainings, finished or not, so that it is found again after a stop."""
    names = [one.artifact.fingerprint for one in trainings]
    return f"{trainings[0].artifact.kind}-{names[0] if len(names) == 1 else artifacts.fingerprint_of(names)}"


def _fit_here(todo: Sequence[Training], stage: Stage, cluster: ClusterConfig, lines: _Lines) -> None:
    device = "cuda" if cluster.use_gpu else "cpu"
    for index, training in enumerate(todo):
        checkpoints = storage.join(stage.layout.training_runs, _run_name([training]))
        train_group(
            [training],
            _TellingContext(checkpoints, device, cluster.loader_workers or 0, stage.progress),
            lambda _, steps, index=index: lines.advance(index, steps),
        )
        storage.remove_tree(checkpoints)


class _TellingContext(LocalContext):
    """A single worker in this process that tells the stage of every epoch."""

    def __init__(self, checkpoints: str, device: str, loader_workers: int, progress: StageProgress) -> None:
        super().__init__(checkpoints, device, loader_workers)
        self._progress = progress

    def report(self, metrics: Mapping[str, float], checkpoint_dir: str | None) -> None:
        """See `WorkerContext.report`."""
        super().report(metrics, checkpoint_dir)
        self._progress.epoch(metrics)


def start_fingerprint(layout: RunLayout, weights: str) -> str:
    """Return a fingerprint of what an affinity or final network starts from: the run's classifier, or named weights.

    Raises:
        ArtifactError: when it is the classifier, which is not trained.
        ModelError: when a path that looks local is not there.
    """
    if weights == FROM_CLASSIFIER:
        return artifacts.require_artifact(layout.classifier, "classifier", verb="train").fingerprint
    return weights_fingerprint(weights)


@contextlib.contextmanager
def local_start(uri: str) -> Iterator[str]:
    """Yield a local folder with what a training starts from; empty where it starts from nothing."""
    if not uri:
        yield ""
        return
    with whole_files.whole_copy(uri) as folder:
        yield folder
