"""The index of pseudo masks: one row per image, in ``index.parquet`` beside the PNGs.

The masks are written by `images.save_label_map` as ``ID.png`` in VOC's form, so any segmentation toolkit can read
them without this index. An image that failed has a row too, with the reason.
"""

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import pyarrow as pa
import torch
from jaxtyping import UInt8
from torch import Tensor

from qaclims_ray.data import storage
from qaclims_ray.data.classes import BACKGROUND_VALUE, IGNORE_VALUE, label_value
from qaclims_ray.data.row_tables import one_of_each, read_rows, write_rows
from qaclims_ray.errors import ArtifactError, DataError

FILE_NAME = "index.parquet"
"""Name of the table in the masks' folder."""

_SCHEMA = pa.schema(
    [
        pa.field("image_id", pa.string(), nullable=False),
        pa.field("mask", pa.string(), nullable=False),
        pa.field("height", pa.int32(), nullable=False),
        pa.field("width", pa.int32(), nullable=False),
        pa.field("coverage", pa.float64(), nullable=False),
        pa.field("ignored", pa.float64(), nullable=False),
        pa.field("class_ids", pa.list_(pa.int32()), nullable=False),
        pa.field("areas", pa.list_(pa.float64()), nullable=False),
        pa.field("status", pa.string(), nullable=False),
        pa.field("error", pa.string(), nullable=False),
    ]
)


@dataclass(frozen=True, slots=True)
class MaskRow:
    """What the index says of one image."""

    image_id: str
    """The manifest's image identifier."""
    mask: str
    """File name of its mask in the folder; empty where there is none."""
    height: int
    """Height in pixels; 0 where there is no mask."""
    width: int
    """Width in pixels; 0 where there is no mask."""
    coverage: float
    """Share of the labelled pixels that show an object; 0 when every pixel is ignored."""
    ignored: float
    """Share of the pixels that are 255."""
    class_ids: tuple[int, ...]
    """Classes of the image (0-based foreground), whether or not the mask shows them."""
    areas: tuple[float, ...]
    """Share of the image's pixels that each of them has."""
    status: Literal["ok", "error"] = "ok"
    """Whether there is a mask."""
    error: str = ""
    """Why there is none."""


def mask_file_name(image_id: str) -> str:
    """Return the file name of an image's mask."""
    return f"{image_id}.png"


def mask_row(image_id: str, labels: UInt8[Tensor, "height width"], class_ids: tuple[int, ...]) -> MaskRow:
    """Describe one mask.

    Args:
        image_id: the manifest's image identifier.
        labels: label values, 255 where ignored.
        class_ids: classes of the image.

    Raises:
        DataError: when a class is listed twice, or the mask shows one that is not listed.
    """
    counts = torch.bincount(labels.flatten().long(), minlength=256).tolist()
    num_pixels = max(1, labels.numel())
    num_labelled = labels.numel() - counts[IGNORE_VALUE]
    shown = {value for value, count in enumerate(counts) if count} - {BACKGROUND_VALUE, IGNORE_VALUE}
    if len(set(class_ids)) != len(class_ids):
        raise DataError(f"the classes of {image_id} are {class_ids}; expected each of them once")
    if foreign := sorted(shown - {label_value(class_id) for class_id in class_ids}):
        raise DataError(
            f"the mask of {image_id} holds the label values {foreign}, which belong to none of its classes {class_ids} "
            "(label value = class + 1); make the mask from this image's own labels"
        )
    return MaskRow(
        image_id=image_id,
        mask=mask_file_name(image_id),
        height=labels.shape[0],
        width=labels.shape[1],
        coverage=sum(counts[value] for value in shown) / max(1, num_labelled),
        ignored=counts[IGNORE_VALUE] / num_pixels,
        class_ids=tuple(class_ids),
        areas=tuple(counts[label_value(class_id)] / num_pixels for class_id in class_ids),
    )


def failed_row(image_id: str, error: str) -> MaskRow:
    """Describe an image that has no mask.

    Args:
        image_id: the manifest's image identifier.
        error: why; must not be empty.
    """
    return MaskRow(image_id, "", 0, 0, 0.0, 0.0, (), (), status="error", error=error or "unknown error")


def write_mask_index(uri: str, rows: Sequence[MaskRow], class_names: Sequence[str]) -> None:
    """Write the index beside the masks, sorted by image, so that equal rows give equal bytes.

    Args:
        uri: folder of the masks, local or remote.
        rows: one per image.
        class_names: natural names of the classes; the position is the class id.

    Raises:
        DataError: when an image has two rows, or a row contradicts itself or the class names.
        ResourceError: when the place cannot be written.
    """
    if faults := _faults(rows, class_names):
        raise DataError(f"the rows of the mask index do not fit: {'; '.join(faults[:3])} ({len(faults)} in all)")
    ordered = sorted(rows, key=lambda row: row.image_id)
    described = ({name: getattr(row, name) for name in _SCHEMA.names} for row in ordered)
    write_rows(storage.join(uri, FILE_NAME), described, _SCHEMA, {"class_names": list(class_names)})


