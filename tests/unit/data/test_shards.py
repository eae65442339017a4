"""Images cut into shards, and which of them a stopped stage has finished."""

from pathlib import Path

import pytest

from qaclims_ray.data.artifacts import Artifact
from qaclims_ray.data.manifest import ImageRecord, Manifest
from qaclims_ray.data.shards import (
    IMAGES_PER_SHARD,
    PIXELS_PER_SHARD,
    finished_shards,
    places_in_shards,
    plan_fingerprint,
    shard_name,
    shards_of,
)


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


def _of_sizes(*sizes: tuple[int, int]) -> Manifest:
    return Manifest(("a",), tuple(ImageRecord(f"i{at:04d}", "x", *size, ()) for at, size in enumerate(sizes)))


def test_images_of_one_size_stand_together_in_their_order() -> None:
    manifest = _of_sizes(*[(500, 375), (375, 500), (500, 375)] * IMAGES_PER_SHARD)
    shards = shards_of(manifest)
    assert [len(shard) for shard in shards] == [IMAGES_PER_SHARD] * 3
    assert [{record.width for record in shard} for shard in shards] == [{500}, {500}, {375}]
    ids = [record.image_id for shard in shards for record in shard]
    assert ids[:2] == ["i0000", "i0002"] and sorted(ids) == [record.image_id for record in manifest.records]
    for record, (shard, row) in zip(manifest.records, places_in_shards(manifest), strict=True):
        assert shards[shard][row] == record


def test_large_images_make_small_shards() -> None:
    side = int((PIXELS_PER_SHARD / 2) ** 0.5)
    manifest = _of_sizes((side, side), (3 * side, side), (8, 8), (side, side), (3 * side, side))
    assert [[record.width for record in shard] for shard in shards_of(manifest)] == [
        [8, side, side], [3 * side], [3 * side],
    ]  # fmt: skip


def test_artefacts_depend_on_the_plan_only_where_sizes_make_one() -> None:
    assert plan_fingerprint(_of_sizes(*[(9, 9)] * 200), "content") == "content"
    assert plan_fingerprint(_of_sizes(), "content") == "content"
    assert plan_fingerprint(_of_sizes((8, 8), (9, 8), (9, 9)), "content") == "content", "listed by size already"
    mixed = plan_fingerprint(_of_sizes((9, 9), (8, 8)), "content")
    assert mixed not in ("content", plan_fingerprint(_of_sizes((9, 9), (8, 8)), "other"))


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
