"""Images cut into shards: what a stage works on at a time, and what a stopped one repeats at most.

Shards are the same for every stage of a run, so that a stage finds the CAMs of its images in one file.
"""

from collections.abc import Callable

from qaclims_ray.data import storage
from qaclims_ray.data.artifacts import Artifact
from qaclims_ray.data.manifest import ImageRecord, Manifest

IMAGES_PER_SHARD = 64


def shards_of(manifest: Manifest) -> list[list[ImageRecord]]:
    """Cut a manifest into shards; an image without labels is scored too, as background."""
    records = list(manifest.records)
    return [records[start : start + IMAGES_PER_SHARD] for start in range(0, len(records), IMAGES_PER_SHARD)]


def place_in_shards(position: int) -> tuple[int, int]:
    """Return the shard of an image and its place in it, by the image's position in the manifest."""
    return divmod(position, IMAGES_PER_SHARD)


def shard_name(index: int) -> str:
    """Return the file name of a shard of CAMs, or of the corpus."""
    return f"part-{index:05d}.parquet"


def finished_shards(artifact: Artifact, num_shards: int, name_of: Callable[[int], str] = shard_name) -> set[int]:
    """Return the shards that lie in an artefact's workshop already.

    Args:
        artifact: whose shards.
        num_shards: of the whole.
        name_of: the file, below the folder, that declares a shard whole.
    """
    return {index for index in range(num_shards) if storage.exists(storage.join(artifact.workshop, name_of(index)))}
