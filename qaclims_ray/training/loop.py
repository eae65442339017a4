"""The only training loop: epochs of global batches, DDP, learning rate by the step, a checkpoint each epoch.

A task brings the network and says what one step computes. Here is what all tasks share, so that neither the number
of workers nor a stop in between changes what is learned. accelerate owns wrapping and precision; the sampler, the
schedule and the reduction are ours.
"""

import contextlib
import dataclasses
from collections.abc import Callable, Iterable, Iterator, Sequence, Sized
from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable

import torch
from accelerate import Accelerator
from accelerate.state import AcceleratorState
from accelerate.utils import DistributedDataParallelKwargs
from torch import Tensor, nn
from torch.optim import Optimizer
from torch.utils.data import DataLoader

from qaclims_ray.data.artifacts import fingerprint_of
from qaclims_ray.data.datasets import GlobalBatchSampler, seed_of
from qaclims_ray.errors import ConfigError, ResourceError
from qaclims_ray.models import graphs
from qaclims_ray.models.devices import dtype_of, use_tf32
from qaclims_ray.models.precision import Arithmetic
from qaclims_ray.training.checkpoint import (
    Progress,
    new_checkpoint_folder,
    restore_checkpoint,
    save_checkpoint,
    seal_checkpoint,
)
from qaclims_ray.training.config import OptimConfig
from qaclims_ray.training.context import WorkerContext
from qaclims_ray.training.divergence import RecentBatches
from qaclims_ray.training.meter import Meter, OnStep, StepResult
from qaclims_ray.training.optim import build_optimizer, learning_rate_factor, set_learning_rate
from qaclims_ray.training.packing import Packed, can_pack, normalised_crops
from qaclims_ray.training.selection import BEST_SCORE, Selection


@runtime_checkable
class TrainingImages(Sized, Protocol):
    """A map-style data set, of images or of features, whose randomness depends on (seed, epoch, index) alone."""

    def set_epoch(self, epoch: int) -> None:
        """Choose the epoch."""
        ...

    def __getitem__(self, index: int) -> Any:
        """Return one item, e.g. image, labels, and as `index` what `image_id` knows its image by."""
        ...

    def image_id(self, index: int) -> str:
        """Return the identifier of the image of an item, by the item's `index`."""
        ...


@dataclass(frozen=True, kw_only=True)
class Task:
    """A training: what to train, on what, and what one step computes."""

    network: nn.Module
    """The network; trained in place."""
    groups: Sequence[tuple[Iterable[nn.Parameter], float]]
    """Its parameters, and what multiple of the learning rate they learn at; frozen ones are left out."""
    save: Callable[[str], None]
    """Write the network into a local folder."""
    load: Callable[[str], None]
    """Bring the network to what `save` wrote; raises an `ArtifactError` when that does not fit."""
    step: Callable[[nn.Module, dict[str, Tensor]], StepResult]
    """From the wrapped network and a batch to the loss; parts of it may have gone backward already."""
    dataset: TrainingImages
    """What is trained on."""
    on_device: tuple[str, ...] = ("image",)
    """Entries of a batch that `step` finds on the device; the others stay on the CPU."""
    optim: OptimConfig
    """Optimiser and schedule."""
    freeze_batch_norm: bool
    """Keep batch norm statistics fixed."""
    is_captured: bool = True
    """Let a GPU replay the network's launches (`models.graphs`); not for networks that read values."""
    identity: Any = None
    """What else must not change between a checkpoint and going on from it, as JSON types."""
    score: Callable[[], float] | None = None
    """Rates the network after every epoch, equal on all workers: the best epoch's is what the training ends with."""
    finish: Callable[[str | None], None] | None = None
    """Called on every worker before the last report; may add files to the folder, which only rank 0 is given."""


