"""A final network for small machines: any timm encoder with stages, and a light top-down decoder.

Each stage goes through a 1x1 convolution to a common width; from the coarsest on, the sum so far is enlarged and the
next finer stage added, as in feature pyramids (Lin et al., 2017); a 3x3 convolution and a classifier follow. The
miniature world's own backbone gives its stem as a finer stage, since its objects are 10-20 pixels wide.
"""

import math
from collections.abc import Iterator
from typing import Any, Literal, cast

import torch
import torch.nn.functional as F
from jaxtyping import Float, UInt8
from torch import Tensor, nn

from qaclims_ray.errors import ConfigError
from qaclims_ray.models.backbone import create_backbone, load_backbone_weights
from qaclims_ray.models.generators.cam_net import MINIATURE, MiniatureBackbone
from qaclims_ray.segmentation.config import WEIGHTS_SETTING, SegmentationNetConfig

FINEST_STRIDE = 4
"""Stride of the logits over a timm encoder; finer stages are not decoded."""
NORM_GROUPS = 32
"""Groups of channels of a decoder's group norms; fewer where they do not divide its width."""


class EncoderSegmenter(nn.Module):
    """Encoder, decoder and classifier; logits at the stride of the finest decoded stage."""

    supervision: Literal["dense"] = "dense"

    def __init__(self, encoder: nn.Module, widths: list[int], config: SegmentationNetConfig, num_labels: int) -> None:
        """Make the decoder; `widths` are the channels of the encoder's stages, fine to coarse."""
        super().__init__()
        self.config = config
        self.num_labels = num_labels
        self.widths = tuple(widths)
        self.encoder = encoder
        self.decoder = _Decoder(widths, config.width, config.decoder_norm)
        self.classifier = nn.Conv2d(config.width, num_labels, 1)

    def forward(
        self,
        image: Float[Tensor, "batch 3 height width"],
        labels: UInt8[Tensor, "batch height width"] | None = None,
    ) -> Float[Tensor, "batch label out_height out_width"] | tuple[Float[Tensor, "batch label _ _"], ...]:
        """Return logits at stride 4 (miniature: 2), or with labels a tuple of one, enlarged to the labels' size.

        Supervised there, borders come out finer than on the coarse grid.
        """
        logits = self.classifier(self.decoder(self.encoder(image)))
        if labels is None:
            return logits
        return (F.interpolate(logits, size=labels.shape[1:], mode="bilinear", align_corners=False),)

    def head_parameters(self) -> Iterator[nn.Parameter]:
        """Yield what is new in this network: decoder and classifier."""
        yield from self.decoder.parameters()
        yield from self.classifier.parameters()

    def backbone_parameters(self) -> Iterator[nn.Parameter]:
        """Yield what may come pretrained."""
        return self.encoder.parameters()


class _Decoder(nn.Module):
    def __init__(self, widths: list[int], width: int, norm: Literal["group", "batch"]) -> None:
        super().__init__()
        self.laterals = nn.ModuleList(
            nn.Sequential(nn.Conv2d(each, width, 1, bias=False), _norm(norm, width)) for each in widths
        )
        self.smooth = nn.Sequential(
            nn.Conv2d(width, width, 3, padding=1, bias=False), _norm(norm, width), nn.ReLU(inplace=True)
        )

    def forward(self, stages: list[Tensor]) -> Tensor:
        """Return features at the resolution of the first, finest stage."""
        merged: Tensor | None = None
        for lateral, stage in zip(reversed(self.laterals), reversed(stages), strict=True):
            own = lateral(stage)
            if merged is not None:
                own = own + F.interpolate(merged, size=own.shape[2:], mode="bilinear", align_corners=False)
            merged = F.relu(own)
        assert merged is not None
        return self.smooth(merged)


def _norm(norm: Literal["group", "batch"], width: int) -> nn.Module:
    return nn.BatchNorm2d(width) if norm == "batch" else nn.GroupNorm(math.gcd(width, NORM_GROUPS), width)


class _MiniatureEncoder(nn.Module):
    """The miniature backbone, whose stem (stride 2) and last block (stride 4) are decoded."""

    def __init__(self) -> None:
        super().__init__()
        self.backbone = MiniatureBackbone()

    def forward(self, image: Tensor) -> list[Tensor]:
        stem = self.backbone.stem(image)
        return [stem, self.backbone.blocks(stem)]


