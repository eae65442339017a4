"""What `predict` says of its images: names that collide, masks that show nothing, images that cannot be read."""

import csv
import io
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

import torch
from jaxtyping import UInt8
from torch import Tensor

from qaclims_ray.data.classes import BACKGROUND_VALUE, IGNORE_VALUE, class_id, label_value
from qaclims_ray.report.table import Column, Table, text_rows
from qaclims_ray.report.wording import percent

LISTED = 10
"""So many images are named on the console; ``predictions.json`` has all."""

Prediction = Mapping[str, Any]
"""An image of ``predictions.json``: `image`, and `error` or `labels`, `labels_from`, `is_empty`, `areas`."""


def doubled(names: Iterable[str]) -> list[str]:
    """Return the names that stand for several images, sorted; in one pass, as there may be millions."""
    return sorted(name for name, count in Counter(names).items() if count > 1)


def shown_classes(mask: UInt8[Tensor, "height width"]) -> list[int]:
    """Return the classes that a mask shows, rising; none where it is background, or left out, throughout."""
    return [class_id(value) for value in sorted(set(mask.unique().tolist()) - {BACKGROUND_VALUE, IGNORE_VALUE})]


def class_areas(mask: UInt8[Tensor, "height width"]) -> dict[int, float]:
    """Return the share of a mask's pixels that each class has, for those that it shows, the largest first."""
    counts = torch.bincount(mask.flatten().long(), minlength=IGNORE_VALUE + 1).tolist()
    found = {one: round(counts[label_value(one)] / mask.numel(), 6) for one in shown_classes(mask)}
    return dict(sorted(found.items(), key=lambda area: (-area[1], area[0])))


def areas_by_class(rows: Sequence[Prediction], class_names: Sequence[str]) -> dict[str, dict[str, float]]:
    """Return of each class on how many images it is shown, and its mean share of the pixels of all images with a mask.

    Args:
        rows: of all images, areas by name.
        class_names: of all classes, in label order.
    """
    areas = [row["areas"] for row in rows if "areas" in row]
    return {
        name: {
            "images": sum(name in own for own in areas),
            "mean_area": sum(own.get(name, 0.0) for own in areas) / max(1, len(areas)),
        }
        for name in class_names
    }


def areas_table(rows: Sequence[Prediction], class_names: Sequence[str]) -> Table:
    """Return the same as a table; classes that no mask shows are left out."""
    found = {name: own for name, own in areas_by_class(rows, class_names).items() if own["images"]}
    heads = ("class", "images that show it", "share of their pixels, %", "share of all pixels, %")
    count = max(1, sum("areas" in row for row in rows))
    texts = [
        [name, str(own["images"]), percent(own["mean_area"] * count / own["images"]), percent(own["mean_area"])]
        for name, own in found.items()
    ]
    return Table(tuple(Column(head=head) for head in heads), text_rows(texts))


def predictions_csv(rows: Sequence[Prediction], class_names: Sequence[str]) -> str:
    """Return a row for each image: its labels, whether its mask is empty, each class's share of the pixels, error."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(["image", "labels", "empty", *class_names, "error"])
    for row in rows:
        if "error" in row:
            writer.writerow([row["image"], "", "", *("" for _ in class_names), row["error"]])
            continue
        shares = [f"{row['areas'].get(name, 0.0):g}" for name in class_names]
        writer.writerow([row["image"], ";".join(row["labels"]), int(row["is_empty"]), *shares, ""])
    return text.getvalue()


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
