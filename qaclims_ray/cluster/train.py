"""Stages 4 and 5: DDP training on Ray Train. The loop itself is plain torch in ``training/``.

A run's name holds its fingerprint, so submitting again after a crash goes on from the latest checkpoint, and
never from one made with other settings.
"""

import contextlib
import dataclasses
import json
import threading
from collections.abc import Callable, Iterator, Mapping
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
from qaclims_ray.cluster.stage import Stage, clip_model, current, weights_fingerprint
from qaclims_ray.cluster.text import bank_identity
from qaclims_ray.config import OptimConfig
from qaclims_ray.data import artifacts, storage
from qaclims_ray.data.artifacts import ArtifactMeta
from qaclims_ray.data.manifest import Manifest, read_manifest
from qaclims_ray.errors import QaclimsError, ResourceError
from qaclims_ray.models.clip import load_clip
from qaclims_ray.run_config import ClusterConfig, RunConfig
from qaclims_ray.text.bank import read_bank
from qaclims_ray.tracking.mlflow_tracker import attach
from qaclims_ray.tracking.tracker import TrackerHandle
from qaclims_ray.training.classifier_task import CALIBRATED_DIR, train_classifier
from qaclims_ray.training.context import LocalContext, WorkerContext
from qaclims_ray.training.ritc_task import train_ritc

CURVES_NAME = "curves.json"
Curves = dict[int, dict[str, float]]


class RayContext:
    """A Ray Train worker as `training.context.WorkerContext`."""

    def __init__(self) -> None:
        context = ray.train.get_context()
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
        if checkpoint is None:
            yield None
        else:
            with checkpoint.as_directory() as folder:
                yield folder


@dataclasses.dataclass(frozen=True)
class TrainingJob:
    """What every worker is told."""

    kind: str
    """classifier or ritc."""
    config: RunConfig
    """Resolved configuration of the system."""
    manifest_uri: str
    """The manifest."""
    bank_uri: str = ""
    """RITC: the text bank."""
    init_uri: str = ""
    """RITC: the network to start from."""
    tracker: TrackerHandle | None = None
    """MLflow run to go on with."""
    total_steps: int = 0
    """Optimiser steps of the whole training."""


def run_classifier(stage: Stage, manifest: Manifest) -> ArtifactMeta:
    """Train the image-level classifier: the baseline CAM and RITC's starting point."""
    config = stage.config
    settings = artifacts.plain(
        {"cam_net": config.cam_net, "augment": config.augment, "classifier": config.classifier, **_numerics(config)}
    )
    inputs = {
        "manifest": training_manifest(manifest, config).fingerprint(),
        "weights": weights_fingerprint(config.cam_net.weights),
    }
    job = TrainingJob(kind="classifier", config=config, manifest_uri=stage.layout.manifest)
    return _run(stage, job, "classifier", stage.layout.classifier, settings, inputs, manifest, config.classifier.optim)


def run_ritc(stage: Stage, system: str, manifest: Manifest) -> ArtifactMeta:
    """Train a system's network by region image-text contrast (QA-CLIMS 3.3)."""
    config, layout = stage.config, stage.layout
    classifier = artifacts.require(layout.classifier, "classifier", verb="train")
    bank_settings, bank_inputs = bank_identity(stage, training_manifest(manifest, config))
    bank = artifacts.require(
        layout.text_bank(system),
        "text_bank",
        verb="text",
        fingerprint=artifacts.expected_fingerprint("text_bank", bank_settings, bank_inputs),
    )
    settings = artifacts.plain(
        {"cam_net": config.cam_net, "augment": config.augment, "ritc": config.ritc, **_numerics(config)}
    )
    inputs = {"classifier": classifier.fingerprint, "text_bank": bank.fingerprint, "clip": bank_inputs["clip"]}
    init = storage.join(layout.classifier, CALIBRATED_DIR) if config.classifier.calibrate else layout.classifier
    job = TrainingJob(
        kind="ritc", config=config, manifest_uri=layout.manifest, bank_uri=layout.text_bank(system), init_uri=init
    )
    return _run(stage, job, "ritc", layout.network(system), settings, inputs, manifest, config.ritc.optim, system)


def _numerics(config: RunConfig) -> dict[str, Any]:
    return {"seed": config.seed, "precision": config.cluster.precision}


