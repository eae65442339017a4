"""ResNet-101 as the Caffe models of DeepLab have it, with the names of deeplab-pytorch, whose converted files load.

Most published figures start from such weights (COCO or ImageNet, row D5). Other than in timm and torchvision, a stage
strides in its first 1x1 convolution, pooling rounds up, and pixels are 0-255 less their mean, blue first.
"""

import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from qaclims_ray.errors import ConfigError
from qaclims_ray.models.backbone import load_backbone_weights
from qaclims_ray.segmentation.config import CAFFE_MEAN, CAFFE_STD, WEIGHTS_SETTING, SegmentationNetConfig

CAFFE_RESNET = "resnet101_caffe"
"""Its name as a backbone."""
_NUM_BLOCKS = (3, 4, 23, 3)


class CaffeResNet(nn.Module):
    """ResNet-101 at stride 8 without classifier; its last two stages dilate by 2 and 4."""

    num_features = 2048

    def __init__(self) -> None:
        super().__init__()
        # Classifiers in a file stay out, see `load_backbone_weights`.
        self.default_cfg = {"classifier": tuple(f"aspp.c{index}" for index in range(4))}
        pool = nn.MaxPool2d(3, 2, 1, ceil_mode=True)
        self.layer1 = nn.Sequential()
        self.layer1.add_module("conv1", _unit(3, 64, 7, stride=2))
        self.layer1.add_module("pool", pool)
        self.layer2 = _stage(_NUM_BLOCKS[0], 64, 256)
        self.layer3 = _stage(_NUM_BLOCKS[1], 256, 512, stride=2)
        self.layer4 = _stage(_NUM_BLOCKS[2], 512, 1024, dilation=2)
        self.layer5 = _stage(_NUM_BLOCKS[3], 1024, 2048, dilation=4)
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")

    def forward(self, image: Float[Tensor, "batch 3 height width"]) -> Float[Tensor, "batch dim out_height out_width"]:
        """Return features of an image whose channels are red, green, blue."""
        stem = self.layer1(image.flip(1))
        return self.layer5(self.layer4(self.layer3(self.layer2(stem))))


class _CaffeBottleneck(nn.Module):
    def __init__(self, width_in: int, width_out: int, *, stride: int, dilation: int, is_first: bool) -> None:
        super().__init__()
        width = width_out // 4
        self.reduce = _unit(width_in, width, 1, stride=stride)
        self.conv3x3 = _unit(width, width, 3, dilation=dilation)
        self.increase = _unit(width, width_out, 1, relu=False)
        self.shortcut = _unit(width_in, width_out, 1, stride=stride, relu=False) if is_first else nn.Identity()

    def forward(self, features: Tensor) -> Tensor:
        return F.relu(self.increase(self.conv3x3(self.reduce(features))) + self.shortcut(features))


def _unit(
    width_in: int, width_out: int, kernel: int, *, stride: int = 1, dilation: int = 1, relu: bool = True
) -> nn.Sequential:
    padding = dilation * (kernel // 2)
    unit = nn.Sequential()
    unit.add_module("conv", nn.Conv2d(width_in, width_out, kernel, stride, padding, dilation, bias=False))
    unit.add_module("bn", nn.BatchNorm2d(width_out))
    if relu:
        unit.add_module("relu", nn.ReLU())
    return unit


def _stage(num_blocks: int, width_in: int, width_out: int, *, stride: int = 1, dilation: int = 1) -> nn.Sequential:
    stage = nn.Sequential()
    for index in range(num_blocks):
        first = index == 0
        block = _CaffeBottleneck(
            width_in if first else width_out,
            width_out,
            stride=stride if first else 1,
            dilation=dilation,
            is_first=first,
        )
        stage.add_module(f"block{index + 1}", block)
    return stage


def build_caffe_resnet(config: SegmentationNetConfig) -> CaffeResNet:
    """Make the backbone, random (torch's global generator) or from a file of deeplab-pytorch.

    Args:
        config: weights "random" or a file; the latter needs `CAFFE_MEAN` and `CAFFE_STD` as normalisation.

    Raises:
        ConfigError: for weights "timm", or a normalisation that the weights were not trained with.
        ModelError: when the file is absent, broken or does not fit.
    """
    if config.weights == "timm":
        raise ConfigError(
            f'timm has no {CAFFE_RESNET}; set {WEIGHTS_SETTING} to "random" or a file of deeplab-pytorch, or '
            "segmentation.net.backbone to resnet101"
        )
    backbone = CaffeResNet()
    if config.weights != "random":
        _check_normalisation(config)
        load_backbone_weights(backbone, config.weights, setting=WEIGHTS_SETTING)
    return backbone


def _check_normalisation(config: SegmentationNetConfig) -> None:
    far_mean = max(abs(found - own) for found, own in zip(config.image_mean, CAFFE_MEAN, strict=True)) > 0.01
    far_std = max(abs(found - own) for found, own in zip(config.image_std, CAFFE_STD, strict=True)) > 1e-4
    if far_mean or far_std:
        raise ConfigError(
            f"segmentation.net.image_mean and image_std are {config.image_mean} and {config.image_std}, but weights of "
            f"{CAFFE_RESNET} expect pixels of 0-255 less their mean: set them to {CAFFE_MEAN} and "
            f"{tuple(round(std, 6) for std in CAFFE_STD)}"
        )
