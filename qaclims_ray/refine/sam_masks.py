"""Segment Anything (SAM, HQ-SAM, SAM 2, SAM 3) by transformers' own models and post-processing; masks have no labels.

Two ways of asking. "Automatic mask generation" (Kirillov et al. 2023): a grid of points prompts the model, each point
gives three masks with the model's own estimate of their IoU, and filters leave what is good, stable and not there
twice. Or prompts of one's own, a box and points for each mask that is wanted. Used by the mask step "sam".
"""

from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Bool, Float, UInt8
from PIL import Image
from torch import Tensor, nn
from transformers import (
    AutoConfig,
    AutoImageProcessor,
    AutoModelForMaskGeneration,
    Sam2Processor,
    Sam3TrackerProcessor,
    SamHQProcessor,
    SamProcessor,
    pipeline,
)

from qaclims_ray.errors import ModelError
from qaclims_ray.models.known_weights import fetched_for
from qaclims_ray.models.pretrained import read_pretrained
from qaclims_ray.refine.config import SamConfig
from qaclims_ray.refine.sam_kinds import require_promptable
from qaclims_ray.refine.sam_prompts import PartPrompt

EXPECTED = "a folder written by save_pretrained of model and processor, or a reachable hub model"

_AT_ONCE = 64
"""Prompts of one image that are decoded together."""
_PROCESSORS: dict[str, Any] = {
    "sam": SamProcessor,
    "sam_hq": SamHQProcessor,
    "sam2": Sam2Processor,
    "sam2_video": Sam2Processor,
    "sam3_tracker": Sam3TrackerProcessor,
    "sam3_video": Sam3TrackerProcessor,
}
"""Type of model -> what brings boxes and points to the size that the model sees."""
_OF_THE_WHOLE = {
    r"^tracker_model\.": "",
    r"^tracker_neck\.": "vision_encoder.neck.",
    r"^detector_model\.vision_encoder\.backbone\.": "vision_encoder.backbone.",
}
"""Names of weights in the whole SAM 3 -> those in its part that takes points. transformers 5.23 knows them too, but
leaves out the first when it reads this part out of the whole."""


@dataclass(frozen=True)
class SegmentAnything:
    """A loaded SAM."""

    name: str
    """Hub name or folder that it came from."""
    model: nn.Module
    """The network, in evaluation mode."""
    processor: Any
    """transformers' processor of images, boxes and points."""
    generate: Callable[..., dict[str, Any]]
    """transformers' mask-generation pipeline around it."""


def load_sam(name: str, device: torch.device | str) -> SegmentAnything:
    """Load a Segment Anything model in float32.

    Taken are models of the types sam (``facebook/sam-vit-base``, ``-large``, ``-huge`` and medical or remote-sensing
    ones of the same architecture), sam_hq (``syscv-community/sam-hq-vit-base`` and larger), sam2 and sam2_video
    (``facebook/sam2.1-hiera-tiny`` to ``-large``), sam3_video (``facebook/sam3``, of which the tracker is read, the
    part that takes boxes and points) and sam3_tracker (that part alone).

    Args:
        name: hub name, or local folder written by save_pretrained of model and processor.
        device: where it runs.

    Raises:
        ModelError: model or image processor are absent, broken, of another kind or do not fit each other.
    """
    name = fetched_for(name) or name
    config = _read(name, "configuration", lambda: AutoConfig.from_pretrained(name))
    require_promptable(name, config.model_type)
    processor = _read(name, "image processor", lambda: AutoImageProcessor.from_pretrained(name))
    side = _side(getattr(config, "tracker_config", config).prompt_encoder_config.image_size)
    if _sides(processor) != {side}:
        raise ModelError(
            f"{name} has an image processor for {_words(_sides(processor))} pixels, but a network for {side}. Expected "
            f"both from one model. Save the processor with a size (and, of SAM, pad_size) of {side}."
        )
    renamed = {"key_mapping": _OF_THE_WHOLE} if config.model_type == "sam3_video" else {}
    model, report = _read(
        name,
        "weights",
        lambda: AutoModelForMaskGeneration.from_pretrained(
            name, dtype=torch.float32, output_loading_info=True, **renamed
        ),
    )
    if absent := sorted(report["missing_keys"]):
        raise ModelError(
            f"{name} lacks {len(absent)} of the weights of a SAM (first: {absent[0]}). Expected one saved whole with "
            "the configuration beside it; an image encoder alone gives no masks."
        )
    if surplus := sorted(key for key in report["unexpected_keys"] if ".layers." in key):
        raise ModelError(
            f"{name} has weights of more layers than its config.json names (first: {surplus[0]}). Expected both from "
            "one model. Copy config.json and weights again."
        )
    model = model.eval().requires_grad_(False)
    generate: Any = pipeline("mask-generation", model=model, image_processor=processor, device=torch.device(device))
    return SegmentAnything(name, model, _PROCESSORS[config.model_type](processor), generate)


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


