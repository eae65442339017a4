"""Masks of a further round against a slow restatement: only an image's tags are painted, then the CRF sharpens."""

from dataclasses import replace

import pytest
import torch
from torch import nn

from qaclims_ray.cams.label_map import label_map
from qaclims_ray.data.classes import Classes
from qaclims_ray.refine.crf import dense_crf, probability_energy
from qaclims_ray.refine.crf_config import CrfConfig
from qaclims_ray.segmentation.config import SegmentationConfig, SegmentationNetConfig, SegmentationTestConfig
from qaclims_ray.segmentation.inference import segment_images
from qaclims_ray.segmentation.relabelling import maps_within_tags, within_tags

CRF = CrfConfig(gaussian_sxy=1.0, bilateral_sxy=4.0, bilateral_srgb=20.0, unary="softmax")
CLASSES, BARE = Classes(("dog", "cat", "boat")), Classes(("dog", "cat", "boat"), has_background=False)
SEGMENTATION = SegmentationConfig(
    net=SegmentationNetConfig(weights="random"),
    test=SegmentationTestConfig(scales=(1.0, 1.5), flip=True, crf=CRF, batch_size=2),
)


class ByColour(nn.Module):
    """Scores that follow colours, as a trained network's do."""

    def __init__(self, num_labels: int) -> None:
        super().__init__()
        self.mix = nn.Conv2d(3, num_labels, 1, bias=False)
        weight = torch.randn(num_labels, 3, 1, 1, generator=torch.Generator().manual_seed(3))
        self.mix.weight.data = 2 * weight

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        return self.mix(image)


def picture(seed: int, height: int = 12, width: int = 10) -> torch.Tensor:
    """Two halves of two colours, with some noise."""
    generator = torch.Generator().manual_seed(seed)
    left, right = torch.randint(0, 200, (2, 3, 1, 1), generator=generator)
    halves = torch.where(torch.arange(width) < width // 2, left, right).expand(3, height, width)
    return (halves + torch.randint(0, 50, (3, height, width), generator=generator)).to(torch.uint8)


def slowly(network: nn.Module, image: torch.Tensor, labels: tuple[int, ...], classes: Classes) -> torch.Tensor:
    """The label map of one image, step by step, with a CRF over its labels alone."""
    net = SEGMENTATION.net
    ((_, found),) = segment_images(network, [image], SEGMENTATION.test, net.image_mean, net.image_std)
    rows = [0, *(label + 1 for label in labels)] if classes.has_background else list(labels)
    own = found[:, rows] / found[:, rows].sum(1, keepdim=True)
    refined = dense_crf(image[None], probability_energy(own), CRF)[0]
    values = [0, *(label + 1 for label in labels)] if classes.has_background else [label + 1 for label in labels]
    return torch.tensor(values, dtype=torch.uint8)[refined.argmax(0)]


@pytest.mark.parametrize("classes", [CLASSES, BARE])
def test_labels_are_those_of_a_crf_among_background_and_tags(classes: Classes) -> None:
    network = ByColour(classes.num_labels)
    images = [picture(0), picture(1, 8, 14), picture(2), picture(3)]
    labels = [(0, 2), (1,), (), (0, 1)]
    names = ["a", "b", "c", "d"]
    found = maps_within_tags(network, images, labels, names, SEGMENTATION, classes)
    assert [(cam.image_id, cam.class_ids) for cam in found] == list(zip(names, labels, strict=True))
    border = classes.border(0.5)
    shown = [label_map(cam, border) for cam in found]
    for image, own, drawn in zip(images, labels, shown, strict=True):
        assert drawn.shape == image.shape[1:]
        if own:
            assert torch.equal(drawn, slowly(network, image, own, classes))
    assert set(shown[2].unique().tolist()) == {0 if classes.has_background else 255}, "an image of no class shows none"
    assert len(set(torch.stack([shown[0], shown[3]]).unique().tolist()) - {0}) > 1, "or the test shows nothing"


def test_what_is_not_tagged_gets_nothing_however_sure_the_network_is() -> None:
    probabilities = torch.tensor([0.0, 0.0, 1.0, 0.0]).view(4, 1, 1)
    own = within_tags(probabilities, (0,), CLASSES)[:, 0, 0]
    torch.testing.assert_close(own, torch.tensor([0.5, 0.5, 0.0, 0.0]))
    assert within_tags(probabilities, (1,), CLASSES)[2, 0, 0] > 0.999
    even = within_tags(torch.tensor([0.2, 0.3, 0.4, 0.1]).view(4, 1, 1), (0, 2), CLASSES)[:, 0, 0]
    torch.testing.assert_close(even, torch.tensor([0.2, 0.3, 0.0, 0.1]) / 0.6)
    bare = within_tags(torch.tensor([0.2, 0.3, 0.5]).view(3, 1, 1), (0, 2), BARE)[:, 0, 0]
    torch.testing.assert_close(bare, torch.tensor([0.2, 0.0, 0.5]) / 0.7)


def test_test_time_is_the_network_s_own() -> None:
    network, image = ByColour(4), picture(5)
    (plain,) = maps_within_tags(network, [image], [(0, 1)], ["a"], SEGMENTATION, CLASSES)
    once = replace(SEGMENTATION, test=replace(SEGMENTATION.test, crf=replace(CRF, iterations=0)))
    (without,) = maps_within_tags(network, [image], [(0, 1)], ["a"], once, CLASSES)
    assert plain.full is not None and without.full is not None
    assert not torch.allclose(plain.full, without.full, atol=1e-3)
