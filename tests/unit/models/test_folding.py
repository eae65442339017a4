"""Networks without batch norm respond as with it, and on CPUs nothing is folded."""

import pytest
import torch
from timm.layers import BatchNormAct2d
from torch import nn

from qaclims_ray.models.folding import for_inference, without_batch_norm
from qaclims_ray.models.generators.cam_net import build_cam_net
from qaclims_ray.models.generators.config import CamNetConfig
from qaclims_ray.refine.irn.config import IrnConfig
from qaclims_ray.refine.irn.network import build_affinity_net
from qaclims_ray.segmentation.config import SegmentationNetConfig
from qaclims_ray.segmentation.networks.network import build_segmentation_network


def norms(network: nn.Module) -> list[nn.Module]:
    return [module for module in network.modules() if isinstance(module, nn.BatchNorm2d)]


def trained(network: nn.Module) -> nn.Module:
    """Return a network in evaluation mode whose norms do something."""
    generator = torch.Generator().manual_seed(1)
    for norm in norms(network):
        assert isinstance(norm, nn.BatchNorm2d) and norm.running_mean is not None and norm.running_var is not None
        norm.running_mean.normal_(0, 0.1, generator=generator)
        norm.running_var.uniform_(0.5, 2, generator=generator)
        nn.init.uniform_(norm.weight, 0.5, 1.5, generator=generator)
    return network.eval()


class Block(nn.Module):
    """A convolution, its norm, and what else reads the convolution."""

    def __init__(self, reads: str = "") -> None:
        super().__init__()
        self.conv, self.norm, self.other = nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.BatchNorm2d(4)
        self.reads = reads

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        made = self.conv(image)
        match self.reads:
            case "sum":
                return self.norm(made) + made
            case "norm":
                return self.norm(made) + self.other(made)
            case _:
                return self.norm(made)


def test_every_norm_of_a_network_is_folded() -> None:
    torch.manual_seed(0)
    networks = [
        build_cam_net(CamNetConfig(backbone="resnet18"), 3),
        build_cam_net(CamNetConfig(backbone="miniature", output_stride=4, pad_same=False, weights=""), 3),
        build_affinity_net(IrnConfig(backbone="resnet18", weights="random", width=16)),
        build_segmentation_network(
            SegmentationNetConfig(backbone="resnet18", weights="random", decoder_norm="batch", width=16), 3
        ),
    ]
    image = torch.rand(2, 3, 50, 70)
    for network in map(trained, networks):
        without = without_batch_norm(network)
        assert norms(network) and not norms(without)
        with torch.no_grad():
            torch.testing.assert_close(without(image), network(image), rtol=1e-3, atol=1e-4)


def test_the_activation_of_a_norm_stays() -> None:
    network = trained(nn.Sequential(nn.Conv2d(3, 4, 3), BatchNormAct2d(4)))
    image = torch.randn(2, 3, 9, 9)
    with torch.no_grad():
        found = without_batch_norm(network)(image)
        torch.testing.assert_close(found, network(image))
    assert found.min() == 0 and not norms(without_batch_norm(network))


def test_a_norm_before_its_convolution_stays() -> None:
    network = trained(nn.Sequential(nn.BatchNorm2d(3), nn.ReLU(), nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4)))
    without = without_batch_norm(network)
    assert [type(module) for module in without] == [nn.BatchNorm2d, nn.ReLU, nn.Conv2d, nn.Identity]
    image = torch.randn(1, 3, 9, 9)
    with torch.no_grad():
        torch.testing.assert_close(without(image), network(image))


@pytest.mark.parametrize("reads", ["sum", "norm"])
def test_a_convolution_that_others_read_keeps_its_output(reads, caplog) -> None:
    network = trained(Block(reads))
    with torch.no_grad():
        torch.testing.assert_close(without_batch_norm(network)(torch.ones(1, 3, 8, 8)), network(torch.ones(1, 3, 8, 8)))
    assert ("Block keeps its batch norms" in caplog.text) == (reads == "sum")
    assert len(norms(without_batch_norm(network))) == 2 and len(norms(without_batch_norm(trained(Block())))) == 1


def test_on_cpus_too_what_infers_is_folded_and_has_channels_last() -> None:
    network = Block().train()
    with torch.no_grad():
        wanted = network.eval()(torch.ones(1, 3, 8, 8))
        found = for_inference(network.train(), torch.device("cpu"))
        torch.testing.assert_close(found(torch.ones(1, 3, 8, 8)), wanted)
    assert not found.training and len(norms(found)) == 1
    assert found.conv.weight.is_contiguous(memory_format=torch.channels_last)
