"""Trainings that share one group of workers, one after the other: what every worker does. Needs no Ray.

Starting workers takes longer than a small training, so what can be trained back to back is. Each training keeps an
artefact of its own, complete as soon as it ends; a group that was stopped goes on with the training it was at.
"""

import contextlib
import functools
import json
import logging
import shutil
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import TypeAdapter

from qaclims_ray.data import storage, whole_files
from qaclims_ray.data.artifacts import Artifact
from qaclims_ray.data.json_files import read_json_file
from qaclims_ray.data.whole_files import CURVES_NAME
from qaclims_ray.errors import ArtifactError, DataError, ResourceError
from qaclims_ray.training.context import WorkerContext
from qaclims_ray.training.divergence import DIVERGED_NAME, DivergedError
from qaclims_ray.training.meter import OnStep

NOTE_NAME = "training.json"
"""In every checkpoint: whose it is, and the curves up to it."""

_PUBLISHED_WITHIN_S = 600.0
"""Longest wait for what another rank publishes; as long as a collective of Ray Train's may take (`cluster.workers`)."""

Curves = dict[int, dict[str, float]]
_CURVES = TypeAdapter(Curves)

logger = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class Training:
    """One training and the artefact it makes."""

    artifact: Artifact
    """What it makes."""
    label: str
    """Name on the console."""
    work: Callable[[WorkerContext, OnStep], dict[str, float]]
    """Trains on every worker and returns the last figures; picklable."""
    epochs: int
    """Epochs of the whole of it."""
    num_steps: int
    """Optimiser steps of the whole of it; 0 where nothing is learned."""
    length: str
    """Its length in words, e.g. 9 epochs of 600 images."""
    lr: float
    """Learning rate at the start."""
    images_per_step: int | None = None
    """Images of a step over all workers, so no more workers have work; None where that is not known."""
    after: tuple[Artifact, ...] = ()
    """What it starts from, which an earlier training of its group may make."""


def train_group(
    trainings: Sequence[Training],
    worker: WorkerContext,
    on_progress: Callable[[int, int], None] | None = None,
    *,
    rescued: Mapping[str, str] | None = None,
) -> None:
    """Train what is not finished yet, in order; runs on every worker.

    Args:
        trainings: the group, the same on every worker.
        worker: this worker.
        on_progress: called on rank 0 with the position of the training at work and the steps done.
        rescued: fingerprint -> checkpoint of an earlier run, for trainings that the worker has none of.

    Raises:
        DivergedError: when a loss stops being finite; the images are kept beside what the training makes.
    """
    tell = on_progress if on_progress is not None and worker.rank == 0 else lambda index, step: None
    # Looked up once, before any rank can end a training that the others still have to look up.
    todo = [(index, training) for index, training in enumerate(trainings) if training.artifact.current() is None]
    for index, training in todo:
        tell(index, 0)
        for artifact in training.after:
            _wait_for(artifact)
        earlier = (rescued or {}).get(training.artifact.fingerprint, "")
        context = GroupContext(worker, training, functools.partial(tell, index), earlier)
        try:
            metrics = training.work(context, context.note)
        except DivergedError as error:
            raise (_kept(error, training.artifact) if worker.rank == 0 else error) from None
        context.conclude(metrics)


def _kept(error: DivergedError, artifact: Artifact) -> DivergedError:
    """Write down which images a training saw last, and say where; the next try of the training removes it."""
    place = storage.join(artifact.workshop, DIVERGED_NAME)
    try:
        storage.write_bytes(place, error.content())
    except ResourceError as failure:
        return error.adding(f"The list of images could not be kept: {failure}")
    return error.adding(f"All images of this step and of the one before it are in {place}")


def _wait_for(artifact: Artifact) -> None:
    """Wait until the first rank, which publishes what a training made, is done with it.

    Raises:
        ArtifactError: when it is not.
    """
    waited_until = time.monotonic() + _PUBLISHED_WITHIN_S
    while artifact.in_place() is None and time.monotonic() < waited_until:
        time.sleep(0.2)
    artifact.require()


