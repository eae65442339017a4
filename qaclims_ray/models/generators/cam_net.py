"""The convolutional mask generator: a backbone and a 1x1 classifier whose maps are the CAMs (QA-CLIMS Eq. 2).

All trainings share it: the image-level classifier averages its logits over the image, the text-contrast stage takes
their sigmoid as CAMs. `models/generators/mask_generator.py` chooses between this and WeakTr.
"""

from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal

import torch
import torch.nn.functional as F
from jaxtyping import Float
from safetensors.torch import save_file
from torch import Tensor, nn

from qaclims_ray.errors import ConfigError
from qaclims_ray.models.backbone import create_backbone, load_backbone_weights
from qaclims_ray.models.generators.config import CamNetConfig
from qaclims_ray.models.network_folder import WEIGHTS_NAME, load_network, save_network

__all__ = ["WEIGHTS_NAME", "CamNet", "build_cam_net", "load_cam_net", "rebuild_cam_net", "save_cam_net"]

MINIATURE = "miniature"
"""Backbone name of the miniature world's small network."""
MINIATURE_STRIDE = 4


class CamNet(nn.Module):
    """Backbone and classifier; the classifier has a bias only after calibration."""

    def __init__(self, backbone: nn.Module, classifier: nn.Conv2d, config: CamNetConfig) -> None:
        super().__init__()
        self.backbone = backbone
        self.classifier = classifier
        self.config = config

    @property
    def num_classes(self) -> int:
        """K."""
        return self.classifier.out_channels

    def forward(
        self, image: Float[Tensor, "batch 3 height width"], *, want: Literal["maps", "scores"] = "maps"
    ) -> Float[Tensor, "batch class cam_height cam_width"] | tuple[Float[Tensor, "batch class"], ...]:
        """Return the logits of every class at the network's stride, or one score: their mean over the image."""
        logits = self.classifier(self.backbone(image))
        return logits if want == "maps" else (logits.float().mean(dim=(2, 3)),)

    def head_parameters(self) -> Iterator[nn.Parameter]:
        """Yield what is new in this network: the classifier's parameters."""
        return self.classifier.parameters()

    def backbone_parameters(self) -> Iterator[nn.Parameter]:
        """Yield what may come pretrained."""
        return self.backbone.parameters()


