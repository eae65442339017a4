"""Pixel counts of every scored image, in ``image_counts.parquet`` beside ``scores.json``.

Scores are read off sums over images; comparing two runs by resampling images needs the summands. IoU needs three
numbers of each label: pixels that are both predicted and true, predicted, and true. Only labels that an image shows or
is labelled with, or that are predicted there, have a row.
"""

import json
from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import torch
from jaxtyping import Bool, Int, Int64
from torch import Tensor

from qaclims_ray.data import storage, whole_files
from qaclims_ray.data.classes import BACKGROUND_VALUE, label_value
from qaclims_ray.errors import ArtifactError
from qaclims_ray.evaluation.scored_labels import ScoredLabels

IMAGE_COUNTS_FILE = "image_counts.parquet"
FORM = {"image_counts": 2, "means_over": "labels held by truth or images"}
"""Goes into the settings of every artefact that holds scores and the table: those made before it are made again, and
the console says that this is why."""

_IMAGES_AT_ONCE = 50_000
"""Images of a group of rows in the table."""

LabelCounts = tuple[int, int, int, int, int]
"""Label value, pixels both predicted and true, pixels predicted, pixels true, whether the image is labelled with it."""

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
        pa.field("labelled", pa.bool_(), nullable=False),
    ]
)


@dataclass(frozen=True)
class ImageSweep:
    """One image's counts at every threshold, for its labels, what it shows, and what is predicted at any of them."""

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
    labelled: tuple[int, ...]
    """1 for each label that the image is labelled with, else 0."""

    def at(self, index: int) -> list[LabelCounts]:
        """Return the counts at one threshold, of the image's labels and what is true or predicted there."""
        columns = self.intersection[:, index].tolist(), self.predicted[:, index].tolist(), self.truth, self.labelled
        return [row for row in zip(self.label_values, *columns, strict=True) if any(row[2:])]


