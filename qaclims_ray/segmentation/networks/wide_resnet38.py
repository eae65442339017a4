"""Wide ResNet-38, model A1 of Wu, Shen and van den Hengel, "Wider or Deeper" (2019), dilated to stride 8 (row D6).

Pre-activation blocks, few and wide. Names are those of the PyTorch conversions of the released ImageNet weights
(conv1a, b2, b2_1, ..., b7, bn7), so that their files load.
"""

import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

NORM_MOMENTUM = 3e-4
"""Of batch norm's statistics, in torch's sense (row D6)."""


class WideResNet38(nn.Module):
    """Features at stride 8; blocks 5 to 7, which stride in the classifier of images, dilate instead."""

    num_features = 4096

    def __init__(self) -> None:
        super().__init__()
        # A file's classifier of 1000 classes stays out, see `load_backbone_weights`.
        self.default_cfg = {"classifier": ("linear1000", "fc8", "f8")}
        self.conv1a = nn.Conv2d(3, 64, 3, padding=1, bias=False)
        for name, block in _blocks():
            self.add_module(name, block)
        self.bn7 = _norm(self.num_features)
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")

    def forward(self, image: Float[Tensor, "batch 3 height width"]) -> Float[Tensor, "batch 4096 out_height out_width"]:
        """Return features."""
        features = image
        for layer in self.children():  # in the order of construction: conv1a, b2, ..., b7, bn7
            features = layer(features)
        return F.relu(features)


class _Block(nn.Module):
    """Two 3x3 convolutions; the shortcut branches off behind the first norm where its shape changes."""

    def __init__(
        self,
        width_in: int,
        width: int,
        width_out: int,
        *,
        stride: int = 1,
        first_dilation: int = 1,
        dilation: int = 1,
    ) -> None:
        super().__init__()
        self.bn_branch2a = _norm(width_in)
        self.conv_branch2a = nn.Conv2d(width_in, width, 3, stride, first_dilation, first_dilation, bias=False)
        self.bn_branch2b1 = _norm(width)
        self.conv_branch2b1 = nn.Conv2d(width, width_out, 3, 1, dilation, dilation, bias=False)
        self.has_projection = width_in != width_out or stride != 1
        if self.has_projection:
            self.conv_branch1 = nn.Conv2d(width_in, width_out, 1, stride, bias=False)

    def forward(self, features: Tensor) -> Tensor:
        active = F.relu(self.bn_branch2a(features))
        shortcut = self.conv_branch1(active) if self.has_projection else features
        return shortcut + self.conv_branch2b1(F.relu(self.bn_branch2b1(self.conv_branch2a(active))))


class _WideBottleneck(nn.Module):
    """1x1, dilated 3x3 and 1x1 convolution; whole channels drop out before the last two."""

    def __init__(self, width_in: int, width_out: int, *, dilation: int, dropout: float) -> None:
        super().__init__()
        self.bn_branch2a = _norm(width_in)
        self.conv_branch2a = nn.Conv2d(width_in, width_out // 4, 1, bias=False)
        self.bn_branch2b1 = _norm(width_out // 4)
        self.conv_branch2b1 = nn.Conv2d(width_out // 4, width_out // 2, 3, 1, dilation, dilation, bias=False)
        self.bn_branch2b2 = _norm(width_out // 2)
        self.conv_branch2b2 = nn.Conv2d(width_out // 2, width_out, 1, bias=False)
        self.conv_branch1 = nn.Conv2d(width_in, width_out, 1, bias=False)
        self.dropout = nn.Dropout2d(dropout)

    def forward(self, features: Tensor) -> Tensor:
        active = F.relu(self.bn_branch2a(features))
        hidden = self.dropout(F.relu(self.bn_branch2b1(self.conv_branch2a(active))))
        hidden = self.dropout(F.relu(self.bn_branch2b2(self.conv_branch2b1(hidden))))
        return self.conv_branch1(active) + self.conv_branch2b2(hidden)


def _norm(width: int) -> nn.BatchNorm2d:
    return nn.BatchNorm2d(width, momentum=NORM_MOMENTUM)


def _blocks() -> list[tuple[str, nn.Module]]:
    """Return the blocks with their names, in order."""
    stages = (
        [_Block(64, 128, 128, stride=2), *(_Block(128, 128, 128) for _ in range(2))],
        [_Block(128, 256, 256, stride=2), *(_Block(256, 256, 256) for _ in range(2))],
        [_Block(256, 512, 512, stride=2), *(_Block(512, 512, 512) for _ in range(5))],
        # The first convolution of block 5 was the one that strode: only what follows it dilates.
        [
            _Block(512, 512, 1024, dilation=2),
            *(_Block(1024, 512, 1024, first_dilation=2, dilation=2) for _ in range(2)),
        ],
        [_WideBottleneck(1024, 2048, dilation=4, dropout=0.3)],
        [_WideBottleneck(2048, 4096, dilation=4, dropout=0.5)],
    )
    return [
        (f"b{number}" + (f"_{index}" if index else ""), block)
        for number, stage in enumerate(stages, start=2)
        for index, block in enumerate(stage)
    ]
