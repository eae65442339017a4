"""A CLIP's image tower alone, described in a few numbers: it can be built again where the CLIP itself is not."""

from collections.abc import Mapping
from typing import Any

import torch
from open_clip.transformer import QuickGELU, VisionTransformer
from torch import nn

from qaclims_ray.errors import ModelError
from qaclims_ray.models.clip.patch_features import check_patch_features


def describe_tower(visual: VisionTransformer) -> dict[str, int | bool | str]:
    """Return what `build_tower` needs.

    Args:
        visual: image tower of a CLIP.

    Raises:
        ModelError: its patches cannot be looked at, or it has parts that the description does not know.
    """
    check_patch_features(visual)
    block: Any = visual.transformer.resblocks[0]
    patch_px = int(visual.conv1.kernel_size[0])
    described: dict[str, int | bool | str] = {
        "tower_image_px": visual.grid_size[0] * patch_px,
        "tower_patch_px": patch_px,
        "tower_width": int(visual.conv1.out_channels),
        "tower_blocks": len(visual.transformer.resblocks),
        "tower_heads": int(block.attn.num_heads),
        "tower_hidden": int(block.mlp.c_fc.out_features),
        "tower_dim": int(visual.output_dim),
        "tower_quick_gelu": isinstance(block.mlp.gelu, QuickGELU),
    }
    with torch.device("meta"):
        built = build_tower(described)
    expected = {name: value.shape for name, value in built.state_dict().items()}
    found = {name: value.shape for name, value in visual.state_dict().items()}
    if expected != found:
        other = sorted(set(expected.items()) ^ set(found.items()))
        raise ModelError(
            f"this CLIP's image tower differs from OpenAI's in {other[0][0]} and {len(other) - 1} more. Use a model of "
            "OpenAI's kind (ViT-B-16-quickgelu, ViT-L-14-quickgelu)"
        )
    return described


def build_tower(described: Mapping[str, Any]) -> VisionTransformer:
    """Return a tower of random weights, frozen, in evaluation mode.

    Args:
        described: by `describe_tower`; other entries are left alone.
    """
    tower = VisionTransformer(
        image_size=described["tower_image_px"],
        patch_size=described["tower_patch_px"],
        width=described["tower_width"],
        layers=described["tower_blocks"],
        heads=described["tower_heads"],
        mlp_ratio=described["tower_hidden"] / described["tower_width"],
        output_dim=described["tower_dim"],
        act_layer=QuickGELU if described["tower_quick_gelu"] else nn.GELU,
    )
    return tower.requires_grad_(False).eval()