def fit(
    task: Task,
    *,
    precision: Arithmetic,
    loader_workers: int,
    seed: int,
    context: WorkerContext,
    on_step: OnStep | None = None,
    log_every: int = 10,
) -> dict[str, float]:
    """Train until the last epoch, from the latest checkpoint if there is one; runs on every worker.

    Args:
        task: what to train.
        precision: "fp32" or "bf16" (autocast of the network).
        loader_workers: image loading processes of this worker.
        seed: seed of the order of images and of the network's own randomness.
        context: this worker.
        on_step: called on rank 0 every `log_every` steps with the steps done and the figures since the last call.
        log_every: steps between calls; figures leave the device only then.

    Returns:
        Metrics of the last epoch, equal on all workers. A finished training returns them at once.

    Raises:
        DivergedError: when the loss, or the network, stops being finite; it names the images.
        ArtifactError: when the latest checkpoint is broken or of other settings.
    """
    optim, network = task.optim, _on_device(task, context)
    sampler = GlobalBatchSampler(len(task.dataset), optim.batch_size, context.rank, context.world_size, seed)
    optimizer = build_optimizer(task.groups, optim)
    selection = Selection(task.score, task.save) if task.score is not None else None
    progress = _resume(task, optimizer, selection, Progress(seed=seed, settings=_settings_of(task)), context)
    if progress.epochs_done >= optim.epochs:
        return progress.metrics
    called = _captured(task, context)
    wrapped = wrap_network(called, precision, context, sends_buffers=not _keeps_buffers_equal(task, context))
    seen = RecentBatches(context, task.dataset.image_id, log_every)
    for epoch in range(progress.epochs_done, optim.epochs):
        skipped = max(progress.steps_done - epoch * len(sampler), 0)  # it was saved within this epoch
        task.dataset.set_epoch(epoch)
        sampler.set_epoch(epoch, skipped)
        loader = _loader(task, sampler, loader_workers, context)
        meter = Meter(context, on_step, log_every, images_per_step(optim, len(task.dataset)), seen, epoch)
        steps = (epoch + 1) * len(sampler)
        with seeded(_epoch_seed(seed, epoch, context.rank, skipped), context.device):
            # In every epoch: a rating puts the network back into training mode as a whole, fixed batch norm included.
            _set_training_mode(network, task.freeze_batch_norm)
            for step, batch in enumerate(loader, start=epoch * len(sampler) + skipped):
                set_learning_rate(optimizer, learning_rate_factor(step, optim.epochs * len(sampler), optim))
                result = _take_step(task, wrapped, batch, optimizer, context)
                meter.add(result, step + 1, optimizer.param_groups[0]["lr"], batch["index"])
                # Asking is a barrier over all workers, so it is done now and then. After an epoch's last step a
                # checkpoint comes in any case.
                if (step + 1) % log_every == 0 and step + 1 < steps and context.must_save():
                    _keep_within_epoch(task, optimizer, selection, seen, progress, step + 1, context)
        metrics = meter.epoch_metrics()
        done = dataclasses.replace(progress, epochs_done=epoch + 1, steps_done=steps, metrics=metrics)
        progress = _keep(task, optimizer, selection, seen, done, progress.metrics.get(BEST_SCORE), context)
    return progress.metrics


def _on_device(task: Task, context: WorkerContext) -> nn.Module:
    """Bring the network to where it is trained."""
    network = task.network.to(context.device).to(memory_format=torch.channels_last)
    if context.device.type == "cuda":
        use_tf32()
        if context.world_size > 1 and not task.freeze_batch_norm:
            # SyncBatchNorm exists on GPUs only. timm's converter works in place, and keeps the activation that is part
            # of timm's own norm layers; torch's loses it.
            from timm.layers import convert_sync_batchnorm

            convert_sync_batchnorm(network)
    return network


def _captured(task: Task, context: WorkerContext) -> nn.Module:
    """Return the network as it is called; a graph holds no batch norms that exchange statistics with other workers."""
    exchanges = context.world_size > 1 and not task.freeze_batch_norm
    is_captured = task.is_captured and graphs.are_used(context.device) and not exchanges
    return graphs.CapturedModule(task.network) if is_captured else task.network


def _keeps_buffers_equal(task: Task, context: WorkerContext) -> bool:
    """Whether workers' batch norms stay equal by themselves: their statistics stay, or SyncBatchNorm's are all's."""
    return task.freeze_batch_norm or context.device.type == "cuda"


def _settings_of(task: Task) -> str:
    """Return what a checkpoint has to agree with; not the number of workers, which does not change the update."""
    return fingerprint_of([dataclasses.asdict(task.optim), task.freeze_batch_norm, len(task.dataset), task.identity])


def _epoch_seed(seed: int, epoch: int, rank: int, skipped: int) -> int:
    # The state of generators is not saved. An epoch that goes on from its middle gets a seed of its own; with the
    # epoch's seed its steps would draw what the first ones have drawn already.
    return seed_of("training", seed, epoch, rank, *([skipped] if skipped else []))


def _take_step(task: Task, wrapped: nn.Module, batch: Any, optimizer: Optimizer, context: WorkerContext) -> Any:
    """Bring a batch to the device, compute its loss and update the network."""
    moved = {name: batch[name].to(context.device, non_blocking=True) for name in task.on_device}
    if "image" in moved:
        if moved["image"].dtype == torch.uint8:
            moved["image"] = normalised_crops(moved["image"], task.dataset.normalisation)  # type: ignore[attr-defined]
        moved["image"] = moved["image"].to(memory_format=torch.channels_last)
    optimizer.zero_grad(set_to_none=True)  # a step may gather gradients of parts itself
    result = task.step(wrapped, {**batch, **moved})
    _update(result, task.network, optimizer, task.optim.clip_grad_norm, context.world_size)
    return result


def _resume(
    task: Task, optimizer: Optimizer, selection: Selection | None, fresh: Progress, context: WorkerContext
) -> Progress:
    """Bring everything to the latest checkpoint, if there is one."""
    with context.latest_checkpoint() as folder:
        if folder is None:
            return fresh
        progress = restore_checkpoint(folder, task.load, optimizer, fresh)
        if selection is not None and context.rank == 0 and progress.epochs_done:
            selection.restore(folder)
        return progress


