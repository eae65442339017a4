"""Which known weights settings mean, and where they lie on this machine; without a network, and without PyTorch."""

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from qaclims_ray.data import storage
from qaclims_ray.errors import ModelError
from qaclims_ray.models.weight_table import KNOWN_WEIGHTS, KnownWeight, weight_named
from qaclims_ray.models.weights import FROM_CLASSIFIER

FOLDER_VARIABLE = "QACLIMS_WEIGHTS"
"""Environment variable that names the folder of weights."""
_SHIPPED_NAMES = ("miniature", "miniature_context", "miniature_vit")
_NO_WEIGHTS = ("", "random", "local", FROM_CLASSIFIER)
"""Words for no file: "local" becomes one, or none, before a run begins (`presets.small.LOCAL`)."""
WEIGHT_SETTINGS: Mapping[str, str] = {
    "clip.weights": "clip.model",
    "corpus.model": "",
    "cam_net.weights": "cam_net.backbone",
    "classifier.network": "",
    "masks.irn.weights": "masks.irn.backbone",
    "masks.sam.model": "",
    "masks.feature_affinity.weights": "masks.feature_affinity.backbone",
    "segmentation.net.weights": "segmentation.net.backbone",
    "sam3_names.model": "",
}
"""Setting that names weights -> the one that names their architecture, where that is another."""


@dataclass(frozen=True)
class NamedWeight:
    """A weight as a setting names it."""

    setting: str
    """The setting's dotted name."""
    value: str
    """What it says: a name, a tag, a path."""
    architecture: str
    """The network that it is for, where another setting names that."""
    weight: KnownWeight | None
    """What is known of it; None where nothing is."""


def weights_in(values: Mapping[str, object]) -> list[NamedWeight]:
    """Return the weights that settings mean, in the order of `WEIGHT_SETTINGS`.

    A file is known by its name; where its size is that of a known file, by its hash too.

    Args:
        values: settings by dotted name; those that name no weights are not looked at, and none need be there.
    """
    found = []
    for setting, beside in WEIGHT_SETTINGS.items():
        value, architecture = str(values.get(setting) or ""), str(values.get(beside) or "")
        if setting == "clip.weights" and not value:  # a folder model brings its own
            value = architecture
        if value not in _NO_WEIGHTS:
            found.append(NamedWeight(setting, value, architecture, _meant(value, architecture)))
    return found


def _meant(value: str, architecture: str) -> KnownWeight | None:
    if value in _SHIPPED_NAMES:
        return weight_named("miniature")
    if value == "timm":
        return next((weight for weight in KNOWN_WEIGHTS if weight.timm == architecture), None)
    if value == "openai":
        return next((weight for weight in KNOWN_WEIGHTS if architecture in weight.open_clip), None)
    return weight_named(value) or _called(value.rstrip("/").rpartition("/")[2]) or _with_its_hash(value)


def _called(last: str) -> KnownWeight | None:
    """Return the weight whose file, or folder of files, has this name."""
    for weight in KNOWN_WEIGHTS:
        if last in ([weight.name] if weight.is_folder else [file.name for file in weight.files]):
            return weight
    return None


def _with_its_hash(value: str) -> KnownWeight | None:
    """Return the weight whose file, called otherwise, a local path holds."""
    path = Path(value).expanduser()
    if not path.is_file():
        return None
    size = path.stat().st_size
    for weight in KNOWN_WEIGHTS:
        marks = [file.sha256 for file in weight.files if file.sha256]
        # Rounded sizes are within a hundredth; only such files are worth reading whole.
        is_near = size == weight.num_bytes if weight.is_size_exact else abs(size / weight.num_bytes - 1) < 0.01
        if is_near and any(storage.sha256(str(path)).startswith(mark) for mark in marks):
            return weight
    return None


def weights_folder() -> Path:
    """Return the folder of fetched weights, whether or not it is there."""
    return Path(os.environ.get(FOLDER_VARIABLE) or "~/.cache/qaclims_ray/weights").expanduser()


