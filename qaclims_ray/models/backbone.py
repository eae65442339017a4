"""timm backbones by name, and pretrained weights from local files; nothing is loaded unless every key fits."""

import pickle
from typing import Any, Protocol, runtime_checkable

import timm
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from timm.models.vision_transformer import VisionTransformer, checkpoint_filter_fn
from torch import Tensor, nn

from qaclims_ray.data import storage
from qaclims_ray.errors import ConfigError, ModelError


@runtime_checkable
class BackboneChoice(Protocol):
    """Settings that name a backbone and its weights."""

    @property
    def backbone(self) -> str:
        """Name of a timm model."""
        ...

    @property
    def weights(self) -> str:
        """The word timm for the model's own pretrained weights; anything else is not loaded here."""
        ...


_WRAPPERS = ("state_dict", "model")


def create_backbone(config: BackboneChoice, *, chosen: str, expected: str, **options: Any) -> nn.Module:
    """Make a timm model without a classifier head, with timm's own pretrained weights if these are asked for.

    Args:
        config: names the model.
        chosen: the options in words, for the message when it cannot be built with them.
        expected: what it must be, for the same message.
        options: arguments of the model beside its name.

    Raises:
        ConfigError: for an unknown model, or one that does not take the options.
        ModelError: when timm's pretrained weights cannot be had.
    """
    if not timm.is_model(config.backbone):
        similar = timm.list_models(f"*{config.backbone}*")[:5]
        raise ConfigError(
            f"timm has no model {config.backbone!r}"
            + (f"; did you mean one of {similar}?" if similar else "; `timm.list_models()` lists them")
        )
    try:
        return timm.create_model(config.backbone, pretrained=config.weights == "timm", num_classes=0, **options)
    except (TypeError, AssertionError, NotImplementedError) as error:
        raise ConfigError(
            f"timm's {config.backbone} cannot be built with {chosen} ({error or type(error).__name__}); it must be "
            f"{expected}"
        ) from None
    except (RuntimeError, OSError) as error:
        raise ModelError(
            f"timm's weights for {config.backbone} cannot be had: {error}. Give a local file as its weights"
        ) from None


def load_backbone_weights(backbone: nn.Module, uri: str, *, setting: str = "cam_net.weights") -> None:
    """Load pretrained weights; all must fit, save those of a classifier head.

    Position embeddings of a plain ViT are interpolated to its image size.

    Args:
        backbone: network without classifier head.
        uri: safetensors or torch file; of the latter only tensors are read.
        setting: name of the setting that gave the file, for messages.

    Raises:
        ModelError: when the file cannot be read, or names or shapes differ.
    """
    try:
        with storage.local_copy(uri) as path:
            weights = _read_weights(path)
    except (SafetensorError, pickle.UnpicklingError, RuntimeError, ValueError, EOFError, OSError) as error:
        raise ModelError(f"{setting} {uri} cannot be read as weights: {error}") from None
    if isinstance(backbone, VisionTransformer):
        weights = dict(checkpoint_filter_fn(weights, backbone))
    own = backbone.state_dict()
    heads = (getattr(backbone, "default_cfg", None) or {}).get("classifier") or ()
    head = {"fc", "classifier", "head"} | set([heads] if isinstance(heads, str) else heads)
    # Old files lack batch norm's counter, which is read only where its momentum is None.
    missing = [name for name in own if name not in weights and not name.endswith("num_batches_tracked")]
    surplus = [name for name in weights if name not in own and name.rsplit(".", 1)[0] not in head]
    misshapen = [
        f"{name} {tuple(value.shape)} instead of {tuple(own[name].shape)}"
        for name, value in weights.items()
        if name in own and value.shape != own[name].shape
    ]
    if missing or surplus or misshapen:
        raise ModelError(
            f"{setting} {uri} do not fit the backbone: {len(missing)} missing {missing[:3]}, {len(surplus)} "
            f"unknown {surplus[:3]}, {len(misshapen)} of another shape {misshapen[:3]}"
        )
    fitting = {name: value.to(own[name].dtype) for name, value in weights.items() if name in own}
    backbone.load_state_dict(own | fitting)


def _read_weights(path: str) -> dict[str, Tensor]:
    if path.endswith(".safetensors"):
        return load_file(path)
    content = torch.load(path, map_location="cpu", weights_only=True)
    for wrapper in _WRAPPERS:
        content = content.get(wrapper, content) if isinstance(content, dict) else content
    if not isinstance(content, dict) or not all(isinstance(value, Tensor) for value in content.values()):
        raise ValueError(f"expected names and tensors, found {type(content).__name__}")
    return content
