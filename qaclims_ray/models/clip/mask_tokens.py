"""The image tower of a mask-adapted CLIP: a vision transformer whose off patches are replaced by learned tokens.

Used by the text-contrast stage of QA-CLIMS, whose reported setting is the mask-adapted CLIP of OVSeg. The semantics
are those of the released code (third_party/CLIP/clip/model.py): a patch is on if any pixel of its mask is on; mask
embedding 0 replaces the patch embeddings of off patches before the class token and the position embedding are added;
mask embeddings 1, 2, ... replace their tokens after blocks 1, 2, ...

Works on any `open_clip` VisionTransformer; all regions go through in one batch.
"""

import torch
import torch.nn.functional as F
from jaxtyping import Float
from open_clip.transformer import VisionTransformer
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from qaclims_ray.errors import ModelError


def patches_on(
    token_mask: Float[Tensor, "region 1 height width"], patch_size: tuple[int, int]
) -> Float[Tensor, "region patch 1"]:
    """Say which patches hold at least one pixel of a binary mask, 1 or 0, row by row.

    The released code takes the mean of every patch and rounds up; on a binary mask the maximum is the same and does
    not suffer from rounding.
    """
    return F.max_pool2d(token_mask, patch_size, patch_size).flatten(1).unsqueeze(-1)


def check_mask_adaptable(visual: nn.Module, mask_embedding: Tensor) -> None:
    """Refuse an image tower or mask tokens that cannot work together.

    Args:
        visual: the image tower of an `open_clip` model.
        mask_embedding: learned tokens, expected (depth, patch, width).

    Raises:
        ModelError: the tower is no vision transformer, drops patches, or has another number of patches, width or
            too few blocks.
    """
    if not isinstance(visual, VisionTransformer):
        raise ModelError(
            f"a token mask needs a vision transformer, this model's image tower is a {type(visual).__name__}. "
            "Use a ViT model, or the pixel mask."
        )
    if not isinstance(visual.patch_dropout, nn.Identity):
        raise ModelError("this model drops patches at random, so mask tokens have no fixed place; set patch_dropout: 0")
    num_patches = len(visual.positional_embedding) - 1
    width, num_blocks = visual.class_embedding.shape[0], len(visual.transformer.resblocks)
    shape = tuple(mask_embedding.shape)
    if len(shape) != 3 or shape[0] < 1 or shape[0] > num_blocks or shape[1:] != (num_patches, width):
        raise ModelError(
            f"mask tokens have shape {shape}, expected (depth, {num_patches}, {width}) with depth 1..{num_blocks} for "
            f"this image tower ({visual.image_size} pixels). Take tokens and tower from the "
            "same model."
        )


def encode_masked_image(
    visual: VisionTransformer,
    mask_embedding: Float[Tensor, "depth patch width_token"],
    pixels: Float[Tensor, "region 3 height width"],
    token_mask: Float[Tensor, "region 1 height width"],
) -> Float[Tensor, "region dim"]:
    """Embed regions with a token mask.

    Args:
        visual: vision transformer of `open_clip`; its patch dropout must be off.
        mask_embedding: tokens of off patches; `mask_embedding[i]` is used after block i (0: before all blocks).
        pixels: normalised pixels, of the tower's own size.
        token_mask: binary, 1 where a pixel belongs to the region. Carries no gradient.

    Returns:
        Embeddings, not normalised.
    """
    tokens = visual.conv1(pixels).flatten(2).transpose(1, 2)  # (region, patch, width)
    is_on = patches_on(token_mask.detach(), _patch_size(visual)).to(tokens.dtype)
    tokens = tokens * is_on + mask_embedding[0].to(tokens.dtype) * (1 - is_on)
    class_token = visual.class_embedding.to(tokens.dtype).expand(len(tokens), 1, -1)
    tokens = torch.cat([class_token, tokens], dim=1) + visual.positional_embedding.to(tokens.dtype)
    tokens = visual.ln_pre(tokens)
    for index, block in enumerate(visual.transformer.resblocks, start=1):
        tokens = run_block(visual, block, tokens)
        if index < len(mask_embedding):
            replacement = mask_embedding[index].to(tokens.dtype)
            patches = tokens[:, 1:] * is_on + replacement * (1 - is_on)
            tokens = torch.cat([tokens[:, :1], patches], dim=1)
    # A private method of open_clip, but it pools as this model does: class token, mean or attention.
    pooled, _ = visual._pool(tokens)
    return pooled @ visual.proj.to(pooled.dtype) if visual.proj is not None else pooled


def _patch_size(visual: VisionTransformer) -> tuple[int, int]:
    height, width = visual.conv1.kernel_size
    return height, width


def run_block(visual: VisionTransformer, block: nn.Module, tokens: Tensor) -> Tensor:
    """Run one transformer block on (region, token, width), whatever axis order the tower works in."""
    if not visual.transformer.batch_first:
        return block(tokens.transpose(0, 1)).transpose(0, 1)
    if visual.transformer.grad_checkpointing:
        return checkpoint(block, tokens, use_reentrant=False)
    return block(tokens)
