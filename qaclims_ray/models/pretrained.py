"""Reading models of transformers, by hub name or local folder, with errors that say what to do."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

from safetensors import SafetensorError

from qaclims_ray.errors import ModelError


def read_pretrained(what: str, name: str, load: Callable[[], Any], *, expected: str) -> Any:
    """Run a loader of transformers and say in our own words what failed.

    Args:
        what: part and kind of the model, such as "weights of the VQA model".
        name: hub name or local folder.
        load: the loader.
        expected: what should have been there.

    Raises:
        ModelError: when it cannot be read.
    """
    try:
        return load()
    except (OSError, ValueError, RuntimeError, KeyError, TypeError, ImportError, SafetensorError) as error:
        place = "local folder" if Path(name).is_dir() else "no local folder, so looked up on the Hugging Face hub"
        raise ModelError(
            f"{what} {name} ({place}) could not be read: {shortened(error)}. Expected {expected}. Check the path; "
            "without internet, download the model first and give its folder."
        ) from error


def shortened(error: Exception) -> str:
    """Return the text of an error as one line of bounded length."""
    return " ".join(str(error).split())[:300].rstrip(" .")
