"""Seeds ask a Segment Anything model (step "sam" with prompts "seeds"): boxes and points of the parts of every seed.

The other way round than in ``sam.py``, where the model segments everything and seeds choose: here it is asked about
what the seeds show, once for each part, and its answer is painted. Nothing of it is published as it stands; boxes and
points are the prompts that SAM, SAM 2 and SAM 3 were trained with.
"""

import dataclasses
import functools
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from jaxtyping import Bool, Float
from torch import Tensor

from qaclims_ray.cams.inference import ImageCam
from qaclims_ray.cams.label_map import label_map
from qaclims_ray.data.classes import label_value
from qaclims_ray.refine.config import SamConfig

_MARGIN = 0.25
"""How far beyond a part's box points of the background are looked for, in sides of the box."""
_SPACING = 0.5
"""Distance of two points of a kind at the least, in square roots of the part's area."""
_LOW = 0.5
"""A point of the background has at most this share of the score that makes a pixel foreground."""

PixelPlace = tuple[int, int]
"""Column and row of a pixel."""


@dataclasses.dataclass(frozen=True)
class PartPrompt:
    """What the model is asked about one part of a seed."""

    position: int
    """Position of its class among those of the image."""
    part: Bool[Tensor, "height width"]
    """The part itself."""
    box: tuple[int, int, int, int]
    """First column, first row, and those after the last ones."""
    inside: tuple[PixelPlace, ...]
    """Points that the object has, the strongest first."""
    outside: tuple[PixelPlace, ...]
    """Points that it has not, the weakest first."""


def prompts_of(cam: ImageCam, border: float, config: SamConfig) -> list[PartPrompt]:
    """Return what the model is asked about an image, class by class, the largest part first.

    1. A class's seed is where the label map at `border` shows it. Its parts are pixels that touch along an edge or at
       a corner. Parts of at least `least_part` of the image count; where a class has none, its largest one does.
    2. The box is that of the part.
    3. Points inside: the pixel of the part with the highest score of the class, then the highest that lies at least
       half the square root of the part's area away from those chosen, and so on. Of equals the one deepest inside the
       part, farthest from all that is not part of it (the image's edge counts as such).
    4. Points outside: pixels of the box, grown by a quarter of its sides and cut to the image, where the class's score
       is at most half of `border`; the lowest first, as far apart from each other. Of equals the one farthest from all
       points of the part so far.
    5. Of what is still equal comes the first in reading order.

    There may be fewer points than `points_per_part`, and none outside.

    Args:
        cam: the image's full maps.
        border: their background score, above 0.
        config: size of the parts and number of points.
    """
    assert cam.full is not None
    labels, least = label_map(cam, border), config.least_part * cam.height * cam.width
    found = []
    for position, (class_id, scores) in enumerate(zip(cam.class_ids, cam.full, strict=True)):
        for part in _parts(labels == label_value(class_id), least):
            found.append(_prompt(position, part, scores.float(), border, config))
    return found


def painted(
    cam: ImageCam,
    prompts: Sequence[PartPrompt],
    masks: Bool[Tensor, "prompt height width"],
    ratings: Float[Tensor, " prompt"],
) -> ImageCam:
    """Paint the answers: maps that are 1 where a class is and 0 elsewhere.

    A pixel takes the class of the mask with the highest rating that holds it, of equals the one of the first prompt. A
    part whose mask is empty keeps its seed, below all masks. All else is background.

    Args:
        cam: names the image and its classes; its maps are not read.
        prompts: what was asked (`prompts_of`).
        masks: the answers.
        ratings: the model's own estimate of how good each is.

    Returns:
        Maps at the image's resolution, on the CPU; no maps on the small grid.
    """
    owner = torch.full((cam.height, cam.width), -1)
    answered = masks.any(2).any(1) if len(prompts) else masks.new_zeros(0)
    for index in (~answered).nonzero()[:, 0].tolist():
        owner[prompts[index].part] = prompts[index].position
    # Worst first, so that the best lies on top; reversed, the stable sort keeps the first prompt above its equals.
    for index in torch.sort(ratings, descending=True, stable=True).indices.flip(0).tolist():
        if answered[index]:
            owner[masks[index].cpu()] = prompts[index].position
    full = torch.stack([(owner == position).float() for position in range(len(cam.class_ids))])
    return dataclasses.replace(cam, full=full, grid=None)


