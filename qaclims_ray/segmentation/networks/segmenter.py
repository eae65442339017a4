"""Segmenter: a plain ViT and a mask transformer (Strudel et al. 2021, arXiv 2105.05633), WeakTr's final network.

Patch tokens and one learned token per label go through a few more transformer blocks; the mask of a label is the
product of its token and the patches' tokens, both of length 1.
"""

from collections.abc import Iterator
from typing import Any, Literal

import torch
import torch.nn.functional as F
from jaxtyping import Float, UInt8
from timm.layers.pos_embed import resample_abs_pos_embed
from timm.models.vision_transformer import Block, VisionTransformer
from torch import Tensor, nn

from qaclims_ray.errors import ConfigError
from qaclims_ray.models.backbone import create_backbone, load_backbone_weights
from qaclims_ray.models.class_token_vit import MINIATURE_VIT, build_vit
from qaclims_ray.models.generators.config import CamNetConfig
from qaclims_ray.models.resampling import SideLength, smooth_positions
from qaclims_ray.segmentation.config import SegmentationNetConfig

_DROP_PATH = 0.1
"""Stochastic depth of the encoder (section 4.1 of the paper, which finds that dropout hurts)."""
DECODER_BLOCKS = 2
_MINIATURE_PATCH_PX = 8
_INIT_STD = 0.02


class MaskTransformer(nn.Module):
    """The decoder: label tokens and patch tokens attend to each other and give a mask per label."""

    def __init__(self, num_labels: int, *, dim: int, heads: int) -> None:
        """Make fresh weights.

        Args:
            num_labels: K + 1, or K without a background.
            dim: width of tokens, the encoder's.
            heads: of a block, as many as the encoder's.
        """
        super().__init__()
        self.project_in = nn.Linear(dim, dim)
        self.label_tokens = nn.Parameter(torch.randn(num_labels, dim) * _INIT_STD)
        self.blocks = nn.ModuleList(Block(dim, heads, qkv_bias=True) for _ in range(DECODER_BLOCKS))
        self.norm = nn.LayerNorm(dim)
        self.project_patches = nn.Linear(dim, dim, bias=False)
        self.project_labels = nn.Linear(dim, dim, bias=False)
        self.mask_norm = nn.LayerNorm(num_labels)
        self.apply(_init_linear)
        for projection in (self.project_patches, self.project_labels):
            nn.init.normal_(projection.weight, std=dim**-0.5)

    def forward(self, patches: Float[Tensor, "batch patch dim"]) -> Float[Tensor, "batch patch label"]:
        """Return each patch's logits."""
        labels = self.label_tokens.expand(patches.shape[0], -1, -1)
        tokens = torch.cat([self.project_in(patches), labels], dim=1)
        for block in self.blocks:
            tokens = block(tokens)
        tokens = self.norm(tokens)
        num_patches = patches.shape[1]
        cells = F.normalize(self.project_patches(tokens[:, :num_patches]), dim=-1)
        queries = F.normalize(self.project_labels(tokens[:, num_patches:]), dim=-1)
        return self.mask_norm(cells @ queries.transpose(1, 2))


