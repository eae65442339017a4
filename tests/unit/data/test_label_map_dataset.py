import pickle
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch.utils.data import DataLoader

from qaclims_ray.data.config import JointCropConfig
from qaclims_ray.data.images import image_size
from qaclims_ray.data.label_map_dataset import LabelledImage, LabelMapDataset, labelled_crop
from qaclims_ray.errors import DataError
from tests.unit.data.tiny_data_sets import image_bytes, mask_bytes

MEAN, STD = (0.41, 0.5, 0.61), (0.2, 0.25, 0.3)  # no grey level is the mean
CROP = JointCropConfig(crop_px=16, jitter=0.3)


def labelled_images(folder: Path, count: int = 3) -> list[LabelledImage]:
    images = []
    for number in range(count):
        image, mask = folder / f"{number}.jpg", folder / f"{number}.png"
        image.write_bytes(image_bytes(number))
        mask.write_bytes(mask_bytes([number, number + 1]))
        images.append(LabelledImage(str(number), str(image), str(mask)))
    return images


def dataset_of(folder: Path, count: int = 3, seed: int = 0, **options) -> LabelMapDataset:
    return LabelMapDataset(labelled_images(folder, count), CROP, MEAN, STD, seed, **options)


def same(first, second) -> bool:
    return (
        torch.equal(first["image"], second["image"])
        and torch.equal(first["labels"], second["labels"])
        and first["index"] == second["index"]
    )


def positions(dataset: LabelMapDataset, epochs: int) -> list[int]:
    """Pictures of some epochs, without reading them."""
    found = []
    for epoch in range(epochs):
        dataset.set_epoch(epoch)
        found += [dataset._order.position(index) for index in range(len(dataset))]
    return found


