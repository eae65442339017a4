"""Final segmentation networks: what their training and test time need of them, and which of them to make.

They are trained on pseudo masks as if these were ground truth (rows D1-D8).
"""

import dataclasses
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, Literal, Protocol, TypeAlias, cast, runtime_checkable

import torch
from jaxtyping import Float, UInt8
from torch import Tensor, nn

from qaclims_ray.data.classes import Classes
from qaclims_ray.errors import ConfigError
from qaclims_ray.models.network_folder import CONFIG_NAME, WEIGHTS_NAME, load_network, save_network
from qaclims_ray.segmentation.config import SegmentationNetConfig
from qaclims_ray.segmentation.networks.deeplab_v1 import DeepLabV1, build_deeplab_v1
from qaclims_ray.segmentation.networks.encoder import EncoderSegmenter, build_encoder_segmenter

if TYPE_CHECKING:  # with them come timm, open_clip and transformers, which no other network needs
    from qaclims_ray.segmentation.networks.clip_decoder import ClipDecoder
    from qaclims_ray.segmentation.networks.deeplab_v2 import DeepLabV2
    from qaclims_ray.segmentation.networks.mask2former import Mask2Former
    from qaclims_ray.segmentation.networks.segmenter import Segmenter


@runtime_checkable
class SegmentationNetwork(Protocol):
    """What an ``nn.Module`` must offer to be trained as a final network."""

    config: SegmentationNetConfig
    """Its settings."""
    num_labels: int
    """K + 1; the background is the first."""

    @property
    def supervision(self) -> Literal["dense", "sets"]:
        """What `forward` returns when it is given labels: logits to be supervised, or a loss."""
        ...

    def forward(
        self,
        image: Float[Tensor, "batch 3 height width"],
        labels: UInt8[Tensor, "batch height width"] | None = None,
    ) -> (
        Float[Tensor, "batch label out_height out_width"]
        | tuple[Float[Tensor, "batch label _ _"], ...]
        | Float[Tensor, ""]
    ):
        """Return scores for test time, or what is to be trained on.

        Args:
            image: normalised with `config.image_mean` and `config.image_std`, of any size.
            labels: label values, 255 where a pixel has none; given in training only.

        Returns:
            Without labels: logits or log-probabilities at the network's own resolution, to be resized bilinearly
            before the softmax. With labels: "dense" networks give a tuple of logits, each to be supervised by
            itself; "sets" networks give this worker's share of their loss.
        """
        ...

    def head_parameters(self) -> Iterator[nn.Parameter]:
        """Yield the parameters that are new in this network; with the backbone's they are all."""
        ...

    def backbone_parameters(self) -> Iterator[nn.Parameter]:
        """Yield the parameters that may come pretrained."""
        ...


FinalNetwork: TypeAlias = "EncoderSegmenter | DeepLabV2 | DeepLabV1 | Segmenter | Mask2Former | ClipDecoder"
"""The final networks there are, for code that also uses what every ``nn.Module`` has."""


def build_segmentation_network(config: SegmentationNetConfig, num_labels: int) -> FinalNetwork:
    """Make a final network; what is not pretrained is random, from torch's global generator.

    Args:
        config: architecture, backbone, initial weights.
        num_labels: K + 1, or K without a background.

    Raises:
        ConfigError: when the initial weights are not chosen, or the backbone is unknown or unsuitable.
        ModelError: when the initial weights are absent, broken or do not fit.
    """
    if not config.weights:
        raise ConfigError(
            'segmentation.net.weights is not chosen; set it to "random", "timm" or a local file. It moves the result '
            "by points (row D5), so there is no default"
        )
    match config.architecture:
        case "encoder":
            return build_encoder_segmenter(config, num_labels)
        case "segmenter":
            from qaclims_ray.segmentation.networks.segmenter import build_segmenter

            return build_segmenter(config, num_labels)
        case "mask2former":
            return _build_mask2former(config, num_labels)
        case "deeplab_v2":
            from qaclims_ray.segmentation.networks.deeplab_v2 import build_deeplab_v2

            return build_deeplab_v2(config, num_labels)
        case "deeplab_v1":
            return build_deeplab_v1(config, num_labels)
        case "clip_decoder":
            raise ConfigError(
                "segmentation.net.architecture clip_decoder learns from no masks but its own: leave it to the systems "
                "online and online_answers, and name another network here"
            )


def description_of(net: FinalNetwork) -> dict[str, int | bool | str]:
    """Return what beside its settings rebuilds a network."""
    has_own = net.config.architecture in ("mask2former", "clip_decoder")
    own = cast("Mask2Former | ClipDecoder", net).description if has_own else {}
    return {"num_labels": net.num_labels, **own}


def save_segmentation_network(net: FinalNetwork, folder: str, classes: Classes | None = None) -> None:
    """Write settings and weights into a local folder, which is made if it is not there.

    Args:
        net: the network.
        folder: local.
        classes: what its labels mean, for readers of ``network.json``; None where that is not known.
    """
    names = {} if classes is None else {"class_names": classes.names, "has_background": classes.has_background}
    save_network(net, net.config, folder, **description_of(net), **names)


def load_segmentation_network(
    folder: str,
    device: torch.device | str = "cpu",
    *,
    config_name: str = CONFIG_NAME,
    weights_name: str = WEIGHTS_NAME,
) -> FinalNetwork:
    """Read a final network back, in evaluation mode; its initial weights are not needed again.

    Args:
        folder: local path or URI.
        device: where it goes.
        config_name: file of the settings.
        weights_name: file of the weights.

    Raises:
        ArtifactError: when the folder holds no network, or a broken one.
    """
    return load_network(
        folder,
        _rebuild,
        device,
        config_type=SegmentationNetConfig,
        config_name=config_name,
        weights_name=weights_name,
    )


def _rebuild(config: SegmentationNetConfig, description: dict[str, Any]) -> FinalNetwork:
    # All weights come from the folder. Initial ones would be read for nothing, or may be gone.
    config = dataclasses.replace(config, weights="random")
    if config.architecture == "mask2former":
        return _build_mask2former(config, description["num_labels"], description)
    if config.architecture == "clip_decoder":
        from qaclims_ray.segmentation.networks.clip_decoder import rebuild_clip_decoder

        return rebuild_clip_decoder(config, description)
    return build_segmentation_network(config, description["num_labels"])


def _build_mask2former(
    config: SegmentationNetConfig, num_labels: int, description: dict[str, Any] | None = None
) -> "Mask2Former":
    from qaclims_ray.segmentation.networks.mask2former import build_mask2former

    return build_mask2former(config, num_labels, description=description)
