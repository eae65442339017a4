import copy

import pytest
import torch
from torch import nn

from qaclims_ray.errors import ConfigError, ModelError
from qaclims_ray.models.backbone import load_backbone_weights
from qaclims_ray.segmentation.config import SegmentationNetConfig
from qaclims_ray.segmentation.networks.deeplab_v1 import build_deeplab_v1
from qaclims_ray.segmentation.networks.wide_resnet38 import WideResNet38


def settings(**changes) -> SegmentationNetConfig:
    base = {"architecture": "deeplab_v1", "backbone": "wide_resnet38", "weights": "random"}
    return SegmentationNetConfig(**(base | changes))


@pytest.fixture(scope="module")
def meta_net():
    """Shapes without numbers."""
    with torch.device("meta"):
        return build_deeplab_v1(settings(), 21)


def num_parameters(module) -> int:
    return sum(parameter.numel() for parameter in module.parameters())


def test_parameters_are_those_of_the_papers_table(meta_net) -> None:
    """Convolutions of model A1, one by one from the paper's table, a norm before each but the first, and one behind."""
    convolutions = [(3, 64, 3)]
    for count, width_in, width, width_out in ((3, 64, 128, 128), (3, 128, 256, 256), (6, 256, 512, 512)):
        convolutions += [(width_in, width, 3)] + [(width, width_out, 3)] * (2 * count - 1)
    convolutions += [(512, 512, 3), (512, 1024, 3)] + 2 * [(1024, 512, 3), (512, 1024, 3)]
    convolutions += [(1024, 512, 1), (512, 1024, 3), (1024, 2048, 1)]
    convolutions += [(2048, 1024, 1), (1024, 2048, 3), (2048, 4096, 1)]
    assert len(convolutions) + 1 == 38, "with the classifier: ResNet-38"
    projections = [(64, 128), (128, 256), (256, 512), (512, 1024), (1024, 2048), (2048, 4096)]
    norms = [width_in for width_in, _, _ in convolutions[1:]] + [4096]
    expected = (
        sum(width_in * width * side**2 for width_in, width, side in convolutions)
        + sum(width_in * width for width_in, width in projections)
        + 2 * sum(norms)
    )
    assert num_parameters(meta_net.backbone) == expected == 105_070_912
    # The model for ImageNet has a classifier of 4096 x 1000 weights and 1000 biases besides.
    assert expected + 4096 * 1000 + 1000 == 109_167_912
    head = 4096 * 512 * 9 + 512 * 512 + 2 * 2 * 512 + 512 * 21 + 21
    assert num_parameters(meta_net) == expected + head == 124_220_245


def test_logits_have_stride_eight(meta_net) -> None:
    with torch.device("meta"), torch.no_grad():
        outputs = meta_net(torch.zeros(2, 3, 321, 321), torch.zeros(2, 321, 321, dtype=torch.uint8))
    assert [tuple(logits.shape) for logits in outputs] == [(2, 21, side, side) for side in (41, 41, 20, 30)]
    parameters = [*meta_net.backbone_parameters(), *meta_net.head_parameters()]
    assert {id(p) for p in parameters} == {id(p) for p in meta_net.parameters()}


def test_norms_move_slowly(meta_net) -> None:
    """Row D6."""
    assert {module.momentum for module in meta_net.modules() if isinstance(module, nn.BatchNorm2d)} == {3e-4}


def test_blocks_dilate_where_they_strode() -> None:
    """At every fourth position they compute what the network for whole images does, from the same weights."""
    with torch.device("meta"):
        blocks = nn.Sequential(*list(WideResNet38().children())[-6:])  # b5, b5_1, b5_2, b6, b7, bn7
    blocks = blocks.to_empty(device="cpu").eval()
    noise = torch.randn(10_007, generator=torch.Generator().manual_seed(0))
    for name, value in blocks.state_dict().items():
        if value.ndim == 4:  # noise over and over is quickly made, and as good as fresh
            value.view(-1).copy_(
                noise.repeat(value.numel() // len(noise) + 1)[: value.numel()] / value[0].numel() ** 0.5
            )
        elif "num_batches" not in name:
            value.fill_(0.5 if name.endswith(("weight", "running_var")) else 0.1)
    strided = copy.deepcopy(blocks)
    for convolution in (strided[0].conv_branch2a, strided[0].conv_branch1):
        convolution.stride = (2, 2)
    for convolution in (strided[3].conv_branch2a, strided[3].conv_branch1):
        convolution.stride = (2, 2)
    for module in strided.modules():
        if isinstance(module, nn.Conv2d) and module.kernel_size == (3, 3):
            module.dilation = module.padding = (1, 1)
    features = torch.randn(1, 512, 5, 5)
    with torch.no_grad():
        fine, coarse = blocks(features), strided(features)
    assert coarse.shape == (1, 4096, 2, 2)
    torch.testing.assert_close(fine[..., ::4, ::4], coarse, rtol=1e-4, atol=1e-4 * float(coarse.abs().max()))


@pytest.mark.filterwarnings("ignore:.*no-op")
def test_public_names_load(tmp_path) -> None:
    """A file as the conversions of the released model write it; here without storage for its numbers."""
    with torch.device("meta"):
        net = WideResNet38()
    shapes = {name: tuple(value.shape) for name, value in net.state_dict().items()}
    assert {
        "conv1a.weight": (64, 3, 3, 3),
        "b2.conv_branch1.weight": (128, 64, 1, 1),
        "b4_5.bn_branch2b1.running_var": (512,),
        "b5.conv_branch2b1.weight": (1024, 512, 3, 3),
        "b6.conv_branch2b2.weight": (2048, 1024, 1, 1),
        "b7.bn_branch2b2.bias": (2048,),
        "bn7.weight": (4096,),
    }.items() <= shapes.items()
    weights = {
        name: torch.ones(1).expand(shape) for name, shape in shapes.items() if not name.endswith("num_batches_tracked")
    }
    torch.save(weights | {"linear1000.weight": torch.zeros(1000, 1)}, tmp_path / "weights.pth")
    load_backbone_weights(net, str(tmp_path / "weights.pth"), setting="segmentation.net.weights")
    torch.save(weights | {"b8.weight": torch.zeros(1)}, tmp_path / "weights.pth")
    with pytest.raises(ModelError, match=r"Unknown to the network: b8\.weight\."):
        load_backbone_weights(net, str(tmp_path / "weights.pth"), setting="segmentation.net.weights")


def test_bad_settings_are_refused() -> None:
    with pytest.raises(ConfigError, match="timm has no wide_resnet38"):
        build_deeplab_v1(settings(weights="timm"), 3)
    with pytest.raises(ConfigError, match="pads symmetrically"):
        build_deeplab_v1(settings(pad_same=True), 3)