def read_mask_index(uri: str) -> tuple[list[MaskRow], tuple[str, ...]]:
    """Read an index back.

    Args:
        uri: folder of the masks, local or remote.

    Returns:
        The rows, sorted by image, and the class names.

    Raises:
        ArtifactError: when it is absent, broken, or contradicts itself.
        ResourceError: when the store does not answer.
    """
    path = storage.join(uri, FILE_NAME)
    if not storage.exists(path):
        raise ArtifactError(f"there is no mask index at {path}; make the masks first")
    try:
        found, notes = read_rows(path, _SCHEMA)
        names, known = notes["class_names"], {}
        rows = [_row(row, known) for row in found]
    except (pa.ArrowException, OSError, KeyError, ValueError, TypeError) as error:
        raise ArtifactError(f"{path} cannot be read ({error}); make the masks again") from None
    if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
        raise ArtifactError(f"{path} has class names {names!r}, expected a list of names; make the masks again")
    if faults := _faults(rows, names):
        raise ArtifactError(
            f"{path} contradicts itself: {'; '.join(faults[:3])} ({len(faults)} in all); make the masks again"
        )
    return rows, tuple(names)


def summarise_masks(rows: Sequence[MaskRow], class_names: Sequence[str]) -> dict[str, Any]:
    """Return the figures worth a look, over the images that have a mask.

    Returns:
        ``num_images``, ``num_failed``, ``mean_coverage``, ``mean_ignored`` (each image counts the same; None without
        images), ``labelled_without_foreground`` (images of at least one class whose mask shows none) and ``classes``:
        by name, in label order, the ``images`` of the class, how many of them ``shown`` it in the mask, and its
        ``mean_area`` over its images (None without any).
    """
    masks = [row for row in rows if row.status == "ok"]
    areas: dict[int, list[float]] = {class_id: [] for class_id in range(len(class_names))}
    for row in masks:
        for class_id, area in zip(row.class_ids, row.areas, strict=True):
            areas[class_id].append(area)
    return {
        "num_images": len(masks),
        "num_failed": len(rows) - len(masks),
        "mean_coverage": _mean([row.coverage for row in masks]),
        "mean_ignored": _mean([row.ignored for row in masks]),
        "labelled_without_foreground": sum(bool(row.class_ids) and not any(row.areas) for row in masks),
        "classes": {
            name: {
                "images": len(areas[class_id]),
                "shown": sum(area > 0 for area in areas[class_id]),
                "mean_area": _mean(areas[class_id]),
            }
            for class_id, name in enumerate(class_names)
        },
    }


def _mean(values: list[float]) -> float | None:
    return math.fsum(values) / len(values) if values else None


def _row(row: dict[str, Any], known: dict[Any, Any]) -> MaskRow:
    read: dict[str, Any] = {
        "class_ids": one_of_each(known, tuple(int(class_id) for class_id in row["class_ids"])),
        "status": one_of_each(known, row["status"]),
        "areas": tuple(float(area) for area in row["areas"]),
    }
    return MaskRow(**{**row, **read})


def _faults(rows: Sequence[MaskRow], class_names: Sequence[str]) -> list[str]:
    """Say what is wrong with rows: repeated images, unknown classes, shares that are none."""
    faults, classes = [], set(range(len(class_names)))
    if len({row.image_id for row in rows}) < len(rows):
        counts = Counter(row.image_id for row in rows)
        faults = [f"{image_id} has {count} rows" for image_id, count in counts.items() if count > 1]
    for row in rows:
        shares = (row.coverage, row.ignored, *row.areas)
        if not set(row.class_ids) <= classes:
            faults.append(f"{row.image_id} has classes {row.class_ids}, there are {len(class_names)}")
        if len(row.areas) != len(row.class_ids):
            faults.append(f"{row.image_id} has {len(row.areas)} areas for {len(row.class_ids)} classes")
        if not all(0 <= share <= 1 for share in shares):
            faults.append(f"{row.image_id} has shares outside [0, 1]: {shares}")
        is_described = row.mask and row.height > 0 and row.width > 0 and not row.error
        if row.status not in ("ok", "error") or bool(is_described) != (row.status == "ok"):
            faults.append(f"{row.image_id} has status {row.status!r}, mask {row.mask!r} and error {row.error!r}")
    return faults
