"""How much the patches of an image attend to each other in a frozen CLIP: its own attention, averaged over blocks."""

from typing import Any

import torch
from jaxtyping import Float
from open_clip.transformer import VisionTransformer
from torch import Tensor

from qaclims_ray.models.clip.mask_tokens import run_block
from qaclims_ray.models.clip.patch_features import patch_tokens, queries_keys_values


def mean_attention(
    visual: VisionTransformer, pixels: Float[Tensor, "image 3 height width"], *, num_blocks: int
) -> Float[Tensor, "image cell other_cell"]:
    """Return the mean attention over heads and the last blocks, between patches alone.

    The class token takes part in the attention and is left out of what is returned, so that a row sums to less than
    one.

    Args:
        visual: image tower (`check_patch_features`).
        pixels: normalised pixels; sides are whole numbers of patches, and need not be the tower's own.
        num_blocks: last blocks that are averaged; at most all there are.
    """
    blocks: list[Any] = list(visual.transformer.resblocks)
    first = max(0, len(blocks) - num_blocks)
    tokens, _ = patch_tokens(visual, pixels)
    attention = tokens.new_zeros(len(tokens), tokens.shape[1] - 1, tokens.shape[1] - 1, dtype=torch.float32)
    for index, block in enumerate(blocks):
        if index >= first:
            queries, keys, _ = queries_keys_values(block, tokens)
            weights = (queries @ keys.transpose(2, 3) * queries.shape[-1] ** -0.5).float().softmax(-1)
            attention += weights.mean(1)[:, 1:, 1:]
        if index < len(blocks) - 1:
            tokens = run_block(visual, block, tokens)
    return attention / (len(blocks) - first)