def image_sweep(
    image_id: str,
    histogram: Int64[Tensor, "truth map bin"],
    class_ids: tuple[int, ...],
    labels: Sequence[int] | None = None,
) -> ImageSweep:
    """Read one image's counts off its histogram (`ThresholdSweep.update`).

    Args:
        image_id: the manifest's image identifier.
        histogram: pixels by true label value, position of the foremost map, and score bin.
        class_ids: class of each map; without any the histogram has one map, which is background throughout.
        labels: classes that the image is labelled with; None takes those that have a map.
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
    labelled = torch.zeros(num_labels, dtype=torch.int64)
    labelled[[label_value(class_id) for class_id in (class_ids if labels is None else labels)]] = 1
    is_there = (truth > 0) | (predicted > 0).any(1) | (labelled > 0)
    return ImageSweep(
        image_id=image_id,
        label_values=tuple(is_there.nonzero().flatten().tolist()),
        truth=tuple(truth[is_there].tolist()),
        predicted=predicted[is_there].int().numpy(),
        intersection=both[is_there].int().numpy(),
        labelled=tuple(labelled[is_there].tolist()),
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
    schema = _SCHEMA.with_metadata({"class_names": json.dumps(list(class_names))})
    with (
        storage.publishing(storage.join(uri, IMAGE_COUNTS_FILE)) as local_path,
        pq.ParquetWriter(local_path, schema, compression="zstd") as writer,
    ):
        for figure in figures:
            images = sorted(figure.images, key=lambda image: image[0])
            # A million images have some gigabytes of Python's numbers, so they become columns little by little.
            for start in range(0, len(images), _IMAGES_AT_ONCE):
                writer.write_table(_columns(figure, images[start : start + _IMAGES_AT_ONCE], names, schema))


def _columns(
    figure: CountedFigure,
    images: Sequence[tuple[str, Iterable[Sequence[int]]]],
    names: Sequence[str],
    schema: pa.Schema,
) -> pa.Table:
    columns: dict[str, list[object]] = {name: [] for name in schema.names}
    for image_id, labels in images:
        for value, intersection, predicted, truth, labelled in labels:
            counts = (intersection, predicted, truth, bool(labelled))
            row = (image_id, figure.name, figure.threshold, value, names[value], *counts)
            for column, cell in zip(columns.values(), row, strict=True):
                column.append(cell)
    return pa.table(columns, schema=schema)


@dataclass(frozen=True)
class ScoredImages:
    """The counts behind one figure, image by image."""

    threshold: float
    """Background score of the label maps."""
    labels: tuple[str, ...]
    """Background and classes, in label order."""
    image_ids: tuple[str, ...]
    """Rising."""
    counts: Int[np.ndarray, "image label 3"]
    """Pixels both predicted and true, predicted, true. 32 bits are enough for an image; sums have 64."""
    labelled: Bool[np.ndarray, "image label"]
    """Whether an image is labelled with a class; never with the background."""

    def without_background(self) -> "ScoredImages":
        """Return the counts of the classes alone, where the data set has no background."""
        return replace(self, labels=self.labels[1:], counts=self.counts[:, 1:], labelled=self.labelled[:, 1:])

    def scored_labels(self) -> ScoredLabels:
        """Return what the images hold of each label: it decides which ones means are over, as in a sweep."""
        in_truth, in_labels = (self.counts[..., 2] > 0).sum(0) > 0, self.labelled.sum(0) > 0
        return ScoredLabels(self.labels, tuple(in_truth.tolist()), tuple(in_labels.tolist()))


def read_image_counts(uri: str, *, remedy: str, only: Collection[str] = ()) -> dict[str, ScoredImages]:
    """Read the table of an artefact back, by figure.

    Args:
        uri: folder of the artefact.
        remedy: what makes the table, for messages.
        only: figures that are read, where they are there; empty for all. Of a million images each takes a gigabyte.

    Raises:
        ArtifactError: when it is absent or without labels (made by an earlier version), or broken.
    """
    path = storage.join(uri, IMAGE_COUNTS_FILE)
    if not storage.exists(path):
        raise ArtifactError(
            f"{uri} has scores but no {IMAGE_COUNTS_FILE}: it was made by an earlier version, which kept no counts per "
            f"image. Make it again: {remedy}"
        )
    try:
        file = pq.ParquetFile(pa.BufferReader(whole_files.read_whole(path)))
        labels = ("background", *json.loads((file.schema_arrow.metadata or {})[b"class_names"]))
        if "labelled" not in file.schema_arrow.names:
            raise ArtifactError(
                f"{path} was made by an earlier version, which did not keep what images are labelled with; means are "
                f"now over the labels that truth or images hold. Make it again: {remedy}"
            )
        return {name: _scored(rows, labels) for name, rows in _figures_of(file, only)}
    except (pa.ArrowException, OSError, KeyError, ValueError, TypeError, IndexError, OverflowError) as error:
        raise ArtifactError(f"{path} cannot be read ({error}). Make it again: {remedy}") from None


def _figures_of(file: pq.ParquetFile, only: Collection[str]) -> Iterator[tuple[str, pa.Table]]:
    """Yield each figure and its rows; groups of rows that hold no figure that is asked for are not read."""
    held: dict[str, list[int]] = {}
    for group in range(file.num_row_groups):
        for name in file.read_row_group(group, ["figure"])["figure"].unique().to_pylist():
            held.setdefault(name, []).append(group)
    columns = [name for name in _SCHEMA.names if name != "class_name"]  # the labels say it
    for name, groups in held.items():
        if not only or name in only:
            table = file.read_row_groups(groups, columns).select(columns)
            rows = table.filter(pc.equal(table["figure"], name))  # pyrefly: ignore[missing-attribute]
            yield name, rows.cast(pa.schema([_SCHEMA.field(column) for column in columns]))


def _scored(rows: pa.Table, labels: tuple[str, ...]) -> ScoredImages:
    encoded = rows["image_id"].combine_chunks().dictionary_encode()
    image_ids = encoded.dictionary.to_pylist()
    order = sorted(range(len(image_ids)), key=image_ids.__getitem__)
    places = np.empty(len(order), dtype=np.int64)
    places[order] = np.arange(len(order))
    positions, values = places[encoded.indices.to_numpy()], rows["label_value"].to_numpy()
    counts = np.zeros((len(image_ids), len(labels), 3), dtype=np.int32)
    for column, name in enumerate(("intersection", "predicted", "truth")):
        counts[positions, values, column] = rows[name].cast(pa.int32()).to_numpy()
    labelled = np.zeros(counts.shape[:2], dtype=bool)
    labelled[positions, values] = rows["labelled"].to_numpy(zero_copy_only=False)
    ordered = tuple(image_ids[position] for position in order)
    return ScoredImages(rows["threshold"][0].as_py(), labels, ordered, counts, labelled)
