"""Mask2Former (Cheng et al. 2022, arXiv 2112.01527): transformers' own network, SemPLeS's final one (row D8).

Each of its queries predicts a mask and a class, or that it stands for nothing. In training the labels of an image are
a set of (mask, class), matched to queries: ``set_loss.py``. Here are its sizes and its initial weights.
"""

import copy
import json
from collections.abc import Collection, Iterator
from typing import Any, Literal

import torch
import torch.nn.functional as F
from jaxtyping import Float, UInt8
from torch import Tensor, nn
from transformers import AutoConfig, Mask2FormerConfig, Mask2FormerForUniversalSegmentation, SwinConfig
from transformers.models.swin.modeling_swin import SwinBackbone

from qaclims_ray.data.classes import IGNORE_VALUE
from qaclims_ray.errors import ConfigError, ModelError
from qaclims_ray.models.generators.cam_net import MINIATURE
from qaclims_ray.models.known_weights import fetched_for
from qaclims_ray.models.pretrained import READ_ERRORS, other_files
from qaclims_ray.models.weight_files import cause_of
from qaclims_ray.models.weight_fit import require_finite
from qaclims_ray.segmentation.config import WEIGHTS_SETTING, SegmentationNetConfig
from qaclims_ray.segmentation.networks.set_loss import set_loss, sum_over_workers

_DROP_PATH = 0.3
"""Stochastic depth of the published networks' Swin."""
TRANSFORMERS_CONFIG = "transformers_config"
"""Entry of a network's description: transformers' configuration as JSON text."""
_SIZES: dict[str, dict[str, Any]] = {
    MINIATURE: {"embed_dim": 16, "depths": [1, 1, 2, 1], "num_heads": [1, 2, 4, 8], "window_size": 4},
    "swin_tiny": {"embed_dim": 96, "depths": [2, 2, 6, 2], "num_heads": [3, 6, 12, 24], "window_size": 7},
    "swin_small": {"embed_dim": 96, "depths": [2, 2, 18, 2], "num_heads": [3, 6, 12, 24], "window_size": 7},
    "swin_base": {"embed_dim": 128, "depths": [2, 2, 18, 2], "num_heads": [4, 8, 16, 32], "window_size": 12},
    "swin_large": {"embed_dim": 192, "depths": [2, 2, 18, 2], "num_heads": [6, 12, 24, 48], "window_size": 12},
}
"""Swin by name; window 12 is that of the weights pretrained at 384 pixels."""
_MINIATURE_DECODER: dict[str, Any] = {
    "feature_size": 32,
    "mask_feature_size": 32,
    "hidden_dim": 32,
    "encoder_feedforward_dim": 64,
    "dim_feedforward": 64,
    "encoder_layers": 2,
    "decoder_layers": 4,
    "num_attention_heads": 4,
    "num_queries": 20,
    "train_num_points": 1024,
}
_PAD_PX = 32
_STRIDE = 4
_HEAD_KEYS = {"class_predictor.weight", "class_predictor.bias", "criterion.empty_weight"}
_UNUSED_NORM = "swin.layernorm."
"""Norm that the hub's Mask2Formers lack, and that nothing here looks at."""
_COMPUTED = "relative_position_index"
"""Buffer that the hub's older files hold."""


