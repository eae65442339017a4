"""DeepLabV2: a dilated ResNet, four parallel dilated classifiers, three scales inside the network (rows D1-D5).

Chen et al., DeepLab (2017). Two ResNets are known: timm's, and "resnet101_caffe", that of the Caffe models and of
deeplab-pytorch (``caffe_resnet.py``). They differ in where a stage strides: each computes what its weights were
trained for.
"""

from collections.abc import Callable, Iterator
from typing import Literal, cast

import torch
import torch.nn.functional as F
from jaxtyping import Float, UInt8
from torch import Tensor, nn

from qaclims_ray.errors import ConfigError
from qaclims_ray.models.backbone import create_backbone, load_backbone_weights
from qaclims_ray.segmentation.config import WEIGHTS_SETTING, SegmentationNetConfig
from qaclims_ray.segmentation.networks.caffe_resnet import CAFFE_RESNET, build_caffe_resnet

RATES = (6, 12, 18, 24)
"""Dilations of the parallel classifiers (DeepLab's ASPP-L)."""
SCALES = (1.0, 0.5, 0.75)
"""Scales of the image inside the network (row D3); the first sets the size of the result."""
OUTPUT_STRIDE = 8


class DeepLabV2(nn.Module):
    """ResNet at stride 8 and ASPP, shared by three scales."""

    supervision: Literal["dense"] = "dense"

    def __init__(self, backbone: nn.Module, width: int, config: SegmentationNetConfig, num_labels: int) -> None:
        """Make the classifiers; `width` is the number of the backbone's feature channels."""
        super().__init__()
        self.config = config
        self.num_labels = num_labels
        self.backbone = backbone
        self.aspp = nn.ModuleList(nn.Conv2d(width, num_labels, 3, padding=rate, dilation=rate) for rate in RATES)
        for classifier in self.aspp:
            # As deeplab-pytorch starts its classifiers.
            nn.init.normal_(cast(nn.Conv2d, classifier).weight, std=0.01)
            nn.init.zeros_(cast(Tensor, classifier.bias))

    def forward(
        self,
        image: Float[Tensor, "batch 3 height width"],
        labels: UInt8[Tensor, "batch height width"] | None = None,
    ) -> Float[Tensor, "batch label out_height out_width"] | tuple[Float[Tensor, "batch label _ _"], ...]:
        """Return the largest logits over the scales, stride 8; with labels, which are not read, also each scale's."""
        outputs = multi_scale_logits(self._logits, image, SCALES)
        return outputs[0] if labels is None else outputs

    def head_parameters(self) -> Iterator[nn.Parameter]:
        """Yield what is new in this network: the classifiers' parameters."""
        return self.aspp.parameters()

    def backbone_parameters(self) -> Iterator[nn.Parameter]:
        """Yield what may come pretrained."""
        return self.backbone.parameters()

    def _logits(self, image: Tensor) -> Tensor:
        features = self.backbone(image)
        return torch.stack([classifier(features) for classifier in self.aspp]).sum(dim=0)


def multi_scale_logits(
    logits_of: Callable[[Tensor], Tensor], image: Float[Tensor, "batch 3 height width"], scales: tuple[float, ...]
) -> tuple[Float[Tensor, "batch label _ _"], ...]:
    """Return the pixel-wise maximum over scales, then the logits at each scale in its own size (row D3).

    Args:
        logits_of: the network of one scale.
        image: normalised pixels.
        scales: the maximum has the size of the first scale's logits; the others are resized bilinearly.
    """
    each = [logits_of(_resized(image, scale)) for scale in scales]
    size = each[0].shape[2:]
    same = [F.interpolate(logits, size=size, mode="bilinear", align_corners=False) for logits in each[1:]]
    return torch.stack([each[0], *same]).amax(dim=0), *each


def _resized(image: Tensor, scale: float) -> Tensor:
    if scale == 1:
        return image
    # Whole numbers throughout: a graph on its way to ONNX has no fractions of a size.
    numerator, denominator = scale.as_integer_ratio()
    size = [max(1, side * numerator // denominator) for side in image.shape[2:]]
    return F.interpolate(image, size=size, mode="bilinear", align_corners=False)


def build_deeplab_v2(config: SegmentationNetConfig, num_labels: int) -> DeepLabV2:
    """Make the network; what is not pretrained is random, from torch's global generator.

    Args:
        config: a ResNet of timm with weights "random", "timm" or a file of its state dict; or "resnet101_caffe" with
            weights "random" or a file of deeplab-pytorch.
        num_labels: K + 1, or K without a background.

    Raises:
        ConfigError: for a backbone that is no ResNet, or weights or normalisation that do not go with it.
        ModelError: when the weights are absent, broken or do not fit.
    """
    if config.pad_same:
        raise ConfigError("segmentation.net.pad_same is for architecture encoder; deeplab_v2 pads symmetrically")
    backbone = build_caffe_resnet(config) if config.backbone == CAFFE_RESNET else _timm_backbone(config)
    return DeepLabV2(backbone, cast(int, backbone.num_features), config, num_labels)


def _timm_backbone(config: SegmentationNetConfig) -> nn.Module:
    expected = f"a ResNet, e.g. resnet101 or resnet50, or {CAFFE_RESNET}"
    backbone = create_backbone(
        config, chosen="output stride 8", expected=expected, global_pool="", output_stride=OUTPUT_STRIDE
    )
    import timm

    if not isinstance(backbone, timm.models.ResNet):
        raise ConfigError(f"segmentation.net.backbone is {config.backbone!r}; deeplab_v2 needs {expected}")
    if config.weights not in ("random", "timm"):
        load_backbone_weights(backbone, config.weights, setting=WEIGHTS_SETTING)
    return backbone
