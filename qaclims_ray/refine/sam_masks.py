"""Segment Anything: class-agnostic masks of everything in an image, by transformers' own model and post-processing.

Kirillov et al. 2023, "automatic mask generation": a grid of points prompts the model, each point gives three masks
with the model's own estimate of their IoU, and filters leave what is good, stable and not there twice. Used by the
mask step "sam"; the masks have no labels.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Bool, UInt8
from PIL import Image
from torch import Tensor, nn
from transformers import AutoConfig, AutoImageProcessor, AutoModelForMaskGeneration, pipeline

from qaclims_ray.errors import ModelError
from qaclims_ray.models.known_weights import fetched_for
from qaclims_ray.models.pretrained import read_pretrained
from qaclims_ray.refine.config import SamConfig

EXPECTED = "a folder written by save_pretrained of SamModel and SamProcessor, or a reachable hub model"

_KINDS = ("sam", "sam_hq")
"""Types of transformers models that are taken: SAM and HQ-SAM, which share image size, prompts and processor."""


@dataclass(frozen=True)
class SegmentAnything:
    """A loaded SAM."""

    name: str
    """Hub name or folder that it came from."""
    model: nn.Module
    """The network, in evaluation mode."""
    generate: Callable[..., dict[str, Any]]
    """transformers' mask-generation pipeline around it."""


def load_sam(name: str, device: torch.device | str) -> SegmentAnything:
    """Load a Segment Anything model in float32.

    Taken are models of the types sam (``facebook/sam-vit-base``, ``-large``, ``-huge`` and medical or remote-sensing
    ones of the same architecture) and sam_hq (``syscv-community/sam-hq-vit-base`` and larger). SAM 2 and 3 have other
    networks and image processors and are refused.

    Args:
        name: hub name, or local folder written by save_pretrained of model and processor.
        device: where it runs.

    Raises:
        ModelError: model or image processor are absent, broken, of another kind or do not fit each other.
    """
    name = fetched_for(name) or name
    config = _read(name, "configuration", lambda: AutoConfig.from_pretrained(name))
    if config.model_type not in _KINDS:
        raise ModelError(
            f"{name} holds a model of type {config.model_type!r}. Expected one of {', '.join(_KINDS)}, such as "
            "facebook/sam-vit-huge. Give the name or folder of one."
        )
    processor = _read(name, "image processor", lambda: AutoImageProcessor.from_pretrained(name))
    side = config.vision_config.image_size
    resized, padded = _sides(processor)
    if resized != (side,) or padded != (side, side):
        raise ModelError(
            f"{name} has an image processor that resizes to {resized} and pads to {padded} pixels, but a network for "
            f"{side}. Expected both from one model. Save the processor with longest_edge and pad_size {side}."
        )
    model, report = _read(
        name,
        "weights",
        lambda: AutoModelForMaskGeneration.from_pretrained(name, dtype=torch.float32, output_loading_info=True),
    )
    if absent := sorted(report["missing_keys"]):
        raise ModelError(
            f"{name} lacks {len(absent)} of the weights of a SAM (first: {absent[0]}). Expected one saved as SamModel "
            "with the configuration beside it; an image encoder alone gives no masks."
        )
    if surplus := sorted(key for key in report["unexpected_keys"] if ".layers." in key):
        raise ModelError(
            f"{name} has weights of more layers than its config.json names (first: {surplus[0]}). Expected both from "
            "one model. Copy config.json and weights again."
        )
    model = model.eval().requires_grad_(False)
    generate: Any = pipeline("mask-generation", model=model, image_processor=processor, device=torch.device(device))
    return SegmentAnything(name, model, generate)


def generate_masks(
    sam: SegmentAnything, image: UInt8[Tensor, "3 height width"], config: SamConfig
) -> Bool[Tensor, "mask height width"]:
    """Segment everything in an image.

    The whole image is prompted once, without zoomed crops (SAM's default too). One batch of points takes about
    13 MB of memory per point at SAM's 1024 pixels, 0.8 GB for the default 64, beside the network.

    Args:
        sam: the model.
        image: RGB pixels at their own size; SAM sees them enlarged to its own.
        config: grid of points and filters; a filter of 0 is off, a `max_overlap` of 1 too.

    Returns:
        Masks at the image's size on the image's device, sorted by SAM's own predicted IoU, best first; possibly
        none. Masks without any pixel are left out.
    """
    picture = Image.fromarray(image.permute(1, 2, 0).cpu().numpy())
    found = sam.generate(
        picture,
        points_per_crop=config.points_per_side,
        points_per_batch=config.points_per_batch,
        pred_iou_thresh=config.min_predicted_iou,
        stability_score_thresh=config.min_stability,
        # transformers removes duplicates by this threshold even where there are no crops.
        crops_nms_thresh=config.max_overlap,
    )
    # Non-maximum suppression hands them back in the order of their scores.
    masks = [torch.as_tensor(mask, dtype=torch.bool) for mask in found["masks"]]
    stacked = torch.stack(masks) if masks else torch.zeros((0, *image.shape[1:]), dtype=torch.bool)
    return stacked[stacked.any((1, 2))].to(image.device)


def _sides(processor: Any) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """Return the longest edge that an image processor resizes to, and the size that it pads to; empty if unknown."""
    size: Any = getattr(processor, "size", None) or {}
    pad: Any = getattr(processor, "pad_size", None) or {}
    edge, height, width = size.get("longest_edge"), pad.get("height"), pad.get("width")
    return (edge,) if edge else (), (height, width) if height and width else ()


def _read(name: str, what: str, load: Callable[[], Any]) -> Any:
    return read_pretrained(f"{what} of the Segment Anything model", name, load, expected=EXPECTED)
