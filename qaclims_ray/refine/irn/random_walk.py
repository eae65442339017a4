"""Random walk of CAMs over affinities that a boundary map gives (Ahn et al. 2019, row E9).

Each step replaces a cell's score by the average over its surroundings, weighted by affinity: scores spread inside an
object and stop at its boundary. The published code squares a dense matrix of all pairs of cells eight times. Here the
sparse operator itself is applied 2^8 times, which gives the same at a hundredth of the memory.
"""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int32, Int64
from torch import Tensor

from qaclims_ray.cams.inference import ImageCam, batches_of_one_size
from qaclims_ray.errors import ArtifactError
from qaclims_ray.models import graphs
from qaclims_ray.refine.irn.config import IrnConfig
from qaclims_ray.refine.irn.losses import grid_pairs, most_entries, path_maximum
from qaclims_ray.refine.permutohedral import WeightedRows

_CELL_PX = 4


def walk_cams(
    cams: Sequence[ImageCam], boundaries: Sequence[Float[Tensor, "_grid_height _grid_width"]], irn: IrnConfig
) -> list[ImageCam]:
    """Walk the maps of some images and bring them to their resolution; those with grids of one size walk together.

    All classes of an image are divided by one maximum, so that `irn.walk_threshold` is the background's score.

    Args:
        cams: with their maps on the stride-4 grid.
        boundaries: probabilities on the same grids; the walk runs on their device.
        irn: radius, power and length of the walk.

    Returns:
        Full maps in [0, 1], on the CPU; no grid maps.

    Raises:
        ArtifactError: when a CAM was stored without its grid maps, or for another grid.
    """
    for cam, boundary in zip(cams, boundaries, strict=True):
        _check_grid(cam, boundary)
    found: dict[int, ImageCam] = {}
    for positions in batches_of_one_size(boundaries, len(boundaries)):
        chosen, boundary = [cams[i] for i in positions], torch.stack([boundaries[i] for i in positions]).float()
        num_classes = max(1, *(len(cam.class_ids) for cam in chosen))
        if graphs.are_used(boundary.device):  # few numbers of maps; those that are added are zero
            num_classes = graphs.bucket(num_classes)
        maps = torch.zeros(len(chosen), num_classes, *boundary.shape[1:])
        for own, cam in zip(maps, chosen, strict=True):
            assert cam.grid is not None
            own[: len(cam.class_ids)] = cam.grid
        maps = maps.to(boundary.device, non_blocking=True)
        walked = random_walk(maps, boundary, radius=irn.walk_radius, beta=irn.beta, log2_steps=irn.log2_steps)
        found |= zip(positions, _to_images(walked, chosen), strict=True)
    return [found[position] for position in range(len(cams))]


def _check_grid(cam: ImageCam, boundary: Tensor) -> None:
    if cam.grid is None:
        raise ArtifactError(
            f"image {cam.image_id} was stored without its small maps; run `qaclims cams` with cams.store set to both "
            "or grid"
        )
    if cam.grid.shape[1:] != boundary.shape:
        raise ArtifactError(
            f"image {cam.image_id} has maps of {tuple(cam.grid.shape[1:])} cells and a boundary map of "
            f"{tuple(boundary.shape)}: expected one cell for every begun {_CELL_PX} pixels of the same image; run "
            "`qaclims cams` again"
        )


def random_walk(
    maps: Float[Tensor, "batch class grid_height grid_width"],
    boundary: Float[Tensor, "batch grid_height grid_width"],
    *,
    radius: int,
    beta: float,
    log2_steps: int,
) -> Float[Tensor, "batch class grid_height grid_width"]:
    """Spread scores by 2^log2_steps steps of a random walk that avoids boundaries.

    The walk starts from the maps times (1 - boundary). The weight of two cells less than `radius` apart is their
    affinity to the power of `beta`, that of a cell and itself 1; the weights into each cell add up to 1.

    Args:
        maps: scores.
        boundary: probabilities.
        radius: distance in cells.
        beta: power.
        log2_steps: log2 of the number of steps.
    """
    start = maps * (1 - boundary).unsqueeze(1)
    if boundary.device.type == "cpu":
        walked = [_walk_by_views(*one, radius, beta, log2_steps) for one in zip(start, boundary, strict=True)]
        return torch.stack(walked)
    return _walk_by_rows(start, boundary, radius, beta, log2_steps)


