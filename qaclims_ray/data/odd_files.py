"""Photographs that deserve a look before anything is learned from them: copies, tiny ones, those without colour."""

import hashlib
import io
import random
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from PIL import Image

from qaclims_ray.data import storage
from qaclims_ray.data.slices import in_threads
from qaclims_ray.data.validation import RawImage

TINY_PX = 96
"""A shorter side than this shows few objects well enough to outline them."""
MOST_LOOKED_AT = 3000
"""So many are opened; of more, so many are drawn, the same ones each time."""
_LOOKED_AT_PX = 64
_GREY = ("1", "L", "LA", "I", "I;16", "F")


@dataclass(frozen=True)
class OddFiles:
    """Names of images by what is odd about them."""

    looked_at: int
    """Images that were opened."""
    sizes: Sequence[tuple[int, int]]
    """Width and height of each of them."""
    copies: Sequence[tuple[str, ...]]
    """Groups of images whose files are the same, byte for byte."""
    tiny: Sequence[str]
    """Those with a side below `TINY_PX`."""
    grey: Sequence[str]
    """Those without colour."""
    unreadable: Sequence[str]
    """Those that cannot be opened."""


@dataclass(frozen=True)
class _Seen:
    digest: bytes
    size: tuple[int, int] | None
    is_grey: bool


def find_odd_files(images: Sequence[RawImage]) -> OddFiles:
    """Open images, and say what is odd about them."""
    chosen = list(images)
    if len(chosen) > MOST_LOOKED_AT:
        chosen = random.Random(0).sample(chosen, MOST_LOOKED_AT)
    seen = dict(zip([one.image_id for one in chosen], in_threads(_look, [i.image_uri for i in chosen]), strict=True))
    alike: dict[bytes, list[str]] = defaultdict(list)
    for name, found in seen.items():
        alike[found.digest].append(name)
    return OddFiles(
        looked_at=len(seen),
        sizes=[found.size for found in seen.values() if found.size is not None],
        copies=[tuple(names) for names in alike.values() if len(names) > 1],
        tiny=[name for name, found in seen.items() if found.size is not None and min(found.size) < TINY_PX],
        grey=[name for name, found in seen.items() if found.is_grey],
        unreadable=[name for name, found in seen.items() if found.size is None],
    )


def _look(uri: str) -> _Seen:
    content = storage.read_bytes(uri)
    digest = hashlib.sha256(content).digest()
    try:
        with Image.open(io.BytesIO(content)) as picture:
            size, is_grey = picture.size, picture.mode in _GREY
            if not is_grey:
                # A JPEG is decoded at an eighth of its size where that suffices.
                picture.draft("RGB", (_LOOKED_AT_PX, _LOOKED_AT_PX))
                small = picture.convert("RGB").resize((_LOOKED_AT_PX, _LOOKED_AT_PX))
                is_grey = int(np.ptp(np.asarray(small, dtype=np.int16), axis=2).max()) <= 2
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError):
        return _Seen(digest, None, False)  # told by the reader, in its words
    return _Seen(digest, size, is_grey)
