"""Multi-scale class activation maps of trained networks (rows E1, E2, R7).

Between training and scoring: the `cams` stage calls `compute_cams` for groups of images and stores the result with
`cam_store`. The order of operations is the released code's: activation, mirror images summed on the network's own
grid, scales summed after bilinear resizing, each present class divided by its own maximum.
"""

import math
from collections import defaultdict
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int64, UInt8
from torch import Tensor, nn

from qaclims_ray.cams.config import CamConfig
from qaclims_ray.errors import DataError, ModelError

_EPSILON = 1e-5
"""Added to the maximum (E1): a class without any response gives zeros, not NaN."""


@dataclass(frozen=True)
class ImageCam:
    """The maps of one image's present classes, each in [0, 1]."""

    image_id: str
    """The manifest's image identifier."""
    class_ids: tuple[int, ...]
    """Present classes (0-based foreground), one per map, in the maps' order."""
    full: Float[Tensor, "class height width"] | None
    """Maps at the image's own resolution (scoring, CRF), or None when not kept."""
    grid: Float[Tensor, "class grid_height grid_width"] | None
    """Maps on the small grid (random walk), or None when not kept."""
    height: int
    """Height of the image in pixels."""
    width: int
    """Width of the image in pixels."""


def compute_cams(
    network: nn.Module,
    images: list[UInt8[Tensor, "3 _height _width"]],
    class_ids: list[tuple[int, ...]],
    image_ids: list[str],
    config: CamConfig,
    mean: tuple[float, float, float],
    std: tuple[float, float, float],
) -> list[ImageCam]:
    """Compute the maps of all present classes of some images, in the order given.

    Images of one size run together, `config.batch_size` at a time (each with its mirror image, so the network sees
    twice as many). Resizing is PIL's bicubic, antialiased, rounded to 8 bits after each axis, within two grey
    levels of PIL. Accumulation is in float32 whatever the network's type; only maps of present classes are resized and
    kept. The full maps are enlarged to whole cells of the network (a 375 px side at stride 16 becomes 384) and then
    cut to the image, as in the released code, because the last cell reaches beyond the image's edge.

    Args:
        network: maps normalised images (batch, 3, height, width) to logits (batch, class, cells, cells); it runs on
            the device of its parameters, in eval mode, and is left as it was.
        images: RGB pixels.
        class_ids: present classes of each image; an image without any gets empty maps.
        image_ids: identifier of each image.
        config: scales, mirror images, activation, normalisation, what is kept.
        mean: of the network's normalisation, on the 0-1 scale.
        std: of the network's normalisation, on the 0-1 scale.

    Returns:
        One `ImageCam` per image: float32 maps on the CPU.

    Raises:
        DataError: when the lists differ in length.
        ModelError: when the network does not know a class, or its response is not finite.
    """
    if not len(images) == len(class_ids) == len(image_ids):
        raise DataError(f"got {len(images)} images, {len(class_ids)} label sets and {len(image_ids)} identifiers")
    device = device_of(network)
    cams: dict[int, ImageCam] = {}
    with inference(network):
        for positions in batches_of_one_size(images, config.batch_size):
            pixels = torch.stack([images[position] for position in positions]).to(device)
            present = [class_ids[position] for position in positions]
            names = [image_ids[position] for position in positions]
            cams.update(zip(positions, _batch_cams(network, pixels, present, names, config, mean, std), strict=True))
    return [cams[position] for position in range(len(images))]


def resize_like_pil(
    pixels: Float[Tensor, "batch 3 height width"], size: tuple[int, int]
) -> Float[Tensor, "batch 3 new_height new_width"]:
    """Resize as PIL's bicubic does: width, then height, each antialiased and rounded to 8 bits.

    Args:
        pixels: whole numbers in 0-255.
        size: new (height, width).
    """
    height, width = size
    for target in ((pixels.shape[2], width), (height, width)):
        if target != tuple(pixels.shape[2:]):
            pixels = F.interpolate(pixels, target, mode="bicubic", antialias=True, align_corners=False)
            pixels = pixels.round().clamp(0, 255)
    return pixels


