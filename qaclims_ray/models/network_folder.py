"""A trained network as a folder: ``network.json`` (settings) and ``network.safetensors`` (weights).

Mask generators, affinity networks and final networks are stored so.
"""

import dataclasses
import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

import torch
from pydantic import TypeAdapter
from safetensors.torch import save_file
from torch import nn

from qaclims_ray.data import storage, whole_files
from qaclims_ray.errors import ArtifactError, DataError, ModelError
from qaclims_ray.models.weight_files import read_weights
from qaclims_ray.models.weight_fit import put_weights

CONFIG_NAME = "network.json"
WEIGHTS_NAME = "network.safetensors"

_Network = TypeVar("_Network", bound=nn.Module)
_Config = TypeVar("_Config")
"""A settings dataclass with a backbone and its initial `weights`."""


def save_network(
    net: nn.Module, config: Any, folder: str, **description: int | bool | str | Sequence[str] | Mapping[int, str]
) -> None:
    """Write settings, description and weights into a local folder, which is made if it is not there."""
    Path(folder).mkdir(parents=True, exist_ok=True)
    content = {"config": dataclasses.asdict(config), **description}
    Path(folder, CONFIG_NAME).write_text(json.dumps(content, indent=2))
    save_weights(net, Path(folder, WEIGHTS_NAME))


def save_weights(net: nn.Module, path: Path) -> None:
    """Write a network's weights into a safetensors file."""
    # safetensors refuses tensors that are not contiguous.
    weights = {name: value.detach().cpu().contiguous() for name, value in net.state_dict().items()}
    save_file(weights, path, metadata={"format": "pt"})


def load_network(
    folder: str,
    build: Callable[[_Config, dict[str, Any]], _Network],
    device: torch.device | str,
    config_type: type[_Config],
    *,
    config_name: str = CONFIG_NAME,
    weights_name: str = WEIGHTS_NAME,
) -> _Network:
    """Read a network back, in evaluation mode.

    Args:
        folder: local path or URI.
        build: makes the network of the stored settings (without pretrained weights) and the rest of ``network.json``.
        device: where it goes.
        config_type: of the stored settings.
        config_name: file of the settings.
        weights_name: file of the weights.

    Raises:
        ArtifactError: when the folder holds no network, or a broken one.
    """
    if not storage.exists(storage.join(folder, config_name)):
        raise ArtifactError(f"there is no trained network at {folder} (no {config_name}); make it with `qaclims train`")
    try:
        description: dict[str, Any] = json.loads(whole_files.read_whole(storage.join(folder, config_name)))
        config = TypeAdapter(config_type).validate_python(description["config"])
        # The stored weights replace pretrained ones, which may be gone by now.
        net = build(dataclasses.replace(config, weights=""), description)  # type: ignore[type-var]
        net.config = config  # type: ignore[assignment]
        with whole_files.whole_copy(storage.join(folder, weights_name)) as path:
            put_weights(net, read_weights(path, named=weights_name), source=weights_name)
    except (ValueError, KeyError, TypeError, RuntimeError, DataError, ModelError) as error:
        raise ArtifactError(
            f"the network at {folder} is broken ({error}); remove the folder and run the command that made it "
            "again: `qaclims train`, or `qaclims segment` for a final network"
        ) from None
    return net.to(device).eval()


def load_weights(network: nn.Module, folder: str) -> None:
    """Bring a network to the weights that a folder holds.

    Raises:
        ArtifactError: when they are absent, broken or of another network.
    """
    try:
        weights = read_weights(Path(folder, WEIGHTS_NAME), named=WEIGHTS_NAME)
        put_weights(network, weights, source=WEIGHTS_NAME, advice="Use this network's own.")
    except ModelError as error:
        raise ArtifactError(f"the checkpoint at {folder} does not serve: {error}") from None