def find(name: str) -> Path | None:
    """Return where a weight lies on this machine, None where it does not.

    Looked for in turn: the folder of weights, the caches of the Hugging Face hub, of torch hub and of open_clip.

    Args:
        name: a known weight's name, its name on the hub, or the name of its file; of others, a file's name in the
            folder of weights.

    Returns:
        The file; for a model of several files, their folder.
    """
    if not name or (weight := weight_named(name)) is None:
        bare = name and "/" not in name and os.sep not in name and name not in (".", "..")
        return path if bare and (path := weights_folder() / name).exists() else None
    return fetched(weight) or _in_hub_cache(weight) or _in_other_caches(weight)


def fetched(weight: KnownWeight) -> Path | None:
    """Return where the folder of weights has a weight, None where it has not, or not all of its files."""
    if not weight.files:
        return None
    if weight.is_folder:
        folder = weights_folder() / weight.name
        return folder if all((folder / file.name).is_file() for file in weight.files) else None
    path = weights_folder() / weight.files[0].name
    return path if path.is_file() else None


def fetched_for(value: str, architecture: str = "") -> str:
    """Return where the folder of weights has what a library would bring by a name; empty where it has not.

    Args:
        value: "timm", "openai", or a name on the hub.
        architecture: the model of timm or open_clip.
    """
    if value not in ("timm", "openai") and (not value or "/" not in value or Path(value).expanduser().exists()):
        return ""
    weight = _meant(value, architecture)
    place = fetched(weight) if weight is not None else None
    return str(place) if place else ""


def require_on_this_machine(setting: str, value: str) -> None:
    """Refuse a weight that nobody but its user can bring, where it is not there: before a run, not in the middle of it.

    Args:
        setting: that names it.
        value: a name on the hub, or a local path, which is not looked at here.

    Raises:
        ModelError: says which files to put where.
    """
    weight = weight_named(value)
    if weight is None or value != weight.hub or any(file.urls for file in weight.files) or not weight.files:
        return
    if find(value) is None:
        files = ", ".join(file.name for file in weight.files)
        raise ModelError(
            f"{setting}: {weight.title} is not on this machine, and it is handed out on request only. Ask for access "
            f"at {weight.page}, then put {files} into {weights_folder() / weight.name}, or give another folder that "
            "has them."
        )


def _in_hub_cache(weight: KnownWeight) -> Path | None:
    """Return the newest snapshot of a repository of the hub that holds weights."""
    if not weight.hub:
        return None
    home = os.environ.get("HF_HOME") or os.path.join(_cache_home(), "huggingface")
    cache = os.environ.get("HF_HUB_CACHE") or os.environ.get("HUGGINGFACE_HUB_CACHE") or os.path.join(home, "hub")
    snapshots = Path(cache).expanduser() / f"models--{weight.hub.replace('/', '--')}" / "snapshots"
    found = [path for pattern in ("*.safetensors", "*.bin") for path in snapshots.glob(f"*/{pattern}")]
    newest = max(found, key=lambda path: (path.suffix == ".safetensors", path.stat().st_mtime), default=None)
    if newest is None:
        return None
    # timm and open_clip read one file, transformers a folder.
    return newest if weight.timm or weight.open_clip else newest.parent


def _in_other_caches(weight: KnownWeight) -> Path | None:
    """Return a single file where torch hub or open_clip keep what they download."""
    torch_home = os.environ.get("TORCH_HOME") or os.path.join(_cache_home(), "torch")
    for folder in (Path(torch_home, "hub", "checkpoints"), Path(os.path.expanduser("~/.cache/clip"))):
        for file in [] if weight.is_folder else weight.files:
            if (path := folder.expanduser() / file.name).is_file():
                return path
    return None


def _cache_home() -> str:
    return os.path.expanduser(os.environ.get("XDG_CACHE_HOME") or "~/.cache")