def segment_parts(
    sam: SegmentAnything, image: UInt8[Tensor, "3 height width"], prompts: Sequence[PartPrompt]
) -> tuple[Bool[Tensor, "prompt height width"], Float[Tensor, " prompt"]]:
    """Ask for one mask for each prompt; the image is encoded once.

    Each prompt is a box with its points, so that one answer is wanted, not the three of an ambiguous point.

    Args:
        sam: the model.
        image: RGB pixels at their own size; SAM sees them enlarged to its own.
        prompts: boxes and points in pixels; a point is the middle of its pixel.

    Returns:
        Masks at the image's size on the CPU, in the order asked, possibly empty ones, and SAM's own estimate of the IoU
        of each.
    """
    device = next(sam.model.parameters()).device
    masks = torch.zeros((len(prompts), *image.shape[1:]), dtype=torch.bool)
    ratings = torch.zeros(len(prompts))
    if not prompts:
        return masks, ratings
    # Together go prompts of as many points each: filling points up would change the answers a little.
    by_number: dict[int, list[int]] = defaultdict(list)
    for index, prompt in enumerate(prompts):
        by_number[len(prompt.inside) + len(prompt.outside)].append(index)
    groups = [one[at : at + _AT_ONCE] for one in by_number.values() for at in range(0, len(one), _AT_ONCE)]
    embeddings: dict[str, Any] | None = None
    with torch.inference_mode():
        for group in groups:
            asked = sam.processor(images=image.cpu(), return_tensors="pt", **_for_sam([prompts[one] for one in group]))
            embeddings = embeddings or _embeddings(sam.model, asked["pixel_values"].to(device))
            values = {
                key: asked[key].to(device, torch.int64 if key == "input_labels" else torch.float32)
                for key in ("input_boxes", "input_points", "input_labels")
                if key in asked
            }
            found = sam.model(**embeddings, **values, multimask_output=False)
            large = sam.processor.post_process_masks(
                found.pred_masks.cpu(), asked["original_sizes"], reshaped_input_sizes=asked.get("reshaped_input_sizes")
            )
            masks[group] = large[0][:, 0]
            ratings[group] = found.iou_scores[0, :, 0].float().cpu()
    return masks, ratings


def _embeddings(model: Any, pixels: Tensor) -> dict[str, Any]:
    found = model.get_image_embeddings(pixels)
    if isinstance(found, tuple):  # HQ-SAM looks at early layers too
        return {"image_embeddings": found[0], "intermediate_embeddings": found[1]}
    return {"image_embeddings": found}


def _for_sam(prompts: Sequence[PartPrompt]) -> dict[str, Any]:
    """Return prompts of one image as transformers wants them: image, object, point."""
    given: dict[str, Any] = {"input_boxes": [[[float(side) for side in prompt.box] for prompt in prompts]]}
    if prompts[0].inside or prompts[0].outside:
        places = [[[x + 0.5, y + 0.5] for x, y in (*prompt.inside, *prompt.outside)] for prompt in prompts]
        given["input_points"] = [places]
        given["input_labels"] = [[[1] * len(one.inside) + [0] * len(one.outside) for one in prompts]]
    return given


def _side(size: Any) -> int:
    """Return the side of the square that a network sees."""
    return int(size if isinstance(size, int) else size[0])


def _sides(processor: Any) -> set[int | None]:
    """Return the sides that an image processor resizes and pads to, one where they are those of a square; None if none.

    SAM's resizes the longer side and pads the other; those of SAM 2 and 3 stretch both.
    """
    size: Any = getattr(processor, "size", None) or {}
    pad: Any = getattr(processor, "pad_size", None) or {}
    if edge := size.get("longest_edge"):
        return {edge, pad.get("height"), pad.get("width")}
    return {size.get("height"), size.get("width")}


def _words(sides: set[int | None]) -> str:
    return " and ".join("unknown" if side is None else str(side) for side in sorted(sides, key=lambda one: one or 0))


def _read(name: str, what: str, load: Callable[[], Any]) -> Any:
    return read_pretrained(f"{what} of the Segment Anything model", name, load, expected=EXPECTED)
