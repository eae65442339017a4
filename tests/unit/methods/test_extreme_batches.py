"""Losses where there is next to nothing: all classes in an image, none, one in the set, flat and saturated maps."""

import dataclasses
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from qaclims_ray.cams.config import CamConfig
from qaclims_ray.cams.inference import compute_cams
from qaclims_ray.data.config import AugmentConfig, JointCropConfig
from qaclims_ray.data.images import packed_crop, training_crop
from qaclims_ray.data.label_map_dataset import labelled_crop, packed_labelled_crop
from qaclims_ray.methods.classifier.task import classifier_step
from qaclims_ray.methods.clims.task import clims_regions, clims_step
from qaclims_ray.methods.qa_clims.task import ritc_regions, ritc_step
from qaclims_ray.methods.semples.matching import _Joint, joint_step, matching_step
from qaclims_ray.methods.semples.prompts import start_of_prompts
from qaclims_ray.models.clip.prompts import LearnedPrompts
from qaclims_ray.models.generators.cam_net import build_cam_net
from qaclims_ray.refine.irn.task import affinity_step
from qaclims_ray.segmentation.losses import balanced, cross_entropy_sum, pixel_mean
from qaclims_ray.training.meter import StepResult
from tests.ritc_fakes import CAM_NET, TinyClip, TinyTexts, regions_of, ritc_config
from tests.semples_fakes import (
    bright_images,
    clims_config,
    near_bank,
    semples_config,
    semples_regions,
    shipped_clip,
    texts_near,
)

MEAN, STD = (0.5, 0.4, 0.3), (0.2, 0.25, 0.3)
LABELS = {
    "all classes in every image": [[1, 1, 1], [1, 1, 1]],
    "no class in any image": [[0, 0, 0], [0, 0, 0]],
    "all in one, none in the other": [[1, 1, 1], [0, 0, 0]],
    "one class in the set": [[0, 1, 0], [0, 1, 0]],
    "one image of one class": [[1, 0, 0]],
}
SCALES = {"flat maps": 0.0, "usual maps": 60.0, "saturated maps": 1e5}
Step = Callable[[nn.Module, dict[str, Tensor], int], StepResult]


def classifier(network: nn.Module, batch: dict[str, Tensor], count: int) -> StepResult:
    return classifier_step(network, batch, images_per_step=count)


def ritc(network: nn.Module, batch: dict[str, Tensor], count: int) -> StepResult:
    config = ritc_config()
    options = {"bank": TinyTexts(8), "regions": regions_of(TinyClip(), ritc_regions(config)), "ritc": config}
    return ritc_step(network, batch, [str(index) for index in range(count)], images_per_step=count, **options)


def clims(network: nn.Module, batch: dict[str, Tensor], count: int) -> StepResult:
    config, clip = clims_config(), TinyClip()
    options = {"bank": near_bank(clip, 8), "regions": regions_of(clip, clims_regions(config)), "clims": config}
    return clims_step(network, batch, [str(index) for index in range(count)], images_per_step=count, **options)


def matching(network: nn.Module, batch: dict[str, Tensor], count: int, **changes: Any) -> StepResult:
    config, clip = semples_config(), TinyClip()
    options = {"prompts": None, **changes, "semples": config, "regions": semples_regions(clip, config)}
    return matching_step(network, batch, class_texts=texts_near(clip, 3, seed=3), **options)


def refinement(network: nn.Module, batch: dict[str, Tensor], count: int) -> StepResult:
    return matching(network, batch, count, prompts=texts_near(TinyClip(), 3, seed=4))


def jointly(network: nn.Module, batch: dict[str, Tensor], count: int) -> StepResult:
    config, clip = semples_config(), shipped_clip()
    vectors, template = start_of_prompts(clip, config.prompt, 3, seed=0)
    both, texts = _Joint(network, LearnedPrompts(vectors)), texts_near(clip, 3, seed=3)
    regions = semples_regions(clip, config)
    return joint_step(both, batch, clip=clip, regions=regions, template=template, class_texts=texts, semples=config)


@pytest.mark.parametrize("step", [classifier, ritc, clims, matching, refinement, jointly])
@pytest.mark.parametrize("maps", SCALES)
@pytest.mark.parametrize("labels", LABELS)
def test_loss_and_gradients_are_finite(step: Step, maps: str, labels: str) -> None:
    torch.manual_seed(0)
    network = build_cam_net(CAM_NET, 3).eval()
    network.classifier.weight.data *= SCALES[maps]
    shown = torch.tensor(LABELS[labels], dtype=torch.float32)
    batch = {"image": bright_images(len(shown), 32, seed=1), "labels": shown}
    result = step(network, batch, len(shown))
    result.loss.backward()
    assert result.loss.isfinite() and all(value.isfinite() for value in result.means.values())
    gradients = [parameter.grad for parameter in network.parameters()]
    assert all(gradient is not None and gradient.isfinite().all() for gradient in gradients)


