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
from jaxtyping import Float, UInt8
from torch import Tensor, nn

from qaclims_ray.cams.config import CamConfig
from qaclims_ray.errors import DataError, ModelError
from qaclims_ray.models.devices import ItemsAtOnce, autocast, constant, download, upload
from qaclims_ray.models.precision import Arithmetic

CAMS_AT_ONCE = ItemsAtOnce(on_cpu=16, per_gib=1.0, most=64)
"""`cams.batch_size` where it is open: 16 photographs of VOC took a prototype 5 GiB in float32; 32 were no faster."""
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
    *,
    precision: Arithmetic = "fp32",
) -> list[ImageCam]:
    """Compute the maps of all present classes of some images, in the order given.

    Images of one size run together, `config.batch_size` at a time, 16 where it is open (each with its mirror image,
    so the network sees twice as many). Resizing is PIL's bicubic, antialiased, rounded to 8 bits after each axis,
    within two grey levels of PIL. Accumulation is in float32 whatever the network's type; only maps of present classes
    are resized and kept. The full maps are enlarged to whole cells of the network (a 375 px side at stride 16 becomes
    384) and then cut to the image, as in the released code, because the last cell reaches beyond the image's edge.

    Args:
        network: maps normalised images (batch, 3, height, width) to logits (batch, class, cells, cells); it runs on
            the device of its parameters, in eval mode, and is left as it was.
        images: RGB pixels.
        class_ids: present classes of each image; an image without any gets empty maps.
        image_ids: identifier of each image.
        config: scales, mirror images, activation, normalisation, what is kept.
        mean: of the network's normalisation, on the 0-1 scale.
        std: of the network's normalisation, on the 0-1 scale.
        precision: what the network computes in; its weights stay as they are.

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
    with inference(network), autocast(precision, device):
        for positions in batches_of_one_size(images, config.batch_size or CAMS_AT_ONCE.on_cpu):
            pixels = upload(torch.stack([images[position] for position in positions]), device)
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
    small = grid_size(height, width, config.grid_stride)
    if sum(counts):
        pairs = [(image, class_id) for image, present in enumerate(class_ids) for class_id in present]
        responses, cell_px = _responses(network, pixels, pairs, config, mean, std)
        # With the maps, so that the host waits once.
        is_finite = torch.stack([torch.isfinite(response).all() for response in responses]).all().float()
        made = [_full_maps(responses, (height, width), cell_px)] if config.store != "grid" else []
        made += [_summed(responses, small)] if config.store != "full" else []
        *maps, finite = download([*(_normalised(each, config.normalisation) for each in made), is_finite])
        if not finite:
            raise ModelError(
                f"the network's response is not finite on images {', '.join(image_ids[:3])}...: "
                "its training diverged; lower the learning rate, or clip gradients with optim.clip_grad_norm. Or it "
                "exceeds the range of fp16, where the stage computes in that: set its precision to bf16 or fp32"
            )
    else:
        sizes = [(height, width)] * (config.store != "grid") + [small] * (config.store != "full")
        maps = [torch.zeros(0, *size) for size in sizes]
    fulls = _split(maps[0], counts) if config.store != "grid" else [None] * len(counts)
    grids = _split(maps[-1], counts) if config.store != "full" else [None] * len(counts)
    return [
        ImageCam(image_id, tuple(present), one_full, one_grid, height, width)
        for image_id, present, one_full, one_grid in zip(image_ids, class_ids, fulls, grids, strict=True)
    ]


def _responses(
    network: nn.Module,
    pixels: UInt8[Tensor, "batch 3 height width"],
    pairs: list[tuple[int, int]],
    config: CamConfig,
    mean: tuple[float, float, float],
    std: tuple[float, float, float],
) -> tuple[list[Float[Tensor, "pair _cam_height _cam_width"]], int]:
    """Return each scale's response of the pairs (image, class), and the pixels that a cell of the network spans."""
    height, width = int(pixels.shape[2]), int(pixels.shape[3])
    shift, spread = (constant(values, pixels.device)[:, None, None] for values in (mean, std))
    image_of_pair, class_of_pair = upload(torch.tensor(pairs).T.contiguous(), pixels.device)
    highest = max(class_id for _, class_id in pairs)
    responses: list[Tensor] = []
    cell_px = 1
    for scale in config.scales:
        # Python rounds halves to even, as numpy does in the released code.
        size = (max(1, round(height * scale)), max(1, round(width * scale)))
        scaled = (resize_like_pil(pixels.float(), size) / 255 - shift) / spread
        logits = network(torch.cat([scaled, scaled.flip(3)]) if config.flip else scaled).float()
        if highest >= logits.shape[1]:
            raise ModelError(
                f"an image is labelled with class {highest}, but the network knows only classes 0 to "
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
        case "none":
            return logits


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


def _normalised(maps: Float[Tensor, "pair height width"], normalisation: str) -> Float[Tensor, "pair height width"]:
    low = maps.amin((1, 2), keepdim=True) if normalisation == "minmax" else torch.zeros_like(maps[:, :1, :1])
    return (maps - low) / (maps.amax((1, 2), keepdim=True) - low + _EPSILON)


def _split(maps: Float[Tensor, "pair height width"], counts: list[int]) -> list[Float[Tensor, "class height width"]]:
    """Hand maps out to their images."""
    # Parts of a split share memory: one image's maps would keep those of its whole batch.
    return [one.clone() for one in maps.split(counts)]


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
