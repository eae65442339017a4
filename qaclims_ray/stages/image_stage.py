"""The shape of stages that write one label map per image: shards of images in, PNGs and a part file per shard out.

A part file holds a shard's rows and counts and declares it whole, so a killed stage repeats at most what was in
flight, and nothing is counted twice.
"""

import io
import itertools
import json
import zipfile
import zlib
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from qaclims_ray.cams.inference import ImageCam
from qaclims_ray.cams.store import read_cam_shard
from qaclims_ray.cluster.shards import run_shards
from qaclims_ray.data import storage, whole_files, written_files
from qaclims_ray.data.artifacts import Artifact
from qaclims_ray.data.images import load_image
from qaclims_ray.data.manifest import ImageRecord, Manifest
from qaclims_ray.data.mask_files import load_mask
from qaclims_ray.data.shards import finished_shards, shard_name, shards_of
from qaclims_ray.data.slices import each_in_threads
from qaclims_ray.errors import ArtifactError, DataError
from qaclims_ray.refine.mask_index import mask_file_name
from qaclims_ray.stages.stage import Stage


@dataclass(frozen=True)
class ReadImage:
    """One image of a shard."""

    record: ImageRecord
    """The image."""
    pixels: Any
    """RGB pixels (3, height, width)."""
    truth: Any
    """Its mask (height, width) where it is scored, or None."""


@dataclass(frozen=True)
class ReadShard:
    """A shard whose images were read."""

    index: int
    """Which shard."""
    images: list[ReadImage]
    """Its readable images."""
    errors: dict[str, str]
    """Image id -> what is wrong with it."""
    cams: dict[str, ImageCam] = field(default_factory=dict)
    """Image id -> its CAM, where the stage reads any."""


@dataclass(frozen=True)
class Part:
    """What a stage keeps of a shard, or of all of them."""

    rows: list[dict[str, Any]]
    """One row per image, of plain JSON types."""
    counts: dict[str, np.ndarray]
    """Counts that add up over shards."""


def part_name(index: int) -> str:
    """Return the file of a shard's part, below the artefact's folder."""
    return f"parts/part-{index:05d}.npz"


def write_part(uri: str, index: int, rows: list[dict[str, Any]], counts: Mapping[str, np.ndarray]) -> None:
    """Publish a shard's part: the last thing that is done with it."""
    buffer = io.BytesIO()
    content: dict[str, Any] = {"rows": np.frombuffer(json.dumps(rows).encode(), np.uint8), **counts}
    np.savez_compressed(buffer, **content)
    with whole_files.publishing_part(storage.join(uri, part_name(index))) as path:
        Path(path).write_bytes(buffer.getvalue())


def read_part(uri: str, index: int) -> Part:
    """Read a part back.

    Raises:
        ArtifactError: when it is damaged.
    """
    path = storage.join(uri, part_name(index))
    try:
        with np.load(io.BytesIO(storage.read_bytes(path)), allow_pickle=False) as content:
            rows = json.loads(content["rows"].tobytes())
            return Part(rows, {name: content[name] for name in content.files if name != "rows"})
    except (ValueError, KeyError, EOFError, OSError, zipfile.BadZipFile, zlib.error) as error:
        raise ArtifactError(
            f"{path} cannot be read ({error}). Remove it and run the same command again, which makes it anew"
        ) from None


