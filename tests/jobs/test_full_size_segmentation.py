"""The convolutional final networks at the published sizes with random weights: a training step, and a test image.

Run by `make test-slow`. Each test prints what it measured as a Markdown table.
"""

import gc
from pathlib import Path

import pytest
import torch
from torch.optim.sgd import SGD

from qaclims_ray.segmentation.config import CAFFE_MEAN, CAFFE_STD, SegmentationNetConfig
from qaclims_ray.segmentation.losses import balanced, cross_entropy_sum, labels_at
from qaclims_ray.segmentation.networks.network import (
    build_segmentation_network,
    load_segmentation_network,
    save_segmentation_network,
)
from tests.jobs.test_full_size import MEMORY_LIMIT_GIB, measured, num_millions, random_pixels, show

pytestmark = [pytest.mark.slow, pytest.mark.timeout(3600)]

NUM_LABELS = 21
CROP_PX = 321
NETWORKS = {
    "deeplab_v2": ("resnet101", 44_048_532),
    "deeplab_v2, Caffe": ("resnet101_caffe", 44_048_532),
    "deeplab_v1": ("wide_resnet38", 124_220_245),
}
"""Backbone and parameters; where they come from is told in the unit tests of each."""


def settings(name: str, weights: str = "random") -> SegmentationNetConfig:
    backbone, _ = NETWORKS[name]
    normalisation = {"image_mean": CAFFE_MEAN, "image_std": CAFFE_STD} if backbone.endswith("caffe") else {}
    architecture = name.split(",")[0]
    return SegmentationNetConfig(architecture=architecture, backbone=backbone, weights=weights, **normalisation)


def labelled_crop() -> tuple[torch.Tensor, torch.Tensor]:
    """One image, and a label map of background, two classes and an unlabelled frame."""
    image = torch.from_numpy(random_pixels(7, 3, CROP_PX, CROP_PX)).float().div(255).sub(0.5).div(0.25)
    labels = torch.zeros(1, CROP_PX, CROP_PX, dtype=torch.uint8)
    labels[:, 40:200, 60:180], labels[:, 150:280, 200:300] = 7, 15
    labels[:, :16] = 255
    return image.unsqueeze(0), labels


@pytest.mark.parametrize("name", list(NETWORKS))
def test_training_step(name):
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        net = build_segmentation_network(settings(name), NUM_LABELS).train()
    assert sum(parameter.numel() for parameter in net.parameters()) == NETWORKS[name][1]
    image, labels = labelled_crop()
    groups = [{"params": list(net.backbone_parameters())}, {"params": list(net.head_parameters()), "lr": 2.5e-3}]
    optimizer = SGD(groups, lr=2.5e-4, momentum=0.9, weight_decay=5e-4)

    def step() -> tuple[float, list[tuple[int, ...]]]:
        outputs = net(image, labels)
        sums = [cross_entropy_sum(each, labels_at(labels, tuple(each.shape[2:]))) for each in outputs]
        loss = torch.stack([balanced(each.losses, each.counts) for each in sums]).sum()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        return float(loss.detach()), [tuple(each.shape[1:]) for each in outputs]

    with torch.random.fork_rng(devices=[]), measured() as used:
        torch.manual_seed(0)
        loss, shapes = step()
    assert len(shapes) == 4 and shapes[0] == shapes[1] == (NUM_LABELS, 41, 41)
    assert loss > 0 and torch.isfinite(torch.tensor(loss))
    assert [n for n, p in net.named_parameters() if p.grad is None or not bool(p.grad.isfinite().all())] == []
    largest = {
        group: max(float(p.grad.abs().max()) for p in optimizer.param_groups[group]["params"]) for group in (0, 1)
    }
    assert min(largest.values()) > 0
    with torch.no_grad(), measured() as alone:
        assert net.eval()(image).shape == (1, NUM_LABELS, 41, 41)
    show(
        f"{name}, one image of {CROP_PX}x{CROP_PX} pixels, three scales",
        {
            "parameters": num_millions(net.parameters()),
            "of it backbone": num_millions(net.backbone_parameters()),
            "logits": ", ".join(map(str, shapes)),
            "GFLOP of a step": f"{used.gflop:.0f}",
            "GFLOP at test time": f"{alone.gflop:.0f}",
            "loss, sum over four outputs": f"{loss:.3f}",
            "peak memory of a step": used.memory,
            "seconds of a step": f"{used.seconds:.1f}",
            "seconds at test time": f"{alone.seconds:.1f}",
        },
    )
    # Backward costs twice the forward, save for the gradient of the pixels.
    assert 2.8 * alone.gflop < used.gflop < 3.01 * alone.gflop
    assert used.peak_gib < MEMORY_LIMIT_GIB


@pytest.mark.parametrize("name", ["deeplab_v2, Caffe", "deeplab_v1"])
def test_weights_of_the_public_names_load(name, tmp_path: Path):
    """A file that holds the backbone alone, then a folder of the whole network."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(3)
        net = build_segmentation_network(settings(name), NUM_LABELS).eval()
    torch.save(net.backbone.state_dict(), tmp_path / "weights.pth")
    started = build_segmentation_network(settings(name, str(tmp_path / "weights.pth")), NUM_LABELS)
    (tmp_path / "weights.pth").unlink()
    backbone = started.backbone.state_dict()
    assert all(torch.equal(value, backbone[key]) for key, value in net.backbone.state_dict().items())
    del started, backbone
    gc.collect()
    save_segmentation_network(net, str(tmp_path / "net"))
    loaded = load_segmentation_network(str(tmp_path / "net"))
    image, _ = labelled_crop()
    with torch.no_grad():
        torch.testing.assert_close(loaded(image[..., :97, :97]), net(image[..., :97, :97]))
