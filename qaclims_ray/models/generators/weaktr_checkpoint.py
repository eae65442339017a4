"""Official WeakTr checkpoints as folders that `load_mask_generator` reads.

    python -m qaclims_ray.models.generators.weaktr_checkpoint checkpoint_best_mIoU.pth weaktr_voc12 --dataset voc12

Only tensors are read. Names are mapped one by one, and a key that is left over or missing is an error. The COCO
network has 90 outputs, one per COCO category identifier with its gaps (row S18); here are 80 classes in the order
of the identifiers. The class tokens of the ten gaps stay in the network as `CamNetConfig.extra_tokens`, because the
other tokens attend to them: the 80 classes' maps are those of the original.
"""

import argparse
import math
from pathlib import Path
from typing import Literal, get_args

import torch
from torch import Tensor

from qaclims_ray.data.classes import COCO_GAPS
from qaclims_ray.errors import ModelError, QaclimsError
from qaclims_ray.models.generators.config import CamNetConfig
from qaclims_ray.models.generators.weaktr import WeakTr, build_weaktr, save_weaktr
from qaclims_ray.models.weight_files import read_weights
from qaclims_ray.models.weight_fit import behind_prefix, put_weights

Dataset = Literal["voc12", "coco14"]

_NUM_OUTPUTS = {"voc12": 20, "coco14": 90}
_POOL: dict[str, Literal["max", "mean"]] = {"voc12": "max", "coco14": "mean"}
_FUSION = "adaptive_attention_fusion"
_FUSION_KEYS = {
    f"{_FUSION}.attn_feat_ffn": "fusion.feature_score",
    f"{_FUSION}.attn_head_ffn": "fusion.map_weight",
}
_TOKEN_KEYS = ("cls_token", "pos_embed")
_REDUCING_KEY = f"{_FUSION}.attn_head_ffn.0.weight"
_NEEDED_KEYS = (*_TOKEN_KEYS, "patch_embed.proj.weight", "head.weight", _REDUCING_KEY)
_UNUSED_KEYS = ("norm.weight", "norm.bias")
"""The backbone's final norm, which WeakTr's forward never uses."""
_SHOWN_KEYS = 6


def convert_checkpoint(
    source: Path | str,
    folder: str,
    *,
    dataset: Dataset,
    backbone: str = "deit_small_patch16_224",
    fusion_pool: Literal["max", "mean"] | None = None,
) -> WeakTr:
    """Convert a checkpoint file and write the network into a folder.

    Args:
        source: WeakTr's file.
        folder: local folder to write.
        dataset: what it was trained on: 20 outputs, or 90.
        backbone: timm's name of its ViT.
        fusion_pool: what it was trained with, which the weights do not tell; None takes the released command's: max
            for VOC, mean for COCO.

    Returns:
        The network.

    Raises:
        ModelError: when the file cannot be read as tensors, or names or shapes are not WeakTr's.
    """
    return convert_weights(
        read_weaktr_checkpoint(source), folder, dataset=dataset, backbone=backbone, fusion_pool=fusion_pool
    )


def read_weaktr_checkpoint(path: Path | str) -> dict[str, Tensor]:
    """Read the state dict of a WeakTr checkpoint, without running anything that the file says.

    Raises:
        ModelError: when the file is absent, broken or holds no weights.
    """
    named = f"WeakTr's checkpoint {path}"
    return behind_prefix(read_weights(path, named=named), _NEEDED_KEYS, source=named)


def convert_weights(
    weights: dict[str, Tensor],
    folder: str,
    *,
    dataset: Dataset,
    backbone: str = "deit_small_patch16_224",
    fusion_pool: Literal["max", "mean"] | None = None,
) -> WeakTr:
    """Convert a state dict; see `convert_checkpoint`."""
    _require_keys(weights)
    config, num_classes = _settings(weights, dataset, backbone, fusion_pool)
    with torch.random.fork_rng(devices=[]):
        network = build_weaktr(config, num_classes)
    put_weights(
        network,
        _renamed(weights, _class_order(dataset), num_classes),
        source=f"the checkpoint for {backbone}",
        advice="Is it this backbone (--backbone), and WeakTr's?",
    )
    save_weaktr(network, folder)
    return network.eval()


