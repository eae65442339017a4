"""What a training needs to go on after a stop: weights, optimiser state, position. Tensors and JSON, no pickle.

Schedule and random state need no file of their own: the learning rate is a function of the step, and at the start
of each epoch every generator is seeded from (seed, epoch, rank), so that a resumed training draws what the
uninterrupted one draws, also with another number of workers.
"""

import dataclasses
import json
import shutil
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from safetensors import SafetensorError
from safetensors.torch import save_file
from torch import Tensor
from torch.optim import Optimizer

from qaclims_ray.data import storage
from qaclims_ray.errors import ArtifactError, DataError, ModelError, ResourceError
from qaclims_ray.models.weight_files import read_stored
from qaclims_ray.models.weight_fit import require_finite

PROGRESS_NAME = "progress.json"
OPTIMIZER_NAME = "optimizer.safetensors"


@dataclass(frozen=True)
class Progress:
    """Where a training stands."""

    seed: int
    """Seed of order, crops and the network's own randomness."""
    settings: str
    """Fingerprint of what must not change on the way."""
    epochs_done: int = 0
    """Whole epochs done."""
    steps_done: int = 0
    """Optimiser steps done: the position in the schedule; beyond whole epochs when a machine was about to go."""
    metrics: dict[str, float] = field(default_factory=dict)
    """Metrics of the last epoch."""


def save_checkpoint(folder: str, save: Callable[[str], None], optimizer: Optimizer, progress: Progress) -> None:
    """Write a checkpoint into a local folder.

    Args:
        folder: local folder.
        save: writes the network.
        optimizer: whose state is kept.
        progress: where the training stands.

    Raises:
        ResourceError: when the folder cannot be written or is full.
    """
    tensors, numbers = {}, {}
    for index, state in optimizer.state_dict()["state"].items():
        for name, value in state.items():
            if isinstance(value, Tensor):
                # Copies: momentum buffers may share memory, which safetensors refuses.
                tensors[f"{index}.{name}"] = value.detach().cpu().clone()
            else:
                numbers[f"{index}.{name}"] = value
    content = {**dataclasses.asdict(progress), "optimizer": numbers}
    try:
        save(folder)
        save_file(tensors, Path(folder, OPTIMIZER_NAME))
        # Progress and sizes are written last: a copy that was cut short is known by them (`epochs_kept`).
        sizes = {p.relative_to(folder).as_posix(): p.stat().st_size for p in Path(folder).rglob("*") if p.is_file()}
        Path(folder, PROGRESS_NAME).write_text(json.dumps({**content, "files": sizes}, indent=2))
    except (OSError, SafetensorError) as error:
        shutil.rmtree(folder, ignore_errors=True)
        raise ResourceError(
            f"the checkpoint cannot be written to {folder}: {error}. Check the free space there, or name another "
            "temporary folder in TMPDIR; the checkpoint before is kept"
        ) from error


def restore_checkpoint(folder: str, load: Callable[[str], None], optimizer: Optimizer, fresh: Progress) -> Progress:
    """Bring network and optimiser to where a checkpoint was written.

    Args:
        folder: local folder.
        load: brings the network to what the checkpoint holds.
        optimizer: receives its state, in place; its rates stay as built.
        fresh: seed and settings of this training.

    Raises:
        ArtifactError: when the checkpoint is broken, or was written by a training with other settings.
    """
    try:
        content: dict[str, Any] = json.loads(Path(folder, PROGRESS_NAME).read_text())
        numbers = content.pop("optimizer")
        content.pop("files", None)
        progress = Progress(**content)
        tensors = read_stored(Path(folder, OPTIMIZER_NAME), named=OPTIMIZER_NAME)
        require_finite(tensors, source=OPTIMIZER_NAME)
    except (OSError, ValueError, KeyError, TypeError, ModelError) as error:
        raise ArtifactError(f"the checkpoint at {folder} is broken ({error}); remove it to start afresh") from None
    if (progress.seed, progress.settings) != (fresh.seed, fresh.settings):
        raise ArtifactError(
            f"the checkpoint at {folder} belongs to a training with seed {progress.seed} and settings "
            f"{progress.settings}, this one has seed {fresh.seed} and settings {fresh.settings}; use another output"
        )
    state: dict[int, dict[str, Any]] = {}
    for key, value in [*tensors.items(), *numbers.items()]:
        index, name = key.split(".", 1)
        # A copy: the loaded tensor is the file itself, mapped into memory.
        state.setdefault(int(index), {})[name] = value.clone() if isinstance(value, Tensor) else value
    load(folder)
    try:
        # Momenta and the like only: rates are a function of the step.
        optimizer.load_state_dict({**optimizer.state_dict(), "state": state})
    except (RuntimeError, ValueError) as error:
        raise ArtifactError(f"the checkpoint at {folder} does not fit the optimiser: {error}") from None
    return progress


def epochs_kept(uri: str) -> int:
    """Return the epochs of a checkpoint, at a path or URI; 0 when the copy there is not whole."""
    try:
        content = json.loads(storage.read_bytes(storage.join(uri, PROGRESS_NAME)))
        sizes = {name: storage.size(storage.join(uri, name)) for name in content["files"]}
        return int(content["epochs_done"]) if sizes == content["files"] else 0
    except (DataError, ValueError, KeyError, TypeError):
        return 0
