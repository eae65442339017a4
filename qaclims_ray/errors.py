"""The exception family: every mistake a user can make ends in one of these, with one clear message.

A message says what was found, what was expected and what to do. ``assert`` is for programmer errors only.
"""

import difflib
from collections.abc import Iterable


def did_you_mean(word: str, known: Iterable[str]) -> str:
    """Return "did you mean 'X'? " for the known word nearest to a mistyped one, empty where none is near."""
    by_folded = {name.casefold(): name for name in known}
    near = difflib.get_close_matches(word.casefold(), by_folded, n=1)
    return f"did you mean {by_folded[near[0]]!r}? " if near else ""


class QaclimsError(Exception):
    """Base of all errors that a user can cause and mend."""


class ConfigError(QaclimsError, ValueError):
    """A configuration is unknown, inconsistent or out of range.

    It is a `ValueError` too, so that pydantic goes on and reports all of them together.
    """


class DataError(QaclimsError):
    """A data set has missing, broken or contradicting files."""


class ArtifactError(QaclimsError):
    """An artefact is absent, incomplete or was made from other inputs."""


class DamagedError(ArtifactError):
    """A file of a finished artefact is not the one that was written: a disk, a copy or a person changed it."""

    def __init__(self, folder: str, name: str) -> None:
        super().__init__(folder, name)  # by which it is pickled
        self.folder, self.name = folder, name

    def __str__(self) -> str:
        return (
            f"{self.folder}/{self.name} is not the file that was written: a disk, a copy or a person changed it. "
            "Run the same command that made it again: it makes what is damaged anew"
        )


class ModelError(QaclimsError):
    """Model weights are absent, broken or do not fit the architecture."""


class ResourceError(QaclimsError):
    """A machine, cluster, disk or service cannot do what the run needs."""