def halves(height: int = 20, width: int = 30) -> tuple[torch.Tensor, torch.Tensor]:
    """A picture whose blue channel is 200 where the label is 3, and 40 where it is 0."""
    labels = torch.zeros(height, width, dtype=torch.uint8)
    labels[: height // 2, : width // 3] = 3
    image = torch.where(labels == 3, 200, 40).to(torch.uint8).repeat(3, 1, 1)
    return image, labels


def crop_of(image, labels, crop: JointCropConfig, seed: int = 0):
    return labelled_crop(image, labels, crop, MEAN, STD, torch.Generator().manual_seed(seed))


def test_an_item_holds_crop_label_map_and_index(tmp_path) -> None:
    dataset = dataset_of(tmp_path)
    item = dataset[1]
    assert len(dataset) == 3 and set(item) == {"image", "labels", "index"}
    assert item["image"].shape == (3, 16, 16) and item["image"].dtype == torch.float32
    assert item["labels"].shape == (16, 16) and item["labels"].dtype == torch.uint8
    assert [dataset[index]["index"] for index in range(3)] == [0, 1, 2]
    with pytest.raises(IndexError):
        dataset[3]


def test_picture_and_labels_stay_together() -> None:
    image, labels = halves()
    crop = JointCropConfig(crop_px=24)
    seen = Counter()
    for seed in range(40):
        pixels, cut = crop_of(image, labels, crop, seed)
        bright = pixels[2] * STD[2] + MEAN[2] > 120 / 255
        inside = cut != 255
        # The bicubic filter moves the border by less than two pixels.
        wrong = (bright != (cut == 3)) & inside
        assert wrong.sum() <= 24
        assert torch.equal(pixels[:, ~inside], torch.zeros(3, int((~inside).sum())))
        assert (pixels[:, inside] != 0).all()
        seen.update(cut.unique().tolist())
    assert set(seen) == {0, 3, 255}


def test_without_change_the_crop_is_the_picture_itself() -> None:
    image, labels = halves(16, 16)
    pixels, cut = crop_of(image, labels, JointCropConfig(min_scale=1.0, max_scale=1.0, crop_px=16, flip=False))
    assert torch.equal(cut, labels)
    for channel in range(3):
        expected = (image[channel].float() / 255 - MEAN[channel]) / STD[channel]
        torch.testing.assert_close(pixels[channel], expected)


def test_the_mirror_image_comes_half_of_the_time() -> None:
    image, labels = halves(16, 16)
    crop = JointCropConfig(min_scale=1.0, max_scale=1.0, crop_px=16)
    mirrored = [torch.equal(crop_of(image, labels, crop, seed)[1], labels.flip(1)) for seed in range(60)]
    assert 15 < sum(mirrored) < 45


def test_scales_fill_their_range() -> None:
    image, labels = halves(20, 20)
    crop = JointCropConfig(min_scale=0.5, max_scale=2.0, crop_px=64)
    sides = []
    for seed in range(60):
        inside = crop_of(image, labels, crop, seed)[1] != 255
        assert inside.any(0).sum() == inside.any(1).sum()
        sides.append(int(inside.any(0).sum()))
    assert min(sides) in (10, 11, 12) and max(sides) in (38, 39, 40) and len(set(sides)) > 15


def test_a_small_picture_lies_anywhere_and_a_large_one_is_cut_anywhere() -> None:
    small = JointCropConfig(min_scale=1.0, max_scale=1.0, crop_px=20, flip=False)
    labels = torch.zeros(16, 18, dtype=torch.uint8)
    image = torch.full((3, 16, 18), 9, dtype=torch.uint8)
    places = {tuple((crop_of(image, labels, small, s)[1] == 0).nonzero()[0].tolist()) for s in range(150)}
    assert places == {(top, left) for top in range(5) for left in range(3)}
    # Each label names its column.
    columns = torch.arange(20, dtype=torch.uint8).repeat(17, 1)
    large = JointCropConfig(min_scale=1.0, max_scale=1.0, crop_px=16, flip=False)
    image = torch.zeros(3, 17, 20, dtype=torch.uint8)
    assert {int(crop_of(image, columns, large, seed)[1][0, 0]) for seed in range(60)} == set(range(5))


def test_colours_change_by_the_given_strength_and_not_around_the_picture() -> None:
    labels = torch.zeros(16, 16, dtype=torch.uint8)
    image = torch.full((3, 16, 16), 100, dtype=torch.uint8)
    means = []
    for seed in range(30):
        crop = JointCropConfig(min_scale=1.0, max_scale=1.0, crop_px=20, jitter=0.3)
        pixels, cut = crop_of(image, labels, crop, seed)
        assert (pixels[:, cut == 255] == 0).all()
        means.append(float((pixels[0, cut == 0] * STD[0] + MEAN[0]).mean() * 255))
    assert 65 < min(means) < 85 and 115 < max(means) < 135


def test_crops_depend_on_seed_epoch_and_index_only(tmp_path) -> None:
    dataset = dataset_of(tmp_path)
    first = dataset[2]
    dataset[0]
    torch.manual_seed(77)
    assert same(dataset[2], first)
    assert same(dataset_of(tmp_path)[2], first)
    assert not same(dataset_of(tmp_path, seed=1)[2], first)
    dataset.set_epoch(1)
    assert not same(dataset[2], first)
    dataset.set_epoch(0)
    assert same(dataset[2], first)


def test_loading_does_not_disturb_the_callers_randomness(tmp_path) -> None:
    torch.manual_seed(5)
    expected = torch.rand(3)
    torch.manual_seed(5)
    dataset_of(tmp_path)[0]
    assert torch.equal(torch.rand(3), expected)


@pytest.mark.parametrize("items_per_epoch", [1, 4, 5, 10, 23])
def test_every_picture_is_seen_equally_often(tmp_path, items_per_epoch) -> None:
    dataset = dataset_of(tmp_path, count=5, items_per_epoch=items_per_epoch)
    assert len(dataset) == items_per_epoch
    seen = positions(dataset, epochs=10)
    for start in range(0, len(seen) - 4, 5):
        assert sorted(seen[start : start + 5]) == [0, 1, 2, 3, 4]
    passes = {tuple(seen[start : start + 5]) for start in range(0, len(seen) - 4, 5)}
    assert len(passes) > 1
    # Whoever goes on from epoch 3 sees what the others see.
    late = dataset_of(tmp_path, count=5, items_per_epoch=items_per_epoch)
    late.set_epoch(3)
    assert [late._order.position(index) for index in range(items_per_epoch)] == (
        seen[3 * items_per_epoch : 4 * items_per_epoch]
    )


def test_a_picture_met_again_in_one_epoch_is_cut_anew(tmp_path) -> None:
    dataset = dataset_of(tmp_path, count=1, items_per_epoch=4)
    items = [dataset[index] for index in range(4)]
    assert {item["index"] for item in items} == {0}
    assert not any(torch.equal(items[0]["image"], other["image"]) for other in items[1:])


@pytest.mark.parametrize("is_sent", [False, True])
def test_loading_processes_that_stay_see_the_next_epoch(tmp_path, is_sent) -> None:
    dataset = dataset_of(tmp_path, items_per_epoch=4)
    if is_sent:  # as Ray hands it to a worker
        dataset = pickle.loads(pickle.dumps(dataset))
    loader = DataLoader(dataset, batch_size=2, num_workers=1, persistent_workers=True, multiprocessing_context="fork")
    for epoch in (0, 1, 0):
        dataset.set_epoch(epoch)
        found = [image for batch in loader for image in batch["image"]]
        assert len(found) == 4
        for index, image in enumerate(found):
            assert torch.equal(image, dataset[index]["image"])


def test_a_pickled_copy_is_whole_and_on_its_own(tmp_path) -> None:
    dataset = dataset_of(tmp_path)
    dataset.set_epoch(3)
    copy = pickle.loads(pickle.dumps(dataset))
    assert same(copy[0], dataset[0])
    copy.set_epoch(4)
    assert not same(copy[0], dataset[0])


def test_a_label_map_of_another_size_is_refused(tmp_path) -> None:
    dataset = dataset_of(tmp_path)
    assert image_size(dataset.images[1].mask_uri) == (24, 16)
    Image.fromarray(np.zeros((16, 23), np.uint8)).save(dataset.images[1].mask_uri)
    with pytest.raises(DataError, match=r"1\.jpg has 24 x 16 pixels, its label map .*1\.png has 23 x 16"):
        dataset[1]
    dataset[0]


def test_no_pictures_are_refused() -> None:
    with pytest.raises(DataError, match="no image with a label map"):
        LabelMapDataset([], CROP, MEAN, STD, 0)
