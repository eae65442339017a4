"""Images cut into shards, and which of them a stopped stage has finished."""

from pathlib import Path

import pytest

from qaclims_ray.data.artifacts import Artifact
from qaclims_ray.data.manifest import ImageRecord, Manifest
from qaclims_ray.data.shards import IMAGES_PER_SHARD, finished_shards, shard_name, shards_of


def _artifact(uri: str, **settings: int) -> Artifact:
    return Artifact(uri=uri, kind="cams", settings=settings, verb="cams")


@pytest.mark.parametrize(
    ("num_images", "sizes"),
    [
        (0, []),
        (1, [1]),
        (IMAGES_PER_SHARD, [IMAGES_PER_SHARD]),
        (2 * IMAGES_PER_SHARD + 1, [IMAGES_PER_SHARD, IMAGES_PER_SHARD, 1]),
    ],
)
def test_every_image_is_in_one_shard_in_order(num_images: int, sizes: list[int]) -> None:
    records = tuple(ImageRecord(f"i{number:04d}", "x", 4, 4, ()) for number in range(num_images))
    shards = shards_of(Manifest(("a",), records))
    assert [len(shard) for shard in shards] == sizes
    assert [record for shard in shards for record in shard] == list(records)


def test_names_sort_as_their_numbers_do() -> None:
    assert shard_name(7) == "part-00007.parquet" and shard_name(99) < shard_name(100)


def test_finished_shards_are_those_whose_file_lies_in_the_workshop(tmp_path: Path) -> None:
    artifact = _artifact(str(tmp_path / "cams"), a=1)
    assert finished_shards(artifact, 3) == set()
    Path(artifact.workshop).mkdir()
    for index in (0, 2, 5):
        Path(artifact.workshop, shard_name(index)).touch()
    assert finished_shards(artifact, 3) == {0, 2}, "5 is no shard of the whole"
    assert finished_shards(artifact, 3, lambda index: f"done-{index}") == set()
    assert finished_shards(_artifact(str(tmp_path / "cams"), a=2), 3) == set(), "those of other settings lie elsewhere"
