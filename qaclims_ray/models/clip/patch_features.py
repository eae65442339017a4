"""What a frozen CLIP says of every patch of an image, without training: self-correlation in place of attention.

CLIP's class token is trained to match texts, its patches are not: their attention spreads what it finds over the whole
image, and the last block's feed-forward part moves them off the joint space. So the last block is taken without its
feed-forward part and its residual, and its values are gathered by how alike patches are, in queries, keys and values
of the last blocks (ExCEL, arXiv 2503.20826, static part; ClearCLIP, arXiv 2407.12442, for the last block).

Works on any `open_clip` VisionTransformer that pools its class token, at any image size.
"""

from typing import Any

import torch
import torch.nn.functional as F
from jaxtyping import Float
from open_clip.transformer import VisionTransformer
from torch import Tensor, nn

from qaclims_ray.errors import ModelError
from qaclims_ray.models.clip.mask_tokens import run_block


def check_patch_features(visual: nn.Module) -> None:
    """Refuse an image tower whose patches cannot be looked at.

    Raises:
        ModelError: it is no vision transformer that pools its class token.
    """
    if not isinstance(visual, VisionTransformer):
        raise ModelError(
            f"patches of a CLIP need a vision transformer, this model's image tower is a {type(visual).__name__}. Use "
            "a ViT model"
        )
    if visual.attn_pool is not None or visual.pool_type != "tok" or visual.proj is None:
        raise ModelError(
            "this CLIP does not pool its class token by a projection, so its patches have none into the space of "
            "texts. Use a model of OpenAI's kind (ViT-B-16-quickgelu, ViT-L-14-quickgelu)"
        )


def patch_features(
    visual: VisionTransformer, pixels: Float[Tensor, "image 3 height width"], *, num_blocks: int
) -> Float[Tensor, "image dim row column"]:
    """Embed every patch of some images into the space of texts.

    Args:
        visual: image tower (`check_patch_features`).
        pixels: normalised pixels; sides are whole numbers of patches, and need not be the tower's own.
        num_blocks: last blocks whose self-correlations are averaged; at most all there are.

    Returns:
        L2-normalised features in float32, a vector for each patch.
    """
    blocks: list[Any] = list(visual.transformer.resblocks)
    first = max(0, len(blocks) - num_blocks)
    tokens, (rows, columns) = _tokens(visual, pixels)
    related: list[Tensor] = []
    values = tokens
    for index, block in enumerate(blocks):
        if index >= first:
            queries, keys, values = _heads(block, tokens)
            related.append((_alike(queries) + _alike(keys) + _alike(values)) / 3)
        if index < len(blocks) - 1:
            tokens = run_block(visual, block, tokens)
    gathered = torch.stack(related).mean(0) @ values  # (image, head, token, head_dim)
    merged = blocks[-1].attn.out_proj(gathered.transpose(1, 2).flatten(2))
    features = visual.ln_post(blocks[-1].ls_1(merged))[:, 1:] @ visual.proj
    features = F.normalize(features.float(), dim=-1)
    return features.transpose(1, 2).unflatten(2, (rows, columns))


def _tokens(visual: VisionTransformer, pixels: Tensor) -> tuple[Tensor, tuple[int, int]]:
    """Return (image, token, width), the class token first, and the grid of patches; positions are stretched to it."""
    cells = visual.conv1(pixels)
    rows, columns = int(cells.shape[2]), int(cells.shape[3])
    own_rows, own_columns = visual.grid_size
    of_class, of_patches = visual.positional_embedding[:1], visual.positional_embedding[1:]
    if (rows, columns) != (own_rows, own_columns):
        grid = of_patches.float().T.unflatten(1, (own_rows, own_columns))[None]
        grid = F.interpolate(grid, (rows, columns), mode="bicubic", align_corners=False)
        of_patches = grid[0].flatten(1).T.to(of_class.dtype)
    class_token = visual.class_embedding.to(cells.dtype).expand(len(pixels), 1, -1)
    tokens = torch.cat([class_token, cells.flatten(2).transpose(1, 2)], dim=1)
    return visual.ln_pre(tokens + torch.cat([of_class, of_patches]).to(tokens.dtype)), (rows, columns)


def _heads(block: Any, tokens: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Return queries, keys and values of a block, (image, head, token, head_dim) each."""
    attention = block.attn
    packed = F.linear(block.ln_1(tokens), attention.in_proj_weight, attention.in_proj_bias)
    parts = packed.unflatten(2, (3, attention.num_heads, -1)).permute(2, 0, 3, 1, 4)
    return parts[0], parts[1], parts[2]


def _alike(part: Tensor) -> Tensor:
    """Return how much each token of a head takes of the others that are like it; rows sum to 1."""
    return (part @ part.transpose(2, 3) * part.shape[-1] ** -0.5).softmax(-1)
