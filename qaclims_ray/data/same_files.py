"""Whether two artefacts, made apart from the same settings and inputs, hold the same files, byte for byte."""

import json
from dataclasses import dataclass
from typing import Any

from qaclims_ray.data import storage
from qaclims_ray.data.whole_files import CURVES_NAME, listed_files, read_whole

_NO_RESULT = ("images_per_s", "seal")
"""In JSON files: how fast a training went, also one phase of it, and the hash over a file that says so."""


@dataclass(frozen=True)
class FilesCompared:
    """What two artefacts have in common."""

    num_files: int
    """Files that either has."""
    changed: tuple[str, ...]
    """Names of those that both have, with other content."""
    one_sided: tuple[str, ...]
    """Names of those that only one of them has."""

    @property
    def are_same(self) -> bool:
        """Whether nothing differs."""
        return not (self.changed or self.one_sided)


def compare_files(first: str, second: str) -> FilesCompared | None:
    """Compare two finished artefacts by the hashes in their lists.

    JSON files that differ are read: the speed of a training, which is other in every run, is no difference.

    Args:
        first: folder of the one.
        second: folder of the other.

    Returns:
        What differs; None where one of them keeps no list, as those of early versions.

    Raises:
        ArtifactError: when a list cannot be read.
        DataError: when a file is not there.
        DamagedError: when one was changed since it was written.
    """
    ours, theirs = listed_files(first), listed_files(second)
    if ours is None or theirs is None:
        return None
    changed = [
        name
        for name in sorted(ours.keys() & theirs.keys())
        if ours[name] != theirs[name] and not _same_results(storage.join(first, name), storage.join(second, name))
    ]
    # Early versions did not list curves.
    one_sided = sorted(name for name in ours.keys() ^ theirs.keys() if name != CURVES_NAME)
    return FilesCompared(len(ours.keys() | theirs.keys()), tuple(changed), tuple(one_sided))


def _same_results(first: str, second: str) -> bool:
    if not first.endswith(".json"):
        return False
    try:
        values = [json.loads(read_whole(uri)) for uri in (first, second)]
    except (ValueError, RecursionError):
        return False
    return _results(values[0]) == _results(values[1])


def _results(value: Any) -> Any:
    if isinstance(value, dict):
        return {name: _results(item) for name, item in value.items() if name.rsplit("/", 1)[-1] not in _NO_RESULT}
    return [_results(item) for item in value] if isinstance(value, list) else value
