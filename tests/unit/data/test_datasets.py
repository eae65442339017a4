import pickle
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch.utils.data import DataLoader

from qaclims_ray.data.config import AugmentConfig
from qaclims_ray.data.datasets import GlobalBatchSampler, ImageLabelDataset, seed_of
from qaclims_ray.data.manifest import Manifest
from qaclims_ray.data.voc import read_voc
from qaclims_ray.errors import ConfigError, DataError
from tests.unit.data.tiny_data_sets import voc_config

AUGMENT = AugmentConfig(min_long_side_px=20, max_long_side_px=40, crop_px=16)


@pytest.fixture
def manifest(make_voc: Callable[..., Path]) -> Manifest:
    return read_voc(voc_config(make_voc()))


def dataset_of(manifest: Manifest, seed: int = 0) -> ImageLabelDataset:
    return ImageLabelDataset(manifest, AUGMENT, (0.5, 0.5, 0.5), (0.5, 0.5, 0.5), seed)


def test_an_item_holds_crop_labels_and_index(manifest: Manifest) -> None:
    dataset = dataset_of(manifest)
    item = dataset[1]
    assert len(dataset) == 4 and set(item) == {"image", "labels", "index"}
    assert item["image"].shape == (3, 16, 16) and item["index"] == 1
    assert torch.nonzero(item["labels"]).flatten().tolist() == [10, 14]


def test_crops_depend_on_seed_epoch_and_index_only(manifest: Manifest) -> None:
    dataset = dataset_of(manifest)
    first = dataset[2]["image"]
    dataset[0]
    torch.manual_seed(77)
    assert torch.equal(dataset[2]["image"], first)
    assert torch.equal(dataset_of(manifest)[2]["image"], first)
    assert not torch.equal(dataset_of(manifest, seed=1)[2]["image"], first)
    dataset.set_epoch(1)
    assert not torch.equal(dataset[2]["image"], first)
    dataset.set_epoch(0)
    assert torch.equal(dataset[2]["image"], first)


def test_loading_does_not_disturb_the_callers_randomness(manifest: Manifest) -> None:
    torch.manual_seed(5)
    expected = torch.rand(3)
    torch.manual_seed(5)
    dataset_of(manifest)[0]
    assert torch.equal(torch.rand(3), expected)


@pytest.mark.parametrize("is_sent", [False, True])
def test_loading_processes_that_stay_see_the_next_epoch(manifest: Manifest, is_sent: bool) -> None:
    dataset = dataset_of(manifest)
    if is_sent:  # as Ray hands it to a worker
        dataset = pickle.loads(pickle.dumps(dataset))
    loader = DataLoader(dataset, batch_size=2, num_workers=1, persistent_workers=True, multiprocessing_context="fork")
    for epoch in (0, 1, 0):
        dataset.set_epoch(epoch)
        for batch in loader:
            for image, index in zip(batch["image"], batch["index"].tolist(), strict=True):
                assert torch.equal(image, dataset[index]["image"])


def test_a_pickled_copy_is_whole_and_on_its_own(manifest: Manifest) -> None:
    dataset = dataset_of(manifest)
    dataset.set_epoch(3)
    copy = pickle.loads(pickle.dumps(dataset))
    assert torch.equal(copy[0]["image"], dataset[0]["image"])
    copy.set_epoch(4)
    assert not torch.equal(copy[0]["image"], dataset[0]["image"])


def test_an_image_that_breaks_later_is_named(manifest: Manifest) -> None:
    Path(manifest.records[0].image_uri).write_bytes(b"")
    with pytest.raises(DataError, match=r"2007_01\.jpg is empty"):
        dataset_of(manifest)[0]


