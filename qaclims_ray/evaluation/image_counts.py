"""Pixel counts of every scored image, in ``image_counts.parquet`` beside ``scores.json``.

Scores are read off sums over images; comparing two runs by resampling images needs the summands. IoU needs three
numbers of each label: pixels that are both predicted and true, predicted, and true. Only labels that an image shows or
that are predicted there have a row.
"""

import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import torch
from jaxtyping import Int64
from torch import Tensor

from qaclims_ray.data import storage
from qaclims_ray.data.classes import BACKGROUND_VALUE, label_value
from qaclims_ray.errors import ArtifactError

IMAGE_COUNTS_FILE = "image_counts.parquet"
FORMAT = 1
"""Goes into the fingerprint of every artefact that holds the table: those made before it are made again."""

LabelCounts = tuple[int, int, int, int]
"""Label value, pixels both predicted and true, pixels predicted, pixels true."""

_SCHEMA = pa.schema(
    [
        pa.field("image_id", pa.string(), nullable=False),
        pa.field("figure", pa.string(), nullable=False),
        pa.field("threshold", pa.float64(), nullable=False),
        pa.field("label_value", pa.int32(), nullable=False),
        pa.field("class_name", pa.string(), nullable=False),
        pa.field("intersection", pa.int64(), nullable=False),
        pa.field("predicted", pa.int64(), nullable=False),
        pa.field("truth", pa.int64(), nullable=False),
    ]
)


@dataclass(frozen=True)
class ImageSweep:
    """One image's counts at every threshold, for the labels that it shows or that are predicted at any of them."""

    image_id: str
    """The manifest's image identifier."""
    label_values: tuple[int, ...]
    """Rising."""
    truth: tuple[int, ...]
    """True pixels of each label."""
    predicted: np.ndarray
    """Predicted pixels, int32 (label, threshold)."""
    intersection: np.ndarray
    """Pixels both predicted and true, int32 (label, threshold)."""

    def at(self, index: int) -> list[LabelCounts]:
        """Return the counts at one threshold, of the labels that are true or predicted there."""
        columns = self.intersection[:, index].tolist(), self.predicted[:, index].tolist(), self.truth
        return [row for row in zip(self.label_values, *columns, strict=True) if row[2] or row[3]]


def image_sweep(image_id: str, histogram: Int64[Tensor, "truth map bin"], class_ids: tuple[int, ...]) -> ImageSweep:
    """Read one image's counts off its histogram (`ThresholdSweep.update`).

    Args:
        image_id: the manifest's image identifier.
        histogram: pixels by true label value, position of the foremost map, and score bin.
        class_ids: class of each map; without any the histogram has one map, which is background throughout.
    """
    above = histogram.flip(2).cumsum(2).flip(2)[:, :, 1:]  # (truth, map, threshold): score > threshold
    num_labels, num_thresholds = len(histogram), above.shape[2]
    truth = histogram.sum((1, 2))
    predicted = torch.zeros((num_labels, num_thresholds), dtype=torch.int64)
    both = torch.zeros_like(predicted)
    predicted[BACKGROUND_VALUE] = truth.sum() - above.sum((0, 1))
    both[BACKGROUND_VALUE] = truth[BACKGROUND_VALUE] - above[BACKGROUND_VALUE].sum(0)
    for position, class_id in enumerate(class_ids):
        value = label_value(class_id)
        predicted[value], both[value] = above[:, position].sum(0), above[value, position]
    is_there = (truth > 0) | (predicted > 0).any(1)
    return ImageSweep(
        image_id=image_id,
        label_values=tuple(is_there.nonzero().flatten().tolist()),
        truth=tuple(truth[is_there].tolist()),
        predicted=predicted[is_there].int().numpy(),
        intersection=both[is_there].int().numpy(),
    )


@dataclass(frozen=True)
class CountedFigure:
    """The counts behind one figure of ``scores.json``."""

    name: str
    """Which figure, e.g. "fixed", "best", "crf"."""
    threshold: float
    """Background score of the label maps."""
    images: Iterable[tuple[str, Iterable[Sequence[int]]]]
    """Image id and its `LabelCounts`."""


def write_image_counts(uri: str, figures: Iterable[CountedFigure], class_names: Sequence[str]) -> None:
    """Write the table into an artefact's folder, sorted by image within each figure.

    Raises:
        ResourceError: when the place cannot be written.
    """
    names = ("background", *class_names)
    columns: dict[str, list[object]] = {name: [] for name in _SCHEMA.names}
    for figure in figures:
        for image_id, labels in sorted(figure.images, key=lambda image: image[0]):
            for value, intersection, predicted, truth in labels:
                row = (image_id, figure.name, figure.threshold, value, names[value], intersection, predicted, truth)
                for column, cell in zip(columns.values(), row, strict=True):
                    column.append(cell)
    table = pa.table(columns, schema=_SCHEMA).replace_schema_metadata({"class_names": json.dumps(list(class_names))})
    with storage.publishing(storage.join(uri, IMAGE_COUNTS_FILE)) as local_path:
        pq.write_table(table, local_path, compression="zstd")


@dataclass(frozen=True)
class ScoredImages:
    """The counts behind one figure, image by image."""

    threshold: float
    """Background score of the label maps."""
    labels: tuple[str, ...]
    """Background and classes, in label order."""
    image_ids: tuple[str, ...]
    """Rising."""
    counts: Int64[np.ndarray, "image label 3"]
    """Pixels both predicted and true, predicted, true."""

    def without_background(self) -> "ScoredImages":
        """Return the counts of the classes alone, where the data set has no background."""
        return replace(self, labels=self.labels[1:], counts=self.counts[:, 1:])


def read_image_counts(uri: str, *, remedy: str) -> dict[str, ScoredImages]:
    """Read the table of an artefact back, by figure.

    Args:
        uri: folder of the artefact.
        remedy: what makes the table, for messages.

    Raises:
        ArtifactError: when it is absent (made by an earlier version) or broken.
    """
    path = storage.join(uri, IMAGE_COUNTS_FILE)
    if not storage.exists(path):
        raise ArtifactError(
            f"{uri} has scores but no {IMAGE_COUNTS_FILE}: it was made by an earlier version, which kept no counts per "
            f"image. Make it again: {remedy}"
        )
    try:
        table = pq.read_table(pa.BufferReader(storage.read_bytes(path)))
        labels = ("background", *json.loads((table.schema.metadata or {})[b"class_names"]))
        table = table.select(_SCHEMA.names).cast(_SCHEMA)
        names = table["figure"].unique().to_pylist()
        return {name: _scored(table.filter(pc.equal(table["figure"], name)), labels) for name in names}  # pyright: ignore[reportAttributeAccessIssue]
    except (pa.ArrowException, KeyError, ValueError, TypeError, IndexError) as error:
        raise ArtifactError(f"{path} cannot be read ({error}). Make it again: {remedy}") from None


def _scored(rows: pa.Table, labels: tuple[str, ...]) -> ScoredImages:
    image_ids, positions = np.unique(np.array(rows["image_id"].to_pylist()), return_inverse=True)
    values = rows["label_value"].to_numpy()
    counts = np.zeros((len(image_ids), len(labels), 3), dtype=np.int64)
    for column, name in enumerate(("intersection", "predicted", "truth")):
        counts[positions, values, column] = rows[name].to_numpy()
    return ScoredImages(rows["threshold"][0].as_py(), labels, tuple(image_ids.tolist()), counts)
