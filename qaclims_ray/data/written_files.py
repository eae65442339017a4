"""Names of files that were written into buckets just now: a store's own listing may be some seconds older.

S3, GCS and Azure list at once what was written; other stores promise less. A finished artefact has a list of its files,
so that one which a listing lacks would be lost. What tasks on other processes wrote travels with their outcomes.
"""

from collections.abc import Iterable

_written: dict[str, None] = {}
"""URIs in the order in which they were written; a set that is not reordered."""


def remember(uris: Iterable[str]) -> None:
    """Note that files are there, which were written or looked at by name."""
    _written.update(dict.fromkeys(uris))


def forget(uri: str) -> None:
    """Note that a file, or a folder with all below it, is gone."""
    _written.pop(uri, None)
    for name in new_below(uri):
        _written.pop(f"{uri.rstrip('/')}/{name}", None)


def new_below(folder: str) -> list[str]:
    """Return the names of noted files below a folder."""
    start = f"{folder.rstrip('/')}/"
    return [uri[len(start) :] for uri in list(_written) if uri.startswith(start)]


def take() -> list[str]:
    """Return all that is noted, and forget it here: another process notes it."""
    taken = list(_written)
    for uri in taken:
        _written.pop(uri, None)
    return taken
