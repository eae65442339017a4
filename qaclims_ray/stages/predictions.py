"""What `predict` says of its images: names that collide, masks that show nothing, images that cannot be read."""

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from jaxtyping import UInt8
from torch import Tensor

from qaclims_ray.data.classes import BACKGROUND_VALUE, IGNORE_VALUE, class_id

LISTED = 10
"""So many images are named on the console; ``predictions.json`` has all."""

Prediction = Mapping[str, Any]
"""An image of ``predictions.json``: `image`, and `error` or `labels`, `labels_from`, `is_empty`."""


def doubled(names: Iterable[str]) -> list[str]:
    """Return the names that stand for several images, sorted; in one pass, as there may be millions."""
    return sorted(name for name, count in Counter(names).items() if count > 1)


def shown_classes(mask: UInt8[Tensor, "height width"]) -> list[int]:
    """Return the classes that a mask shows, rising; none where it is background, or left out, throughout."""
    return [class_id(value) for value in sorted(set(mask.unique().tolist()) - {BACKGROUND_VALUE, IGNORE_VALUE})]


def empty_masks(rows: Sequence[Prediction]) -> list[str]:
    """Return the images whose mask shows none of the classes."""
    return [row["image"] for row in rows if row.get("is_empty")]


def closing_line(rows: Sequence[Prediction], by: str, out: str) -> str:
    """Return how many masks were made, how many of them show nothing, and how many images were skipped."""
    skipped, empty = sum("error" in row for row in rows), len(empty_masks(rows))
    made = len(rows) - skipped
    shows = [f"{_images(empty)} show{'s' if empty == 1 else ''} none of the classes"] if empty else []
    parts = [f"{made} mask{'' if made == 1 else 's'} by {by}", *shows, f"{_images(skipped)} skipped"]
    return f"{', '.join(parts)} -> {out}"


def remarkable(rows: Sequence[Prediction]) -> Iterator[str]:
    """Yield the lines that name skipped images and empty masks, the first `LISTED` of each.

    Args:
        rows: of all images, labels by name.
    """
    skipped = [row["error"] for row in rows if "error" in row]
    empty = [f"{row['image']} {_why_empty(row)}" for row in rows if row.get("is_empty")]
    for word, lines in (("skipped", skipped), ("empty", empty)):
        yield from (f"{word:<8} {line}" for line in lines[:LISTED])
        if len(lines) > LISTED:
            yield f"{word:<8} ... and {len(lines) - LISTED} more, all in predictions.json"


def _why_empty(row: Prediction) -> str:
    if row["labels"]:
        return f"(no pixel of {', '.join(row['labels'])} above the threshold)"
    match row["labels_from"]:
        case "classifier":
            return "(no class is probable enough, see --label-threshold)"
        case "file":
            return "(the label file gives it no class)"
        case _:
            return "(the network finds no class)"


def _images(count: int) -> str:
    return f"{count} image{'' if count == 1 else 's'}"
