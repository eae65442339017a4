"""The tiny CLIP as a folder that open_clip loads with `local-dir:`: configuration, tokenizer, weights, mask tokens.

open_clip knows nothing of mask tokens, so they live in a file of their own and the folder stays a plain CLIP.
"""

import json
from dataclasses import dataclass
from pathlib import Path

import open_clip
import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from qaclims_ray.miniature.canvas import IMAGE_SIZE
from qaclims_ray.miniature.tokenizer import clip_vocabulary, write_clip_tokenizer
from qaclims_ray.models.clip.checkpoint import MASK_TOKENS_FILE, MASK_TOKENS_KEY

CONFIG_FILE = "open_clip_config.json"
WEIGHTS_FILE = "open_clip_model.safetensors"

PIXEL_MEAN, PIXEL_STD = 0.5, 0.25
"""Normalisation of every channel of pixels in 0..1."""


@dataclass(frozen=True, kw_only=True)
class ClipShape:
    """Size of the tiny CLIP; 0.6 million parameters."""

    patch_size: int = 8
    """Side of a patch in pixels."""
    width: int = 96
    """Width of the image tower."""
    layers: int = 4
    heads: int = 4
    mask_depth: int = 3
    """How many of the places (before block 1, after block 1, ...) have mask tokens."""
    text_width: int = 64
    text_layers: int = 2
    text_heads: int = 2
    embed_dim: int = 64
    """Dimension of the joint space."""
    context_length: int = 24
    """Tokens per text, start and end included."""


def folder_config(shape: ClipShape) -> dict:
    """Return what `open_clip_config.json` holds."""
    return {
        "model_cfg": {
            "embed_dim": shape.embed_dim,
            "quick_gelu": True,
            "vision_cfg": {
                "image_size": IMAGE_SIZE,
                "layers": shape.layers,
                "width": shape.width,
                "head_width": shape.width // shape.heads,
                "patch_size": shape.patch_size,
            },
            "text_cfg": {
                "context_length": shape.context_length,
                "vocab_size": len(clip_vocabulary()),
                "width": shape.text_width,
                "heads": shape.text_heads,
                "layers": shape.text_layers,
                # Any name makes open_clip read the tokenizer from the folder; without one it takes OpenAI's,
                # whose tokens go far beyond this vocabulary.
                "hf_tokenizer_name": "miniature-clip",
                "tokenizer_kwargs": {"clean": "whitespace"},
            },
        },
        "preprocess_cfg": {"mean": [PIXEL_MEAN] * 3, "std": [PIXEL_STD] * 3},
    }


def write_skeleton(folder: Path, shape: ClipShape) -> None:
    """Write configuration and tokenizer; the weights come with `write_weights`."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / CONFIG_FILE).write_text(json.dumps(folder_config(shape), indent=2) + "\n", encoding="ascii")
    write_clip_tokenizer(folder, context_length=shape.context_length)


def build_clip(shape: ClipShape, *, seed: int) -> tuple[open_clip.CLIP, nn.Parameter]:
    """Build the untrained model and its mask tokens (depth, patch, width); the global generator is left alone."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        # ln 10, a temperature of 0.1; open_clip would start at 0.07.
        model = open_clip.CLIP(**folder_config(shape)["model_cfg"], init_logit_scale=2.302585)
        num_patches = (IMAGE_SIZE // shape.patch_size) ** 2
        mask_embedding = nn.Parameter(0.02 * torch.randn(shape.mask_depth, num_patches, shape.width))
    return model, mask_embedding


def write_weights(folder: Path, model: nn.Module, mask_embedding: Tensor) -> None:
    """Write weights and mask tokens in half precision; loaders turn them back into float32."""
    weights = {key: value.detach().to("cpu", torch.float16).contiguous() for key, value in model.state_dict().items()}
    save_file(weights, folder / WEIGHTS_FILE)
    tokens = mask_embedding.detach().to("cpu", torch.float16).contiguous()
    save_file({MASK_TOKENS_KEY: tokens}, folder / MASK_TOKENS_FILE)
