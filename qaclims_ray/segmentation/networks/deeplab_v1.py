"""DeepLabV1 over Wide ResNet-38: one classifier with a large field of view, three scales (row D6)."""

from collections.abc import Iterator
from typing import Literal

import torch.nn.functional as F
from jaxtyping import Float, UInt8
from torch import Tensor, nn

from qaclims_ray.errors import ConfigError
from qaclims_ray.models.backbone import load_backbone_weights
from qaclims_ray.segmentation.config import SegmentationNetConfig
from qaclims_ray.segmentation.networks.deeplab_v2 import SCALES, multi_scale_logits
from qaclims_ray.segmentation.networks.wide_resnet38 import NORM_MOMENTUM, WideResNet38

RATE = 12
"""Dilation of the classifier (DeepLab-LargeFOV)."""
FOV_WIDTH = 512
"""Channels of the classifier's hidden layers."""


class DeepLabV1(nn.Module):
    """Wide ResNet-38 at stride 8, a dilated 3x3 and a 1x1 convolution and a classifier, shared by three scales."""

    supervision: Literal["dense"] = "dense"

    def __init__(self, backbone: WideResNet38, config: SegmentationNetConfig, num_labels: int) -> None:
        super().__init__()
        self.config = config
        self.num_labels = num_labels
        self.backbone = backbone
        self.conv_fov = nn.Conv2d(backbone.num_features, FOV_WIDTH, 3, padding=RATE, dilation=RATE, bias=False)
        self.bn_fov = nn.BatchNorm2d(FOV_WIDTH, momentum=NORM_MOMENTUM)
        self.conv_fov2 = nn.Conv2d(FOV_WIDTH, FOV_WIDTH, 1, bias=False)
        self.bn_fov2 = nn.BatchNorm2d(FOV_WIDTH, momentum=NORM_MOMENTUM)
        self.dropout = nn.Dropout(0.5)
        self.classifier = nn.Conv2d(FOV_WIDTH, num_labels, 1)
        for layer in (self.conv_fov, self.conv_fov2, self.classifier):
            nn.init.kaiming_normal_(layer.weight, mode="fan_out", nonlinearity="relu")

    def forward(
        self,
        image: Float[Tensor, "batch 3 height width"],
        labels: UInt8[Tensor, "batch height width"] | None = None,
    ) -> Float[Tensor, "batch label out_height out_width"] | tuple[Float[Tensor, "batch label _ _"], ...]:
        """Return the largest logits over the scales, stride 8; with labels, which are not read, also each scale's."""
        outputs = multi_scale_logits(self._logits, image, SCALES)
        return outputs[0] if labels is None else outputs

    def head_parameters(self) -> Iterator[nn.Parameter]:
        """Yield what is new in this network: all but the backbone's parameters."""
        for layer in (self.conv_fov, self.bn_fov, self.conv_fov2, self.bn_fov2, self.classifier):
            yield from layer.parameters()

    def backbone_parameters(self) -> Iterator[nn.Parameter]:
        """Yield what may come pretrained."""
        return self.backbone.parameters()

    def _logits(self, image: Tensor) -> Tensor:
        hidden = F.relu(self.bn_fov(self.conv_fov(self.backbone(image))))
        hidden = F.relu(self.bn_fov2(self.conv_fov2(hidden)))
        return self.classifier(self.dropout(hidden))


def build_deeplab_v1(config: SegmentationNetConfig, num_labels: int) -> DeepLabV1:
    """Make the network; what is not pretrained is random, from torch's global generator.

    Args:
        config: weights "random", or a file with a PyTorch state dict of the backbone (see ``wide_resnet38.py``).
        num_labels: K + 1, or K without a background.

    Raises:
        ConfigError: for weights "timm", which has no such network.
        ModelError: when the file is absent, broken or does not fit.
    """
    if config.weights == "timm":
        raise ConfigError(
            'timm has no wide_resnet38; set segmentation.net.weights to "random" or to a file with a PyTorch state '
            "dict of the ImageNet model (names conv1a, b2, b2_1, ..., bn7)"
        )
    if config.pad_same:
        raise ConfigError("segmentation.net.pad_same is for architecture encoder; deeplab_v1 pads symmetrically")
    backbone = WideResNet38()
    if config.weights != "random":
        load_backbone_weights(backbone, config.weights, setting="segmentation.net.weights")
    return DeepLabV1(backbone, config, num_labels)
