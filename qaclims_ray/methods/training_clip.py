"""The CLIP of a training, and learned prompts encoded by it."""

import torch
from jaxtyping import Float
from torch import Tensor

from qaclims_ray.methods.method import Recipe
from qaclims_ray.models.clip.frozen import FrozenClip, load_clip
from qaclims_ray.models.clip.prompts import encode_prompts, load_prompts
from qaclims_ray.models.devices import dtype_of


def load_training_clip(recipe: Recipe, device: torch.device) -> FrozenClip:
    """Load the CLIP of a system in the precision that trainings use.

    Raises:
        ModelError: when it cannot be loaded.
    """
    model, weights = recipe.clip_files
    dtype = dtype_of(recipe.precision, device)
    return load_clip(model, weights, device=device, dtype=dtype, mask_adapted=recipe.clip.mask_adapted)


@torch.no_grad()
def encoded_prompts(uri: str, clip: FrozenClip) -> Float[Tensor, "class dim"]:
    """Return the learned prompts of every class, encoded, unit length, on the CLIP's device.

    Raises:
        ArtifactError: when they are absent, or belong to another CLIP.
    """
    device = next(clip.parameters()).device
    stored = load_prompts(uri, device, clip_fingerprint=clip.fingerprint())
    return encode_prompts(clip, stored.vectors, stored.template)