class GroupContext:
    """What one training of a group sees of its worker: its own checkpoints only, and its artefact's place."""

    def __init__(
        self, worker: WorkerContext, training: Training, on_step: Callable[[int], None], earlier: str = ""
    ) -> None:
        self.rank, self.world_size, self.device = worker.rank, worker.world_size, worker.device
        self.loader_workers = worker.loader_workers
        self._worker, self._training, self._on_step, self._earlier = worker, training, on_step, earlier
        self._curves: Curves = {}
        self._is_delivered = False
        self._started = time.monotonic()

    def note(self, step: int, metrics: dict[str, float]) -> None:
        """Keep a point of the curves; rank 0 alone has them."""
        self._curves[step] = metrics
        self._on_step(step)

    def report(self, metrics: Mapping[str, float], checkpoint_dir: str | None) -> None:
        """See `WorkerContext.report`; the last checkpoint becomes the artefact before it is handed on."""
        if checkpoint_dir is not None:
            last = self._training.epochs
            try:
                self._write_note(checkpoint_dir)
                # A phase that learns nothing reports once, and names no epoch.
                if metrics.get("epoch", last) == last:
                    self._deliver(checkpoint_dir)
            except ResourceError:
                # The worker's context never gets to remove it, and the disk may be full.
                shutil.rmtree(checkpoint_dir, ignore_errors=True)
                raise
        self._worker.report(metrics, checkpoint_dir)

    @contextlib.contextmanager
    def latest_checkpoint(self) -> Iterator[str | None]:
        """See `WorkerContext.latest_checkpoint`; another training's is none, and then an earlier run's serves."""
        with contextlib.ExitStack() as stack:
            folder = stack.enter_context(self._worker.latest_checkpoint())
            note = self._note_of(folder)
            if note is None and self._earlier:
                folder = stack.enter_context(storage.local_copy(self._earlier))
                note = self._note_of(folder)
            if note is not None:
                self._curves = note["curves"]
            yield folder if note is not None else None

    def _note_of(self, folder: str | None) -> dict[str, Any] | None:
        note = read_note(folder) if folder is not None else None
        return note if note is not None and note["training"] == self._training.artifact.fingerprint else None

    def must_save(self) -> bool:
        """See `WorkerContext.must_save`."""
        return self._worker.must_save()

    def conclude(self, metrics: Mapping[str, float]) -> None:
        """Complete the artefact, on rank 0."""
        if self.rank != 0:
            return
        if not self._is_delivered:  # it had ended before, and was stopped before its artefact was complete
            with self.latest_checkpoint() as folder:
                assert folder is not None
                self._deliver(folder)
        artifact = self._training.artifact
        storage.write_bytes(storage.join(artifact.workshop, CURVES_NAME), json.dumps(self._curves).encode())
        artifact.complete(metrics, took_s=time.monotonic() - self._started)

    def _write_note(self, folder: str) -> None:
        content = {"training": self._training.artifact.fingerprint, "curves": self._curves}
        try:
            Path(folder, NOTE_NAME).write_text(json.dumps(content))
        except OSError as error:
            raise ResourceError(
                f"the checkpoint cannot be written to {folder}: {error}. Check the free space there, or name another "
                "temporary folder in TMPDIR; the checkpoint before is kept"
            ) from error

    def _deliver(self, folder: str) -> None:
        storage.remove_tree(self._training.artifact.workshop)
        storage.upload_tree(folder, self._training.artifact.workshop)
        self._is_delivered = True


def read_note(uri: str) -> dict[str, Any] | None:
    """Return what a checkpoint says of itself, or None where it is not whole."""
    try:
        note = json.loads(storage.read_bytes(storage.join(uri, NOTE_NAME)))
        return {"training": str(note["training"]), "curves": _CURVES.validate_python(note["curves"])}
    except (DataError, ValueError, KeyError, TypeError, RecursionError):
        return None


def raw_curves(uri: str) -> Curves:
    """Return the training curves kept beside an artefact: step -> figures. None of them where they cannot be read.

    The last checkpoint, which became the artefact, holds them too.
    """
    path = storage.join(uri, CURVES_NAME)
    if not whole_files.is_as_listed(path):
        note = read_note(uri) if whole_files.is_as_listed(storage.join(uri, NOTE_NAME)) else None
        if note is None and storage.exists(path):
            logger.warning("%s was changed: its training curves are left out of the report", path)
        return note["curves"] if note is not None else {}
    try:
        return read_json_file(path, _CURVES.validate_python, remedy="Its training curves are left out of the report")
    except ArtifactError as error:  # nothing is made of them but pictures
        logger.warning("%s", error)
        return {}


def read_curves(network_uri: str) -> dict[str, list[tuple[int, float]]]:
    """Return the training curves kept beside a network: figure -> points (step, value)."""
    curves: dict[str, list[tuple[int, float]]] = {}
    for step, metrics in sorted(raw_curves(network_uri).items()):
        for name, value in metrics.items():
            curves.setdefault(name, []).append((step, value))
    return curves
