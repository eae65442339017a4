"""CLIP checkpoints: weights, the mask tokens of a mask-adapted CLIP, and whether OpenAI made them."""

from dataclasses import dataclass
from pathlib import Path

from torch import Tensor

from qaclims_ray.models.weight_files import read_weights

MASK_TOKENS_FILE = "mask_tokens.safetensors"
"""File of a folder model that holds its mask tokens, apart because open_clip does not know them."""

MASK_TOKENS_KEY = "mask_embedding"
"""Their key in that file."""

_CHECKPOINT_MASK_TOKENS_KEY = "visual.mask_embedding"
# Numbers that OpenAI's archives hold beside the weights; open_clip's models have no such entries.
_OPENAI_KEYS = ("input_resolution", "context_length", "vocab_size")


@dataclass(frozen=True, kw_only=True)
class Checkpoint:
    """Tensors of a weights file."""

    path: Path
    weights: dict[str, Tensor]
    mask_embedding: Tensor | None
    """Mask tokens (depth, patch, width), if the file has any."""
    is_openai: bool
    """Whether the file carries the marks of OpenAI's own archives."""


def read_checkpoint(path: Path) -> Checkpoint:
    """Read a checkpoint of CLIP or of OVSeg's mask-adapted CLIP.

    Raises:
        ModelError: the file holds no weights.
    """
    weights = read_weights(path)
    is_openai = any(key in weights for key in _OPENAI_KEYS)
    weights = {key: value for key, value in weights.items() if key not in _OPENAI_KEYS}
    # OVSeg's whole network has its CLIP under a prefix.
    tokens = next((key for key in weights if f".{key}".endswith(f".{_CHECKPOINT_MASK_TOKENS_KEY}")), "")
    mask_embedding = weights.pop(tokens, None)
    return Checkpoint(path=path, weights=weights, mask_embedding=mask_embedding, is_openai=is_openai)