def _walk_by_views(
    start: Float[Tensor, "class grid_height grid_width"],
    boundary: Float[Tensor, "grid_height grid_width"],
    radius: int,
    beta: float,
    log2_steps: int,
) -> Float[Tensor, "class grid_height grid_width"]:
    """Walk one image, each neighbour a view of its map: quick where calls are cheap and one image fits the cache."""
    (height, width), reach = boundary.shape, radius - 1
    offsets, into, own = _transition(boundary[None], radius, beta)
    weights = into[0].unflatten(1, (height, width))
    own = own[0].view(height, width)
    # A frame of zeros, so that every neighbour is a view; only the inner part is ever written.
    padded = F.pad(start, (reach, reach, reach, reach))
    inner = padded[:, reach : reach + height, reach : reach + width]
    neighbours = [
        padded[:, reach + row : reach + row + height, reach + column : reach + column + width]
        for row, column in offsets.tolist()
    ]
    following = inner.clone()
    for _ in range(2**log2_steps):
        torch.mul(inner, own, out=following)
        for neighbour, weight in zip(neighbours, weights, strict=True):
            following.addcmul_(neighbour, weight)
        inner.copy_(following)
    return following


def _walk_by_rows(
    start: Float[Tensor, "batch class grid_height grid_width"],
    boundary: Float[Tensor, "batch grid_height grid_width"],
    radius: int,
    beta: float,
    log2_steps: int,
) -> Float[Tensor, "batch class grid_height grid_width"]:
    """Walk a batch, each step one weighted sum of gathered rows: a GPU spends its time on launches."""
    batch, height, width = boundary.shape
    offsets, into, own = _transition(boundary, radius, beta)
    shifts = F.pad(offsets[:, 0] * width + offsets[:, 1], (1, 0))  # (neighbour), the cell itself first
    cell = torch.arange(batch * height * width, device=boundary.device).view(batch, 1, -1)
    rows = (cell + shifts[:, None]).clamp_(0, batch * height * width - 1)  # those outside weigh nothing
    weights = torch.cat([own.unsqueeze(1), into], dim=1)  # (batch, neighbour, cell)
    rows, weights = rows.transpose(1, 2).to(torch.int32).flatten(), weights.transpose(1, 2).flatten()
    values = start.flatten(2).transpose(1, 2).flatten(0, 1).contiguous()  # (batch * cell, class)
    values = _STEPS(values, rows, weights, len(shifts), 2**log2_steps)
    return values.view(batch, height * width, -1).transpose(1, 2).unflatten(2, (height, width))


def _steps(
    values: Float[Tensor, "row class"],
    rows: Int32[Tensor, " entry"],
    weights: Float[Tensor, " entry"],
    entries_per_row: int,
    num_steps: int,
) -> Float[Tensor, "row class"]:
    """Apply the same weighted sums of rows again and again."""
    starts = torch.arange(0, len(rows) + 1, entries_per_row, dtype=torch.int32, device=rows.device)
    step = WeightedRows(rows, weights, starts)
    for _ in range(num_steps):
        values = step(values)
    return values


_STEPS = graphs.Captured(_steps, "IRN's walk", most_shapes=4)


def _transition(
    boundary: Float[Tensor, "batch grid_height grid_width"], radius: int, beta: float
) -> tuple[Int64[Tensor, "neighbour 2"], Float[Tensor, "batch neighbour cell"], Float[Tensor, "batch cell"]]:
    """Return the neighbours' offsets, their weights in every cell's average (0 outside), and the cell's own weight."""
    batch, height, width = boundary.shape
    cells = boundary.flatten(1)
    offsets, into = [boundary.new_zeros(0, 2, dtype=torch.int64)], [cells.new_zeros(batch, 0, height * width)]
    for pairs in grid_pairs(radius, height, width, boundary.device, most_entries(boundary.device, batch)):
        affinity = ((1 - path_maximum(cells, pairs)) ** beta).masked_fill(~pairs.is_pair, 0)
        # Affinity is symmetric: it weighs the second cell in the first one's average, and the first in the second
        # one's.
        reverse = torch.zeros_like(affinity)
        ends = pairs.ends.expand(batch, -1, -1)
        reverse.scatter_add_(2, ends, affinity)
        offsets += [pairs.offsets, -pairs.offsets]
        into += [affinity, reverse]
    weights = torch.cat(into, dim=1)
    own = 1 / (1 + weights.sum(dim=1))
    return torch.cat(offsets), weights * own.unsqueeze(1), own


def _to_images(walked: Float[Tensor, "batch class grid_height grid_width"], cams: Sequence[ImageCam]) -> list[ImageCam]:
    """Enlarge each image's own maps, and divide them by one maximum of all classes.

    A maximum each would make a faint class as strong as the foremost.
    """
    full = F.interpolate(walked, scale_factor=_CELL_PX, mode="bilinear", align_corners=False).cpu()
    found = []
    for cam, maps in zip(cams, full, strict=True):
        own = maps[: len(cam.class_ids), : cam.height, : cam.width]
        if cam.class_ids:
            own = own / own.max().clamp(min=torch.finfo(own.dtype).tiny)
        found.append(ImageCam(cam.image_id, cam.class_ids, own, None, cam.height, cam.width))
    return found
