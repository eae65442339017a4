"""What files outside a run call its images: by their names, or by a path of which only the end is the same."""

import unicodedata
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence

from qaclims_ray.data.image_ids import image_id_of

_LONGEST_END = 6
"""Parts of a path that are compared."""


def names_below(uris: Sequence[str]) -> list[str]:
    """Return each image's path below the folder that all of them lie in, letters with accents in one form."""
    parts = [uri.split("/") for uri in uris]
    # In parts: what paths have in common letter by letter may end within a name, and URIs are no paths.
    deepest = min((len(own) for own in parts), default=1) - 1
    common = next((at for at in range(deepest) if len({own[at] for own in parts}) > 1), deepest)
    return [unicodedata.normalize("NFC", "/".join(own[common:])) for own in parts]


class ImageNames:
    """Finds images by what files call them."""

    def __init__(self, places: Mapping[str, str]) -> None:
        """Take the images.

        Args:
            places: image id -> its path or URI.
        """
        self._by_end: dict[str, set[str]] = defaultdict(set)
        self._ids = {_folded(image_id): image_id for image_id in places}
        for image_id, uri in places.items():
            for end in _ends(uri):
                self._by_end[end].add(image_id)

    def found(self, names: Iterable[str]) -> dict[str, list[str]]:
        """Return image id -> the names that mean it; a longer path that fits counts more than a name alone."""
        best: dict[str, tuple[int, list[str]]] = {}
        for name in names:
            if (fit := self._fit(name)) is None:
                continue
            image_id, length = fit
            known, others = best.get(image_id, (0, []))
            if length > known:
                best[image_id] = (length, [name])
            elif length == known:
                others.append(name)
        return {image_id: found for image_id, (_, found) in best.items()}

    def _fit(self, name: str) -> tuple[str, int] | None:
        ends = _ends(name)
        for length in range(len(ends), 0, -1):
            if len(known := self._by_end.get(ends[length - 1], ())) == 1:
                return next(iter(known)), length
        own = self._ids.get(ends[0]) if ends else None
        return None if own is None else (own, 1)


def _ends(name: str) -> list[str]:
    """Return the last part of a path without its image suffix, the last two, and so on."""
    parts = [part for part in name.replace("\\", "/").split("/") if part not in ("", ".", "..")]
    if not parts:
        return []
    parts[-1] = image_id_of(parts[-1])
    return [_folded("/".join(parts[-length:])) for length in range(1, min(len(parts), _LONGEST_END) + 1)]


def _folded(name: str) -> str:
    return unicodedata.normalize("NFC", name).casefold()