class _TimmEncoder(nn.Module):
    """The stages of a timm network from stride 4 on."""

    def __init__(self, stages: nn.Module, first: int) -> None:
        super().__init__()
        self.stages = stages
        self.first = first

    def forward(self, image: Tensor) -> list[Tensor]:
        return self.stages(image)[self.first :]


def build_encoder_segmenter(config: SegmentationNetConfig, num_labels: int) -> EncoderSegmenter:
    """Make the network; what is not pretrained is random, from torch's global generator.

    Args:
        config: encoder, its initial weights ("random", "timm", or a file with the state dict of the timm network,
            "miniature": of the mask generator's backbone) and the decoder's width.
        num_labels: K + 1, or K without a background.

    Raises:
        ConfigError: for an unknown encoder, or one without stages of falling resolution from stride 4 on.
        ModelError: when the weights are absent, broken or do not fit.
    """
    if config.backbone == MINIATURE:
        encoder = _miniature_encoder(config)
        widths = [24, 96]
    else:
        encoder, widths = _timm_encoder(config)
    return EncoderSegmenter(encoder, widths, config, num_labels)


def _miniature_encoder(config: SegmentationNetConfig) -> nn.Module:
    if config.pad_same or config.weights == "timm":
        raise ConfigError(
            "segmentation.net.backbone miniature has symmetric padding and no timm weights; set "
            'segmentation.net.pad_same false and segmentation.net.weights "random" or a file'
        )
    encoder = _MiniatureEncoder()
    if config.weights != "random":
        load_backbone_weights(encoder.backbone, config.weights, setting=WEIGHTS_SETTING)
    return encoder


def _timm_encoder(config: SegmentationNetConfig) -> tuple[nn.Module, list[int]]:
    options: dict[str, Any] = {"pad_type": "same"} if config.pad_same else {}
    chosen = {
        "chosen": f"features of its stages{' and pad_same' if config.pad_same else ''}",
        "expected": "a network with stages at stride 4 and coarser, e.g. resnet50, mobilenetv2_100, convnext_tiny",
    }
    stages = create_backbone(config, features_only=True, **chosen, **options)
    widths, strides = stages.feature_info.channels(), stages.feature_info.reduction()  # type: ignore[union-attr]
    first = next((index for index, stride in enumerate(strides) if stride >= FINEST_STRIDE), 0)
    _check_stages(stages, config, widths[first:], strides[first:], first)
    if config.weights not in ("random", "timm"):
        import timm

        # timm renames layers when it takes stages apart, and drops those behind the last stage: load, then copy.
        whole = timm.create_model(config.backbone, num_classes=0, **options)
        load_backbone_weights(whole, config.weights, setting=WEIGHTS_SETTING)
        _copy_weights(whole, stages)
    return _TimmEncoder(stages, first), widths[first:]


def _check_stages(
    stages: nn.Module, config: SegmentationNetConfig, widths: list[int], strides: list[int], first: int
) -> None:
    """Make sure that there is a pyramid of (batch, channel, height, width) from stride 4 on, for any image size."""
    side = 4 * strides[-1]
    was_training = stages.training
    try:
        with torch.no_grad():
            shapes = [tuple(stage.shape) for stage in stages.eval()(torch.zeros(1, 3, side, side))[first:]]
    except (AssertionError, RuntimeError) as error:
        raise ConfigError(
            f"segmentation.net.backbone {config.backbone} cannot take {side}x{side} pixels: {error}"
        ) from None
    stages.train(was_training)
    expected = [(1, width, side // stride, side // stride) for width, stride in zip(widths, strides, strict=True)]
    if shapes != expected or strides[0] != FINEST_STRIDE or strides != sorted(set(strides)):
        raise ConfigError(
            f"segmentation.net.backbone {config.backbone} has stages of shape {shapes} at strides {strides}, expected "
            f"{expected}, the strides growing from {FINEST_STRIDE}; choose a network with such stages, e.g. resnet50, "
            "mobilenetv2_100, convnext_tiny"
        )


def _copy_weights(whole: nn.Module, stages: nn.Module) -> None:
    """Copy a network's weights into the same network as timm takes its stages apart: `a.b.c` may be called `a_b.c`."""
    source = whole.state_dict()
    renamed = {name.replace(".", "_", 1): value for name, value in source.items()}
    own = stages.state_dict()
    stages.load_state_dict({name: source.get(name, renamed.get(name, cast(Tensor, None))) for name in own})
