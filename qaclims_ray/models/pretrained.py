"""Reading models of transformers, by hub name or local folder, with errors that say what to do."""

from collections.abc import Callable
from pathlib import Path
from pickle import UnpicklingError
from typing import Any

from huggingface_hub.errors import StrictDataclassError
from safetensors import SafetensorError
from torch import nn

from qaclims_ray.data.file_kinds import LEGACY_TORCH, SAFETENSORS, TORCH, describe_file
from qaclims_ray.errors import ModelError
from qaclims_ray.models.weight_files import cause_of
from qaclims_ray.models.weight_fit import require_finite

_WEIGHT_PATTERNS = ("*.safetensors", "*.bin", "*.pt", "*.pth")
READ_ERRORS = (
    OSError, ValueError, RuntimeError, KeyError, TypeError, ImportError, EOFError, SafetensorError, UnpicklingError,
    StrictDataclassError,
)  # fmt: skip
"""What transformers' loaders raise about files that are absent, broken or of another kind."""


def read_pretrained(what: str, name: str, load: Callable[[], Any], *, expected: str) -> Any:
    """Run a loader of transformers and say in our own words what failed.

    Args:
        what: part and kind of the model, such as "weights of the VQA model".
        name: hub name or local folder.
        load: the loader.
        expected: what should have been there.

    Raises:
        ModelError: when it cannot be read, or its weights hold NaN or infinity.
    """
    try:
        loaded = load()
    except READ_ERRORS as error:
        place = "local folder" if Path(name).is_dir() else "no local folder, so looked up on the Hugging Face hub"
        raise ModelError(
            f"{what} {name} ({place}) could not be read: {cause_of(error)}.{other_files(name)} Expected {expected}. "
            "Check the path; without internet, download the model first and give its folder."
        ) from None
    model = loaded[0] if isinstance(loaded, tuple) else loaded
    if isinstance(model, nn.Module):
        require_finite(dict(model.named_parameters()), source=f"{what} {name}")
    return loaded


def other_files(name: str) -> str:
    """Say which files of a local folder have the name of weights and are something else; empty for none."""
    folder = Path(name)
    files = sorted(file for pattern in _WEIGHT_PATTERNS for file in folder.glob(pattern)) if folder.is_dir() else []
    kinds = {file.name: describe_file(file) for file in files}
    wrong = [f"{file} is {kind}" for file, kind in kinds.items() if kind not in (SAFETENSORS, TORCH, LEGACY_TORCH)]
    return f" In it {'; '.join(wrong)}." if wrong else ""