def _parts(mask: Bool[Tensor, "height width"], least: float) -> list[Bool[Tensor, "height width"]]:
    """Return the connected parts of a mask of at least so many pixels, or else the largest one.

    The largest comes first, of equals the first in reading order. Specks, of which there may be thousands, never become
    masks.
    """
    from scipy.ndimage import label  # only this step needs it

    found: Any = label(mask.cpu().numpy(), structure=np.ones((3, 3)))
    numbered, _ = found
    sizes = np.bincount(numbered.ravel())[1:]
    order = np.argsort(-sizes, kind="stable")
    kept = [number for number in order if sizes[number] >= least] or order[:1]
    return [torch.from_numpy(numbered == number + 1) for number in kept]


def _prompt(
    position: int, part: Bool[Tensor, "height width"], scores: Tensor, border: float, config: SamConfig
) -> PartPrompt:
    from scipy.ndimage import distance_transform_edt  # only this step needs it

    rows, columns = part.any(1).nonzero()[:, 0], part.any(0).nonzero()[:, 0]
    top, bottom, left, right = int(rows[0]), int(rows[-1]) + 1, int(columns[0]), int(columns[-1]) + 1
    spacing = _SPACING * float(part.sum()) ** 0.5
    deep: Any = distance_transform_edt(np.pad(part.numpy(), 1))
    depth = torch.from_numpy(deep[1:-1, 1:-1])
    inside = _points(part, scores.cpu(), spacing, config.points_per_part, lambda _: depth)
    down, across = round(_MARGIN * (bottom - top)), round(_MARGIN * (right - left))
    around = torch.zeros_like(part)
    around[max(0, top - down) : bottom + down, max(0, left - across) : right + across] = True
    low = around & (scores.cpu() <= _LOW * border)
    apart = functools.partial(_squared_distance, part.shape)
    outside = _points(low, -scores.cpu(), spacing, config.points_per_part, lambda chosen: apart([*inside, *chosen]))
    return PartPrompt(position, part, (left, top, right, bottom), inside, outside)


def _points(
    allowed: Bool[Tensor, "height width"],
    scores: Float[Tensor, "height width"],
    spacing: float,
    most: int,
    preferred: Callable[[Sequence[PixelPlace]], Tensor],
) -> tuple[PixelPlace, ...]:
    """Return the highest allowed pixels that lie apart.

    Args:
        allowed: where points may lie.
        scores: what is highest.
        spacing: least distance of two of them, in pixels.
        most: number of points at the most.
        preferred: from the points chosen so far to what decides between equal scores, the highest first.
    """
    chosen: list[PixelPlace] = []
    while len(chosen) < most:
        free = allowed & (_squared_distance(allowed.shape, chosen) >= spacing**2)
        if not bool(free.any()):
            break
        best = free & (scores == scores[free].max())
        place = int(torch.where(best, preferred(chosen), -1.0).argmax())
        chosen.append((place % allowed.shape[1], place // allowed.shape[1]))
    return tuple(chosen)


def _squared_distance(size: Sequence[int], points: Sequence[PixelPlace]) -> Float[Tensor, "height width"]:
    """Return how far each pixel is from the nearest of some points, squared; infinite where there is none."""
    row, column = torch.meshgrid(*(torch.arange(side) for side in size), indexing="ij")
    squares = [(column - x) ** 2 + (row - y) ** 2 for x, y in points]
    return torch.stack(squares).amin(0).double() if squares else torch.full(tuple(size), torch.inf).double()
