"""A plain ViT from timm with one class token per class, which also gives its attention maps: WeakTr's backbone."""

import math
from typing import TYPE_CHECKING, Any

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from qaclims_ray.errors import ConfigError
from qaclims_ray.models.backbone import create_backbone, load_backbone_weights
from qaclims_ray.models.generators.config import CamNetConfig
from qaclims_ray.models.resampling import SideLength, stretched_positions

if TYPE_CHECKING:  # convolutional networks do without timm, which takes seconds
    from timm.models.vision_transformer import VisionTransformer

MINIATURE_VIT = "miniature_vit"
"""Backbone name of the miniature world's small transformer."""
_MINIATURE_PATCH_PX = 8
_BLOCK_PARTS = ("norm1", "attn.qkv", "attn.proj", "norm2", "mlp.fc1", "mlp.fc2")
_OPTIONAL_PARAMETERS = ("patch_embed.proj.bias", "norm_pre.weight", "norm_pre.bias")
_UNUSED_PARTS = ("norm.", "fc_norm.")


class ClassTokenVit(nn.Module):
    """A timm ViT's patches and blocks with several class tokens, which start as copies of its own.

    The final norm is left out, because WeakTr takes the tokens before it.
    """

    def __init__(self, vit: "VisionTransformer", num_tokens: int) -> None:
        """Take a plain ViT apart.

        Args:
            vit: gives patch embedding, positions and blocks.
            num_tokens: class tokens.
        """
        super().__init__()
        assert vit.cls_token is not None and vit.pos_embed is not None, "a plain ViT"
        positions = vit.pos_embed.detach()[0]
        self.patches = vit.patch_embed.proj
        self.first_norm = vit.norm_pre
        self.blocks = vit.blocks
        self.class_token = nn.Parameter(vit.cls_token.detach()[0].repeat(num_tokens, 1))  # (token, dim)
        self.class_position = nn.Parameter(positions[:1].repeat(num_tokens, 1))  # (token, dim)
        self.patch_position = nn.Parameter(positions[1:].clone())  # (patch, dim)

    @property
    def patch_px(self) -> int:
        """Side of a patch in pixels."""
        return int(self.patches.stride[0])

    def forward(
        self, image: Float[Tensor, "batch 3 height width"]
    ) -> tuple[
        Float[Tensor, "batch token dim"],
        list[Float[Tensor, "batch head token token"]],
        list[Float[Tensor, "batch token dim"]],
    ]:
        """Return the last tokens (class tokens first), and each layer's attention maps and attention outputs.

        Args:
            image: normalised, of whole patches.
        """
        grid = self.patches(image)  # (batch, dim, cam_height, cam_width)
        positions = interpolate_positions(self.patch_position, (grid.shape[2], grid.shape[3]))
        class_tokens = (self.class_token + self.class_position).expand(image.shape[0], -1, -1)
        tokens = self.first_norm(torch.cat([class_tokens, grid.flatten(2).transpose(1, 2) + positions], dim=1))
        attention, features = [], []
        for block in self.blocks:
            tokens, weights, output = _run_block(block, tokens)
            attention.append(weights)
            features.append(output)
        return tokens, attention, features


def build_vit(config: CamNetConfig) -> "VisionTransformer":
    """Make the ViT that `ClassTokenVit` takes apart, pretrained if weights are named.

    Args:
        config: backbone, its pretrained weights, image size, patch size, stochastic depth.

    Raises:
        ConfigError: for an unknown backbone, one that is no plain ViT, or another patch size.
        ModelError: when the weights are absent, broken or do not fit.
    """
    vit = _miniature_vit(config) if config.backbone == MINIATURE_VIT else _timm_vit(config)
    if config.weights and config.weights != "timm":
        load_backbone_weights(vit, config.weights)
    return vit


