import pickle
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch.utils.data import DataLoader, Dataset

from qaclims_ray.data import datasets, label_map_dataset
from qaclims_ray.data.config import AugmentConfig, JointCropConfig
from qaclims_ray.data.datasets import ImageLabelDataset
from qaclims_ray.data.decoded import DecodedPictures
from qaclims_ray.data.label_map_dataset import LabelledImage, LabelMapDataset
from qaclims_ray.data.manifest import ImageRecord, Manifest
from tests.unit.data.tiny_data_sets import image_bytes, mask_bytes

MEAN, STD = (0.4, 0.5, 0.6), (0.2, 0.25, 0.3)
CROPS = [
    AugmentConfig(min_long_side_px=20, max_long_side_px=40, crop_px=16),
    AugmentConfig(min_long_side_px=0, max_long_side_px=0, crop_px=16),
    AugmentConfig(kind="random_resized_crop", crop_px=16, rand_augment_magnitude=9, erasing_probability=1.0),
]
JOINT = [JointCropConfig(crop_px=16, jitter=0.3), JointCropConfig(crop_px=16, min_scale=1.0, max_scale=1.0)]


class Decoder:
    """Makes a tensor of 100 bytes for a position, and counts."""

    def __init__(self) -> None:
        self.made: list[int] = []

    def of(self, position: int) -> tuple[torch.Tensor, ...]:
        self.made.append(position)
        return (torch.full((100,), position, dtype=torch.uint8),)


def test_what_comes_first_is_kept_up_to_the_limit():
    kept, decoder = DecodedPictures(250), Decoder()
    for _ in range(2):
        for position in (5, 6, 7):
            (picture,) = kept.get(position, lambda position=position: decoder.of(position))
            assert picture.unique().tolist() == [position]
    assert decoder.made == [5, 6, 7, 7]


def test_a_copy_for_another_process_begins_empty():
    kept, decoder = DecodedPictures(250), Decoder()
    kept.get(1, lambda: decoder.of(1))
    assert len(pickle.dumps(kept)) < 200
    pickle.loads(pickle.dumps(kept)).get(1, lambda: decoder.of(1))
    assert decoder.made == [1, 1]


class _Kept(Dataset):
    """Says how many pictures are kept after one was asked for."""

    def __init__(self) -> None:
        self.decoded = DecodedPictures()

    def __len__(self) -> int:
        return 4

    def __getitem__(self, index: int) -> int:
        self.decoded.get(index, lambda: (torch.zeros(10),))
        return len(self.decoded._kept)


@pytest.mark.parametrize(("workers", "expected"), [(0, [1, 2, 3, 4]), (1, [0, 0, 0, 0])])
def test_loading_processes_keep_nothing(workers, expected):
    assert [int(found) for found in DataLoader(_Kept(), batch_size=None, num_workers=workers)] == expected


def _classified(folder: Path, augment: AugmentConfig) -> ImageLabelDataset:
    records = []
    for number in range(3):
        path = folder / f"{number}.jpg"
        path.write_bytes(image_bytes(number))
        records.append(ImageRecord(str(number), str(path), 30, 20, (0,), None, None, ("train",)))
    return ImageLabelDataset(Manifest(("cat",), tuple(records)), augment, MEAN, STD, seed=3)


def _labelled(folder: Path, crop: JointCropConfig) -> LabelMapDataset:
    images = []
    for number in range(3):
        image, mask = folder / f"{number}.jpg", folder / f"{number}.png"
        image.write_bytes(image_bytes(number))
        mask.write_bytes(mask_bytes([number, number + 1]))
        images.append(LabelledImage(str(number), str(image), str(mask)))
    return LabelMapDataset(images, crop, MEAN, STD, seed=3)


@pytest.mark.parametrize("settings", [*CROPS, *JOINT, replace(JOINT[1], flip=True)])
def test_items_are_the_same_with_and_without_it_and_pictures_are_read_once(settings, tmp_path, monkeypatch):
    """Three epochs: nothing changes a kept picture in place."""
    read = []

    def counting(real):
        def load(uri):
            read.append(Path(uri).name)
            return real(uri)

        return load

    for module, name in ((datasets, "load_image"), (label_map_dataset, "load_image"), (label_map_dataset, "load_mask")):
        monkeypatch.setattr(module, name, counting(getattr(module, name)))
    make = _classified if isinstance(settings, AugmentConfig) else _labelled
    keeping, plain = make(tmp_path, settings), make(tmp_path, settings)
    plain._decoded = DecodedPictures(0)

    def items(dataset) -> list:
        found = []
        for epoch in range(3):
            dataset.set_epoch(epoch)
            found += [dataset[index] for index in range(3)]
        return found

    for one, other in zip(items(keeping), items(plain), strict=True):
        assert all(torch.equal(torch.as_tensor(one[name]), torch.as_tensor(other[name])) for name in one)
    files = 3 if make is _classified else 6
    assert len(read) == files + 3 * files and len(set(read[:files])) == files
