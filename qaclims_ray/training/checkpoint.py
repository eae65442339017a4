"""What a training needs to go on after a stop: weights, optimiser state, position. Tensors and JSON, no pickle.

Schedule and random state need no file of their own: the learning rate is a function of the step, and at the start
of each epoch every generator is seeded from (seed, epoch, rank), so that a resumed training draws what the
uninterrupted one draws, also with another number of workers.
"""

import dataclasses
import json
import logging
import os
import shutil
import tempfile
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import save_file
from torch import Tensor
from torch.optim import Optimizer

from qaclims_ray.data import artifacts, storage
from qaclims_ray.errors import ArtifactError, DataError, ModelError, ResourceError
from qaclims_ray.models.weight_files import read_stored
from qaclims_ray.models.weight_fit import require_finite

PROGRESS_NAME = "progress.json"
OPTIMIZER_NAME = "optimizer.safetensors"
_SEALS = ("files", "checksums", "seal")
"""What is written beside the progress, by which a damaged copy is known."""
SCRATCH_VARIABLE = "QACLIMS_SCRATCH"
"""Environment variable: where checkpoints are written before they are reported; a private Ray names its own folder."""

logger = logging.getLogger(__name__)


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


def new_checkpoint_folder() -> str:
    """Make a local folder for a checkpoint under way, where nothing of it outlives a private Ray.

    It is not removed by this process: Ray uploads it after it was reported, and removes it then.

    Raises:
        ResourceError: see `scratch_place`.
    """
    return tempfile.mkdtemp(prefix="qaclims-", dir=scratch_place())


def scratch_place() -> str | None:
    """Return the folder that `SCRATCH_VARIABLE` names, None for the temporary directory.

    Raises:
        ResourceError: when there is no such folder.
    """
    place = os.environ.get(SCRATCH_VARIABLE)
    if place is not None and not os.path.isdir(place):
        raise ResourceError(f"{SCRATCH_VARIABLE} names {place}, where no folder is: make it, or unset the variable")
    return place


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
                # Copies, channels first: momentum buffers may share memory, and safetensors refuses either.
                tensors[f"{index}.{name}"] = value.detach().cpu().clone(memory_format=torch.contiguous_format)
            else:
                numbers[f"{index}.{name}"] = value
    content = {**dataclasses.asdict(progress), "optimizer": numbers}
    try:
        save(folder)
        save_file(tensors, Path(folder, OPTIMIZER_NAME))
        _write_sealed(folder, content)
    except (OSError, SafetensorError) as error:
        shutil.rmtree(folder, ignore_errors=True)
        raise ResourceError(
            f"the checkpoint cannot be written to {folder}: {error}. Check the free space there, or name another "
            "temporary folder in TMPDIR; the checkpoint before is kept"
        ) from error


def seal_checkpoint(folder: str) -> None:
    """Count in what was added to a checkpoint, or changed in it, since it was saved.

    Raises:
        ResourceError: when the folder is full.
    """
    content = json.loads(Path(folder, PROGRESS_NAME).read_text())
    try:
        _write_sealed(folder, {name: value for name, value in content.items() if name not in _SEALS})
    except OSError as error:
        raise ResourceError(
            f"the checkpoint cannot be written to {folder}: {error}. Check the free space there; the one before is kept"
        ) from error


def _write_sealed(folder: str, content: dict[str, Any]) -> None:
    """Write progress last, with size and checksum of every file: a copy that was cut short or damaged is known by them.

    See `fault_of`.
    """
    paths = [path for path in sorted(Path(folder).rglob("*")) if path.is_file() and path.name != PROGRESS_NAME]
    names = {path.relative_to(folder).as_posix(): path for path in paths}
    sealed = {
        **content,
        "files": {name: path.stat().st_size for name, path in names.items()},
        "checksums": {name: storage.sha256(str(path)) for name, path in names.items()},
    }
    Path(folder, PROGRESS_NAME).write_text(json.dumps({**sealed, "seal": artifacts.fingerprint_of(sealed)}, indent=2))


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
        progress = Progress(**{name: value for name, value in content.items() if name not in _SEALS})
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


def fault_of(uri: str) -> str:
    """Say what is wrong with a checkpoint, at a path or URI; empty where it is whole.

    Those of earlier versions have sizes alone.
    """
    try:
        content = _progress_at(uri)
        files, checksums = content["files"], content.get("checksums", {})
        if "seal" in content and content.pop("seal") != artifacts.fingerprint_of(content):
            return f"{PROGRESS_NAME} is damaged"
        for name, size in files.items():
            if (found := storage.size(storage.join(uri, name))) != size:
                return f"{name} has {found} bytes, expected {size}"
            if name in checksums and storage.sha256(storage.join(uri, name)) != checksums[name]:
                return f"the content of {name} has changed"
    except DataError as error:  # a file that is not there
        return str(error)
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        return f"{PROGRESS_NAME} is damaged ({error})"
    return ""


def is_sound(uri: str) -> bool:
    """Whether a checkpoint is whole; says in a line that one that is not is passed over."""
    if fault := fault_of(uri):
        logger.warning("the checkpoint %s is passed over: %s", uri, fault)
    return not fault


def epochs_kept(uri: str) -> int:
    """Return the epochs of a checkpoint, at a path or URI; 0 when the copy there is not whole."""
    return 0 if fault_of(uri) else epochs_said(uri)


def epochs_said(uri: str) -> int:
    """Return the epochs that a checkpoint claims, whole or not; 0 where it says none."""
    try:
        return int(_progress_at(uri)["epochs_done"])
    except (DataError, ValueError, KeyError, TypeError, RecursionError):
        return 0


def _progress_at(uri: str) -> dict[str, Any]:
    return json.loads(storage.read_bytes(storage.join(uri, PROGRESS_NAME)))