def _run(
    stage: Stage,
    job: TrainingJob,
    kind: str,
    uri: str,
    settings: dict[str, Any],
    inputs: dict[str, str],
    manifest: Manifest,
    optim: OptimConfig,
    system: str = "",
) -> ArtifactMeta:
    stage.progress.start(f"train {system or kind}")
    if meta := current(uri, kind, settings, inputs):
        stage.progress.finish(f"{optim.epochs} epochs (there already)", is_new=False)
        return meta
    num_images = len(training_manifest(manifest, stage.config).records)
    total_steps = optim.epochs * max(num_images // optim.batch_size, 1)
    job = dataclasses.replace(job, tracker=stage.tracker.handle(), total_steps=total_steps)
    storage.remove_tree(uri)
    run_name = f"{kind}-{artifacts.expected_fingerprint(kind, settings, inputs)}"
    if stage.config.cluster.num_workers == 0:
        metrics, curves = _fit_here(job, uri, storage.join(stage.layout.training_runs, run_name))
    else:
        metrics, curves = _fit_on_ray(job, uri, stage, run_name)
    storage.write_bytes(storage.join(uri, CURVES_NAME), json.dumps(curves).encode())
    meta = artifacts.write_meta(uri, kind, settings, inputs, metrics)
    storage.remove_tree(storage.join(stage.layout.training_runs, run_name))
    stage.progress.finish(f"{optim.epochs} epochs of {num_images} images, loss {metrics['loss']:.4f} -> {uri}")
    return meta


def read_curves(network_uri: str) -> dict[str, list[tuple[int, float]]]:
    """Return the training curves kept beside a network: figure -> points (step, value)."""
    uri = storage.join(network_uri, CURVES_NAME)
    if not storage.exists(uri):
        return {}
    curves: dict[str, list[tuple[int, float]]] = {}
    for step, metrics in sorted((int(step), metrics) for step, metrics in json.loads(storage.read_bytes(uri)).items()):
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


def _fit_on_ray(job: TrainingJob, uri: str, stage: Stage, run_name: str) -> tuple[dict[str, float], Curves]:
    cluster = stage.config.cluster
    filesystem, path = storage.arrow_filesystem(stage.layout.training_runs)
    board: Any = _Board.remote()
    trainer = TorchTrainer(
        _worker,
        train_loop_config={"job": job, "board": board},
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
        with _watching(board, stage, job.total_steps):
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
        return train_worker(job, RayContext(), on_progress=lambda step, metrics: board.note.remote(step, metrics))
    except QaclimsError as error:
        # A user's mistake is the same on every rank and would only be retried: hand it to the driver.
        return error


def train_worker(
    job: TrainingJob, context: WorkerContext, on_progress: Callable[[int, dict[str, float]], None] | None = None
) -> dict[str, float]:
    """Run one training on this worker and return its final metrics."""
    config = job.config
    manifest = training_manifest(read_manifest(job.manifest_uri), config)
    tracker = (
        attach(job.tracker, system_metrics_node="rank-0") if context.rank == 0 and job.tracker is not None else None
    )

    def on_step(step: int, metrics: dict[str, float]) -> None:
        if tracker is not None:
            tracker.log_metrics({f"train/{name}": value for name, value in metrics.items()}, step=step)
        if on_progress is not None:
            on_progress(step, metrics)

    shared: dict[str, Any] = {
        "manifest": manifest,
        "cam_net": config.cam_net,
        "augment": config.augment,
        "precision": config.cluster.precision,
        "loader_workers": config.cluster.loader_workers,
        "seed": config.seed,
        "context": context,
        "on_step": on_step,
    }
    try:
        if job.kind == "classifier":
            return train_classifier(classifier=config.classifier, **shared)
        model, weights = clip_model(config)
        dtype = torch.bfloat16 if config.cluster.precision == "bf16" else torch.float32
        clip = load_clip(model, weights, device=context.device, dtype=dtype, mask_adapted=config.clip.mask_adapted)
        with storage.local_copy(job.init_uri) as init_dir:
            return train_ritc(bank=read_bank(job.bank_uri), clip=clip, ritc=config.ritc, init_dir=init_dir, **shared)
    finally:
        if tracker is not None:
            tracker.close()


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
