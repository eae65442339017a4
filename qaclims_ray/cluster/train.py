"""DDP training on Ray Train. The loop itself is plain torch in ``training/``; ``methods.py`` says what is trained.

A run's name holds its fingerprint, so submitting again after a crash goes on from the latest checkpoint, and
never from one made with other settings.
"""

import contextlib
import dataclasses
import json
import threading
from collections.abc import Iterator, Mapping
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
    ScalingConfig,
    TrainingFailedError,
)
from ray.train.torch import TorchConfig, TorchTrainer, get_device

from qaclims_ray.cluster.data import training_manifest
from qaclims_ray.cluster.rescue import rescue
from qaclims_ray.cluster.stage import Stage, current
from qaclims_ray.cluster.training_job import TrainingJob, train_worker
from qaclims_ray.data import artifacts, storage
from qaclims_ray.data.artifacts import ArtifactMeta
from qaclims_ray.data.manifest import Manifest
from qaclims_ray.errors import QaclimsError, ResourceError
from qaclims_ray.run_config import ClusterConfig
from qaclims_ray.training.context import LocalContext

CURVES_NAME = "curves.json"
Curves = dict[int, dict[str, float]]


class RayContext:
    """A Ray Train worker as `training.context.WorkerContext`."""

    def __init__(self, rescued_uri: str = "") -> None:
        context = ray.train.get_context()
        self._rescued_uri = rescued_uri
        self.rank: int = context.get_world_rank()
        self.world_size: int = context.get_world_size()
        self.device: torch.device = get_device()  # type: ignore[assignment]

    def report(self, metrics: Mapping[str, float], checkpoint_dir: str | None) -> None:
        """Report to Ray Train; the upload runs beside the next epoch and removes the local folder."""
        checkpoint = Checkpoint.from_directory(checkpoint_dir) if checkpoint_dir is not None else None
        ray.train.report(dict(metrics), checkpoint=checkpoint, checkpoint_upload_mode=CheckpointUploadMode.ASYNC)

    @contextlib.contextmanager
    def latest_checkpoint(self) -> Iterator[str | None]:
        """Yield a local folder with the latest checkpoint of this run."""
        checkpoint = ray.train.get_checkpoint()
        if checkpoint is not None:
            with checkpoint.as_directory() as folder:
                yield folder
        elif self._rescued_uri:
            with storage.local_copy(self._rescued_uri) as folder:
                yield folder
        else:
            yield None


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
    """Run a training, unless its artefact is there and matches.

    Args:
        stage: surroundings.
        job: what to train.
        uri: where the artefact goes.
        settings: of its fingerprint.
        inputs: of its fingerprint.
        manifest: the whole manifest.
        label: name on the console.
    """
    kind, optim = job.kind, job.optim
    stage.progress.start(f"train {label}")
    if meta := current(uri, kind, settings, inputs):
        amount = f"{job.total_steps(0)} steps" if job.counts_steps else f"{optim.epochs} epochs"
        stage.progress.finish(f"{amount} (there already)", is_new=False)
        return meta
    num_images = len(training_manifest(manifest, stage.config).records)
    job = dataclasses.replace(job, tracker=stage.tracker.handle())
    storage.remove_tree(uri)
    run_name = f"{kind}-{artifacts.expected_fingerprint(kind, settings, inputs)}"
    if stage.config.cluster.num_workers == 0:
        metrics, curves = _fit_here(job, uri, storage.join(stage.layout.training_runs, run_name))
    else:
        metrics, curves = _fit_on_ray(job, uri, stage, run_name, job.total_steps(num_images))
    storage.write_bytes(storage.join(uri, CURVES_NAME), json.dumps(curves).encode())
    meta = artifacts.write_meta(uri, kind, settings, inputs, metrics)
    storage.remove_tree(storage.join(stage.layout.training_runs, run_name))
    stage.progress.finish(_describe(job, num_images, metrics, uri))
    return meta


def _describe(job: TrainingJob, num_images: int, metrics: Mapping[str, float], uri: str) -> str:
    steps = job.total_steps(num_images)
    if not steps:
        return f"random, not learned -> {uri}"
    amount = f"{steps} steps" if job.counts_steps else f"{job.optim.epochs} epochs of {num_images} images"
    learning = f"{amount}, learning rate {job.optim.lr:g}"
    return f"{learning}, loss {metrics['loss']:.4f} -> {uri}"


