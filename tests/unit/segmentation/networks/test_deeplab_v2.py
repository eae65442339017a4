import copy

import pytest
import timm
import torch
import torch.nn.functional as F
from safetensors.torch import save_file

from qaclims_ray.errors import ConfigError, ModelError
from qaclims_ray.segmentation.config import CAFFE_MEAN, CAFFE_STD, SegmentationNetConfig
from qaclims_ray.segmentation.networks.caffe_resnet import CaffeResNet
from qaclims_ray.segmentation.networks.deeplab_v2 import build_deeplab_v2


def settings(**changes) -> SegmentationNetConfig:
    base = {"architecture": "deeplab_v2", "backbone": "resnet18", "weights": "random"}
    return SegmentationNetConfig(**(base | changes))


def num_parameters(module) -> int:
    return sum(parameter.numel() for parameter in module.parameters())


@pytest.mark.parametrize("backbone", ["resnet101", "resnet101_caffe"])
def test_parameters_are_as_many_as_published(backbone) -> None:
    """ResNet-101 has 44,549,160, of which the classifier of 1000 classes has 2,049,000."""
    with torch.device("meta"):
        net = build_deeplab_v2(settings(backbone=backbone), 21)
    assert num_parameters(net.backbone) == 44_549_160 - 2_049_000
    assert sum(p.numel() for p in net.head_parameters()) == 4 * (2048 * 21 * 9 + 21)
    assert num_parameters(net) == 44_048_532


@pytest.mark.parametrize("backbone", ["resnet50", "resnet101_caffe"])
def test_logits_have_stride_eight(backbone) -> None:
    with torch.device("meta"), torch.no_grad():
        net = build_deeplab_v2(settings(backbone=backbone), 21)
        outputs = net(torch.zeros(2, 3, 321, 321), torch.zeros(2, 321, 321, dtype=torch.uint8))
    sides = [logits.shape[-1] for logits in outputs]
    # 321 and its half and three quarters (160, 240); Caffe's pooling rounds up.
    assert sides == ([41, 41, 21, 31] if backbone == "resnet101_caffe" else [41, 41, 20, 30])


def test_outputs_are_the_maximum_and_each_scale() -> None:
    """Row D3."""
    net = build_deeplab_v2(settings(), 4).eval()
    image = torch.randn(2, 3, 80, 64)
    labels = torch.zeros(2, 80, 64, dtype=torch.uint8)
    with torch.no_grad():
        largest, *scales = net(image, labels)
        torch.testing.assert_close(net(image), largest, rtol=0, atol=0)
        alone = [
            sum(
                F.conv2d(net.backbone(part), head.weight, head.bias, padding=rate, dilation=rate)
                for rate, head in zip((6, 12, 18, 24), net.aspp, strict=True)
            )
            for part in (
                image,
                F.interpolate(image, size=(40, 32), mode="bilinear"),
                F.interpolate(image, size=(60, 48), mode="bilinear"),
            )
        ]
    for logits, expected in zip(scales, alone, strict=True):
        torch.testing.assert_close(logits, expected)
    enlarged = [F.interpolate(logits, size=(10, 8), mode="bilinear") for logits in alone]
    torch.testing.assert_close(largest, torch.maximum(torch.maximum(enlarged[0], enlarged[1]), enlarged[2]))
    assert not torch.equal(largest, scales[0])


def test_classifiers_start_small() -> None:
    torch.manual_seed(0)
    net = build_deeplab_v2(settings(), 21)
    for head in net.aspp:
        assert float(head.weight.detach().std()) == pytest.approx(0.01, rel=0.02)
        assert not head.bias.any()


def test_weights_of_timm_load_without_their_classifier(tmp_path) -> None:
    source = timm.create_model("resnet18", num_classes=7)
    path = str(tmp_path / "weights.safetensors")
    save_file(source.state_dict(), path)
    net = build_deeplab_v2(settings(weights=path), 4)
    assert torch.equal(net.backbone.layer4[1].conv2.weight, source.layer4[1].conv2.weight)


CAFFE_NORMALISATION = {"image_mean": CAFFE_MEAN, "image_std": CAFFE_STD}


