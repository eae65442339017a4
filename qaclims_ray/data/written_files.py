"""Names of files that were written into buckets just now: a store's own listing may be some seconds older.

S3, GCS and Azure list at once what was written; other stores promise less. A finished artefact has a list of its files,
so that one which a listing lacks would be lost. What tasks on other processes wrote travels with their outcomes.
"""

from collections.abc import Iterable

_written: dict[str, dict[str, None]] = {}
"""Names by folder, in the order in which they were written, so that a million of them are found and forgotten fast."""


def remember(uris: Iterable[str]) -> None:
    """Note that files are there, which were written or looked at by name."""
    for uri in uris:
        folder, _, name = uri.rpartition("/")
        _written.setdefault(folder, {})[name] = None


def forget(uri: str) -> None:
    """Note that a file, or a folder with all below it, is gone."""
    folder, _, name = uri.rstrip("/").rpartition("/")
    _written.get(folder, {}).pop(name, None)
    for below in _folders_below(uri):
        _written.pop(below, None)


def new_below(folder: str) -> list[str]:
    """Return the names of noted files below a folder."""
    start = f"{folder.rstrip('/')}/"
    return [f"{below}/{name}"[len(start) :] for below in _folders_below(folder) for name in list(_written[below])]


def take() -> list[str]:
    """Return all that is noted, and forget it here: another process notes it."""
    taken = [f"{folder}/{name}" for folder, names in list(_written.items()) for name in list(names)]
    _written.clear()
    return taken


def _folders_below(uri: str) -> list[str]:
    start = f"{uri.rstrip('/')}/"
    return [folder for folder in list(_written) if f"{folder}/".startswith(start)]