def batches(world_size: int, num_images: int = 23, batch_size: int = 6, epoch: int = 0, **options: bool) -> list:
    """The global batches, as sets, put together from all workers' shares."""
    shares = []
    for rank in range(world_size):
        sampler = GlobalBatchSampler(num_images, batch_size, rank, world_size, 9, **options)
        sampler.set_epoch(epoch)
        assert len(list(sampler)) == len(sampler)
        shares.append(list(sampler))
    for step in zip(*shares, strict=True):
        sizes = [len(share) for share in step]
        assert min(sizes) >= 1 and max(sizes) - min(sizes) <= 1
    return [sorted(index for share in step for index in share) for step in zip(*shares, strict=True)]


@pytest.mark.parametrize("world_size", [2, 3, 4, 5, 6])
@pytest.mark.parametrize("epoch", [0, 3])
def test_any_number_of_workers_sees_the_same_global_batches(world_size: int, epoch: int) -> None:
    alone = batches(1, epoch=epoch)
    assert batches(world_size, epoch=epoch) == alone
    seen = [index for batch in alone for index in batch]
    assert len(alone) == 3 and len(set(seen)) == len(seen) == 18


def test_a_rank_takes_every_so_manyth_position() -> None:
    alone = list(GlobalBatchSampler(23, 6, 0, 1, 9))
    for rank in range(4):
        assert list(GlobalBatchSampler(23, 6, rank, 4, 9)) == [batch[rank::4] for batch in alone]


def test_the_order_follows_epoch_and_seed() -> None:
    sampler = GlobalBatchSampler(23, 6, 0, 1, 9)
    first = list(sampler)
    assert list(sampler) == first
    sampler.set_epoch(1)
    assert list(sampler) != first
    assert list(GlobalBatchSampler(23, 6, 0, 1, 10)) != first


def test_every_image_is_seen_once_when_the_tail_is_kept() -> None:
    kept = batches(2, drop_last=False)
    assert [len(batch) for batch in kept] == [6, 6, 6, 5]
    assert sorted(index for batch in kept for index in batch) == list(range(23))
    assert [len(batch) for batch in batches(1, num_images=12, drop_last=False)] == [6, 6]


def test_fewer_images_than_a_batch_make_one_batch() -> None:
    assert batches(2, num_images=4, batch_size=6) == [[0, 1, 2, 3]]
    assert batches(2, num_images=4, batch_size=6, drop_last=False) == [[0, 1, 2, 3]]


@pytest.mark.parametrize(
    ("num_images", "batch_size", "world_size", "drop_last"), [(23, 2, 3, True), (2, 6, 3, True), (19, 6, 2, False)]
)
def test_a_worker_without_images_is_refused_up_front(
    num_images: int, batch_size: int, world_size: int, drop_last: bool
) -> None:
    with pytest.raises(ConfigError, match=r"raise optim\.batch_size or lower cluster.num_workers"):
        GlobalBatchSampler(num_images, batch_size, 0, world_size, 0, drop_last)


@pytest.mark.parametrize(("batch_size", "rank", "world_size"), [(0, 0, 1), (4, 2, 2), (4, -1, 2), (4, 0, 0)])
def test_numbers_out_of_range_are_refused(batch_size: int, rank: int, world_size: int) -> None:
    with pytest.raises(ConfigError, match="out of range"):
        GlobalBatchSampler(10, batch_size, rank, world_size, 0)


def test_no_images_are_refused() -> None:
    with pytest.raises(DataError, match="no image to train on"):
        GlobalBatchSampler(0, 4, 0, 1, 0)


def test_it_feeds_a_data_loader(manifest: Manifest) -> None:
    sampler = GlobalBatchSampler(4, 2, 0, 2, 0)
    loader = DataLoader(dataset_of(manifest), batch_sampler=sampler)
    assert len(loader) == 2
    assert [batch["index"].tolist() for batch in loader] == list(sampler)


def test_seeds_differ_by_purpose_and_part_and_fit_torch() -> None:
    seeds = {seed_of(purpose, *parts) for purpose in ("a", "b") for parts in [(0, 1), (1, 0), (0, 11), (1, 1), (-1,)]}
    assert len(seeds) == 10
    for seed in seeds:
        torch.Generator().manual_seed(seed)
