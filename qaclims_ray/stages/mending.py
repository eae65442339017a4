"""What a run does about a file that turns out damaged when it is read: it makes the artefact again, at once."""

from collections.abc import Callable
from typing import Any, TypeVar

from qaclims_ray.errors import DamagedError
from qaclims_ray.stages.stage import StageProgress

_MOST_MENDED = 10
"""Artefacts that a run makes again because they are damaged; with more of them the disk is at fault."""
_Made = TypeVar("_Made")


class Mending:
    """Does work again where it has met a damaged file: by then the file is marked, so its artefact is made again.

    Args:
        progress: where to say so.
    """

    def __init__(self, progress: StageProgress) -> None:
        self._progress = progress
        self._mended: set[str] = set()

    def whole(self, work: Callable[[], _Made], before: Callable[[], Any] = lambda: None) -> _Made:
        """Return what work makes.

        Args:
            work: makes again what is marked as damaged, or only reads it.
            before: makes again what `work` only reads.

        Raises:
            DamagedError: where an artefact is damaged for the second time, or too many are.
        """
        while True:
            try:
                return work()
            except DamagedError as error:
                if error.folder in self._mended or len(self._mended) == _MOST_MENDED:
                    raise
                self._mended.add(error.folder)
                self._progress.abort()
                self._progress.note(f"{error.folder}/{error.name} is not the file that was written: it is made again")
            self.whole(before)
