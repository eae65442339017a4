"""A decoder on a frozen CLIP: its images, sizes, what learns, and that it is read back without the CLIP."""

from pathlib import Path

import pytest
import torch

from qaclims_ray.data.classes import Classes
from qaclims_ray.errors import ConfigError
from qaclims_ray.segmentation.config import SegmentationNetConfig
from qaclims_ray.segmentation.networks.clip_decoder import ClipDecoder
from qaclims_ray.segmentation.networks.network import (
    build_segmentation_network,
    load_segmentation_network,
    save_segmentation_network,
)
from qaclims_ray.training.loop import seeded
from tests.semples_fakes import shipped_clip

NET = SegmentationNetConfig(architecture="clip_decoder", backbone="miniature", weights="clip", width=32)


def network() -> ClipDecoder:
    clip = shipped_clip()
    with seeded(0, torch.device("cpu")):
        return ClipDecoder(clip.model.visual, NET, 3, mean=clip.mean, std=clip.std).eval()


def images(height: int, width: int) -> torch.Tensor:
    return torch.rand(2, 3, height, width, generator=torch.Generator().manual_seed(1))


@torch.no_grad()
def test_images_reach_the_tower_as_its_own_normalisation_would_have_them() -> None:
    clip, net, pixels = shipped_clip(), network(), images(16, 20)
    given = (pixels - torch.tensor(NET.image_mean)[:, None, None]) / torch.tensor(NET.image_std)[:, None, None]
    expected = (pixels - torch.tensor(clip.mean)[:, None, None]) / torch.tensor(clip.std)[:, None, None]
    found = net.tower_pixels(given)
    assert found.shape == (2, 3, 16, 24), "filled up to whole patches of 8 pixels"
    torch.testing.assert_close(found[..., :20], expected, atol=1e-5, rtol=1e-5)


@torch.no_grad()
@pytest.mark.parametrize("size", [(64, 64), (30, 51)])
def test_logits_have_the_size_of_the_image(size: tuple[int, int]) -> None:
    net, labels = network(), torch.zeros(2, *size, dtype=torch.uint8)
    found = net(images(*size))
    assert found.shape == (2, 3, *size)
    (trained,) = net(images(*size), labels)
    assert torch.equal(trained, found)


@torch.no_grad()
def test_it_is_read_back_without_the_clip(tmp_path: Path) -> None:
    net = network()
    save_segmentation_network(net, str(tmp_path), Classes(("red", "blue")))
    again = load_segmentation_network(str(tmp_path))
    assert again.config == NET and torch.equal(again(images(30, 51)), net(images(30, 51)))


def test_the_decoder_learns_and_the_tower_stays() -> None:
    net = network().train()
    assert not net.tower.training and net.decoder.training
    assert not any(value.requires_grad for value in net.backbone_parameters())
    together = [*net.backbone_parameters(), *net.head_parameters()]
    assert {id(value) for value in together} == {id(value) for value in net.parameters()}


def test_it_learns_from_no_masks_but_its_own() -> None:
    with pytest.raises(ConfigError, match="clip_decoder learns from no masks but its own"):
        build_segmentation_network(NET, 3)
