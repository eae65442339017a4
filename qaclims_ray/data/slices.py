"""Long lists worked on slice by slice: what a million items cost in one go, some thousand cost at a time."""

import contextlib
import itertools
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

_Item = TypeVar("_Item")
_Result = TypeVar("_Result")

NUM_THREADS = 8
"""Files opened at a time: hashing and decoding free the interpreter, and remote stores are slow to answer."""
_WAITING = 4096
"""Calls that wait for a thread at most: each takes more than a kilobyte."""


def in_slices(items: Iterable[_Item], size: int) -> Iterator[list[_Item]]:
    """Yield items in lists of one size; the last may be shorter."""
    source = iter(items)
    while found := list(itertools.islice(source, size)):
        yield found


def in_threads(function: Callable[[_Item], _Result], items: Iterable[_Item]) -> list[_Result]:
    """Return ``function`` of each item, in order, several at a time."""
    with each_in_threads(function, items) as results:
        return list(results)


@contextlib.contextmanager
def each_in_threads(function: Callable[[_Item], _Result], items: Iterable[_Item]) -> Iterator[Iterator[_Result]]:
    """Yield what `in_threads` returns one by one; what has not begun when the context ends does not begin.

    Not with a pool of `multiprocessing`: its locks lie in /dev/shm, which a container may lack.
    """
    pool = ThreadPoolExecutor(NUM_THREADS)
    try:
        yield (result for some in in_slices(items, _WAITING) for result in pool.map(function, some))
    finally:
        pool.shutdown(cancel_futures=True)
