"""What a frozen CLIP says of every patch of an image, without training: self-correlation in place of attention.

CLIP's class token is trained to match texts, its patches are not: their attention spreads what it finds over the whole
image, and the last block's feed-forward part moves them off the joint space. So the last block is taken without its
feed-forward part and its residual, and its values are gathered by how alike patches are, in queries, keys and values
of the last blocks (ExCEL, arXiv 2503.20826, static part; ClearCLIP, arXiv 2407.12442, for the last block).

Works on any `open_clip` VisionTransformer that pools its class token, at any image size.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from jaxtyping import Float
from open_clip.transformer import VisionTransformer
from torch import Tensor, nn

from qaclims_ray.errors import ModelError
from qaclims_ray.models.clip.mask_tokens import run_block
from qaclims_ray.models.resampling import SideLength, bicubic_positions


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


@dataclass(frozen=True)
class PatchLook:
    """What a CLIP says of the patches of some images, and which of them belong together."""

    tokens: Float[Tensor, "image block patch tower_width"]
    """What every block gives for every patch, in reading order."""
    features: Float[Tensor, "image dim row column"]
    """See `patch_features`."""
    affinity: Float[Tensor, "image patch patch"]
    """How alike patches are in queries, keys and values, mean over heads and over the last blocks; rows sum to 1."""


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
    tokens, grid = patch_tokens(visual, pixels)
    into = [tokens]  # what each block is given
    for block in blocks[:-1]:
        into.append(run_block(visual, block, into[-1]))
    return _joint_features(visual, into, grid, num_blocks)[0]


def look_at_patches(
    visual: VisionTransformer, pixels: Float[Tensor, "image 3 height width"], *, num_blocks: int
) -> PatchLook:
    """Return what `patch_features` and `block_tokens` do, by one pass, and the affinity of patches; see there."""
    tokens, grid = patch_tokens(visual, pixels)
    steps = [tokens, *_through(visual, tokens)]
    features, related = _joint_features(visual, steps[:-1], grid, num_blocks)
    # Without the class token, which is no place in the image.
    affinity = related.float().mean(1)[:, 1:, 1:]
    affinity = affinity / affinity.sum(2, keepdim=True)
    return PatchLook(torch.stack([step[:, 1:] for step in steps[1:]], dim=1), features, affinity)


def block_tokens(
    visual: VisionTransformer, pixels: Float[Tensor, "image 3 height width"]
) -> Float[Tensor, "image block patch tower_width"]:
    """Return what every block gives for every patch, in reading order.

    Args:
        visual: image tower (`check_patch_features`).
        pixels: see `patch_features`.
    """
    tokens, _ = patch_tokens(visual, pixels)
    return torch.stack([step[:, 1:] for step in _through(visual, tokens)], dim=1)


def _through(visual: VisionTransformer, tokens: Tensor) -> Iterator[Tensor]:
    for block in visual.transformer.resblocks:
        tokens = run_block(visual, block, tokens)
        yield tokens


def _joint_features(
    visual: VisionTransformer, into: list[Tensor], grid: tuple[SideLength, SideLength], num_blocks: int
) -> tuple[Tensor, Tensor]:
    """Return features as of `patch_features`, and the mean self-correlation (image, head, token, token).

    Args:
        visual: image tower.
        into: what each block is given.
        grid: rows and columns of patches.
        num_blocks: last blocks whose self-correlations are averaged.
    """
    blocks: list[Any] = list(visual.transformer.resblocks)
    first = max(0, len(blocks) - num_blocks)
    alike, values = torch.zeros((), device=into[0].device, dtype=into[0].dtype), into[0]
    for index in range(first, len(blocks)):
        queries, keys, values = queries_keys_values(blocks[index], into[index])
        alike = alike + (_alike(queries) + _alike(keys) + _alike(values)) / 3  # one matrix of pairs, not one a block
    alike = alike / (len(blocks) - first)
    gathered = alike @ values  # (image, head, token, head_dim)
    merged = blocks[-1].attn.out_proj(gathered.transpose(1, 2).flatten(2))
    features = visual.ln_post(blocks[-1].ls_1(merged))[:, 1:] @ visual.proj
    features = F.normalize(features.float(), dim=-1)
    return features.transpose(1, 2).unflatten(2, grid), alike


def patch_tokens(
    visual: VisionTransformer, pixels: Float[Tensor, "image 3 height width"]
) -> tuple[Float[Tensor, "image token width_token"], tuple[SideLength, SideLength]]:
    """Return what the first block is given, the class token first, and the grid of patches.

    Args:
        visual: image tower (`check_patch_features`).
        pixels: normalised pixels; sides are whole numbers of patches. Positions are stretched to them.
    """
    cells = visual.conv1(pixels)
    rows, columns = cells.shape[2], cells.shape[3]
    own_rows, own_columns = visual.grid_size
    of_class, of_patches = visual.positional_embedding[:1], visual.positional_embedding[1:]
    if torch.compiler.is_compiling():  # on its way to ONNX: a graph for any grid
        of_patches = bicubic_positions(of_patches, (rows, columns))
    elif (rows, columns) != (own_rows, own_columns):
        grid = of_patches.float().T.unflatten(1, (own_rows, own_columns))[None]
        grid = F.interpolate(grid, (rows, columns), mode="bicubic", align_corners=False)
        of_patches = grid[0].flatten(1).T.to(of_class.dtype)
    class_token = visual.class_embedding.to(cells.dtype).expand(pixels.shape[0], 1, -1)
    tokens = torch.cat([class_token, cells.flatten(2).transpose(1, 2)], dim=1)
    return visual.ln_pre(tokens + torch.cat([of_class, of_patches]).to(tokens.dtype)), (rows, columns)


def queries_keys_values(block: Any, tokens: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Return queries, keys and values of a block, (image, head, token, head_dim) each."""
    attention = block.attn
    packed = F.linear(block.ln_1(tokens), attention.in_proj_weight, attention.in_proj_bias)
    parts = packed.unflatten(2, (3, attention.num_heads, -1)).permute(2, 0, 3, 1, 4)
    return parts[0], parts[1], parts[2]


def _alike(part: Tensor) -> Tensor:
    """Return how much each token of a head takes of the others that are like it; rows sum to 1."""
    return (part @ part.transpose(2, 3) * part.shape[-1] ** -0.5).softmax(-1)
