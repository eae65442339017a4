"""Reading CLIP weights from files and putting them into an open_clip model, with every mismatch named.

Only tensors are ever read: safetensors, or torch files with `weights_only=True`.
"""

import pickle
import zipfile
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn

from qaclims_ray.errors import ModelError

MASK_TOKENS_FILE = "mask_tokens.safetensors"
"""File of a folder model that holds its mask tokens, apart because open_clip does not know them."""

MASK_TOKENS_KEY = "mask_embedding"
"""Their key in that file."""

_CHECKPOINT_MASK_TOKENS_KEY = "visual.mask_embedding"
# Numbers that OpenAI's archives hold beside the weights; open_clip's models have no such entries.
_OPENAI_KEYS = ("input_resolution", "context_length", "vocab_size")
_WRAPPERS = ("state_dict", "model", "model_state_dict")
_SHOWN_KEYS = 8


@dataclass(frozen=True, kw_only=True)
class Checkpoint:
    """Tensors of a weights file."""

    path: Path
    weights: dict[str, Tensor]
    mask_embedding: Tensor | None
    """Mask tokens (depth, patch, width), if the file has any."""
    is_openai: bool
    """Whether the file carries the marks of OpenAI's own archives."""


def read_tensors(path: Path) -> dict[str, Tensor]:
    """Read the flat dictionary of tensors of a safetensors or torch file.

    Raises:
        ModelError: the file is absent, truncated, a TorchScript archive, or holds anything but tensors.
    """
    if not path.is_file():
        raise ModelError(f"weights file {path} does not exist. Give the path of a .safetensors or torch file.")
    if path.suffix == ".safetensors":
        try:
            return load_file(path)
        except (SafetensorError, ValueError) as error:
            raise ModelError(
                f"{path} ({path.stat().st_size} bytes) is no complete safetensors file: {error}. Copy it again."
            ) from error
    if _is_torchscript(path):
        raise ModelError(
            f"{path} is a TorchScript archive (as OpenAI publishes its CLIP), which is code and is not loaded here. "
            "Convert it once on a machine you trust: "
            "torch.save(torch.jit.load(path, map_location='cpu').state_dict(), new_path)."
        )
    try:
        content = torch.load(path, map_location="cpu", weights_only=True)
    except (pickle.UnpicklingError, RuntimeError, EOFError, ValueError) as error:
        raise ModelError(
            f"{path} ({path.stat().st_size} bytes) cannot be read as tensors: {str(error)[:300]}. "
            "Copy it again, or store its state dict with torch.save."
        ) from error
    for wrapper in _WRAPPERS:
        if isinstance(content, dict) and isinstance(content.get(wrapper), dict):
            content = content[wrapper]
    if not isinstance(content, dict) or not any(isinstance(value, Tensor) for value in content.values()):
        raise ModelError(f"{path} holds a {type(content).__name__}, expected a state dict of tensors.")
    return {str(key): value for key, value in content.items() if isinstance(value, Tensor)}


def _is_torchscript(path: Path) -> bool:
    if not zipfile.is_zipfile(path):
        return False
    with zipfile.ZipFile(path) as archive:
        return any(name.endswith("/constants.pkl") or "/code/" in name for name in archive.namelist())


def read_checkpoint(path: Path) -> Checkpoint:
    """Read a checkpoint of CLIP or of OVSeg's mask-adapted CLIP."""
    weights = read_tensors(path)
    # Saved from inside DDP.
    if all(key.startswith("module.") for key in weights):
        weights = {key.removeprefix("module."): value for key, value in weights.items()}
    is_openai = any(key in weights for key in _OPENAI_KEYS)
    weights = {key: value for key, value in weights.items() if key not in _OPENAI_KEYS}
    mask_embedding = weights.pop(_CHECKPOINT_MASK_TOKENS_KEY, None)
    return Checkpoint(path=path, weights=weights, mask_embedding=mask_embedding, is_openai=is_openai)


def put_weights(model: nn.Module, weights: dict[str, Tensor], *, source: str) -> None:
    """Put weights into a model; every key and every shape must match.

    Raises:
        ModelError: lists what is missing, what is left over and what has another shape.
    """
    expected = model.state_dict()
    missing = sorted(expected.keys() - weights.keys())
    unexpected = sorted(weights.keys() - expected.keys())
    reshaped = [
        f"{key} {tuple(weights[key].shape)} instead of {tuple(value.shape)}"
        for key, value in expected.items()
        if key in weights and weights[key].shape != value.shape
    ]
    if missing or unexpected or reshaped:
        raise ModelError(
            f"the weights of {source} do not fit the model. Missing in the file: {_shown(missing)}. "
            f"Unknown to the model: {_shown(unexpected)}. Other shape: {_shown(reshaped)}. "
            "Check that model and weights belong together."
        )
    model.load_state_dict(weights)


def _shown(items: list[str]) -> str:
    if not items:
        return "none"
    rest = f", ... ({len(items)} in all)" if len(items) > _SHOWN_KEYS else ""
    return ", ".join(items[:_SHOWN_KEYS]) + rest
