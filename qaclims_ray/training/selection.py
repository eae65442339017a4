"""Which epoch's network a training ends with (row S15): the last one, unless a score says otherwise.

The released codes score every epoch against pixel labels and keep the best, which is an oracle. Here the last epoch
is the default, and there is a score that needs no label beyond those of the images.
"""

import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path

from torch import nn

from qaclims_ray.training.checkpoint import scratch_place

Rate = Callable[[nn.Module], float]
"""Rates a mask generator, higher is better; runs on every worker and gives the same on all."""

SELECTED_DIR = "selected"
"""Folder of the best network so far in a checkpoint."""
LAST_DIR = "last"
"""Folder of the last epoch's network in a finished checkpoint that holds an earlier one."""
EPOCH_SCORE, BEST_SCORE = "selection/score", "selection/best"
"""Metrics: the score of the epoch, and the best so far."""


class Selection:
    """The best network of a training so far, kept in every checkpoint; only rank 0 keeps files."""

    def __init__(self, score: Callable[[], float], save: Callable[[str], None]) -> None:
        self._score, self._save = score, save
        self._best = tempfile.TemporaryDirectory(prefix="qaclims-", dir=scratch_place())

    def restore(self, folder: str) -> None:
        """Take over what a checkpoint holds."""
        shutil.copytree(Path(folder, SELECTED_DIR), self._best.name, dirs_exist_ok=True)

    def update(self, folder: str | None, best_so_far: float | None) -> dict[str, float]:
        """Rate the network after an epoch and put the best one into the epoch's checkpoint.

        Args:
            folder: checkpoint folder; None on workers that write none.
            best_so_far: best score before this epoch.

        Returns:
            The epoch's score and the best one, to be logged.
        """
        score = self._score()
        is_best = best_so_far is None or score > best_so_far
        if folder is not None:
            if is_best:
                self._save(self._best.name)
            shutil.copytree(self._best.name, Path(folder, SELECTED_DIR))
        best = score if best_so_far is None or is_best else best_so_far
        return {EPOCH_SCORE: score, BEST_SCORE: best}

    def carry(self, folder: str) -> None:
        """Put the best network into a checkpoint within an epoch."""
        shutil.copytree(self._best.name, Path(folder, SELECTED_DIR))

    def conclude(self, folder: str) -> None:
        """Make the best network the one that the finished checkpoint holds; the last one moves aside."""
        self._save(str(Path(folder, LAST_DIR)))
        shutil.copytree(self._best.name, folder, dirs_exist_ok=True)
