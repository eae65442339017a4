"""A tiny vision transformer of open_clip in float64, and its layer norm written out, for slow restatements."""

import open_clip
import torch
from open_clip.transformer import VisionTransformer
from torch import Tensor


def vision_tower(**changes: object) -> VisionTransformer:
    arguments = {"image_size": 8, "patch_size": 4, "width": 8, "layers": 3, "heads": 2, "mlp_ratio": 2.0}
    with torch.random.fork_rng():
        torch.manual_seed(3)
        tower = VisionTransformer(
            **(arguments | {"output_dim": 5, "act_layer": open_clip.transformer.QuickGELU} | changes)
        )
        for parameter in tower.parameters():
            parameter.data += 0.1 * torch.randn_like(parameter)
    return tower.double().eval()


def layer_norm(x: Tensor, norm: torch.nn.Module) -> Tensor:
    centred = x - x.mean()
    return centred / (centred.square().mean() + norm.eps).sqrt() * norm.weight + norm.bias