def _loader(task: Task, sampler: GlobalBatchSampler, loader_workers: int, context: WorkerContext) -> DataLoader:
    travels = loader_workers > 0 or context.device.type == "cuda"
    images: Any = Packed(task.dataset) if travels and can_pack(task.dataset) else task.dataset  # type: ignore[arg-type]
    return DataLoader(
        images,
        batch_sampler=sampler,
        num_workers=loader_workers,
        pin_memory=context.device.type == "cuda",
    )


def _keep(
    task: Task,
    optimizer: Optimizer,
    selection: Selection | None,
    seen: RecentBatches,
    done: Progress,
    best_score: float | None,
    context: WorkerContext,
) -> Progress:
    """Rate the network where an epoch is chosen, save a checkpoint, report it; return the progress as reported."""
    seen.require_finite_network(task.network, done.epochs_done - 1)
    folder = new_checkpoint_folder() if context.rank == 0 else None
    if selection is not None:
        done = dataclasses.replace(done, metrics=done.metrics | selection.update(folder, best_score))
    if folder is not None:
        save_checkpoint(folder, task.save, optimizer, done)
    if done.epochs_done == task.optim.epochs:
        if selection is not None and folder is not None:
            selection.conclude(folder)
        if task.finish is not None:
            task.finish(folder)
        if folder is not None:
            seal_checkpoint(folder)
    context.report({**done.metrics, "epoch": float(done.epochs_done)}, folder)
    return done


def _keep_within_epoch(
    task: Task,
    optimizer: Optimizer,
    selection: Selection | None,
    seen: RecentBatches,
    progress: Progress,
    steps_done: int,
    context: WorkerContext,
) -> None:
    """Save a checkpoint between two steps; metrics and choice are those of the last whole epoch."""
    seen.require_finite_network(task.network, progress.epochs_done)
    done = dataclasses.replace(progress, steps_done=steps_done)
    folder = new_checkpoint_folder() if context.rank == 0 else None
    if folder is not None:
        if selection is not None:
            selection.carry(folder)
        save_checkpoint(folder, task.save, optimizer, done)
    context.report({**done.metrics, "epoch": float(done.epochs_done)}, folder)


def images_per_step(optim: OptimConfig, num_images: int) -> int:
    """Return the images of every step over all workers: incomplete batches are dropped, unless it is the only one."""
    return min(optim.batch_size, num_images)


def wrap_network(
    network: nn.Module, precision: Arithmetic, context: WorkerContext, *, sends_buffers: bool = True
) -> nn.Module:
    """Wrap a network for DDP and autocast; a single fp32 worker gets it back as it is.

    Args:
        network: on the worker's device.
        precision: "fp32" or "bf16".
        context: this worker.
        sends_buffers: whether every forward pass begins with the first worker's buffers.

    Raises:
        ConfigError: for fp16.
        ResourceError: when accelerate sees other workers than the context, or the GPU does not know bf16.
    """
    if precision == "fp16":
        raise ConfigError("trainings compute in fp32 or bf16; in fp16 small gradients would vanish")
    dtype_of(precision, context.device)  # refuses a GPU that does not know it
    # accelerate keeps one state per process; another precision (a second training here) would be refused.
    AcceleratorState._reset_state(reset_partial_state=True)
    accelerator = Accelerator(
        # Left alone, accelerate takes a worker without a GPU for the only process, and the copies of the network drift
        # apart.
        cpu=context.device.type == "cpu",
        mixed_precision="bf16" if precision == "bf16" else "no",
        kwargs_handlers=[DistributedDataParallelKwargs(gradient_as_bucket_view=True, broadcast_buffers=sends_buffers)],
    )
    if accelerator.num_processes != context.world_size or accelerator.device.type != context.device.type:
        raise ResourceError(
            f"accelerate sees {accelerator.num_processes} workers on {accelerator.device}, the training has "
            f"{context.world_size} on {context.device}: RANK, WORLD_SIZE and LOCAL_RANK must be set, and the process "
            "group initialised, before the training starts"
        )
    return accelerator.prepare_model(network, device_placement=False)


@contextlib.contextmanager
def seeded(seed: int, device: torch.device) -> Iterator[None]:
    """Seed torch's global generators for the time of the context and give them back as they were."""
    with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
        torch.manual_seed(seed)
        yield


def _set_training_mode(network: nn.Module, freeze_batch_norm: bool) -> None:
    network.train()
    if freeze_batch_norm:
        for module in network.modules():
            # Private, but the only base that all batch norms share, SyncBatchNorm and timm's among them.
            if isinstance(module, nn.modules.batchnorm._BatchNorm):
                module.eval()


def _update(
    result: StepResult, network: nn.Module, optimizer: Optimizer, clip_grad_norm: float | None, world_size: int
) -> None:
    # DDP averages gradients over workers; shares have to add up.
    (result.loss * world_size).backward()
    # The gradients are those of the global batch by now, equal on all workers; so clipping does not depend on their
    # number.
    for parameter in result.untaught:
        parameter.grad = None
    if clip_grad_norm is not None:
        nn.utils.clip_grad_norm_([p for p in network.parameters() if p.requires_grad], clip_grad_norm)
    optimizer.step()