def main(arguments: list[str] | None = None) -> None:
    """Convert from the command line."""
    parser = argparse.ArgumentParser(description="Convert an official WeakTr checkpoint.")
    parser.add_argument("source", help="WeakTr's .pth file")
    parser.add_argument("folder", help="folder to write network.json and network.safetensors into")
    parser.add_argument("--dataset", required=True, choices=get_args(Dataset), help="what it was trained on")
    parser.add_argument("--backbone", default="deit_small_patch16_224", help="timm's name of its ViT")
    parser.add_argument("--fusion-pool", choices=("max", "mean"), help="default: max for voc12, mean for coco14")
    chosen = parser.parse_args(arguments)
    try:
        network = convert_checkpoint(
            chosen.source,
            chosen.folder,
            dataset=chosen.dataset,
            backbone=chosen.backbone,
            fusion_pool=chosen.fusion_pool,
        )
    except QaclimsError as error:
        parser.exit(1, f"error: {error}\n")
    print(f"wrote {chosen.folder}: {network.num_classes} classes, {network.config}")


def _class_order(dataset: Dataset) -> list[int]:
    """Return which of the network's outputs each class is, and then which ones are no class."""
    outputs = range(_NUM_OUTPUTS[dataset])
    gaps = [identifier - 1 for identifier in COCO_GAPS] if dataset == "coco14" else []
    return [output for output in outputs if output not in gaps] + gaps


def _require_keys(weights: dict[str, Tensor]) -> None:
    if f"{_FUSION}.fc.0.weight" in weights:
        raise ModelError(
            "this is a checkpoint of WeakTr's first release, whose attention fusion pools attention maps instead of "
            "features; take one of the later release (keys adaptive_attention_fusion.attn_feat_ffn...)"
        )
    missing = [name for name in _NEEDED_KEYS if name not in weights]
    if missing:
        raise ModelError(
            f"this is no WeakTr checkpoint: {missing} not among its {len(weights)} keys "
            f"({', '.join(list(weights)[:_SHOWN_KEYS])}, ...). "
            "Give the CAM network's checkpoint, not DeiT's and not the segmenter's"
        )


def _settings(
    weights: dict[str, Tensor], dataset: Dataset, backbone: str, fusion_pool: Literal["max", "mean"] | None
) -> tuple[CamNetConfig, int]:
    num_outputs, expected = len(weights["head.weight"]), _NUM_OUTPUTS[dataset]
    num_tokens, num_positions = weights["cls_token"].shape[1], weights["pos_embed"].shape[1]
    side = math.isqrt(max(0, num_positions - num_tokens))
    if not num_outputs == num_tokens == expected or side**2 + num_tokens != num_positions:
        raise ModelError(
            f"the checkpoint has {num_outputs} outputs, {num_tokens} class tokens and {num_positions} positions; "
            f"{dataset} needs {expected} outputs and tokens, and a square of positions more. Give the right --dataset"
        )
    patch_px = weights["patch_embed.proj.weight"].shape[2]
    hidden, num_maps = weights[_REDUCING_KEY].shape
    extra = len(COCO_GAPS) if dataset == "coco14" else 0
    config = CamNetConfig(
        generator="weaktr",
        backbone=backbone,
        output_stride=patch_px,
        image_size=side * patch_px,
        fusion_pool=fusion_pool or _POOL[dataset],
        fusion_reduction=num_maps // hidden,
        extra_tokens=extra,
    )
    return config, expected - extra


def _renamed(weights: dict[str, Tensor], order: list[int], num_classes: int) -> dict[str, Tensor]:
    """Return the weights under this package's names, classes in order; unknown names stay as they are."""
    num_tokens = len(order)
    tokens, positions = weights["cls_token"][0], weights["pos_embed"][0]
    renamed = {
        "backbone.class_token": tokens[order],
        "backbone.class_position": positions[:num_tokens][order],
        "backbone.patch_position": positions[num_tokens:],
    }
    for name, value in weights.items():
        stem, _, kind = name.rpartition(".")
        if name in _TOKEN_KEYS or name in _UNUSED_KEYS:
            continue
        if stem == "head":
            renamed[f"classifier.{kind}"] = value[order[:num_classes]]
        elif stem == "patch_embed.proj":
            renamed[f"backbone.patches.{kind}"] = value
        elif name.startswith("blocks."):
            renamed[f"backbone.{name}"] = value
        else:
            module, _, index = stem.rpartition(".")
            renamed[f"{_FUSION_KEYS[module]}.{index}.{kind}" if module in _FUSION_KEYS else name] = value
    return renamed


if __name__ == "__main__":
    main()
