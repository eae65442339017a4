"""The manifest: every image of a data set with its size, labels, masks and splits. All later stages read it.

Stored as ``manifest.parquet`` with the class names in the schema metadata, and ``meta.json`` beside it. Images and
masks that lie in the run's own folder are stored by their place in it, and count by it, so that a run can be moved.
"""

import dataclasses
import functools
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from qaclims_ray.data import artifacts, places, storage
from qaclims_ray.data.artifacts import Artifact
from qaclims_ray.data.classes import Classes
from qaclims_ray.data.row_tables import one_of_each, read_rows, write_rows
from qaclims_ray.errors import ArtifactError, DataError

if TYPE_CHECKING:
    import pyarrow as pa

_KIND = "manifest"
"""Kind of the artefact."""
_FILE_NAME = "manifest.parquet"
"""Name of the table in the artefact's folder."""

_FIELDS = ("image_id", "image_uri", "width", "height", "labels", "mask_uri", "context_uri", "splits")
"""Fields of a record, in the order in which they are stored."""
_URIS = ("image_uri", "mask_uri", "context_uri")
"""Fields of a record that are places."""


@dataclass(frozen=True, slots=True)
class ImageRecord:
    """One image."""

    image_id: str
    """Name that is unique in the manifest and fit for a file name."""
    image_uri: str
    """Absolute path or fsspec URI of the image."""
    width: int
    """Width in pixels."""
    height: int
    """Height in pixels."""
    labels: tuple[int, ...]
    """Classes that the image shows, 0-based, ascending; may be empty."""
    mask_uri: str | None = None
    """Label map of the true classes, where there is one; evaluation and the fully supervised bound read it."""
    context_uri: str | None = None
    """Map of background stuff, where there is one (the miniature world)."""
    splits: tuple[str, ...] = ()
    """Splits that the image belongs to."""


@dataclass(frozen=True)
class Manifest:
    """A data set: class names in label order, and its images.

    Raises:
        DataError: for an image id that is there twice or is no file name, and for labels that are no classes or not
            ascending.
    """

    class_names: tuple[str, ...]
    """Natural names of the classes; the position is the class id."""
    records: tuple[ImageRecord, ...]
    """The images, in the order of the split lists."""
    notes: tuple[str, ...] = field(default=(), compare=False)
    """What a person should know about how the data set was read; no part of the content."""
    has_background: bool = True
    """Whether pixels may show none of the classes; without it masks hold no 0."""
    home: str = field(default="", compare=False)
    """Folder of the run: what lies in it counts by its place there. Empty: every place counts as it is."""

    def __post_init__(self) -> None:
        if len({record.image_id for record in self.records}) < len(self.records):
            counts = Counter(record.image_id for record in self.records)
            repeated = [image_id for image_id, count in counts.items() if count > 1]
            raise DataError(f"{len(repeated)} image ids stand more than once in the manifest, e.g. {repeated[:5]}")
        for record in self.records:
            # Results are written under these names: one with a folder in it would lead out of theirs.
            if record.image_id in ("", ".", "..") or "/" in record.image_id or "\0" in record.image_id:
                raise DataError(f"the image id {record.image_id!r} is no file name; expected one without a folder")
            if list(record.labels) != sorted(set(record.labels) & set(range(len(self.class_names)))):
                raise DataError(
                    f"{record.image_id} has labels {record.labels}; expected ascending class ids "
                    f"from 0 to {len(self.class_names) - 1}"
                )

    @property
    def classes(self) -> Classes:
        """The classes, and whether there is a background."""
        return Classes(self.class_names, self.has_background)

    def subset(self, split: str) -> "Manifest":
        """Return the images of one split.

        Raises:
            DataError: when no image belongs to it.
        """
        records = tuple(record for record in self.records if split in record.splits)
        if not records:
            known = sorted({name for record in self.records for name in record.splits})
            raise DataError(
                f"no image of the manifest belongs to split {split!r}; its splits are {known}: set data.train_split, "
                "data.eval_split and data.test_split to some of them"
            )
        return dataclasses.replace(self, records=records)

    def images_fingerprint(self) -> str:
        """Return a hash of what trainings and CAMs read: class names, and each image's name, place, size and labels.

        Splits and masks are no part of it: they say what is scored.
        """
        return self._images_hash

    @functools.cached_property
    def _images_hash(self) -> str:
        names = ("image_id", "image_uri", "width", "height", "labels")
        return artifacts.fingerprint_of_rows([self.class_names, self.has_background], self._columns(names))

    def truth_fingerprint(self) -> str:
        """Return a hash of what scoring reads: the images and where their masks lie."""
        return self._truth_hash

    @functools.cached_property
    def _truth_hash(self) -> str:
        return artifacts.fingerprint_of_rows([self.images_fingerprint()], self._columns(("mask_uri", "context_uri")))

    def _columns(self, names: Sequence[str]) -> Iterator[list[Any]]:
        """Yield fields of each record as they are stored: places in the run's folder are counted from it."""
        for one in self.records:
            values = (getattr(one, name) for name in names)
            yield [places.stored(v, self.home) if name in _URIS else v for name, v in zip(names, values, strict=True)]

    def fingerprint(self) -> str:
        """Return a hash of class names and records, splits and all: 16 hex digits.

        Pixels are known by URI and size only: a file that is replaced under its own name goes unseen. The place of
        the run's folder is no part of it.
        """
        # Data sets with a background keep the fingerprint that they had before this field existed.
        more = [] if self.has_background else ["no background"]
        return artifacts.fingerprint_of_rows([self.class_names], self._columns(_FIELDS), more)

    def rows(self) -> Iterator[dict[str, Any]]:
        """Yield the records as they are stored, with the places in the run's folder counted from it."""
        return (dict(zip(_FIELDS, row, strict=True)) for row in self._columns(_FIELDS))