@pytest.mark.parametrize("value", [0, 1, 255])
@pytest.mark.parametrize("scale", [0.0, 1.0, 1e4])
def test_an_affinity_step_on_one_label_is_finite(value: int, scale: float) -> None:
    class Branches(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.boundary, self.displacement = nn.Conv2d(3, 1, 4, 4), nn.Conv2d(3, 2, 4, 4)

        def forward(self, image: Tensor) -> tuple[Tensor, Tensor]:
            return (scale * self.boundary(image)).sigmoid(), scale * self.displacement(image)

    torch.manual_seed(0)
    network = Branches()
    labels = torch.full((2, 32, 32), value, dtype=torch.uint8)
    result = affinity_step(network, {"image": torch.randn(2, 3, 32, 32), "labels": labels}, radius=3)
    result.loss.backward()
    assert result.loss.isfinite() and all(p.grad is not None and p.grad.isfinite().all() for p in network.parameters())


@pytest.mark.parametrize("value", [0, 2, 255])
@pytest.mark.parametrize("scale", [0.0, 1.0, 1e30])
@pytest.mark.parametrize("reduce", [pixel_mean, balanced])
def test_the_loss_of_a_final_network_on_one_label_is_finite(value: int, scale: float, reduce: Any) -> None:
    logits = (scale * torch.randn(2, 3, 4, 4, generator=torch.Generator().manual_seed(0))).requires_grad_()
    labels = torch.full((2, 4, 4), value, dtype=torch.uint8)
    sums = cross_entropy_sum(logits, labels)
    loss = reduce(sums.losses, sums.counts)
    loss.backward()
    assert loss.isfinite() and logits.grad is not None and logits.grad.isfinite().all()
    assert value != 255 or loss == 0


AUGMENTS = {
    "own size": AugmentConfig(min_long_side_px=0, max_long_side_px=0, crop_px=16),
    "resized": AugmentConfig(min_long_side_px=20, max_long_side_px=40, crop_px=16),
    "a part": AugmentConfig(kind="random_resized_crop", crop_px=16),
    "strong": AugmentConfig(kind="random_resized_crop", crop_px=16, rand_augment_magnitude=9, erasing_probability=1.0),
}
SIZES = [(1, 1), (1, 30), (30, 1), (2, 3)]


@pytest.mark.parametrize("name", AUGMENTS)
@pytest.mark.parametrize("size", SIZES)
def test_crops_of_next_to_nothing_are_crops(name: str, size: tuple[int, int]) -> None:
    image = torch.full((3, *size), 200, dtype=torch.uint8)
    for seed in range(4):
        crop = training_crop(image, AUGMENTS[name], MEAN, STD, torch.Generator().manual_seed(seed))
        assert crop.shape == (3, 16, 16) and crop.isfinite().all()
        if not AUGMENTS[name].erasing_probability:
            packed = packed_crop(image, AUGMENTS[name], MEAN, torch.Generator().manual_seed(seed))
            assert packed.shape == (4, 16, 16)


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("scales", [(1.0, 1.0), (0.5, 2.0)])
def test_crops_with_label_maps_of_next_to_nothing_keep_their_labels(size: tuple[int, int], scales: Any) -> None:
    image, labels = torch.full((3, *size), 200, dtype=torch.uint8), torch.full(size, 7, dtype=torch.uint8)
    crop = JointCropConfig(min_scale=scales[0], max_scale=scales[1], crop_px=16, jitter=0.3)
    for seed in range(6):
        pixels, found = labelled_crop(image, labels, crop, MEAN, STD, torch.Generator().manual_seed(seed))
        packed, same = packed_labelled_crop(image, labels, crop, torch.Generator().manual_seed(seed))
        assert pixels.shape == (3, 16, 16) and pixels.isfinite().all() and packed.shape == (4, 16, 16)
        assert set(found.flatten().tolist()) == {7, 255} and torch.equal(same, found)


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("labels", [(), (1,), (0, 1, 2)])
def test_maps_of_next_to_nothing_have_its_size(size: tuple[int, int], labels: tuple[int, ...]) -> None:
    torch.manual_seed(0)
    network, image = build_cam_net(CAM_NET, 3).eval(), torch.full((3, *size), 90, dtype=torch.uint8)
    config = dataclasses.replace(CamConfig(), scales=(1.0, 0.5, 2.0))
    (cam,) = compute_cams(network, [image], [labels], ["one"], config, MEAN, STD)
    assert cam.full is not None and cam.full.shape == (len(labels), *size) and cam.full.isfinite().all()
