"""timm backbones by name, and pretrained weights from local files; nothing is loaded unless every key fits.

timm is imported where it is used: it takes 3 s, and the miniature's networks need none of it.
"""

from typing import Any, Protocol, runtime_checkable

from torch import Tensor, nn

from qaclims_ray.data import storage
from qaclims_ray.errors import ConfigError, DataError, ModelError
from qaclims_ray.models.known_weights import fetched_for
from qaclims_ray.models.weight_files import cause_of, read_weights
from qaclims_ray.models.weight_fit import behind_prefix, put_weights
from qaclims_ray.models.weight_table import KNOWN_WEIGHTS


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
    import timm

    if not timm.is_model(config.backbone):
        similar = timm.list_models(f"*{config.backbone}*")[:5]
        raise ConfigError(
            f"timm has no model {config.backbone!r}"
            + (f"; did you mean one of {similar}?" if similar else "; `timm.list_models()` lists them")
        )
    try:
        is_pretrained = config.weights == "timm"
        if is_pretrained and (file := fetched_for("timm", config.backbone)):
            options["pretrained_cfg_overlay"] = {"file": file}
        return timm.create_model(config.backbone, pretrained=is_pretrained, num_classes=0, **options)
    except (TypeError, AssertionError, NotImplementedError) as error:
        raise ConfigError(
            f"timm's {config.backbone} cannot be built with {chosen} ({error or type(error).__name__}); it must be "
            f"{expected}"
        ) from None
    except (RuntimeError, OSError) as error:
        known = next((weight.name for weight in KNOWN_WEIGHTS if weight.timm == config.backbone), "")
        fetch = f", or bring them with `qaclims fetch {known}`, which says where to put them by hand" if known else ""
        raise ModelError(
            f"timm's weights for {config.backbone} cannot be had: {cause_of(error)}. Give a local file as its "
            f"weights{fetch}"
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
    source = f"{setting} {uri}"
    try:
        with storage.local_copy(uri) as path:
            weights = read_weights(path, named=source)
    except DataError as error:
        raise ModelError(f"{source} cannot be read as weights: {error}") from None
    if hasattr(backbone, "pos_embed"):
        weights = _as_vit_takes_them(backbone, weights, source)
    heads = (getattr(backbone, "default_cfg", None) or {}).get("classifier") or ()  # pyrefly: ignore[missing-attribute]
    head = {"fc", "classifier", "head"} | set([heads] if isinstance(heads, str) else heads)
    put_weights(backbone, weights, source=source, left_out=head)


def _as_vit_takes_them(backbone: nn.Module, weights: dict[str, Tensor], source: str) -> dict[str, Tensor]:
    """Return weights with position embeddings of the size that a plain ViT has; of other networks as they are."""
    from timm.models.vision_transformer import VisionTransformer, checkpoint_filter_fn

    if not isinstance(backbone, VisionTransformer):
        return weights
    weights = behind_prefix(weights, list(backbone.state_dict()), source=source)
    try:
        return dict(checkpoint_filter_fn(weights, backbone))
    except (RuntimeError, ValueError, TypeError, IndexError, AssertionError, AttributeError) as error:
        raise ModelError(f"{source} cannot be fitted to the ViT's image size: {cause_of(error)}") from None