class Mask2Former(nn.Module):
    """transformers' Mask2Former with Swin; follows `segmentation_network.SegmentationNetwork`."""

    supervision: Literal["dense", "sets"] = "sets"

    def __init__(self, net: Mask2FormerForUniversalSegmentation, config: SegmentationNetConfig) -> None:
        super().__init__()
        self.net = net
        self.config = config
        self.num_labels = net.class_predictor.out_features - 1
        # Its output is computed, but nothing here looks at it; DDP waits for every gradient.
        self._swin.swin.layernorm.requires_grad_(False)

    @property
    def description(self) -> dict[str, int | bool | str]:
        """What beside `config` rebuilds the network: a checkpoint may have brought sizes of its own."""
        return {TRANSFORMERS_CONFIG: json.dumps(self.net.config.to_dict())}

    def forward(
        self, image: Float[Tensor, "batch 3 height width"], labels: UInt8[Tensor, "batch height width"] | None = None
    ) -> Float[Tensor, "batch label out_height out_width"] | Float[Tensor, ""]:
        """Return the logarithm of normalised semantic scores at stride 4; in training this worker's share of the loss.

        The image is padded with zeros (the mean colour) to sides that are multiples of 32. Padding is ignored in
        training, for which all workers have to call this together, and cut off at test time. An image whose sides are
        no multiples of 4 gets scores in its own size, since no whole number of cells covers it.
        """
        height, width = image.shape[2:]
        padding = (0, -width % _PAD_PX, 0, -height % _PAD_PX)
        output = self.net(pixel_values=F.pad(image, padding), output_auxiliary_logits=True)
        layers = [output, *output.auxiliary_logits] if labels is not None else [output]
        classes = [layer["class_queries_logits"].float() for layer in layers]
        masks = [layer["masks_queries_logits"].float() for layer in layers]
        with torch.autocast(image.device.type, enabled=False):
            if labels is not None:
                labels = F.pad(labels, padding, value=IGNORE_VALUE)
                return set_loss(self.net, classes, masks, labels, sum_over_workers=sum_over_workers)
            scores = semantic_scores(classes[0], masks[0])
        if height % _STRIDE or width % _STRIDE:
            scores = F.interpolate(scores, scale_factor=_STRIDE, mode="bilinear", align_corners=False)
            return scores[:, :, :height, :width].log()
        return scores[:, :, : height // _STRIDE, : width // _STRIDE].log()

    def train(self, mode: bool = True) -> "Mask2Former":
        """Set the mode, as of any module."""
        super().train(mode)
        decoder: Any = self.net.model.pixel_level_module.decoder
        for layer in decoder.encoder.layers:
            if layer.dropout == layer.activation_dropout == 0:
                # All it would do in training is to ask the GPU whether numbers are finite, which the loop asks anyway.
                layer.training = False
        return self

    def backbone_parameters(self) -> Iterator[nn.Parameter]:
        """Yield Swin's parameters; in the published training they learn at a tenth of the others' rate."""
        return self._swin.parameters()

    def head_parameters(self) -> Iterator[nn.Parameter]:
        """Yield all others: pixel decoder, transformer decoder, classes."""
        backbone = {id(parameter) for parameter in self._swin.parameters()}
        return (parameter for parameter in self.parameters() if id(parameter) not in backbone)

    @property
    def _swin(self) -> SwinBackbone:
        return self.net.model.pixel_level_module.encoder


def semantic_scores(
    class_logits: Float[Tensor, "batch query answer"], mask_logits: Float[Tensor, "batch query cell_height cell_width"]
) -> Float[Tensor, "batch label cell_height cell_width"]:
    """Return the paper's semantic inference, normalised: over queries, the sum of class probability times mask.

    Args:
        class_logits: every label, then no object.
        mask_logits: of each query.

    Returns:
        Positive numbers that add up to 1 over labels; all equal where no query says anything.
    """
    classes = class_logits.softmax(dim=-1)[..., :-1]
    scores = torch.einsum("bql,bqhw->blhw", classes, mask_logits.sigmoid())
    # Far above the smallest float, so that neither quotient nor logarithm overflows.
    scores = scores.clamp(min=1e-30)
    return (scores / scores.sum(dim=1, keepdim=True)).clamp(min=1e-30)


def build_mask2former(
    config: SegmentationNetConfig, num_labels: int, *, description: dict[str, Any] | None = None
) -> Mask2Former:
    """Make a network from the weights that the settings name.

    "random" (or nothing) takes transformers' initial values (torch's global generator). A hub name or folder holds
    either a Mask2Former, which brings its own decoder, queries and loss weights, and whose class layer starts anew
    where its number of labels differs; or a Swin, which initialises the backbone alone and brings its window size.

    Args:
        config: size and weights of the Swin.
        num_labels: K + 1, background being a class of its own; K without one.
        description: that of a stored network, which is rebuilt with fresh weights.

    Raises:
        ConfigError: for an unknown size, or weights "timm".
        ModelError: when the weights are absent, broken, or of another size.
    """
    if config.backbone not in _SIZES:
        raise ConfigError(
            f"segmentation.net.backbone is {config.backbone!r}; mask2former needs one of {', '.join(_SIZES)}"
        )
    if config.weights == "timm":
        raise ConfigError(
            "timm has no weights for Mask2Former; set segmentation.net.weights to a hub name or local folder of a "
            'transformers Mask2Former or Swin (e.g. "microsoft/swin-large-patch4-window12-384-in22k"), or "random"'
        )
    if description is not None:
        stored = Mask2FormerConfig.from_dict(json.loads(description[TRANSFORMERS_CONFIG]))
        return Mask2Former(Mask2FormerForUniversalSegmentation(stored), config)
    if config.weights in ("", "random"):
        fresh = _network_config(config.backbone, SwinConfig(**_SIZES[config.backbone]), num_labels)
        return Mask2Former(Mask2FormerForUniversalSegmentation(fresh), config)
    return Mask2Former(_pretrained(config, num_labels), config)


def _network_config(backbone: str, swin: SwinConfig, num_labels: int) -> Mask2FormerConfig:
    swin = copy.deepcopy(swin)
    swin.drop_path_rate = _DROP_PATH
    swin.set_output_features_output_indices(out_features=list(swin.stage_names[1:]), out_indices=None)
    sizes: dict[str, Any] = {"num_labels": num_labels, **(_MINIATURE_DECODER if backbone == MINIATURE else {})}
    return Mask2FormerConfig(backbone_config=swin, **sizes)


def _pretrained(config: SegmentationNetConfig, num_labels: int) -> Mask2FormerForUniversalSegmentation:
    weights = fetched_for(config.weights) or config.weights
    try:
        found: Any = AutoConfig.from_pretrained(weights)
        if found.model_type == "mask2former":
            _check_size(config, found.backbone_config)
            found.num_labels = num_labels
            # The class layer may be of another size; `_check_fit` refuses any other difference.
            loaded: Any = Mask2FormerForUniversalSegmentation.from_pretrained(
                weights, config=found, ignore_mismatched_sizes=True, output_loading_info=True
            )
            net, report = loaded
            _check_fit(weights, report, replaced=_HEAD_KEYS)
        elif found.model_type == "swin":
            _check_size(config, found)
            net = Mask2FormerForUniversalSegmentation(_network_config(config.backbone, found, num_labels))
            loaded = SwinBackbone.from_pretrained(
                weights, config=net.model.pixel_level_module.encoder.config, output_loading_info=True
            )
            swin, report = loaded  # pyrefly: ignore[not-iterable]
            _check_fit(weights, report, new="hidden_states_norms.", left_out="classifier.")
            net.model.pixel_level_module.encoder.load_state_dict(swin.state_dict())
        else:
            raise ModelError(
                f"segmentation.net.weights {weights} is a {found.model_type!r}; expected a Mask2Former or a Swin of "
                "transformers. Give the hub name or folder of one"
            )
    except READ_ERRORS as error:
        raise ModelError(
            f"{WEIGHTS_SETTING} {weights} cannot be read as a Mask2Former or Swin of transformers: {cause_of(error)}."
            f"{other_files(weights)} Give a hub name or a folder with config.json and model.safetensors"
        ) from None
    require_finite(dict(net.named_parameters()), source=f"{WEIGHTS_SETTING} {weights}")
    return net


def _check_size(config: SegmentationNetConfig, swin: Any) -> None:
    """Refuse another Swin than the settings name, since these are what is recorded."""
    sizes = {name: getattr(swin, name, None) for name in ("embed_dim", "depths", "num_heads")}
    found = {name: list(size) if isinstance(size, tuple) else size for name, size in sizes.items()}
    expected = {name: _SIZES[config.backbone][name] for name in found}
    if swin.model_type == "swin" and found == expected:
        return
    fitting = [name for name, size in _SIZES.items() if found.items() <= size.items()]
    advice = f"set segmentation.net.backbone {fitting[0]}" if fitting else f"choose weights of a {config.backbone}"
    raise ModelError(
        f"segmentation.net.weights {config.weights} has a {swin.model_type} of {found}, but segmentation.net.backbone "
        f"{config.backbone} is a swin of {expected}; {advice}"
    )


def _check_fit(
    weights: str,
    report: dict[str, Any],
    *,
    replaced: Collection[str] = (),
    new: str = _UNUSED_NORM,
    left_out: str = _COMPUTED,
) -> None:
    """Refuse weights of which not every key fits, but for the names (or parts of them) given here."""
    missing = [key for key in report["missing_keys"] if new not in key and _UNUSED_NORM not in key]
    surplus = [key for key in report["unexpected_keys"] if left_out not in key and _COMPUTED not in key]
    misshapen = [key for key, *_ in report["mismatched_keys"] if key not in replaced]
    if missing or surplus or misshapen:
        raise ModelError(
            f"segmentation.net.weights {weights} do not fit the network: {len(missing)} missing {sorted(missing)[:3]}, "
            f"{len(surplus)} unknown {sorted(surplus)[:3]}, {len(misshapen)} of another shape {sorted(misshapen)[:3]}"
        )