def raw_curves(uri: str) -> Curves:
    """Return the training curves kept beside an artefact: step -> figures."""
    uri = storage.join(uri, CURVES_NAME)
    if not storage.exists(uri):
        return {}
    return {int(step): metrics for step, metrics in json.loads(storage.read_bytes(uri)).items()}


def read_curves(network_uri: str) -> dict[str, list[tuple[int, float]]]:
    """Return the training curves kept beside a network: figure -> points (step, value)."""
    curves: dict[str, list[tuple[int, float]]] = {}
    for step, metrics in sorted(raw_curves(network_uri).items()):
        for name, value in metrics.items():
            curves.setdefault(name, []).append((step, value))
    return curves


def _fit_here(job: TrainingJob, uri: str, checkpoint_root: str) -> tuple[dict[str, float], Curves]:
    curves: Curves = {}
    context = LocalContext(checkpoint_root, device="cuda" if job.config.cluster.use_gpu else "cpu")
    metrics = train_worker(job, context, on_progress=curves.__setitem__)
    with context.latest_checkpoint() as latest:
        assert latest is not None
        storage.upload_tree(latest, uri)
    return metrics, curves


def _fit_on_ray(
    job: TrainingJob, uri: str, stage: Stage, run_name: str, total_steps: int
) -> tuple[dict[str, float], Curves]:
    cluster = stage.config.cluster
    filesystem, path = storage.arrow_filesystem(stage.layout.training_runs)
    rescued = rescue(storage.join(stage.layout.training_runs, run_name), job.optim.epochs)
    board: Any = _Board.remote()
    trainer = TorchTrainer(
        _worker,
        train_loop_config={"job": job, "board": board, "rescued_uri": rescued},
        torch_config=TorchConfig(timeout_s=600),
        scaling_config=_scaling(cluster),
        run_config=ray.train.RunConfig(
            name=run_name,
            storage_path=path,
            storage_filesystem=filesystem,
            failure_config=FailureConfig(max_failures=cluster.max_failures),
            checkpoint_config=CheckpointConfig(num_to_keep=2),
        ),
    )
    try:
        with _watching(board, stage, total_steps):
            result = trainer.fit()
        curves: Curves = ray.get(board.curves.remote())
    except (TrainingFailedError, RayError) as error:
        raise _as_user_error(error, job.kind) from error
    finally:
        ray.kill(board)
    outcome: Any = result.return_value
    if isinstance(outcome, QaclimsError):
        raise outcome
    if result.checkpoint is None:
        raise ResourceError(f"the {job.kind} training ended without a checkpoint; run the same command again")
    with result.checkpoint.as_directory() as folder:
        storage.upload_tree(folder, uri)
    return outcome, curves


def _scaling(cluster: ClusterConfig) -> ScalingConfig:
    resources = {"CPU": cluster.cpus_per_worker, **({"GPU": 1} if cluster.use_gpu else {})}
    return ScalingConfig(num_workers=cluster.num_workers, use_gpu=cluster.use_gpu, resources_per_worker=resources)


def _worker(loop_config: dict[str, Any]) -> Any:
    board, job = loop_config["board"], loop_config["job"]
    try:
        context = RayContext(loop_config["rescued_uri"])
        return train_worker(job, context, on_progress=lambda step, metrics: board.note.remote(step, metrics))
    except ResourceError:
        # The trouble of one machine, such as a full disk: the other ranks wait for this one until Ray ends them.
        raise
    except QaclimsError as error:
        # A user's mistake is the same on every rank and would only be retried: hand it to the driver.
        return error


@ray.remote(num_cpus=0)
class _Board:
    """What rank 0 says of the training, for the driver to read; outlives a restart of the workers."""

    def __init__(self) -> None:
        self._curves: Curves = {}

    def note(self, step: int, metrics: dict[str, float]) -> None:
        self._curves[step] = metrics

    def steps_done(self) -> int:
        return max(self._curves, default=0)

    def curves(self) -> Curves:
        return self._curves


@contextlib.contextmanager
def _watching(board: Any, stage: Stage, total_steps: int) -> Iterator[None]:
    stop = threading.Event()

    def watch() -> None:
        while not stop.wait(1.0):
            stage.progress.advance(ray.get(board.steps_done.remote()), total_steps)

    thread = threading.Thread(target=watch, daemon=True)
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join()


def _as_user_error(error: BaseException, kind: str) -> QaclimsError:
    lines = [line for line in str(error).strip().splitlines() if line.strip()]
    return ResourceError(
        f"the {kind} training failed: {lines[-1] if lines else type(error).__name__}. Checkpoints are kept; "
        "run the same command again to go on from the last one"
    )