def summarise(manifest: Manifest) -> dict[str, Any]:
    """Return the counts worth a look: images by split and class, images without label, masks, notes."""
    splits = Counter(split for record in manifest.records for split in record.splits)
    shown = Counter(label for record in manifest.records for label in record.labels)
    return {
        "content": manifest.fingerprint(),
        "num_images": len(manifest.records),
        "images_by_split": dict(sorted(splits.items())),
        "images_by_class": {name: shown[class_id] for class_id, name in enumerate(manifest.class_names)},
        "images_without_label": sum(not record.labels for record in manifest.records),
        "images_with_mask": sum(record.mask_uri is not None for record in manifest.records),
        "has_background": manifest.has_background,
        "notes": list(manifest.notes),
    }


def manifest_artifact(uri: str, settings: Any, inputs: Mapping[str, str] | None = None) -> Artifact:
    """Return a manifest as an artefact.

    Args:
        uri: its folder, local or remote.
        settings: the settings it is made from (a config dataclass or JSON-like value).
        inputs: name of each input -> its fingerprint, where there is any.
    """
    return Artifact(uri=uri, kind=_KIND, settings=settings, inputs=inputs or {}, verb="data")


def write_manifest(manifest: Manifest, artifact: Artifact) -> artifacts.ArtifactMeta:
    """Write a manifest.

    Args:
        manifest: what to write.
        artifact: see `manifest_artifact`.

    Raises:
        ResourceError: when the place cannot be written.
    """
    home = _home_of(artifact.uri)
    notes = tuple(places.stored_text(note, home) for note in manifest.notes)
    manifest = dataclasses.replace(manifest, notes=notes, home=home)
    kept = {name: getattr(manifest, name) for name in ("class_names", "notes", "has_background")}
    artifact.begin()
    write_rows(storage.join(artifact.workshop, _FILE_NAME), manifest.rows(), _schema(), kept)
    return artifact.complete(summarise(manifest))


def read_manifest(uri: str) -> Manifest:
    """Read a manifest back.

    Raises:
        ArtifactError: when it is absent, incomplete or broken.
    """
    # Imported where it is used: settings name this module's types, and are read without it.
    import pyarrow as pa

    artifacts.require_artifact(uri, _KIND, verb="data")
    path = storage.join(uri, _FILE_NAME)
    try:
        rows, kept = read_rows(path, _schema())
        home, known = _home_of(uri), {}
        manifest = Manifest(
            class_names=tuple(kept["class_names"]),
            records=tuple(_record(row, home, known) for row in rows),
            notes=tuple(places.resolved_text(note, home) for note in kept["notes"]),
            has_background=kept.get("has_background", True),
            home=home,
        )
    except (pa.ArrowException, OSError, KeyError, ValueError, TypeError, DataError) as error:
        raise ArtifactError(f"{path} cannot be read ({error}); make it again with `qaclims data`") from None
    return manifest


def _schema() -> "pa.Schema":
    import pyarrow as pa

    return pa.schema(
        [
            ("image_id", pa.string()),
            ("image_uri", pa.string()),
            ("width", pa.int32()),
            ("height", pa.int32()),
            ("labels", pa.list_(pa.int32())),
            ("mask_uri", pa.string()),
            ("context_uri", pa.string()),
            ("splits", pa.list_(pa.string())),
        ]
    )


def _record(row: dict[str, Any], home: str, known: dict[Any, Any]) -> ImageRecord:
    """Return a row's record; sets of labels and of splits that were met before are the same objects."""
    uris = {name: places.resolved(row[name], home) for name in _URIS}
    shared = {name: one_of_each(known, tuple(row[name])) for name in ("labels", "splits")}
    return ImageRecord(**{**row, **uris, **shared})


def _home_of(uri: str) -> str:
    """Return the folder of the run whose manifest lies at a URI."""
    return storage.absolute(uri).rstrip("/").rpartition("/")[0]
