"""Segmenter and Mask2Former at the published sizes with random weights: a training step, and test time.

Run by `make test-slow`. Each test prints what it measured as a Markdown table. Segmenter DeiT-S/16 and Mask2Former
Swin-L at crops of 512 pixels, one image; row D8.
"""

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from qaclims_ray.data.classes import IGNORE_VALUE
from qaclims_ray.segmentation.config import SegmentationNetConfig
from qaclims_ray.segmentation.networks.network import (
    FinalNetwork,
    SegmentationNetwork,
    build_segmentation_network,
    load_segmentation_network,
    save_segmentation_network,
)
from tests.jobs.test_full_size import MEMORY_LIMIT_GIB, measured, num_millions, show, vit_gflop

pytestmark = [pytest.mark.slow, pytest.mark.timeout(3600)]

CROP, LABELS = 512, 21
IMAGE_SIZE = (375, 500)


def full_size(config: SegmentationNetConfig) -> FinalNetwork:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return build_segmentation_network(config, LABELS).train()


def crop_and_labels() -> tuple[Tensor, Tensor]:
    """A crop with two objects, a band of ignored pixels and ignored padding."""
    image = torch.randn(1, 3, CROP, CROP, generator=torch.Generator().manual_seed(1))
    labels = torch.zeros(1, CROP, CROP, dtype=torch.uint8)
    labels[:, 100:300, 50:250], labels[:, 250:400, 300:450] = 8, 15
    labels[:, 95:105], labels[:, 480:] = IGNORE_VALUE, IGNORE_VALUE
    return image, labels


def norm(parameters) -> float:
    """Gradient norm; every parameter that learns must have a gradient."""
    norms = [float(parameter.grad.norm()) for parameter in parameters if parameter.requires_grad]
    assert all(np.isfinite(norms)) and max(norms) > 0
    return float(np.linalg.norm(norms))


def learn(network: FinalNetwork, loss: Tensor) -> None:
    loss.backward()
    learning = [parameter for parameter in network.parameters() if parameter.requires_grad]
    before = learning[0].detach().clone()
    torch.optim.AdamW(learning, lr=1e-4).step()
    assert not torch.equal(learning[0], before)


def check_test_time(network: FinalNetwork, folder: str) -> tuple[Tensor, Tensor]:
    """Return scores of a crop and of an image, which the network gives again when read back."""
    network.eval()
    crop = crop_and_labels()[0]
    image = torch.randn(1, 3, *IMAGE_SIZE, generator=torch.Generator().manual_seed(2))
    save_segmentation_network(network, folder)
    with torch.no_grad():
        scores = network(crop), network(image)
        again = load_segmentation_network(folder)(image)
    assert torch.equal(scores[1], again)
    assert all(torch.isfinite(score).all() for score in scores)
    return scores


def report(title: str, network: FinalNetwork, step, test, loss: Tensor, scores: tuple[Tensor, Tensor]) -> None:
    assert isinstance(network, nn.Module) and isinstance(network, SegmentationNetwork)
    backbone, head = network.backbone_parameters, network.head_parameters
    show(
        f"{title}, one crop of {CROP} px",
        {
            "parameters; of it backbone": f"{num_millions(network.parameters())}; {num_millions(backbone())}",
            "loss": f"{float(loss.detach()):.4f}",
            "gradient norm of backbone, head": f"{norm(backbone()):.3g}, {norm(head()):.3g}",
            "scores of the crop, of a 375x500 image": ", ".join(str(tuple(score.shape)) for score in scores),
            "step with AdamW: GFLOP, peak memory, seconds": f"{step.gflop:.0f}, {step.memory}, {step.seconds:.1f}",
            "test time of both: GFLOP, peak memory, seconds": f"{test.gflop:.0f}, {test.memory}, {test.seconds:.1f}",
        },
    )
    assert max(step.peak_gib, test.peak_gib) < MEMORY_LIMIT_GIB


def test_segmenter(tmp_path):
    network = full_size(
        SegmentationNetConfig(
            architecture="segmenter", backbone="deit_small_patch16_224", weights="random", image_size=CROP
        )
    )
    image, labels = crop_and_labels()
    with measured() as step:
        (logits,) = network(image, labels)
        loss = F.cross_entropy(logits, labels.long(), ignore_index=IGNORE_VALUE)
        learn(network, loss)
    assert logits.shape == (1, LABELS, CROP, CROP)
    with measured() as test:
        scores = check_test_time(network, str(tmp_path))
    assert [tuple(score.shape[2:]) for score in scores] == [(CROP // 16, CROP // 16), IMAGE_SIZE]
    report("Segmenter DeiT-S/16", network, step, test, loss, scores)
    assert sum(parameter.numel() for parameter in network.parameters()) == 25_984_170  # published: 26 M
    encoder = sum(vit_gflop((CROP // 16) ** 2 + 1, 3 * 16**2, 384, 12))
    decoder = sum(vit_gflop((CROP // 16) ** 2 + LABELS, 0, 384, 2))
    assert step.gflop == pytest.approx(3 * (encoder + decoder), rel=0.1)


def test_mask2former(tmp_path):
    config = SegmentationNetConfig(architecture="mask2former", backbone="swin_large", weights="random")
    network = full_size(config)
    image, labels = crop_and_labels()
    with measured() as step:
        loss = network(image, labels)
        learn(network, loss)
    with measured() as test:
        scores = check_test_time(network, str(tmp_path))
    assert [tuple(score.shape[2:]) for score in scores] == [(CROP // 4, CROP // 4), IMAGE_SIZE]
    report("Mask2Former Swin-L", network, step, test, loss, scores)
    # Published: 215 M, with ADE20k's 150 classes; each class adds a row of 256 weights and a bias.
    num_parameters = sum(parameter.numel() for parameter in network.parameters())
    assert round((num_parameters + (150 - LABELS) * 257) / 1e6) in (215, 216)
