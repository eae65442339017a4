"""The network that is trained: a convolutional backbone and a 1x1 classifier whose maps are the CAMs (Eq. 2).

Both trainings share it: the image-level classifier averages its logits over the image, the text-contrast stage takes
their sigmoid as CAMs. Stored as ``network.json`` (settings) and ``network.safetensors`` (weights).
"""

import dataclasses
import json
import pickle
from pathlib import Path
from typing import Any

import timm
import torch
import torch.nn.functional as F
from jaxtyping import Float
from pydantic import TypeAdapter, ValidationError
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from qaclims_ray.config import CamNetConfig
from qaclims_ray.data import storage
from qaclims_ray.errors import ArtifactError, ConfigError, ModelError

CONFIG_NAME = "network.json"
WEIGHTS_NAME = "network.safetensors"
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

    def forward(
        self, image: Float[Tensor, "batch 3 height width"]
    ) -> Float[Tensor, "batch class cam_height cam_width"]:
        """Return the logits of every class at the network's stride."""
        return self.classifier(self.backbone(image))


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
        _load_backbone_weights(backbone, config.weights)
    return CamNet(backbone, nn.Conv2d(width, num_classes, 1, bias=classifier_bias), config)


def save_cam_net(net: CamNet, folder: str) -> None:
    """Write settings and weights into a local folder, which is made if it is not there."""
    Path(folder).mkdir(parents=True, exist_ok=True)
    description = {
        "config": dataclasses.asdict(net.config),
        "num_classes": net.classifier.out_channels,
        "classifier_bias": net.classifier.bias is not None,
    }
    Path(folder, CONFIG_NAME).write_text(json.dumps(description, indent=2))
    weights = {name: value.detach().cpu().contiguous() for name, value in net.state_dict().items()}
    save_file(weights, Path(folder, WEIGHTS_NAME))


def load_cam_net(folder: str, device: torch.device | str = "cpu") -> CamNet:
    """Read a network back, in evaluation mode.

    Args:
        folder: local path or URI.
        device: where it goes.

    Raises:
        ArtifactError: when the folder holds no network, or a broken one.
    """
    if not storage.exists(storage.join(folder, CONFIG_NAME)):
        raise ArtifactError(f"there is no trained network at {folder} (no {CONFIG_NAME}); make it with `qaclims train`")
    try:
        description: dict[str, Any] = json.loads(storage.read_bytes(storage.join(folder, CONFIG_NAME)))
        config = TypeAdapter(CamNetConfig).validate_python(description["config"])
        # The stored weights replace pretrained ones, which may be gone by now.
        net = build_cam_net(
            dataclasses.replace(config, weights=""),
            description["num_classes"],
            classifier_bias=description["classifier_bias"],
        )
        net.config = config
        with storage.local_copy(storage.join(folder, WEIGHTS_NAME)) as path:
            net.load_state_dict(load_file(path))
    except (ValueError, KeyError, TypeError, ValidationError, RuntimeError, SafetensorError) as error:
        raise ArtifactError(f"the network at {folder} is broken ({error}); train it again") from None
    return net.to(device).eval()


def _miniature_backbone(config: CamNetConfig) -> nn.Module:
    if config.output_stride != MINIATURE_STRIDE or config.pad_same or config.weights == "timm":
        raise ConfigError(
            "cam_net.backbone miniature has stride 4, symmetric padding and no pretrained weights; set "
            'cam_net.output_stride 4, cam_net.pad_same false, cam_net.weights ""'
        )
    return MiniatureBackbone()


def _timm_backbone(config: CamNetConfig) -> nn.Module:
    if not timm.is_model(config.backbone):
        similar = timm.list_models(f"*{config.backbone}*")[:5]
        raise ConfigError(
            f"timm has no model {config.backbone!r}"
            + (f"; did you mean one of {similar}?" if similar else "; `timm.list_models()` lists them")
        )
    options: dict[str, Any] = {"num_classes": 0, "global_pool": "", "output_stride": config.output_stride}
    if config.pad_same:
        options["pad_type"] = "same"
    try:
        backbone = timm.create_model(config.backbone, pretrained=config.weights == "timm", **options)
    except (TypeError, AssertionError, NotImplementedError) as error:
        raise ConfigError(
            f"timm's {config.backbone} cannot be built with output stride {config.output_stride}"
            f"{' and pad_same' if config.pad_same else ''} ({error or type(error).__name__}); it must be a "
            "convolutional network with that option, e.g. resnet50, mobilenetv2_100, convnext_tiny"
        ) from None
    except (RuntimeError, OSError) as error:
        raise ModelError(
            f"timm's weights for {config.backbone} cannot be had: {error}. Give a local file in cam_net.weights"
        ) from None
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


def _load_backbone_weights(backbone: nn.Module, uri: str) -> None:
    """Load pretrained weights; all must fit, save those of a classifier head."""
    try:
        with storage.local_copy(uri) as path:
            weights = _read_weights(path)
    except (SafetensorError, pickle.UnpicklingError, RuntimeError, ValueError, EOFError, OSError) as error:
        raise ModelError(f"cam_net.weights {uri} cannot be read as weights: {error}") from None
    own = backbone.state_dict()
    heads = (getattr(backbone, "default_cfg", None) or {}).get("classifier") or ()
    head = {"fc", "classifier"} | set([heads] if isinstance(heads, str) else heads)
    missing = [name for name in own if name not in weights and not name.endswith("num_batches_tracked")]
    surplus = [name for name in weights if name not in own and name.rsplit(".", 1)[0] not in head]
    misshapen = [
        f"{name} {tuple(value.shape)} instead of {tuple(own[name].shape)}"
        for name, value in weights.items()
        if name in own and value.shape != own[name].shape
    ]
    if missing or surplus or misshapen:
        raise ModelError(
            f"cam_net.weights {uri} do not fit the backbone: {len(missing)} missing {missing[:3]}, {len(surplus)} "
            f"unknown {surplus[:3]}, {len(misshapen)} of another shape {misshapen[:3]}"
        )
    fitting = {name: value.to(own[name].dtype) for name, value in weights.items() if name in own}
    backbone.load_state_dict(own | fitting)


def _read_weights(path: str) -> dict[str, Tensor]:
    if path.endswith(".safetensors"):
        return load_file(path)
    content = torch.load(path, map_location="cpu", weights_only=True)
    content = content.get("state_dict", content) if isinstance(content, dict) else content
    if not isinstance(content, dict) or not all(isinstance(value, Tensor) for value in content.values()):
        raise ValueError(f"expected names and tensors, found {type(content).__name__}")
    return content
