"""A final network as model hubs have them: weights, ``config.json``, preprocessing, and a model card.

`qaclims_ray.load` reads such a folder, so it needs nothing of the run that made it.
"""

import dataclasses
import json
from pathlib import Path
from typing import Any

from pydantic import TypeAdapter

from qaclims_ray.data import storage, whole_files
from qaclims_ray.data.classes import Classes
from qaclims_ray.deployment.model_card import model_card
from qaclims_ray.deployment.network_facts import NetworkFacts
from qaclims_ray.errors import ArtifactError, DataError
from qaclims_ray.models.network_folder import save_weights
from qaclims_ray.segmentation.config import SegmentationConfig, SegmentationTestConfig
from qaclims_ray.segmentation.networks.network import FinalNetwork, description_of, load_segmentation_network

HUB_CONFIG = "config.json"
"""Settings of network and test time, and what the labels mean."""
HUB_WEIGHTS = "model.safetensors"
"""The weights."""
CARD_NAME = "README.md"
"""The model card."""
_PREPROCESSING = "preprocessor_config.json"
_FORMAT = "qaclims_ray"


def write_hub_folder(network: FinalNetwork, test: SegmentationTestConfig, facts: NetworkFacts, folder: str) -> None:
    """Write a final network into a local folder, which is made if it is not there.

    Args:
        network: on the CPU.
        test: scales, mirror images, window and CRF that the run predicted with.
        facts: what goes with it.
        folder: local.
    """
    Path(folder).mkdir(parents=True, exist_ok=True)
    labels = facts.id2label
    config = {
        "model_type": _FORMAT,
        "architectures": [type(network).__name__],
        "id2label": {str(value): name for value, name in labels.items()},
        "label2id": {name: value for value, name in labels.items()},
        "has_background": facts.classes.has_background,
        "class_names": facts.classes.names,
        "qaclims_ray_version": facts.version,
        "config": dataclasses.asdict(dataclasses.replace(network.config, weights="")),  # they may name a folder
        "test": dataclasses.asdict(test),
        **description_of(network),
    }
    mean, std = facts.normalisation
    preprocessing = {
        "do_resize": False,
        "do_rescale": True,
        "rescale_factor": 1 / 255,
        "do_normalize": True,
        "image_mean": mean,
        "image_std": std,
    }
    Path(folder, HUB_CONFIG).write_text(json.dumps(config, indent=2))
    Path(folder, _PREPROCESSING).write_text(json.dumps(preprocessing, indent=2))
    Path(folder, CARD_NAME).write_text(model_card(facts), encoding="utf-8")
    save_weights(network, Path(folder, HUB_WEIGHTS))


def is_hub_folder(folder: str) -> bool:
    """Whether a folder, local or a URI, is one that `write_hub_folder` wrote, as far as its settings say."""
    place = storage.join(folder, HUB_CONFIG)
    if not storage.exists(place):
        return False
    content = storage.read_bytes(place)
    return b'"model_type"' in content and f'"{_FORMAT}"'.encode() in content


@dataclasses.dataclass(frozen=True, eq=False)
class HubNetwork:
    """What a folder holds."""

    network: FinalNetwork
    """In evaluation mode, on the CPU."""
    segmentation: SegmentationConfig
    """Its settings, and those of test time."""
    classes: Classes
    """What its labels mean."""


def read_hub_folder(folder: str) -> HubNetwork:
    """Read a network back.

    Raises:
        ArtifactError: when the folder is broken.
    """
    network = load_segmentation_network(folder, config_name=HUB_CONFIG, weights_name=HUB_WEIGHTS)
    try:
        config: dict[str, Any] = json.loads(whole_files.read_whole(storage.join(folder, HUB_CONFIG)))
        test = TypeAdapter(SegmentationTestConfig).validate_python(config["test"])
        classes = Classes(tuple(config["class_names"]), bool(config["has_background"]))
    except (ValueError, KeyError, TypeError, DataError) as error:
        raise ArtifactError(
            f"the exported network at {folder} is broken ({error}); export it again: `qaclims export-network`"
        ) from None
    return HubNetwork(network, SegmentationConfig(net=network.config, test=test), classes)