class MiniatureBackbone(nn.Module):
    """Three residual blocks at stride 4, the last one dilated; 0.25 M parameters."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Sequential(
            nn.Conv2d(3, 24, 3, stride=2, padding=1, bias=False), nn.BatchNorm2d(24), nn.ReLU(inplace=True)
        )
        self.blocks = nn.Sequential(_Residual(24, 48, stride=2), _Residual(48, 64), _Residual(64, 96, dilation=2))

    def forward(self, image: Float[Tensor, "batch 3 height width"]) -> Float[Tensor, "batch dim cam_height cam_width"]:
        """Return features."""
        return self.blocks(self.stem(image))


class _Residual(nn.Module):
    def __init__(self, width_in: int, width_out: int, *, stride: int = 1, dilation: int = 1) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(width_in, width_out, 3, stride, dilation, dilation, bias=False)
        self.bn1 = nn.BatchNorm2d(width_out)
        self.conv2 = nn.Conv2d(width_out, width_out, 3, 1, dilation, dilation, bias=False)
        self.bn2 = nn.BatchNorm2d(width_out)
        self.shortcut = nn.Sequential(nn.Conv2d(width_in, width_out, 1, stride, bias=False), nn.BatchNorm2d(width_out))

    def forward(self, features: Tensor) -> Tensor:
        hidden = F.relu(self.bn1(self.conv1(features)))
        return F.relu(self.bn2(self.conv2(hidden)) + self.shortcut(features))


def build_cam_net(config: CamNetConfig, num_classes: int, *, classifier_bias: bool = False) -> CamNet:
    """Make a network with fresh classifier weights (from torch's global generator).

    Args:
        config: backbone, its pretrained weights and the stride.
        num_classes: K.
        classifier_bias: give the classifier a bias, as calibration does.

    Raises:
        ConfigError: for an unknown backbone, one that is not convolutional or cannot have the stride.
        ModelError: when the weights are absent, broken or do not fit.
    """
    backbone = _miniature_backbone(config) if config.backbone == MINIATURE else _timm_backbone(config)
    width = _check_features(backbone, config)
    if config.weights and config.weights != "timm":
        load_backbone_weights(backbone, config.weights)
    return CamNet(backbone, nn.Conv2d(width, num_classes, 1, bias=classifier_bias), config)


def save_cam_net(net: CamNet, folder: str) -> None:
    """Write settings and weights into a local folder, which is made if it is not there."""
    save_network(
        net,
        net.config,
        folder,
        num_classes=net.num_classes,
        classifier_bias=net.classifier.bias is not None,
    )


def load_cam_net(folder: str, device: torch.device | str = "cpu") -> CamNet:
    """Read a network back, in evaluation mode.

    Args:
        folder: local path or URI.
        device: where it goes.

    Raises:
        ArtifactError: when the folder holds no network, or a broken one.
    """
    return load_network(folder, rebuild_cam_net, device, config_type=CamNetConfig)


def backbone_file(folder: str, target_dir: str) -> str:
    """Write the backbone of a trained network as a file of its own, for other networks to start from.

    Args:
        folder: the trained network, local.
        target_dir: local folder for the file.

    Returns:
        Path of the safetensors file.

    Raises:
        ArtifactError: when the folder holds no convolutional network, or a broken one.
    """
    network = load_cam_net(folder)
    path = Path(target_dir, "backbone.safetensors")
    save_file({name: value.contiguous() for name, value in network.backbone.state_dict().items()}, path)
    return str(path)


def rebuild_cam_net(config: CamNetConfig, description: dict[str, Any]) -> CamNet:
    """Make the network that ``network.json`` describes, with fresh weights."""
    return build_cam_net(config, description["num_classes"], classifier_bias=description["classifier_bias"])


def _miniature_backbone(config: CamNetConfig) -> nn.Module:
    if config.output_stride != MINIATURE_STRIDE or config.pad_same or config.weights == "timm":
        raise ConfigError(
            "cam_net.backbone miniature has stride 4, symmetric padding and no pretrained weights; set "
            'cam_net.output_stride 4, cam_net.pad_same false, cam_net.weights ""'
        )
    return MiniatureBackbone()


def _timm_backbone(config: CamNetConfig) -> nn.Module:
    options: dict[str, Any] = {"global_pool": "", "output_stride": config.output_stride}
    if config.pad_same:
        options["pad_type"] = "same"
    backbone = create_backbone(
        config,
        chosen=f"output stride {config.output_stride}{' and pad_same' if config.pad_same else ''}",
        expected="a convolutional network with that option, e.g. resnet50, mobilenetv2_100, convnext_tiny",
        **options,
    )
    import timm

    if isinstance(backbone, timm.models.ResNet):
        _follow_irn(backbone)
    return backbone


def _follow_irn(resnet: nn.Module) -> None:
    """Make a ResNet what the released code uses (R8): no dilation, and a frozen stem whose statistics still move."""
    for module in resnet.modules():
        if isinstance(module, nn.Conv2d) and module.dilation != (1, 1):
            module.dilation = (1, 1)
            module.padding = tuple(side // 2 for side in module.kernel_size)
    for stem in (resnet.conv1, resnet.bn1):
        stem.requires_grad_(False)


def _check_features(backbone: nn.Module, config: CamNetConfig) -> int:
    """Return the number of feature channels, after making sure that the features form a grid at the stride."""
    side = max(64, 4 * config.output_stride)
    was_training = backbone.training
    with torch.no_grad():
        features = backbone.eval()(torch.zeros(1, 3, side, side))
    backbone.train(was_training)
    expected = side // config.output_stride
    if features.ndim != 4 or features.shape[2:] != (expected, expected):
        raise ConfigError(
            f"{config.backbone} gives features of shape {tuple(features.shape)} for {side}x{side} pixels, expected "
            f"(1, width, {expected}, {expected}) at output stride {config.output_stride}; choose another backbone "
            "or stride"
        )
    return features.shape[1]