def grid_size(height: int, width: int, stride: int) -> tuple[int, int]:
    """Return the size of the small maps: a cell for every begun `stride` pixels."""
    return -(-height // stride), -(-width // stride)


def batches_of_one_size(images: Sequence[Tensor], batch_size: int) -> Iterator[list[int]]:
    """Yield positions of images of one size, at most `batch_size` together."""
    by_size: dict[tuple[int, ...], list[int]] = defaultdict(list)
    for position, image in enumerate(images):
        by_size[tuple(image.shape)].append(position)
    for positions in by_size.values():
        for start in range(0, len(positions), batch_size):
            yield positions[start : start + batch_size]


def _batch_cams(
    network: nn.Module,
    pixels: UInt8[Tensor, "batch 3 height width"],
    class_ids: list[tuple[int, ...]],
    image_ids: list[str],
    config: CamConfig,
    mean: tuple[float, float, float],
    std: tuple[float, float, float],
) -> list[ImageCam]:
    height, width = int(pixels.shape[2]), int(pixels.shape[3])
    counts = [len(present) for present in class_ids]
    if sum(counts):
        image_of_pair = torch.repeat_interleave(torch.arange(len(counts)), torch.tensor(counts)).to(pixels.device)
        class_of_pair = torch.tensor([c for present in class_ids for c in present], device=pixels.device)
        responses, cell_px = _responses(network, pixels, image_of_pair, class_of_pair, config, mean, std)
        if not all(bool(torch.isfinite(response).all()) for response in responses):
            raise ModelError(
                f"the network's response is not finite on images {', '.join(image_ids[:3])}...: "
                "its training diverged; lower the learning rate, or clip gradients with optim.clip_grad_norm"
            )
        full = _full_maps(responses, (height, width), cell_px) if config.store != "grid" else None
        grid = _summed(responses, grid_size(height, width, config.grid_stride)) if config.store != "full" else None
    else:
        full = pixels.new_zeros((0, height, width), dtype=torch.float32) if config.store != "grid" else None
        small = grid_size(height, width, config.grid_stride)
        grid = pixels.new_zeros((0, *small), dtype=torch.float32) if config.store != "full" else None
    fulls = _split(full, counts, config.normalisation)
    grids = _split(grid, counts, config.normalisation)
    return [
        ImageCam(image_id, tuple(present), one_full, one_grid, height, width)
        for image_id, present, one_full, one_grid in zip(image_ids, class_ids, fulls, grids, strict=True)
    ]


def _responses(
    network: nn.Module,
    pixels: UInt8[Tensor, "batch 3 height width"],
    image_of_pair: Int64[Tensor, " pair"],
    class_of_pair: Int64[Tensor, " pair"],
    config: CamConfig,
    mean: tuple[float, float, float],
    std: tuple[float, float, float],
) -> tuple[list[Float[Tensor, "pair _cam_height _cam_width"]], int]:
    """Return each scale's response of the present classes, and the pixels that a cell of the network spans."""
    height, width = int(pixels.shape[2]), int(pixels.shape[3])
    shift = torch.tensor(mean, device=pixels.device)[:, None, None]
    spread = torch.tensor(std, device=pixels.device)[:, None, None]
    responses: list[Tensor] = []
    cell_px = 1
    for scale in config.scales:
        # Python rounds halves to even, as numpy does in the released code.
        size = (max(1, round(height * scale)), max(1, round(width * scale)))
        scaled = (resize_like_pil(pixels.float(), size) / 255 - shift) / spread
        logits = network(torch.cat([scaled, scaled.flip(3)]) if config.flip else scaled).float()
        if int(class_of_pair.max()) >= logits.shape[1]:
            raise ModelError(
                f"an image is labelled with class {int(class_of_pair.max())}, but the network knows only classes 0 to "
                f"{logits.shape[1] - 1}: it was trained on another class list; train it on this data set"
            )
        # A stride is a power of two in every backbone here; the largest scale shows it best.
        cell_px = max(cell_px, 2 ** math.ceil(math.log2(max(size[0] / logits.shape[2], size[1] / logits.shape[3]))))
        response = _activate(logits[image_of_pair, class_of_pair], config)  # (pair, height, width)
        if config.flip:
            response = response + _activate(logits[image_of_pair + len(pixels), class_of_pair], config).flip(2)
        responses.append(response)
    return responses, cell_px


def _activate(
    logits: Float[Tensor, "pair cam_height cam_width"], config: CamConfig
) -> Float[Tensor, "pair cam_height cam_width"]:
    match config.activation:
        case "relu":
            return logits.relu()
        case "sigmoid":
            return logits.sigmoid()


def _summed(
    responses: list[Float[Tensor, "pair _cam_height _cam_width"]], size: tuple[int, int]
) -> Float[Tensor, "pair height width"]:
    resized = (F.interpolate(r[:, None], size, mode="bilinear", align_corners=False)[:, 0] for r in responses)
    total = next(resized)
    for other in resized:
        total += other
    return total


def _full_maps(
    responses: list[Float[Tensor, "pair _cam_height _cam_width"]], size: tuple[int, int], cell_px: int
) -> Float[Tensor, "pair height width"]:
    height, width = size
    whole_cells = (-(-height // cell_px) * cell_px, -(-width // cell_px) * cell_px)
    return _summed(responses, whole_cells)[:, :height, :width]


def _split(
    maps: Float[Tensor, "pair height width"] | None, counts: list[int], normalisation: str
) -> list[Float[Tensor, "class height width"] | None]:
    """Normalise each map and hand the maps out to their images."""
    if maps is None:
        return [None] * len(counts)
    if len(maps):
        low = maps.amin((1, 2), keepdim=True) if normalisation == "minmax" else torch.zeros_like(maps[:, :1, :1])
        maps = (maps - low) / (maps.amax((1, 2), keepdim=True) - low + _EPSILON)
    # Parts of a split share memory: one image's maps would keep those of its whole batch.
    return [one.clone() for one in maps.cpu().split(counts)]


def device_of(network: nn.Module) -> torch.device:
    """Return the device of a network's parameters; the CPU where it has none."""
    for parameter in network.parameters():
        return parameter.device
    return torch.device("cpu")


@contextmanager
def inference(network: nn.Module) -> Iterator[None]:
    """Run without gradients and in eval mode; each part of the network returns to the mode it was in."""
    modes = [(module, module.training) for module in network.modules()]
    network.eval()
    try:
        with torch.inference_mode():
            yield
    finally:
        for module, mode in modes:
            module.training = mode
