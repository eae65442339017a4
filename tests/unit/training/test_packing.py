"""Crops that travel as 8-bit pixels become, where the network is, the crops that are normalised at once."""

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from qaclims_ray.data.config import AugmentConfig, JointCropConfig
from qaclims_ray.data.datasets import ImageLabelDataset
from qaclims_ray.data.label_map_dataset import LabelledImage, LabelMapDataset
from qaclims_ray.data.manifest import ImageRecord, Manifest
from qaclims_ray.training.config import OptimConfig
from qaclims_ray.training.context import LocalContext
from qaclims_ray.training.loop import Task, fit
from qaclims_ray.training.meter import StepResult
from qaclims_ray.training.packing import Packed, can_pack, normalised_crops

MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
AUGMENTS = {
    "smaller and larger than the crop": AugmentConfig(min_long_side_px=12, max_long_side_px=60, crop_px=24),
    "as it is": AugmentConfig(min_long_side_px=0, max_long_side_px=0, crop_px=24, flip=False),
    "with changed colours": AugmentConfig(
        min_long_side_px=12, max_long_side_px=60, crop_px=24, rand_augment_magnitude=9
    ),
    "a part": AugmentConfig(kind="random_resized_crop", crop_px=24),
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    folder, noise = tmp_path_factory.mktemp("pictures"), np.random.default_rng(0)
    for at in range(4):
        Image.fromarray(noise.integers(0, 256, (20 + at, 40 - at, 3), dtype=np.uint8)).save(folder / f"{at}.png")
        Image.fromarray(noise.integers(0, 3, (20 + at, 40 - at), dtype=np.uint8)).save(folder / f"mask{at}.png")
    return folder


def images_of(folder: Path, augment: AugmentConfig) -> ImageLabelDataset:
    records = tuple(ImageRecord(str(at), str(folder / f"{at}.png"), 40 - at, 20 + at, (0,)) for at in range(4))
    return ImageLabelDataset(Manifest(("dog", "cat"), records), augment, MEAN, STD, seed=3)


def label_maps_of(folder: Path) -> LabelMapDataset:
    images = [LabelledImage(str(at), str(folder / f"{at}.png"), str(folder / f"mask{at}.png")) for at in range(4)]
    crop = JointCropConfig(min_scale=0.5, max_scale=1.5, crop_px=24, jitter=0.4)
    return LabelMapDataset(images, crop, MEAN, STD, seed=3)


def assert_same_bits(dataset: ImageLabelDataset | LabelMapDataset, *, reach_beyond: bool = True) -> None:
    assert can_pack(dataset) and dataset.normalisation is not None
    beyond = 0
    for epoch in range(6):
        dataset.set_epoch(epoch)
        for index in range(len(dataset)):
            item, packed = dataset[index], Packed(dataset)[index]
            assert packed["image"].dtype == torch.uint8 and packed["image"].nbytes < item["image"].nbytes / 2.9
            image = normalised_crops(packed["image"][None], dataset.normalisation)[0]
            assert torch.equal(image.view(torch.int32), item["image"].contiguous().view(torch.int32))
            assert torch.equal(torch.as_tensor(packed["labels"]), torch.as_tensor(item["labels"]))
            beyond += int((packed["image"][3] == 0).sum())
    assert bool(beyond) == reach_beyond


@pytest.mark.parametrize("name", AUGMENTS)
def test_crops_have_the_same_bits(folder: Path, name: str) -> None:
    assert_same_bits(images_of(folder, AUGMENTS[name]), reach_beyond=name != "a part")


def test_crops_with_label_maps_have_the_same_bits(folder: Path) -> None:
    assert_same_bits(label_maps_of(folder))


def test_what_is_more_than_normalised_pixels_travels_as_it_is(folder: Path) -> None:
    erased = AugmentConfig(kind="random_resized_crop", crop_px=24, erasing_probability=0.5)
    assert not can_pack(images_of(folder, erased)) and not can_pack([torch.zeros(3, 4, 4)])


@pytest.mark.parametrize("loader_workers", [0, 1])
def test_a_step_is_given_normalised_crops_however_they_travel(folder: Path, tmp_path, loader_workers: int) -> None:
    dataset, seen = images_of(folder, AUGMENTS["smaller and larger than the crop"]), []
    network = torch.nn.Conv2d(3, 1, 1)

    def step(wrapped: torch.nn.Module, batch: dict[str, torch.Tensor]) -> StepResult:
        seen.extend(zip(batch["index"].tolist(), batch["image"].clone(), strict=True))
        return StepResult(loss=wrapped(batch["image"]).mean())

    task = Task(
        network=network,
        groups=[(network.parameters(), 1.0)],
        save=lambda _: None,
        load=lambda _: None,
        step=step,
        dataset=dataset,
        optim=OptimConfig(epochs=1, batch_size=2, lr=0.1),
        freeze_batch_norm=False,
    )
    context = LocalContext(str(tmp_path / "checkpoints"))
    fit(task, precision="fp32", loader_workers=loader_workers, seed=0, context=context)
    dataset.set_epoch(0)
    assert len(seen) == 4 and all(torch.equal(image, dataset[index]["image"]) for index, image in seen)
