"""Maps spread over the cells of an image by an affinity (steps clip_attention, class_distribution, feature_affinity).

Each iteration replaces a cell's score by the average over all cells, weighted by affinity: what belongs together comes
to say the same. Where the affinity comes from is the step's own.
"""

import dataclasses
import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, UInt8
from torch import Tensor

from qaclims_ray.cams.inference import ImageCam, resize_like_pil
from qaclims_ray.data.classes import NO_BACKGROUND
from qaclims_ray.models.devices import constant, upload
from qaclims_ray.refine.affinity_config import SpreadConfig
from qaclims_ray.refine.full_maps import maps_of_image
from qaclims_ray.refine.shares import shares_against

MOST_CELLS = 4096
"""An image is shown at a smaller size where it would have more cells: a matrix of all pairs takes 67 MB then."""


@dataclass(frozen=True, eq=False)
class CellAffinity:
    """Which cells of an image belong together."""

    weights: Float[Tensor, "cell other_cell"]
    """Row i: the weights of all cells in the average that replaces cell i's score; they sum to one. Row by row."""
    rows: int
    """Cells of a column."""
    columns: int
    """Cells of a row."""


AffinityOf = Callable[[UInt8[Tensor, "3 height width"]], CellAffinity]


def cell_grid(height: int, width: int, cell_px: int, scale: float) -> tuple[int, int]:
    """Return rows and columns of cells of an image, at most `MOST_CELLS` together.

    Args:
        height: in pixels.
        width: in pixels.
        cell_px: side of a cell, in pixels of what the network sees.
        scale: the network sees the image at this multiple of its size.
    """
    rows, columns = height * scale / cell_px, width * scale / cell_px
    shrink = min(1.0, math.sqrt(MOST_CELLS / (rows * columns)))
    found = max(1, round(rows * shrink)), max(1, round(columns * shrink))
    while found[0] * found[1] > MOST_CELLS:  # rounding up may add a row too many; of a stripe the long side gives way
        found = (found[0] - 1, found[1]) if found[0] >= found[1] else (found[0], found[1] - 1)
    return found


def as_seen(
    image: UInt8[Tensor, "3 height width"],
    size: tuple[int, int],
    mean: tuple[float, float, float],
    std: tuple[float, float, float],
) -> Float[Tensor, "1 3 new_height new_width"]:
    """Return an image as a network sees it: resized by PIL's bicubic, normalised.

    Args:
        image: RGB pixels; their device does the work.
        size: height and width in pixels: whole cells.
        mean: of the normalisation, on the 0-1 scale.
        std: of the same.
    """
    pixels = resize_like_pil(image[None].float(), size) / 255
    centre, deviation = constant(mean, pixels.device), constant(std, pixels.device)
    return (pixels - centre.view(3, 1, 1)) / deviation.view(3, 1, 1)


def spread_over_cells(
    maps: Float[Tensor, "class height width"], affinity: CellAffinity, iterations: int
) -> Float[Tensor, "class height width"]:
    """Average maps over cells, replace each cell by its average over affine ones, and stretch them back bilinearly.

    Args:
        maps: any scores, on the affinity's device.
        affinity: of the same image.
        iterations: how often.

    Returns:
        Maps in float32, each within the range of its input; a constant map stays.
    """
    cells = F.adaptive_avg_pool2d(maps.float(), (affinity.rows, affinity.columns)).flatten(1)
    for _ in range(iterations):
        cells = cells @ affinity.weights.T
    grid = cells.unflatten(1, (affinity.rows, affinity.columns))[None]
    return F.interpolate(grid, maps.shape[1:], mode="bilinear", align_corners=False)[0]


def seed_boxes(maps: Float[Tensor, "class height width"], border: float) -> Bool[Tensor, "class height width"]:
    """Return the boxes around each connected part of each class's seed; pixels that touch at a corner are connected.

    Args:
        maps: scores.
        border: a pixel whose score exceeds it is seed.
    """
    from scipy import ndimage  # takes half a second to load, and few runs need it

    boxes = torch.zeros(maps.shape, dtype=torch.bool)
    parts = np.empty(maps.shape[1:], np.int32)
    for box, seed in zip(boxes, (maps > border).cpu().numpy(), strict=True):
        ndimage.label(seed, structure=np.ones((3, 3)), output=parts)
        for rows, columns in ndimage.find_objects(parts):
            box[rows, columns] = True
    return boxes.to(maps.device)


def refine_by_affinity(
    image: UInt8[Tensor, "3 height width"],
    cam: ImageCam,
    background: float,
    affinity_of: AffinityOf,
    config: SpreadConfig,
    *,
    within_boxes: bool = False,
) -> ImageCam:
    """Refine an image's maps and make one half the border between an object and the background.

    Averages flatten maps, while the background's score was chosen for maps as they were: so each map is brought back
    to the maximum that it had, as CLIP-ES divides each by its own. The background is a map that is `background`
    everywhere, which spreading leaves as it is.

    Args:
        image: RGB pixels; their device does the work.
        cam: maps at the image's resolution.
        background: score of the background, the threshold of the seeds; `NO_BACKGROUND` where there is none.
        affinity_of: affinity of the image.
        config: how maps spread.
        within_boxes: keep each class within the boxes around its seed.

    Returns:
        Maps foreground / (foreground + background), in [0, 1], where 0/0 counts as 0; the refined maps themselves
        where there is no background. No maps on the small grid.

    Raises:
        ArtifactError: when the maps were stored on the small grid only.
        DataError: when image and maps differ in size.
    """
    stored = maps_of_image(cam, image)
    # Boxes where the maps lie: found on a GPU they would have to come back first, and wait for the network.
    has_boxes = within_boxes and background != NO_BACKGROUND
    boxes = upload(seed_boxes(stored, background), image.device) if has_boxes else None
    full = upload(stored, image.device)
    found = spread_over_cells(full, affinity_of(image), config.iterations).clamp_min(0)
    if boxes is not None:
        found = found * boxes
    peaks, before = found.amax((1, 2), keepdim=True), full.clamp_min(0).amax((1, 2), keepdim=True)
    found = found * before / peaks.clamp_min(torch.finfo(found.dtype).tiny)  # a map of zeros stays
    if background != NO_BACKGROUND:
        found = shares_against(found, background)
    return dataclasses.replace(cam, full=found.to(stored.device), grid=None)