def caffe_file(folder, **changes) -> str:
    """What deeplab-pytorch's converter writes from the COCO model: its classifier has 91 classes."""
    with torch.device("meta"):
        shapes = {name: value.shape for name, value in CaffeResNet().state_dict().items()}
    weights = {name: torch.zeros(()).expand(shape) for name, shape in shapes.items()}
    weights["layer5.block3.increase.bn.running_var"] = torch.full((2048,), 7.0)
    weights |= {"fc.weight": torch.zeros(91, 2048, 1, 1), "fc.bias": torch.zeros(91)} | changes
    torch.save(weights, folder / "weights.pth")
    return str(folder / "weights.pth")


def test_weights_of_deeplab_pytorch_load(tmp_path) -> None:
    with torch.device("meta"):
        names = CaffeResNet().state_dict()
    assert {
        "layer1.conv1.conv.weight": (64, 3, 7, 7),
        "layer1.conv1.bn.running_mean": (64,),
        "layer2.block1.shortcut.bn.bias": (256,),
        "layer3.block1.reduce.conv.weight": (128, 256, 1, 1),
        "layer4.block23.conv3x3.conv.weight": (256, 256, 3, 3),
        "layer5.block3.increase.bn.running_var": (2048,),
    }.items() <= {name: tuple(value.shape) for name, value in names.items()}.items()
    head = {"aspp.c0.weight": torch.zeros(91, 2048, 3, 3), "aspp.c3.bias": torch.zeros(91)}
    path = caffe_file(tmp_path, **head)
    net = build_deeplab_v2(settings(backbone="resnet101_caffe", weights=path, **CAFFE_NORMALISATION), 4)
    assert bool((net.backbone.layer5.block3.increase.bn.running_var == 7).all())


def test_other_weights_and_normalisations_are_refused_for_caffes_network(tmp_path) -> None:
    with pytest.raises(ConfigError, match=r"expect pixels of 0-255.*0\.003922"):
        build_deeplab_v2(settings(backbone="resnet101_caffe", weights=caffe_file(tmp_path)), 4)
    path = caffe_file(tmp_path, **{"layer6.weight": torch.zeros(1)})
    with pytest.raises(ModelError, match=r"Unknown to the network: layer6\.weight\."):
        build_deeplab_v2(settings(backbone="resnet101_caffe", weights=path, **CAFFE_NORMALISATION), 4)


def test_caffes_network_dilates_where_it_strode() -> None:
    """At every fourth position it computes what the network for whole images does, from the same weights."""
    torch.manual_seed(0)
    net = CaffeResNet().eval()
    strided = copy.deepcopy(net)
    for stage in (strided.layer4, strided.layer5):
        for unit in (stage.block1.reduce, stage.block1.shortcut):
            unit.conv.stride = (2, 2)
        for block in stage.children():
            block.conv3x3.conv.dilation = block.conv3x3.conv.padding = (1, 1)
    image = torch.randn(1, 3, 97, 97)
    with torch.no_grad():
        fine, coarse = net(image), strided(image)
    assert fine.shape[-1] == 13 and coarse.shape[-1] == 4
    torch.testing.assert_close(fine[..., ::4, ::4], coarse, rtol=1e-4, atol=1e-4 * float(coarse.abs().max()))


def test_caffes_network_reads_blue_first() -> None:
    net = CaffeResNet().eval()
    net.layer2 = net.layer3 = net.layer4 = net.layer5 = torch.nn.Identity()
    with torch.no_grad():
        net.layer1.conv1.conv.weight[:, 1:] = 0  # looks at the first channel of its weights alone: blue
        image = torch.randn(1, 3, 33, 33)
        red, blue = image.clone(), image.clone()
        red[:, 0], blue[:, 2] = 0, 0
        assert torch.equal(net(image), net(red))
        assert not torch.equal(net(image), net(blue))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"backbone": "mobilenetv2_050"}, "needs a ResNet"),
        ({"backbone": "resnet5000"}, "timm has no model"),
        ({"pad_same": True}, "pads symmetrically"),
        ({"backbone": "resnet101_caffe", "weights": "timm"}, "timm has no resnet101_caffe"),
    ],
)
def test_bad_settings_are_refused(changes, message) -> None:
    with pytest.raises(ConfigError, match=message):
        build_deeplab_v2(settings(**changes), 3)
