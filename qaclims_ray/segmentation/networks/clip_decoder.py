"""A light decoder on a frozen CLIP's image tower: the final network of the `online` systems (WeCLIP's plan).

What every block of the tower gives for every patch goes through a small MLP of its own; side by side they go through
one convolution, a few transformer layers and a classifier. The decoder alone is trained. Written from descriptions of
"Frozen CLIP: A Strong Backbone for Weakly Supervised Semantic Segmentation" (CVPR 2024, arXiv 2406.11189).
"""

from collections.abc import Iterator, Mapping
from typing import Any, Literal

import torch
import torch.nn.functional as F
from jaxtyping import Float, UInt8
from open_clip.transformer import VisionTransformer
from timm.models.vision_transformer import Block
from torch import Tensor, nn

from qaclims_ray.models.clip.patch_features import block_tokens
from qaclims_ray.models.clip.tower import build_tower, describe_tower
from qaclims_ray.segmentation.config import SegmentationNetConfig

TRANSFORMER_LAYERS = 3
"""Transformer layers of the decoder, as published."""
_HEAD_WIDTH = 32
"""Channels of an attention head of the decoder."""


class TokenDecoder(nn.Module):
    """From what a tower's blocks give for every patch to each patch's logits; the part that is trained."""

    def __init__(self, num_blocks: int, tower_width: int, *, width: int, num_labels: int) -> None:
        """Make fresh weights.

        Args:
            num_blocks: of the tower.
            tower_width: channels of its tokens.
            width: channels of the decoder.
            num_labels: K + 1.
        """
        super().__init__()
        self.mlps = nn.ModuleList(
            nn.Sequential(nn.LayerNorm(tower_width), nn.Linear(tower_width, width), nn.GELU(), nn.Linear(width, width))
            for _ in range(num_blocks)
        )
        self.join = nn.Linear(num_blocks * width, width)  # a 1x1 convolution: patches are tokens here
        self.blocks = nn.ModuleList(
            Block(width, max(1, width // _HEAD_WIDTH), qkv_bias=True) for _ in range(TRANSFORMER_LAYERS)
        )
        self.norm = nn.LayerNorm(width)
        self.classifier = nn.Linear(width, num_labels)

    def forward(
        self, tokens: Float[Tensor, "batch block patch tower_width"]
    ) -> tuple[Float[Tensor, "batch patch label"], Float[Tensor, "batch patch width"]]:
        """Return logits, and the joined features, of which the affinity of patches is made."""
        joined = self.join(torch.cat([mlp(tokens[:, index]) for index, mlp in enumerate(self.mlps)], dim=2))
        decoded = joined
        for block in self.blocks:
            decoded = block(decoded)
        return self.classifier(self.norm(decoded)), joined


class ClipDecoder(nn.Module):
    """Frozen image tower and decoder; follows `segmentation.networks.network.SegmentationNetwork`."""

    supervision: Literal["dense"] = "dense"
    spread: Tensor
    """Of the step from the images' normalisation to the tower's."""
    shift: Tensor
    """Of the same."""

    def __init__(
        self, tower: VisionTransformer, config: SegmentationNetConfig, num_labels: int, *, mean: Any, std: Any
    ) -> None:
        """Make a fresh decoder on a tower.

        Args:
            tower: image tower (`describe_tower`).
            config: width of the decoder, and the normalisation of the images that the network is given.
            num_labels: K + 1.
            mean: of the tower's own normalisation, on the 0-1 scale.
            std: of the same.
        """
        super().__init__()
        self.config, self.num_labels = config, num_labels
        self.description = describe_tower(tower)
        self.tower = tower.requires_grad_(False).eval()
        self.decoder = TokenDecoder(
            len(tower.transformer.resblocks), tower.conv1.out_channels, width=config.width, num_labels=num_labels
        )
        own = torch.tensor([config.image_mean, config.image_std], dtype=torch.float64)
        towers = torch.tensor([list(mean), list(std)], dtype=torch.float64)
        # From the images' normalisation to the tower's: (x s + m - m') / s'.
        self.register_buffer("spread", (own[1] / towers[1]).float())
        self.register_buffer("shift", ((own[0] - towers[0]) / towers[1]).float())

    @property
    def patch_px(self) -> int:
        """Side of a patch in pixels."""
        return int(self.tower.conv1.kernel_size[0])

    def train(self, mode: bool = True) -> "ClipDecoder":
        """Train the decoder; the tower stays in evaluation mode."""
        super().train(mode)
        self.tower.eval()
        return self

    def tower_pixels(self, image: Float[Tensor, "batch 3 height width"]) -> Float[Tensor, "batch 3 rows_px columns_px"]:
        """Return images as the tower takes them: normalised its way, filled up with their mean to whole patches."""
        bottom, right = (-side % self.patch_px for side in image.shape[2:])
        filled = F.pad(image, (0, right, 0, bottom))
        return filled * self.spread[:, None, None] + self.shift[:, None, None]

    def forward(
        self, image: Float[Tensor, "batch 3 height width"], labels: UInt8[Tensor, "batch height width"] | None = None
    ) -> Float[Tensor, "batch label height width"] | tuple[Float[Tensor, "batch label height width"], ...]:
        """Return logits at the image's size, enlarged from a cell per patch; with labels a tuple of one."""
        height, width = image.shape[2:]
        pixels = self.tower_pixels(image)
        grid = (pixels.shape[2] // self.patch_px, pixels.shape[3] // self.patch_px)
        logits, _ = self.decoder(block_tokens(self.tower, pixels))
        cells = logits.transpose(1, 2).unflatten(2, grid)
        found = F.interpolate(cells.float(), size=pixels.shape[2:], mode="bilinear", align_corners=False)
        found = found[:, :, :height, :width]
        return found if labels is None else (found,)

    def backbone_parameters(self) -> Iterator[nn.Parameter]:
        """Yield the tower's, which do not learn."""
        return self.tower.parameters()

    def head_parameters(self) -> Iterator[nn.Parameter]:
        """Yield the decoder's."""
        return self.decoder.parameters()


def rebuild_clip_decoder(config: SegmentationNetConfig, described: Mapping[str, Any]) -> ClipDecoder:
    """Make a network of random weights, to be filled from the folder that holds it.

    Args:
        config: its settings.
        described: the rest of ``network.json``.
    """
    # Its buffers come from the folder too.
    return ClipDecoder(
        build_tower(described), config, described["num_labels"], mean=config.image_mean, std=config.image_std
    )
