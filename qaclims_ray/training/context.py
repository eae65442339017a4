"""What a training needs to know of the world around it: rank, device, where reports and checkpoints go.

``LocalContext`` serves one process and the tests; the only other one lives in ``cluster/workers.py``. Devices are
decided here and in ``cluster/`` alone.
"""

import contextlib
import shutil
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Protocol, runtime_checkable

import torch
import torch.distributed
from jaxtyping import Float
from torch import Tensor

from qaclims_ray.data import storage
from qaclims_ray.training.checkpoint import is_sound


@runtime_checkable
class WorkerContext(Protocol):
    """One training worker among ``world_size``; collectives use torch's default process group."""

    @property
    def rank(self) -> int:
        """Rank of this worker, from 0."""
        ...

    @property
    def world_size(self) -> int:
        """Number of workers."""
        ...

    @property
    def device(self) -> torch.device:
        """Device of this worker."""
        ...

    @property
    def loader_workers(self) -> int:
        """Image loading processes of this worker; they change nothing that is learned."""
        ...

    def report(self, metrics: Mapping[str, float], checkpoint_dir: str | None) -> None:
        """Hand over an epoch's metrics and, on rank 0, a checkpoint folder (which the context then owns).

        Every rank calls this the same number of times.
        """
        ...

    def latest_checkpoint(self) -> contextlib.AbstractContextManager[str | None]:
        """Yield a local folder with the latest checkpoint, or None at a fresh start."""
        ...

    def must_save(self) -> bool:
        """Whether a machine is about to be taken away, said once: save now, and not at the end of the epoch.

        Every rank calls this the same number of times and gets the same answer.
        """
        ...


class LocalContext:
    """A single worker in this process; keeps the two latest checkpoints and all reported metrics."""

    def __init__(self, checkpoint_root: str, device: str = "cpu", loader_workers: int = 0) -> None:
        self.loader_workers = loader_workers
        self.rank = 0
        self.world_size = 1
        self.device = torch.device(device)
        self.reports: list[dict[str, float]] = []
        self._latest = Path(checkpoint_root) / "latest"
        self._previous = self._latest.with_name("previous")

    def report(self, metrics: Mapping[str, float], checkpoint_dir: str | None) -> None:
        """See `WorkerContext.report`."""
        self.reports.append(dict(metrics))
        if checkpoint_dir is not None:
            self._keep(checkpoint_dir)

    def _keep(self, checkpoint_dir: str) -> None:
        """Put a checkpoint in place of the latest, which stays until the new one is whole.

        Raises:
            ResourceError: when the place cannot be written or is full.
        """
        arriving = self._latest.with_name("arriving")
        try:
            shutil.rmtree(arriving, ignore_errors=True)
            storage.upload_tree(checkpoint_dir, str(arriving))
        finally:
            shutil.rmtree(checkpoint_dir, ignore_errors=True)
        # A folder cannot be replaced in one step. The old one moves aside first, where `latest_checkpoint` finds it; it
        # stays there, and serves where the new one gets damaged.
        if self._latest.is_dir():
            shutil.rmtree(self._previous, ignore_errors=True)
            self._latest.rename(self._previous)
        arriving.rename(self._latest)

    @contextlib.contextmanager
    def latest_checkpoint(self) -> Iterator[str | None]:
        """See `WorkerContext.latest_checkpoint`."""
        # The previous one is the latest if the process was killed between the two renames.
        found = [str(folder) for folder in (self._latest, self._previous) if folder.is_dir()]
        # Where none is whole, restoring the latest says what is wrong with it.
        yield next((folder for folder in found if is_sound(folder)), found[0] if found else None)

    def must_save(self) -> bool:
        """See `WorkerContext.must_save`; nobody tells this process."""
        return False


def gather_rows(rows: Float[Tensor, "row column"], context: WorkerContext) -> Float[Tensor, "all_row all_column"]:
    """Put the rows of all workers together, those of rank 0 first: each fills its part of a table, and tables add up.

    Args:
        rows: this worker's rows, on the CPU. A worker may have none; their width is not read then.
        context: this worker.
    """
    # Not all_gather: it wants tensors of one shape, and workers have different numbers of rows.
    sizes = torch.zeros(context.world_size, dtype=torch.int64)
    sizes[context.rank] = len(rows)
    widths = torch.zeros(context.world_size, dtype=torch.int64)
    widths[context.rank] = rows.shape[1] if len(rows) else 0
    sizes, widths = all_reduce_sum(torch.stack([sizes, widths]).to(context.device)).cpu()
    start, width = int(sizes[: context.rank].sum()), int(widths.max())
    table = torch.zeros(int(sizes.sum()), width, dtype=rows.dtype)
    if len(rows):
        table[start : start + len(rows)] = rows
    return all_reduce_sum(table.to(context.device)).cpu()


def all_reduce_sum(value: torch.Tensor) -> torch.Tensor:
    """Sum a tensor over all workers; the tensor itself when there is one."""
    if torch.distributed.is_available() and torch.distributed.is_initialized():
        # all_reduce writes its result into its argument.
        value = value.clone()
        torch.distributed.all_reduce(value)
    return value
