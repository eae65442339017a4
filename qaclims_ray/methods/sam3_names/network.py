"""SAM 3 as a maker of maps: asked once for each class that an image is tagged with, by the class's name.

Carion et al. 2025, "SAM 3: Segment Anything with Concepts", through transformers' own model and processor. It answers a
name with instances, each with a mask and a score, with one map of all that is called so, and with how sure it is that
anything is (presence).
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from jaxtyping import Float, UInt8
from torch import Tensor
from transformers import AutoConfig, Sam3Model, Sam3Processor

from qaclims_ray.cams.config import CamConfig
from qaclims_ray.cams.inference import ImageCam, grid_size
from qaclims_ray.errors import ModelError
from qaclims_ray.models.devices import autocast
from qaclims_ray.models.known_weights import fetched_for
from qaclims_ray.models.pretrained import read_pretrained
from qaclims_ray.refine.sam_kinds import require_nameable

_EXPECTED = "a folder written by save_pretrained of the model and Sam3Processor, or a reachable hub model"


@dataclass(frozen=True)
class NamedMap:
    """SAM 3's answer to one name."""

    scores: Float[Tensor, "height width"]
    """Of every pixel, in [0, 1], at the image's size: how well it belongs to what is called so, if there is any."""
    presence: float
    """How sure SAM 3 is that there is any, in [0, 1]."""


class Sam3Names:
    """A loaded SAM 3 and the names that it is asked by.

    Args:
        model: transformers' Sam3Model, in evaluation mode.
        processor: that goes with it.
        words: name of each class, in label order.
        least_score: instances scored below are left out.
    """

    def __init__(self, model: Any, processor: Any, words: Sequence[str], least_score: float) -> None:
        self.model, self.processor, self.least_score = model, processor, least_score
        self.device = next(model.parameters()).device
        asked = [processor(text=word, return_tensors="pt") for word in words]
        keys = ("input_ids", "attention_mask")
        self.texts = [{key: text[key].to(self.device) for key in keys} for text in asked]

    def __call__(
        self,
        images: Sequence[UInt8[Tensor, "3 _height _width"]],
        class_ids: Sequence[tuple[int, ...]],
        image_ids: Sequence[str],
        config: CamConfig,
    ) -> list[ImageCam]:
        """Return the maps of some images, of their own classes alone: what no tag names is not asked for.

        Presence does not count: the tag has said that the class is there.

        Args:
            images: RGB pixels.
            class_ids: present classes of each image.
            image_ids: identifier of each image.
            config: what is kept, and the arithmetic.
        """
        cams = []
        for image, own, name in zip(images, class_ids, image_ids, strict=True):
            height, width = image.shape[1:]
            found = [one.scores for one in self.answers(image, own, config)]
            full = torch.stack(found) if found else torch.zeros(0, height, width)
            grid = None
            if config.store != "full":
                cells = grid_size(height, width, config.grid_stride)
                grid = F.interpolate(full[None], cells, mode="bilinear")[0] if found else full.new_zeros((0, *cells))
            cams.append(ImageCam(name, tuple(own), full if config.store != "grid" else None, grid, height, width))
        return cams

    def answers(
        self, image: UInt8[Tensor, "3 height width"], class_ids: Sequence[int], config: CamConfig
    ) -> list[NamedMap]:
        """Ask for some classes of one image, which is encoded once.

        Args:
            image: RGB pixels.
            class_ids: what to ask for, whether or not a tag names it.
            config: the arithmetic.
        """
        if not class_ids:
            return []
        size = (image.shape[1], image.shape[2])
        with torch.inference_mode(), autocast(config.arithmetic, self.device):
            pixels = self.processor(images=image.cpu(), return_tensors="pt")["pixel_values"].to(self.device)
            seen = self.model.get_vision_features(pixel_values=pixels)
            maps, presences = [], []
            for class_id in class_ids:
                answer = self.model(vision_embeds=seen, **self.texts[class_id])
                scores = named_scores(
                    answer.pred_logits[0].float(),
                    answer.pred_masks[0].float(),
                    answer.semantic_seg[0, 0].float(),
                    least_score=self.least_score,
                )
                large = F.interpolate(scores[None, None], size, mode="bilinear", align_corners=False)[0, 0]
                maps.append(large.clamp(0, 1))
                presences.append(answer.presence_logits[0].float().sigmoid().reshape(()))
        # At the end: a GPU is waited for once, not at every class.
        return [
            NamedMap(scores, presence)
            for scores, presence in zip(torch.stack(maps).cpu(), torch.stack(presences).tolist(), strict=True)
        ]


def named_scores(
    logits: Float[Tensor, " query"],
    masks: Float[Tensor, "query height width"],
    semantic: Float[Tensor, "height width"],
    *,
    least_score: float,
) -> Float[Tensor, "height width"]:
    """Return the best that instances and the map of all of them say of every pixel.

    max(sigmoid(semantic), max over instances of sigmoid(logit) * sigmoid(mask)), where instances of a score of
    `least_score` and more count. Nothing is divided by a maximum: a class that SAM 3 sees nowhere stays low.

    Args:
        logits: of the instances, without presence.
        masks: of the instances, logits.
        semantic: logits.
        least_score: of an instance.
    """
    scores = logits.sigmoid()
    counted = torch.where(scores >= least_score, scores, torch.zeros_like(scores))
    return torch.maximum(semantic.sigmoid(), (counted[:, None, None] * masks.sigmoid()).amax(0))


@dataclass(frozen=True)
class LoadSam3Names:
    """Loads SAM 3, in the process that computes."""

    model: str
    """Hub name or local folder."""
    words: tuple[str, ...]
    """Name of each class, in label order."""
    least_score: float
    """Instances scored below are left out."""

    def __call__(self, device: torch.device) -> Sam3Names:
        """Load it in float32; of the whole SAM 3 the part that takes names is read.

        Raises:
            ModelError: it is absent, broken, of another kind, or its parts do not fit each other.
        """
        name = fetched_for(self.model) or self.model
        config = _read(name, "configuration", lambda: AutoConfig.from_pretrained(name))
        require_nameable(name, config.model_type)
        processor = _read(name, "processor", lambda: Sam3Processor.from_pretrained(name))
        model, report = _read(
            name,
            "weights",
            lambda: Sam3Model.from_pretrained(name, dtype=torch.float32, output_loading_info=True),
        )
        if absent := sorted(report["missing_keys"]):
            raise ModelError(
                f"{name} lacks {len(absent)} of the weights of SAM 3 (first: {absent[0]}). Expected one saved whole "
                "with the configuration beside it. Copy model.safetensors again."
            )
        side, size = model.config.image_size, processor.image_processor.size
        if {size.get("height"), size.get("width")} != {side}:
            raise ModelError(
                f"{name} has a processor for {size.get('height')} x {size.get('width')} pixels, but a network for "
                f"{side}. Expected both from one model. Save the processor with a size of {side}."
            )
        return Sam3Names(model.eval().requires_grad_(False).to(device), processor, self.words, self.least_score)


def _read(name: str, what: str, load: Any) -> Any:
    return read_pretrained(f"{what} of SAM 3", name, load, expected=_EXPECTED)
