"""From activation maps to label maps, and to the pictures that people look at (method part 4, row E3).

Used by `predict`, by contact sheets, and wherever a mask at one threshold is wanted; scoring at every threshold at
once is `evaluation/sweep.py`, and a test holds the two together.
"""

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Float, UInt8
from torch import Tensor

from qaclims_ray.cams.inference import ImageCam
from qaclims_ray.data.classes import BACKGROUND_VALUE, IGNORE_VALUE, NO_BACKGROUND, label_value, voc_palette
from qaclims_ray.errors import ArtifactError


def label_map(cam: ImageCam, threshold: float) -> UInt8[Tensor, "height width"]:
    """Give each pixel the background, at a constant score, or the present class with the highest score.

    The comparison is strict and in float32: a tie with the background is background, a tie of classes goes to the
    one listed first (as argmax in the released code, whose background comes first).

    Args:
        cam: maps in [0, 1] at the image's resolution.
        threshold: score of the background; at `NO_BACKGROUND` a pixel without any class is 255, ignored.

    Returns:
        Label values: 0 background, class_id + 1 foreground.

    Raises:
        ArtifactError: when the maps were stored on the small grid only.
    """
    if cam.full is None:
        raise ArtifactError(
            f"image {cam.image_id} was stored without full-resolution maps; "
            "run `qaclims cams` with cams.store set to both or full"
        )
    nothing = IGNORE_VALUE if threshold == NO_BACKGROUND else BACKGROUND_VALUE
    if not cam.class_ids:
        return torch.full((cam.height, cam.width), nothing, dtype=torch.uint8)
    values = torch.tensor([label_value(class_id) for class_id in cam.class_ids], dtype=torch.uint8)
    score, foremost = cam.full.float().max(0)
    is_foreground = score > torch.tensor(threshold, dtype=torch.float32)
    return torch.where(is_foreground, values[foremost], nothing).to(torch.uint8)


def overlay(
    image: UInt8[Tensor, "3 height width"], labels: UInt8[Tensor, "height width"], *, opacity: float = 0.55
) -> UInt8[np.ndarray, "height width 3"]:
    """Lay a label map over its image: tinted objects with a bright outline, all other pixels untouched.

    Args:
        image: RGB pixels.
        labels: label values.
        opacity: share of the label's colour inside an object, in [0, 1].
    """
    colours = torch.tensor(voc_palette()).view(-1, 3)[labels.long()].permute(2, 0, 1).float()  # (3, height, width)
    is_object = (labels != BACKGROUND_VALUE) & (labels != IGNORE_VALUE)
    blended = torch.where(is_object, (1 - opacity) * image.float() + opacity * colours, image.float())
    blended = torch.where(_outline(labels.float()) & is_object, 0.35 * colours + 0.65 * 255, blended)
    return blended.round().to(torch.uint8).permute(1, 2, 0).contiguous().numpy()


def _outline(labels: Float[Tensor, "height width"]) -> Tensor:
    """Pixels with a neighbour of another label; the picture's edge is no neighbour."""
    padded = F.pad(labels[None, None], (1, 1, 1, 1), mode="replicate")
    highest = F.max_pool2d(padded, 3, stride=1)[0, 0]
    lowest = -F.max_pool2d(-padded, 3, stride=1)[0, 0]
    return highest != lowest