def interpolate_positions(
    positions: Float[Tensor, "patch dim"], grid: tuple[SideLength, SideLength]
) -> Float[Tensor, "cell dim"]:
    """Resize position embeddings of a square grid of patches to another grid, bicubic.

    The released code resizes by the factor (cells + 0.1) / side, so that rounding loses no cell. The factor also says
    where the samples lie, so it is kept here.

    Args:
        positions: row by row.
        grid: new height and width in patches.
    """
    if torch.compiler.is_compiling():  # on its way to ONNX: a graph for any grid
        return stretched_positions(positions, grid)
    side = math.isqrt(len(positions))
    if grid == (side, side):
        return positions
    square = positions.T.unflatten(1, (side, side))[None]  # (1, dim, side, side)
    factors = [float((cells + 0.1) / side) for cells in grid]
    resized = F.interpolate(square, scale_factor=factors, mode="bicubic", align_corners=False)
    assert tuple(resized.shape[2:]) == grid
    return resized[0].flatten(1).T


def _run_block(block: Any, tokens: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Run a timm block and return its tokens, its attention maps and the attention's output."""
    # Nothing else is in such a block: `_is_plain` refuses ViTs with more parts.
    attention = block.attn
    qkv = attention.qkv(block.norm1(tokens)).unflatten(2, (3, attention.num_heads, -1))
    query, key, value = qkv.permute(2, 0, 3, 1, 4)  # (batch, head, token, channel) each
    # Written out: timm's fused attention does not hand out its maps.
    weights = (query * attention.scale @ key.transpose(2, 3)).softmax(dim=-1)
    output = attention.proj((weights @ value).transpose(1, 2).flatten(2))  # (batch, token, dim)
    tokens = tokens + block.drop_path1(output)
    tokens = tokens + block.drop_path2(block.mlp(block.norm2(tokens)))
    return tokens, weights, output


def _miniature_vit(config: CamNetConfig) -> "VisionTransformer":
    """Make the small ViT, built like the image tower of the miniature CLIP so that it can start from its weights."""
    if config.weights == "timm" or config.output_stride != _MINIATURE_PATCH_PX:
        raise ConfigError(
            "cam_net.backbone miniature_vit has patches of 8 pixels and no pretrained weights in timm; set "
            'cam_net.output_stride 8, cam_net.weights "" or the file of the miniature CLIP'
        )
    from timm.layers.activations import QuickGELU
    from timm.models.vision_transformer import VisionTransformer

    return VisionTransformer(
        img_size=config.image_size,
        patch_size=_MINIATURE_PATCH_PX,
        embed_dim=96,
        depth=4,
        num_heads=4,
        pre_norm=True,
        act_layer=QuickGELU,
        num_classes=0,
        drop_path_rate=config.drop_path,
    )


def _timm_vit(config: CamNetConfig) -> "VisionTransformer":
    from timm.models.vision_transformer import VisionTransformer

    vit = create_backbone(
        config,
        chosen=f"image size {config.image_size} and stochastic depth",
        expected="a plain ViT for generator weaktr, e.g. deit_small_patch16_224",
        img_size=config.image_size,
        drop_path_rate=config.drop_path,
    )
    if type(vit) is not VisionTransformer or not _is_plain(vit):
        raise ConfigError(
            f"{config.backbone} is no plain ViT with one class token and positions for it and every patch; choose "
            "e.g. deit_small_patch16_224, vit_tiny_patch16_224"
        )
    patch_px = vit.patch_embed.proj.stride[0]
    if patch_px != config.output_stride:
        raise ConfigError(
            f"{config.backbone} has patches of {patch_px} pixels, but cam_net.output_stride is "
            f"{config.output_stride}; set it to {patch_px}"
        )
    return vit


def _is_plain(vit: "VisionTransformer") -> bool:
    """Whether the forward pass here is all that the ViT's parameters take part in (a norm before the blocks may be)."""
    parts = {f"blocks.{index}.{part}" for index in range(len(vit.blocks)) for part in _BLOCK_PARTS}
    needed = {f"{part}.{kind}" for part in parts for kind in ("weight", "bias")}
    needed |= {"cls_token", "pos_embed", "patch_embed.proj.weight"}
    found = {name for name, _ in vit.named_parameters() if not name.startswith(_UNUSED_PARTS)}
    if not needed <= found <= needed | set(_OPTIONAL_PARAMETERS) or vit.pos_embed is None:
        return False
    return vit.pos_embed.shape[1] == vit.patch_embed.num_patches + 1