def run_image_stage(
    stage: Stage,
    artifact: Artifact,
    manifest: Manifest,
    *,
    actor: type,
    actor_kwargs: Mapping[str, Any],
    write: Callable[[Any], dict[str, Any]],
    cams_uri: str = "",
    scored_splits: Collection[str] = (),
    num_actors: int,
    gpus_per_actor: float,
) -> Part:
    """Run an actor over the shards that are not there yet; return the rows and summed counts of all shards.

    Args:
        stage: surroundings; `cams.max_failed_fraction` of the images may fail.
        artifact: what is made.
        manifest: the images.
        actor: called with a `ReadShard`; returns what `write` takes.
        actor_kwargs: its constructor arguments.
        write: publishes what the actor made of a shard; ends with `write_part`. See `run_shards`.
        cams_uri: CAMs that are read with the images; empty for none.
        scored_splits: splits whose masks are read.
        num_actors: size of the pool.
        gpus_per_actor: GPUs of one actor.

    Raises:
        DataError: when more images fail; a failed image has a row with an `error`.
    """
    shards = shards_of(manifest)
    run_shards(
        list(enumerate(shards)),
        finished={
            index
            for index in finished_shards(artifact, len(shards), part_name)
            if _is_as_written(artifact.workshop, index, shards[index])
        },
        decode=_Reader(scored_splits, cams_uri),
        actor=actor,
        actor_kwargs=actor_kwargs,
        write=write,
        num_actors=num_actors,
        gpus_per_actor=gpus_per_actor,
        progress=stage.progress.advance,
    )
    num_images = len(manifest.records)
    return _merged(artifact.workshop, len(shards), stage.config.cams.max_failed_fraction * num_images, num_images)


def _is_as_written(uri: str, index: int, shard: Sequence[ImageRecord]) -> bool:
    """Whether the part of a shard, and the label maps that it stands for, are what a call that was stopped wrote."""
    try:
        failed = {row["image_id"] for row in read_part(uri, index).rows if row.get("error")}
    except ArtifactError:
        return False
    made = [record.image_id for record in shard if record.image_id not in failed]
    return are_label_maps([storage.join(uri, mask_file_name(image_id)) for image_id in made])


def are_label_maps(uris: Sequence[str]) -> bool:
    """Whether the label maps of a shard can be read; those in a bucket are held to a checksum by their store."""
    written_files.remember(uri for uri in uris if storage.is_remote(uri))
    with each_in_threads(lambda uri: storage.is_remote(uri) or _is_label_map(uri), uris) as found:
        return all(found)


def _is_label_map(uri: str) -> bool:
    try:
        load_mask(uri)
    except DataError:
        return False
    return True


def remove_parts(uri: str) -> None:
    """Remove the parts of an artefact in the making, which holds their content by now."""
    storage.remove_tree(storage.join(uri, "parts"))


def _merged(uri: str, num_shards: int, num_allowed: float, num_images: int) -> Part:
    """Add up the parts one by one: all at once, those of many classes would take gigabytes.

    Raises:
        DataError: when too many images failed.
    """
    merged, failed = Part([], {}), {}
    for index in range(num_shards):
        part = read_part(uri, index)
        merged.rows.extend(part.rows)
        for name, counts in part.counts.items():
            merged.counts[name] = merged.counts.get(name, 0) + counts
        if errors := [row["error"] for row in part.rows if row.get("error")]:
            failed[index] = errors
    errors = list(itertools.chain.from_iterable(failed.values()))
    if len(errors) <= num_allowed:
        return merged
    for index in failed:  # forgotten, so that mended images are read again
        storage.remove_tree(storage.join(uri, part_name(index)))
    raise DataError(f"{len(errors)} of {num_images} images cannot be read: " + "; ".join(errors[:5]))


class _Reader:
    """Read a shard's images, the masks it is scored with and its CAMs; a bad image becomes its error."""

    def __init__(self, scored_splits: Collection[str], cams_uri: str = "") -> None:
        self.scored_splits, self.cams_uri = frozenset(scored_splits), cams_uri

    def __call__(self, shard: tuple[int, list[ImageRecord]]) -> ReadShard:
        index, records = shard
        images, errors = [], {}
        for record in records:
            try:
                is_scored = self.scored_splits.intersection(record.splits)
                truth = load_mask(record.mask_uri) if is_scored and record.mask_uri else None
                images.append(ReadImage(record, load_image(record.image_uri), truth))
            except DataError as error:
                errors[record.image_id] = str(error)
        cams = read_cam_shard(storage.join(self.cams_uri, shard_name(index))) if self.cams_uri else []
        return ReadShard(index, images, errors, {cam.image_id: cam for cam in cams})
