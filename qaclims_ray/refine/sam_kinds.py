"""What kind of Segment Anything model a name stands for, as far as can be told before it is loaded."""

from collections.abc import Callable
from pathlib import Path

from qaclims_ray.data.json_files import parse_json_file
from qaclims_ray.errors import ModelError
from qaclims_ray.models.known_weights import fetched_for, require_on_this_machine

PROMPTABLE = ("sam", "sam_hq", "sam2", "sam2_video", "sam3_tracker", "sam3_video")
"""transformers' types of models that take boxes and points; sam3_video is the whole SAM 3, as it is handed out."""
NAMEABLE = ("sam3", "sam3_video")
"""Types that take names of things."""


def require_promptable(name: str, kind: str) -> None:
    """Refuse a model that takes no boxes and points.

    Raises:
        ModelError: says what it is, and what is expected.
    """
    if kind == "sam3":
        raise ModelError(
            f"{name} is the part of SAM 3 that takes names and no points. Expected the whole SAM 3 (facebook/sam3), or "
            "its tracker. Give the folder of one, or take this one for the system sam3_names."
        )
    if kind not in PROMPTABLE:
        raise ModelError(
            f"{name} holds a model of type {kind!r}. Expected one of {', '.join(PROMPTABLE)}, such as "
            "facebook/sam-vit-huge or facebook/sam2.1-hiera-large. Give the name or folder of one."
        )


def require_nameable(name: str, kind: str) -> None:
    """Refuse a model that takes no names of things.

    Raises:
        ModelError: says what it is, and what is expected.
    """
    if kind not in NAMEABLE:
        raise ModelError(
            f"{name} holds a model of type {kind!r}, which cannot be asked by the names of classes. Expected SAM 3 "
            f"(one of {', '.join(NAMEABLE)}), such as facebook/sam3. Give the name or folder of one."
        )


def check_model(setting: str, name: str, require: Callable[[str, str], None]) -> None:
    """Check, before any work, that a model is there and of the right kind.

    Args:
        setting: that names it.
        name: hub name or local folder.
        require: `require_promptable` or `require_nameable`.

    Raises:
        ModelError: when it is not there, or of another kind.
    """
    if kind := _kind_of(setting, name):
        require(name, kind)


def _kind_of(setting: str, name: str) -> str:
    """Return the type of a model that lies on this machine; empty of one that a library is to bring.

    Raises:
        ModelError: when it has to lie here and does not, or its configuration cannot be read.
    """
    require_on_this_machine(setting, name)
    folder = Path(fetched_for(name) or name).expanduser()
    if folder.is_file():
        raise ModelError(f"{setting}: {name} is a file; expected the folder of a model, with config.json in it")
    if not folder.is_dir():
        return ""
    config = folder / "config.json"
    if not config.is_file():
        raise ModelError(
            f"{setting}: there is no config.json in {name}. Expected a folder written by save_pretrained of model and "
            "processor, with config.json, the processor's file and model.safetensors. Copy all of them."
        )
    found = parse_json_file(str(config), remedy="Copy config.json again", error=ModelError)
    return str(found.get("model_type", "")) if isinstance(found, dict) else "unknown"
