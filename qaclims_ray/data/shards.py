"""Images cut into shards: what a stage works on at a time, and what a stopped one repeats at most.

Shards are the same for every stage of a run, so that a stage finds the CAMs of its images in one file. Images of one
size stand together, so that they fill the batches of a network; large images make small shards.
"""

from collections.abc import Callable, Iterator

from qaclims_ray.data import storage, whole_files
from qaclims_ray.data.artifacts import Artifact, fingerprint_of
from qaclims_ray.data.manifest import ImageRecord, Manifest
from qaclims_ray.data.slices import in_threads

IMAGES_PER_SHARD = 64
PIXELS_PER_SHARD = 64_000_000
"""Pixels of a shard's images together: 64 of a megapixel."""


def shards_of(manifest: Manifest) -> list[list[ImageRecord]]:
    """Cut a manifest into shards by size; an image without labels is scored too, as background."""
    return [[manifest.records[position] for position in shard] for shard in _plan(manifest)]


def places_in_shards(manifest: Manifest) -> list[tuple[int, int]]:
    """Return the shard of every image of a manifest and its place in it."""
    places = [(0, 0)] * len(manifest.records)
    for index, shard in enumerate(_plan(manifest)):
        for row, position in enumerate(shard):
            places[position] = (index, row)
    return places


def plan_fingerprint(manifest: Manifest, content: str) -> str:
    """Return what an artefact made in shards depends on: its images' content, and how they were cut.

    Where sizes change nothing that is the content alone, as in artefacts of before shards went by size.

    Args:
        manifest: the images.
        content: their fingerprint, `Manifest.images_fingerprint` or another.
    """
    listed = range(len(manifest.records))
    as_listed = [[*listed[start : start + IMAGES_PER_SHARD]] for start in listed[::IMAGES_PER_SHARD]]
    if [*_plan(manifest)] == as_listed:
        return content
    return fingerprint_of([content, "shards by size", PIXELS_PER_SHARD])


def _plan(manifest: Manifest) -> Iterator[list[int]]:
    """Yield each shard's images by their positions in the manifest."""
    records = manifest.records
    shard: list[int] = []
    num_pixels = 0
    for position in sorted(range(len(records)), key=lambda at: (records[at].height, records[at].width)):
        own = records[position].height * records[position].width
        if shard and (len(shard) == IMAGES_PER_SHARD or num_pixels + own > PIXELS_PER_SHARD):
            yield shard
            shard, num_pixels = [], 0
        shard.append(position)
        num_pixels += own
    if shard:
        yield shard


def shard_name(index: int) -> str:
    """Return the file name of a shard of CAMs, or of the corpus."""
    return f"part-{index:05d}.parquet"


def finished_shards(artifact: Artifact, num_shards: int, name_of: Callable[[int], str] = shard_name) -> set[int]:
    """Return the shards that lie in an artefact's workshop already, as they were written.

    Args:
        artifact: whose shards.
        num_shards: of the whole.
        name_of: the file, below the folder, that declares a shard whole.
    """
    places = [storage.join(artifact.workshop, name_of(index)) for index in range(num_shards)]
    return {index for index, is_whole in enumerate(in_threads(whole_files.is_whole_part, places)) if is_whole}