class Segmenter(nn.Module):
    """Plain ViT and mask transformer; follows `segmentation_network.SegmentationNetwork`."""

    supervision: Literal["dense", "sets"] = "dense"

    def __init__(self, encoder: VisionTransformer, decoder: MaskTransformer, config: SegmentationNetConfig) -> None:
        super().__init__()
        self.encoder = encoder
        self.decoder = decoder
        self.config = config
        self.num_labels = len(decoder.label_tokens)

    @property
    def patch_px(self) -> int:
        """Side of a patch in pixels."""
        return int(self.encoder.patch_embed.proj.stride[0])

    def forward(
        self, image: Float[Tensor, "batch 3 height width"], labels: UInt8[Tensor, "batch height width"] | None = None
    ) -> Float[Tensor, "batch label out_height out_width"] | tuple[Float[Tensor, "batch label height width"], ...]:
        """Return logits, a cell per patch; in training (labels given) one map of the image's size, as published.

        An image of incomplete patches is padded with zeros (the mean colour). Its logits come in its own size also
        at test time, since no whole number of cells covers it.
        """
        height, width = image.shape[2:]
        bottom, right = (-side % self.patch_px for side in (height, width))
        padded = F.pad(image, (0, right, 0, bottom))
        grid = (padded.shape[2] // self.patch_px, padded.shape[3] // self.patch_px)
        logits = self.decoder(self._encode(padded)).transpose(1, 2).unflatten(2, grid)
        # A graph on its way to ONNX takes the second way for any size: enlarged twice or once, it is the same.
        if labels is None and not torch.compiler.is_compiling() and not (bottom or right):
            return logits
        upsampled = F.interpolate(logits.float(), size=padded.shape[2:], mode="bilinear", align_corners=False)
        upsampled = upsampled[:, :, :height, :width]
        return upsampled if labels is None else (upsampled,)

    def backbone_parameters(self) -> Iterator[nn.Parameter]:
        """Yield what may come pretrained."""
        return self.encoder.parameters()

    def head_parameters(self) -> Iterator[nn.Parameter]:
        """Yield what is new: the mask transformer."""
        return self.decoder.parameters()

    def _encode(self, image: Tensor) -> Tensor:
        """Return the patches' tokens after the final norm; position embeddings are interpolated to the image."""
        vit = self.encoder
        assert vit.cls_token is not None and vit.pos_embed is not None, "checked by build_segmenter"
        grid = vit.patch_embed.proj(image)  # (batch, dim, grid_height, grid_width)
        tokens = torch.cat([vit.cls_token.expand(image.shape[0], -1, -1), grid.flatten(2).transpose(1, 2)], dim=1)
        tokens = tokens + _positions(vit.pos_embed, (grid.shape[2], grid.shape[3]))
        tokens = vit.norm(vit.blocks(vit.norm_pre(tokens)))
        return tokens[:, 1:]


def _positions(stored: Tensor, grid: tuple[SideLength, SideLength]) -> Tensor:
    """Return position embeddings of the class token and of a grid of patches."""
    if torch.compiler.is_compiling():  # on its way to ONNX: a graph for any grid
        return torch.cat([stored[:, :1], smooth_positions(stored[0, 1:], grid)[None]], dim=1)
    return resample_abs_pos_embed(stored, [int(side) for side in grid], num_prefix_tokens=1)


def build_segmenter(config: SegmentationNetConfig, num_labels: int) -> Segmenter:
    """Make a network with a fresh decoder and, without pretrained weights, a fresh encoder (global generator).

    Args:
        config: backbone, its initial weights ("timm", a local file; "random" or empty for none), image size.
        num_labels: K + 1, or K without a background.

    Raises:
        ConfigError: for an unknown backbone, one that is no plain ViT, or an image size of incomplete patches.
        ModelError: when the weights are absent, broken or do not fit.
    """
    vit = _miniature_vit(config) if config.backbone == MINIATURE_VIT else _timm_vit(config)
    if config.weights not in ("", "random", "timm"):
        load_backbone_weights(vit, config.weights, setting="segmentation.net.weights")
    blocks: list[Any] = list(vit.blocks)
    decoder = MaskTransformer(num_labels, dim=vit.num_features, heads=blocks[0].attn.num_heads)
    return Segmenter(vit, decoder, config)


def _miniature_vit(config: SegmentationNetConfig) -> VisionTransformer:
    if config.weights == "timm":
        raise ConfigError(
            f"segmentation.net.backbone {MINIATURE_VIT} has no pretrained weights in timm; set "
            'segmentation.net.weights "random" or a local file'
        )
    _check_image_size(config, _MINIATURE_PATCH_PX)
    sizes = CamNetConfig(
        generator="weaktr",
        backbone=MINIATURE_VIT,
        output_stride=_MINIATURE_PATCH_PX,
        image_size=config.image_size,
        drop_path=_DROP_PATH,
    )
    return build_vit(sizes)


def _timm_vit(config: SegmentationNetConfig) -> VisionTransformer:
    vit = create_backbone(
        config,
        chosen=f"image size {config.image_size} and stochastic depth",
        expected="a plain ViT for segmenter, e.g. deit_small_patch16_224",
        img_size=config.image_size,
        drop_path_rate=_DROP_PATH,
    )
    if type(vit) is not VisionTransformer or not _is_plain(vit):
        raise ConfigError(
            f"segmentation.net.backbone {config.backbone} is no plain ViT with one class token and positions for it "
            "and every patch; choose e.g. deit_small_patch16_224, vit_tiny_patch16_224"
        )
    _check_image_size(config, int(vit.patch_embed.proj.stride[0]))
    return vit


def _check_image_size(config: SegmentationNetConfig, patch_px: int) -> None:
    if config.image_size % patch_px:
        raise ConfigError(
            f"segmentation.net.image_size is {config.image_size}, but {config.backbone} has patches of {patch_px} "
            f"pixels; choose a multiple of {patch_px}"
        )


def _is_plain(vit: VisionTransformer) -> bool:
    """Whether the forward pass here is all that the ViT's parameters take part in."""
    used = ("cls_token", "pos_embed", "patch_embed.proj.", "norm_pre.", "blocks.", "norm.")
    if vit.cls_token is None or vit.pos_embed is None or isinstance(vit.norm, nn.Identity):
        return False
    return (
        all(name.startswith(used) for name, _ in vit.named_parameters())
        and vit.pos_embed.shape[1] == vit.patch_embed.num_patches + 1
    )


def _init_linear(module: nn.Module) -> None:
    if isinstance(module, nn.Linear):
        nn.init.trunc_normal_(module.weight, std=_INIT_STD)
        if module.bias is not None:
            nn.init.zeros_(module.bias)
